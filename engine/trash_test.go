package engine

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/engine/container"
	"berth/network"
)

func withTrash(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	window := time.Hour
	w.cfg.TrashWindow = func() time.Duration { return window }
	w.reopen()
	t.Cleanup(func() {
		window = 0
		for _, x := range w.Trashed() {
			if _, err := w.DeleteTrashed(context.Background(), x.ID); err != nil {
				t.Error(err)
			}
		}
		os.Remove(filepath.Join(w.cfg.DataRoot, "containers/.trash"))
	})
	return w
}

func TestTrash(t *testing.T) {
	ctx := t.Context()
	w := withTrash(t)
	id := w.run("web", spec("exit 3"))
	w.wait(id)
	if err := w.Remove(ctx, id, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Inspect(ctx, id); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	other := w.create("web", spec("true")) // the name is free at once
	w.reopen()                             // the trash outlives the engine, and so does the layer
	list := w.Trashed()
	if len(list) != 1 || list[0].ID != id || list[0].Name != "web" || time.Until(list[0].Expires) < 59*time.Minute {
		t.Fatalf("%+v", list)
	}
	r, err := w.RestoreTrashed(ctx, id)
	if err != nil || len(r.Now) != 1 || r.Now[0] != "web-restored" || len(r.Notes) != 1 {
		t.Fatalf("%+v %v", r, err)
	}
	if i, err := w.Inspect(ctx, "web-restored"); err != nil || i.ID != id || i.State.Status != container.Exited || i.State.ExitCode != 3 {
		t.Errorf("%+v %v", i, err)
	}
	w.reopen()
	if i, err := w.Inspect(ctx, id); err != nil || i.Name != "web-restored" || i.State.ExitCode != 3 {
		t.Errorf("%+v %v", i, err)
	}
	if err := w.Start(ctx, id); err != nil {
		t.Error(err)
	}
	w.wait(id)
	for _, cid := range []string{id, other} {
		if err := w.Remove(ctx, cid, RemoveOptions{}); err != nil {
			t.Error(err)
		}
		if _, err := w.DeleteTrashed(ctx, cid); err != nil {
			t.Error(err)
		}
	}
	if n := len(w.images.Layers()); n != 0 || len(w.Trashed()) != 0 {
		t.Errorf("%d layers, %d entries left", n, len(w.Trashed()))
	}
	// What a client asked to go by itself is not kept.
	s := spec("true")
	s.AutoRemove = true
	id = w.run("brief", s)
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, err := w.Inspect(ctx, id); fault.Is(err, fault.NotFound) {
			break
		}
	}
	if len(w.Trashed()) != 0 {
		t.Errorf("%+v", w.Trashed())
	}
}

// A removal that finds no room for the note of the trash says what helps, and works when there is some.
func TestTrashWithoutRoom(t *testing.T) {
	w := withTrash(t)
	id := w.create("web", spec("true"))
	dir := filepath.Join(w.cfg.DataRoot, "containers", id)
	if err := syscall.Mount("berth-test", dir, "tmpfs", 0, "nr_inodes=1,mode=700"); err != nil {
		t.Skipf("needs a tmpfs of its own: %v", err)
	}
	err := w.Remove(t.Context(), id, RemoveOptions{})
	if uerr := syscall.Unmount(dir, 0); uerr != nil {
		t.Fatal(uerr)
	}
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "berth trash empty") {
		t.Errorf("without room: %v", err)
	}
	if i, err := w.Inspect(t.Context(), id); err != nil || i.State.Status != container.Dead || !strings.Contains(i.State.Error, "berth trash empty") {
		t.Errorf("%+v %v", i, err)
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{}); err != nil {
		t.Error(err)
	}
	if list := w.Trashed(); len(list) != 1 || list[0].ID != id {
		t.Errorf("%+v", list)
	}
}

// An image is used from the moment on at which a container of it begins to be made.
func TestImageOfContainerBeingMade(t *testing.T) {
	w := newWorld(t)
	var during int
	w.images.during = func() { during = len(w.ImageUses(testImageID)) }
	id := w.create("web", spec("true"))
	if after := w.ImageUses(testImageID); during != 1 || len(after) != 1 || after[0].ContainerID != id {
		t.Errorf("%d while it was made, then %+v", during, after)
	}
	w.images.fail = "CreateLayer"
	if _, err := w.Create(t.Context(), "other", spec("true")); err == nil || len(w.ImageUses(testImageID)) != 1 {
		t.Errorf("a creation that failed: %v, %+v", err, w.ImageUses(testImageID))
	}
	w.images.fail = ""
}

