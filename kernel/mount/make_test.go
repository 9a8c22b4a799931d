package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// Detached mounts are seen through their descriptor alone, so nothing here touches the machine's mounts.
func TestMake(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: mounts")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		mount   Mount
		kind    fault.Kind
		text    string // of the error; "": it works
		write   error
		hasFile bool
	}{
		{"tmpfs", Mount{Source: "tmpfs", Type: "tmpfs", Options: []string{"size=1m", "mode=700"}}, 0, "", nil, false},
		{"read-only", Mount{Source: "tmpfs", Type: "tmpfs", Options: []string{"ro"}}, 0, "", unix.EROFS, false},
		{"bind", Mount{Source: dir, Type: "none", Options: []string{"bind"}}, 0, "", nil, true},
		{"bind by type", Mount{Source: dir, Type: "bind"}, 0, "", nil, true},
		{"bind read-only", Mount{Source: dir, Type: "none", Options: []string{"rbind", "ro"}}, 0, "", unix.EROFS, true},
		{"no such type", Mount{Source: "x", Type: "nope"}, fault.NotImplemented, "no such device", nil, false},
		{"no such source", Mount{Source: dir + "/nothing", Options: []string{"bind"}}, fault.NotFound, "no such file", nil, false},
		{"bad option", Mount{Source: "tmpfs", Type: "tmpfs", Options: []string{"size=zz"}}, fault.Invalid, "size=zz", nil, false},
		{"long option", Mount{Source: "tmpfs", Type: "tmpfs", Options: []string{"mpol=" + strings.Repeat("x", 256)}}, fault.Invalid, "at most 255", nil, false},
	} {
		fd, err := Make(c.mount)
		if c.text != "" {
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%s: %v (%v)", c.name, err, fault.KindOf(err))
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		at := "/proc/self/fd/" + strconv.Itoa(fd)
		if err := os.WriteFile(at+"/new", nil, 0o600); !errors.Is(err, c.write) {
			t.Errorf("%s: write: %v", c.name, err)
		}
		if _, err := os.Stat(at + "/f"); (err == nil) != c.hasFile {
			t.Errorf("%s: %v", c.name, err)
		}
		Drop(fd)
	}
}

func TestPinInRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: mounts")
	}
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(filepath.Join(dir, "a/b"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "a/b/f"), []byte("x"), 0o600))
	must(os.Symlink("/a/b", filepath.Join(dir, "link")))
	must(os.Symlink("/etc", filepath.Join(dir, "out")))
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	must(err)
	defer unix.Close(root)
	for _, have := range []probe.Features{probe.Host(), probe.Host().Without(probe.Openat2)} {
		fd, isDir, err := PinInRoot(have, root, "link")
		must(err)
		must(ReadOnly(fd))
		// What is pinned stays, whatever becomes of its name.
		must(os.Rename(filepath.Join(dir, "a/b"), filepath.Join(dir, "moved")))
		must(os.Symlink("/etc", filepath.Join(dir, "a/b")))
		at := "/proc/self/fd/" + strconv.Itoa(fd)
		if b, err := os.ReadFile(at + "/f"); !isDir || err != nil || string(b) != "x" {
			t.Errorf("%v %q %v", isDir, b, err)
		}
		if err := os.WriteFile(at+"/f", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
		Drop(fd)
		must(os.Remove(filepath.Join(dir, "a/b")))
		must(os.Rename(filepath.Join(dir, "moved"), filepath.Join(dir, "a/b")))
		if fd, isDir, err := PinInRoot(have, root, "a/b/f"); err != nil || isDir {
			t.Errorf("a file: %v, %v", isDir, err)
		} else {
			Drop(fd)
		}
		if _, _, err := PinInRoot(have, root, "out"); !fault.Is(err, fault.NotFound) {
			t.Errorf("a link out of the root: %v", err)
		}
	}
}
