package engine

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/removal"
	"berth/engine/container"
	"berth/engine/store"
)

// trashWindow is how long a container that is removed now can be restored; 0: not at all.
func (e *Engine) trashWindow(c *entry, o removing) time.Duration {
	if o.good || c.hidden || e.cfg.TrashWindow == nil {
		return 0
	}
	return e.cfg.TrashWindow()
}

// trashNote is what is kept of a container with its record. A removal that goes on after a crash knows no more of how the container was.
func trashNote(c *entry, was store.Standing, window time.Duration) store.Note {
	now := time.Now().UTC()
	was.Op = ""
	return store.Note{Removed: now, Expires: now.Add(window), Standing: was}
}

// Trashed lists the containers in the trash, the latest first.
func (e *Engine) Trashed() []removal.Trashed {
	list := []removal.Trashed{}
	for _, t := range e.store.ReadTrash() {
		d := describeTrashed(t)
		if size, known := e.trashSizes.Load(d.ID); known {
			d.Size = size.(int64)
		} else if size, err := e.images.LayerSize(d.ID); err == nil {
			d.Size = size
			e.trashSizes.Store(d.ID, size)
		}
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b removal.Trashed) int { return cmp.Or(b.Removed.Compare(a.Removed), cmp.Compare(a.ID, b.ID)) })
	return list
}

// Settle waits until what was deleted from the trash is off the disk.
func (e *Engine) Settle(ctx context.Context) error { return e.store.Settle(ctx) }

func describeTrashed(t store.Trashed) removal.Trashed {
	return removal.Trashed{ID: t.Record.ID, Kind: removal.Container, Name: t.Record.Name, Of: t.Record.ID, Removed: t.Removed, Expires: t.Expires, Size: -1}
}

// RestoreTrashed brings a container back as it was, stopped. Its own volumes, if they went with it, are restored by whoever calls, before.
// When its name is taken it gets another one.
func (e *Engine) RestoreTrashed(ctx context.Context, cid string) (removal.Restored, error) {
	if err := e.removalOver(ctx, cid); err != nil {
		return removal.Restored{}, err
	}
	e.trash.Lock()
	defer e.trash.Unlock()
	t, err := e.store.Trashed(cid)
	if err != nil {
		return removal.Restored{}, err
	}
	if err := ctx.Err(); err != nil {
		return removal.Restored{}, err
	}
	out := removal.Restored{Trashed: describeTrashed(t)}
	if _, err := e.images.Layer(cid); err != nil {
		return out, fault.In(err, "container %s cannot be restored: its files are gone", t.Record.Name)
	}
	r := *t.Record
	if r.Name, err = e.freeName(t.Record.Name, cid); err != nil {
		return out, err
	}
	if r.Name != t.Record.Name {
		out.Notes = append(out.Notes, "there is another container "+t.Record.Name+" now: restored as "+r.Name)
	}
	out.Notes = append(out.Notes, e.missing(ctx, &r)...)
	if err := e.regiveUserns(&r); err != nil {
		e.index.release(r.Name, cid)
		return out, err
	}
	at := t.Standing
	at.Op = ""
	at.State = stopped(at.State)
	if err := e.store.Restore(&r, at); err != nil {
		e.releaseUserns(&r)
		e.index.release(r.Name, cid)
		return out, err
	}
	e.reconfine(&r)
	c := newEntry(e, &r, at)
	e.index.add(c)
	e.tell(c, "restore", nil)
	e.trashSizes.Delete(cid)
	out.Now = []string{r.Name}
	return out, nil
}

// removalOver waits for the end of a removal that has come as far as the trash: until then the container has its name and its place in the
// index, and would lose those that a restore gives it.
func (e *Engine) removalOver(ctx context.Context, cid string) error {
	c := e.index.get(cid)
	if c == nil || !e.store.InTrash(cid) {
		return nil
	}
	end, err := c.begin(ctx, "restore")
	if err != nil {
		return err
	}
	end()
	if e.index.get(cid) == c && e.store.InTrash(cid) {
		return fault.New(fault.Conflict, "the removal of container %s is not over", cid)
	}
	return nil
}

// stopped is the state of a container that comes back from the trash.
func stopped(s container.State) container.State {
	if s.StartedAt.IsZero() && s.FinishedAt.IsZero() {
		return container.State{Status: container.Created, ExitCode: s.ExitCode, Error: s.Error}
	}
	s.Status, s.Running, s.Paused, s.Restarting, s.Dead, s.Pid = container.Exited, false, false, false, false, 0
	s.ManuallyStopped = true // its restart policy does not start it behind the back of who restores it
	return s
}

// freeName claims a name for a container that comes back.
func (e *Engine) freeName(name, cid string) (string, error) {
	err := e.index.reserve(name, cid)
	for try := 1; err != nil && try < 100; try++ {
		other := name + "-restored"
		if try > 1 {
			other += "-" + strconv.Itoa(try)
		}
		if err = e.index.reserve(other, cid); err == nil {
			return other, nil
		}
	}
	return name, err
}

// missing says what a container that comes back needs and does not find.
func (e *Engine) missing(ctx context.Context, r *container.Record) (notes []string) {
	if _, err := e.images.Resolve(r.ImageID); err != nil {
		notes = append(notes, "its image "+r.Spec.Image+" is gone: the container runs, but cannot be made again")
	}
	for _, m := range r.AllMounts() {
		if m.Type != "volume" || e.volumes == nil {
			continue
		}
		if _, err := e.volumes.Get(ctx, m.Source); fault.Is(err, fault.NotFound) {
			notes = append(notes, "its volume "+m.Source+" at "+m.Target+" is gone")
		}
	}
	n := r.Spec.Network
	if other, ok := strings.CutPrefix(n.Mode, "container:"); ok && e.index.get(other) == nil {
		notes = append(notes, "container "+id.Short(other)+", whose network it shares, is gone")
	}
	if e.networks != nil {
		for _, p := range n.Endpoints {
			if _, err := e.networks.Get(p.Network); fault.Is(err, fault.NotFound) {
				notes = append(notes, "its network "+p.Network+" is gone")
			}
		}
	}
	return notes
}

// DeleteTrashed deletes a container that is in the trash, for good, and tells how many bytes it had.
func (e *Engine) DeleteTrashed(_ context.Context, cid string) (freed int64, err error) {
	e.trash.Lock()
	defer e.trash.Unlock()
	t, err := e.store.Trashed(cid)
	if err != nil {
		return 0, err
	}
	if size, err := e.images.LayerSize(cid); err == nil {
		freed = size
	}
	// The record first: a layer that belongs to no container is found at the next start.
	if err := e.store.Discard(cid); err != nil {
		return 0, err
	}
	e.trashSizes.Delete(cid)
	return freed, e.removeLayer(t.Record)
}
