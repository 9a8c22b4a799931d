package volume_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/volume"
)

func openTrash(t *testing.T, base string) *volume.Volumes {
	t.Helper()
	v, err := volume.Open(t.Context(), volume.Config{
		Root: filepath.Join(base, "root"), RunRoot: filepath.Join(base, "run"), PluginDirs: []string{base}, CSIDirs: []string{},
		Trash: func() time.Duration { return time.Hour },
	})
	must(t, err)
	t.Cleanup(func() { v.Close() })
	return v
}

func TestTrash(t *testing.T) {
	base := t.TempDir()
	v := openTrash(t, base)
	ctx := t.Context()
	_, err := v.Create(ctx, volume.CreateRequest{Name: "data", Labels: map[string]string{"a": "b"}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(base, "root/data/_data/f"), []byte("precious"), 0o600))
	must(t, v.RemoveWith(ctx, "data", "c1"))
	if _, err := v.Get(ctx, "data"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	// The name is free at once, and the trash is there after a restart.
	_, err = v.Create(ctx, volume.CreateRequest{Name: "data"})
	must(t, err)
	must(t, v.Close())
	v = openTrash(t, base)
	list := v.Trashed()
	if len(list) != 1 || list[0].Name != "data" || list[0].With != "c1" || list[0].Size != 8 || time.Until(list[0].Expires) < 59*time.Minute {
		t.Fatalf("%+v", list)
	}
	r, err := v.RestoreTrashed(ctx, list[0].ID)
	must(t, err)
	if len(r.Now) != 1 || r.Now[0] != "data-restored" || len(r.Notes) != 1 {
		t.Errorf("%+v", r)
	}
	got, err := v.Get(ctx, "data-restored")
	must(t, err)
	if b, err := os.ReadFile(filepath.Join(got.Mountpoint, "f")); string(b) != "precious" || got.Labels["a"] != "b" {
		t.Error(err, got)
	}
	if _, err := os.Stat(filepath.Join(base, "root/data-restored/trash.json")); !os.IsNotExist(err) {
		t.Error(err)
	}
	if _, err := v.RestoreTrashed(ctx, list[0].ID); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	must(t, v.Remove(ctx, "data-restored", false))
	must(t, v.Remove(ctx, "data", false))
	for _, x := range v.Trashed() {
		if _, err := v.DeleteTrashed(ctx, x.ID); err != nil {
			t.Error(err)
		}
	}
	left, _ := filepath.Glob(filepath.Join(base, "root/.[tg]*"))
	if len(v.Trashed())+len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// What fails or dies on the way leaves the volume or the entry, never neither and never both.
func TestTrashCutOff(t *testing.T) {
	ctx := t.Context()
	for _, point := range []string{"volume/before-trash", "volume/before-restore", "volume/before-empty"} {
		t.Run(filepath.Base(point), func(t *testing.T) {
			base := t.TempDir()
			v := openTrash(t, base)
			_, err := v.Create(ctx, volume.CreateRequest{Name: "data"})
			must(t, err)
			must(t, os.WriteFile(filepath.Join(base, "root/data/_data/f"), []byte("precious"), 0o600))
			must(t, failpoint.Arm(point+"=error"))
			t.Cleanup(func() { failpoint.Arm("") })
			err = v.Remove(ctx, "data", false)
			if point == "volume/before-trash" {
				if err == nil {
					t.Error("no error")
				}
			} else {
				must(t, err)
				x := v.Trashed()[0]
				if _, err := v.RestoreTrashed(ctx, x.ID); point == "volume/before-restore" && err == nil {
					t.Error("no error")
				}
				if point == "volume/before-empty" {
					must(t, v.Remove(ctx, "data", false))
					if _, err := v.DeleteTrashed(ctx, v.Trashed()[0].ID); err == nil {
						t.Error("no error")
					}
				}
			}
			failpoint.Arm("")
			must(t, v.Close()) // as a crash: nothing is written at the end
			v = openTrash(t, base)
			list, _, err := v.List(ctx)
			must(t, err)
			trash := v.Trashed()
			if len(list)+len(trash) != 1 {
				t.Fatalf("%+v %+v", list, trash)
			}
			if len(trash) == 1 {
				_, err := v.RestoreTrashed(ctx, trash[0].ID)
				must(t, err)
			}
			if b, err := os.ReadFile(filepath.Join(base, "root/data/_data/f")); string(b) != "precious" {
				t.Error(err)
			}
		})
	}
}

// A plan removes what it was made of and nothing else.
func TestPlanIsAppliedExactly(t *testing.T) {
	base := t.TempDir()
	v := openTrash(t, base)
	ctx := t.Context()
	for _, name := range []string{"gone", "same", "grown", "replaced", "used"} {
		_, err := v.Create(ctx, volume.CreateRequest{Name: name})
		must(t, err)
	}
	plan, err := v.PlanPrune(ctx, nil, nil)
	must(t, err)
	must(t, v.Remove(ctx, "gone", false))
	must(t, os.WriteFile(filepath.Join(base, "root/grown/_data/f"), []byte("new"), 0o600))
	must(t, v.Remove(ctx, "replaced", false))
	for _, name := range []string{"replaced", "later"} {
		_, err = v.Create(ctx, volume.CreateRequest{Name: name})
		must(t, err)
	}
	_, err = v.Mount(ctx, "used", "", "c1")
	must(t, err)
	out, err := v.ApplyPrune(ctx, plan)
	must(t, err)
	if len(out.Removed) != 1 || out.Removed[0].Name != "same" || len(out.Skipped) != 4 || !out.Trashed {
		t.Errorf("%+v", out)
	}
	for _, name := range []string{"grown", "replaced", "later", "used"} {
		if _, err := v.Get(ctx, name); err != nil {
			t.Error(err)
		}
	}
}