func TestRestoreNamesWhatIsMissing(t *testing.T) {
	e := newWorldWith(t, &someNetworks{}, nil).Engine
	s := spec("true")
	r := &container.Record{Spec: &s}
	r.Spec.Network.Mode = "container:" + strings.Repeat("ab", 32)
	r.Spec.Network.Endpoints = []network.EndpointSpec{{Network: "mine"}, {Network: "lost"}}
	notes := strings.Join(e.missing(t.Context(), r), "; ")
	if !strings.HasSuffix(notes, "; container abababababab, whose network it shares, is gone; its network lost is gone") {
		t.Error(notes)
	}
}

// What fails at any step of the way leaves the container or the entry.
func TestTrashCutOff(t *testing.T) {
	ctx := t.Context()
	for _, point := range []string{"engine/store/before-trash", "engine/store/before-restore", "engine/store/before-discard"} {
		t.Run(point, func(t *testing.T) {
			w := withTrash(t)
			id := w.create("web", spec("true"))
			t.Cleanup(func() { failpoint.Arm("") })
			arm := func() {
				if err := failpoint.Arm(point + "=error"); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasSuffix(point, "before-trash") {
				arm()
			}
			err := w.Remove(ctx, id, RemoveOptions{})
			switch {
			case strings.HasSuffix(point, "before-trash"):
				if err == nil {
					t.Error("no error")
				}
			case err != nil:
				t.Fatal(err)
			case strings.HasSuffix(point, "before-restore"):
				arm()
				if _, err := w.RestoreTrashed(ctx, id); err == nil {
					t.Error("no error")
				}
			default:
				arm()
				if _, err := w.DeleteTrashed(ctx, id); err == nil {
					t.Error("no error")
				}
			}
			failpoint.Arm("")
			w.reopen()
			// The removal that was begun is finished behind.
			for end := time.Now().Add(time.Minute); len(w.Trashed()) != 1 && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
			}
			if list := w.Trashed(); len(list) != 1 {
				t.Fatalf("%+v", list)
			}
			if _, err := w.RestoreTrashed(ctx, id); err != nil {
				t.Fatal(err)
			}
			if i, err := w.Inspect(ctx, "web"); err != nil || i.State.Status != container.Created {
				t.Errorf("%+v %v", i.State, err)
			}
		})
	}
}

// A plan removes what it was made of, and nothing else.
func TestPrunePlanIsAppliedExactly(t *testing.T) {
	ctx := t.Context()
	w := newWorld(t)
	same, started, renamed, gone := w.create("same", spec("true")), w.create("started", spec("true")), w.create("old", spec("true")), w.create("gone", spec("true"))
	busy := w.run("busy", spec("sleep 100"))
	plan, err := w.PlanPrune(ctx, nil)
	if err != nil || len(plan.Remove) != 4 || len(plan.Spare) != 1 || plan.Spare[0].ID != busy || plan.Spare[0].Why != "it is running" {
		t.Fatalf("%+v %v", plan, err)
	}
	if err := w.Start(ctx, started); err != nil {
		t.Fatal(err)
	}
	w.wait(started)
	if err := w.Rename(ctx, renamed, "new"); err != nil {
		t.Fatal(err)
	}
	if err := w.Remove(ctx, gone, RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	later := w.create("later", spec("true"))
	out, err := w.Prune(ctx, plan)
	if err != nil || len(out.Removed) != 1 || out.Removed[0].ID != same || len(out.Skipped) != 3 {
		t.Errorf("%+v %v", out, err)
	}
	for _, id := range []string{started, renamed, later, busy} {
		if _, err := w.Inspect(ctx, id); err != nil {
			t.Error(err)
		}
	}
	// A second time there is nothing left to do.
	if out, err := w.Prune(ctx, plan); err != nil || len(out.Removed) != 0 || len(out.Skipped) != 4 {
		t.Errorf("%+v %v", out, err)
	}
}

// A restore that comes while the removal has only just reached the trash waits for its end.
func TestRestoreWhileItIsRemoved(t *testing.T) {
	w := withTrash(t)
	id := w.create("web", spec("true"))
	c := w.index.get(id)
	end, err := c.begin(t.Context(), "remove")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.store.Trash(id, trashNote(c, c.standing(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	restored := make(chan error, 1)
	go func() {
		r, err := w.RestoreTrashed(context.Background(), id)
		if err == nil && r.Now[0] != "web" {
			err = fault.New(fault.Internal, "it is %s", r.Now[0])
		}
		restored <- err
	}()
	select {
	case err := <-restored:
		t.Errorf("it did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	c.setGone()
	w.index.remove(c, "web")
	end()
	if err := <-restored; err != nil {
		t.Error(err)
	}
	if _, err := w.Inspect(t.Context(), "web"); err != nil {
		t.Error(err)
	}
}
