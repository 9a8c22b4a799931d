package oci

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFollowLinks(t *testing.T) {
	root := t.TempDir()
	for link, target := range map[string]string{
		"abs": "/proc/self", "up": "../../../../x/y", "rel": "dir/../dir/inner", "dir/inner": "../proc", "loop": "loop", "chain": "rel/sys",
	} {
		if err := os.MkdirAll(root+"/dir", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(target, root+"/"+link); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(dir)
	for path, want := range map[string]string{
		"/a/b": "/a/b", "/abs/attr": "/proc/self/attr", "/up/z": "/x/y/z", "/rel": "/proc", "/chain/kernel": "/proc/sys/kernel", "/": "/", "/dir/inner/../q": "/q",
	} {
		if got, err := followLinks(dir, path); err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", path, got, err, want)
		}
	}
	if _, err := followLinks(dir, "/loop/x"); err == nil {
		t.Error("a loop has no end")
	}
}
