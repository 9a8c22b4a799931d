package volume_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"berth/volume"
	"berth/volume/volumetest"
)

// Whatever is done again and again, no descriptor, mount, goroutine or file stays.
func TestNothingLeaks(t *testing.T) {
	volumetest.NeedMounts(t)
	base, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	v := open(t, filepath.Join(base, "root"), filepath.Join(base, "run"))
	defer v.Close()
	ctx := t.Context()
	image := t.TempDir()
	must(t, os.Mkdir(filepath.Join(image, "sub"), 0o755))
	must(t, os.WriteFile(filepath.Join(image, "sub/f"), []byte("x"), 0o600))
	round := func() {
		_, err := v.Create(ctx, volume.CreateRequest{Name: "data"})
		must(t, err)
		_, err = v.Create(ctx, volume.CreateRequest{Name: "tmp", Options: map[string]string{"type": "tmpfs", "device": "tmpfs"}})
		must(t, err)
		from, err := os.Open(image)
		must(t, err)
		must(t, v.Fill(ctx, "data", "", from))
		from.Close()
		for _, subpath := range []string{"", "sub", "sub/f"} {
			_, err = v.Mount(ctx, "data", subpath, "c1")
			must(t, err)
		}
		_, err = v.Mount(ctx, "tmp", "", "c1")
		must(t, err)
		if _, err := v.Mount(ctx, "data", "nothing", "c1"); err == nil {
			t.Fatal("mounted nothing")
		}
		var b bytes.Buffer
		must(t, v.Export(ctx, "data", &b))
		must(t, v.Import(ctx, "copy", &b))
		must(t, v.Snapshot(ctx, "copy", "snap"))
		must(t, v.Unmount(ctx, "data", "c1"))
		must(t, v.Unmount(ctx, "tmp", "c1"))
		for _, name := range []string{"data", "tmp", "copy", "snap"} {
			must(t, v.Remove(ctx, name, false))
		}
	}
	round()
	fds, goroutines := descriptors(t), runtime.NumGoroutine()
	for range 40 {
		round()
	}
	if n := descriptors(t); n > fds {
		t.Errorf("%d descriptors, before %d", n, fds)
	}
	time.Sleep(50 * time.Millisecond)
	if n := runtime.NumGoroutine(); n > goroutines+2 {
		t.Errorf("%d goroutines, before %d", n, goroutines)
	}
	if left := volumetest.Left(t, base); len(left) > 0 {
		t.Errorf("left mounted: %v", left)
	}
	if left, _ := filepath.Glob(base + "/*/*"); len(left) > 4 { // .csi; csi, pins, users
		t.Errorf("left: %v", left)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}
