package overlay

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

func TestMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: overlay mounts")
	}
	for name, have := range map[string]probe.Features{"new": probe.Host(), "old": probe.Host().Without(probe.OverlayAppend)} {
		if name == "new" && !have.Has(probe.OverlayAppend) {
			t.Log("needs overlay-lowerdir+: " + have.Why(probe.OverlayAppend))
			continue
		}
		base := t.TempDir()
		s := Stack{Upper: filepath.Join(base, "up,per"), Work: filepath.Join(base, "work")}
		for i := range 120 {
			dir := filepath.Join(base, "a-rather-long-name-for-a-layer-of-an-image", fmt.Sprintf("layer-%d", i))
			os.MkdirAll(dir, 0o755)
			os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", i)), []byte{'x'}, 0o644)
			s.Lower = append(s.Lower, dir)
		}
		scratch := filepath.Join(base, "scratch")
		for _, d := range []string{s.Upper, s.Work, scratch} {
			os.Mkdir(d, 0o755)
		}
		fd, err := s.Mount(have, scratch)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		root := fmt.Sprintf("/proc/self/fd/%d", fd)
		if entries, err := os.ReadDir(root); err != nil || len(entries) != 120 {
			t.Errorf("%s: %d entries, %v", name, len(entries), err)
		}
		if err := os.WriteFile(root+"/new", []byte("n"), 0o644); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		unix.Close(fd)
		if _, err := os.Stat(filepath.Join(s.Upper, "new")); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(scratch); len(left) != 0 {
			t.Errorf("%s: still mounted on the scratch directory", name)
		}
		ro, err := Stack{Lower: append([]string{s.Upper}, s.Lower...)}.Mount(have, scratch)
		if err != nil {
			t.Fatalf("%s read-only: %v", name, err)
		}
		root = fmt.Sprintf("/proc/self/fd/%d", ro)
		if err := os.WriteFile(root+"/x", nil, 0o644); err == nil {
			t.Errorf("%s: wrote to a read-only stack", name)
		}
		if _, err := os.Stat(root + "/new"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		unix.Close(ro)
	}
}

// A volatile stack can be mounted again and again, and what was written is there.
func TestVolatile(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: overlay mounts")
	}
	for name, have := range map[string]probe.Features{"new": probe.Host(), "old": probe.Host().Without(probe.OverlayAppend)} {
		base := t.TempDir()
		s := Stack{Lower: []string{filepath.Join(base, "lower")}, Upper: filepath.Join(base, "upper"), Work: filepath.Join(base, "work"), Volatile: true}
		scratch := filepath.Join(base, "scratch")
		for _, d := range []string{s.Lower[0], s.Upper, s.Work, scratch} {
			os.Mkdir(d, 0o755)
		}
		for i := range 3 {
			fd, err := s.Mount(have, scratch)
			if err != nil {
				t.Fatalf("%s, mount %d: %v", name, i, err)
			}
			file := fmt.Sprintf("/proc/self/fd/%d/file%d", fd, i)
			if err := os.WriteFile(file, []byte("n"), 0o644); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			unix.Close(fd)
		}
		if list, err := os.ReadDir(s.Upper); err != nil || len(list) != 3 {
			t.Errorf("%s: %v %v", name, list, err)
		}
	}
}
