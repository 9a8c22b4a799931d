package tree

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestFollow(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b", "c"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"abs": "/a/b", "rel": "a", "a/up": "../../../c", "gone": "/missing/dir", "chain": "gone/more", "loop": "loop", "out": "/../../etc", "a/b/dots": "./../b/none",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for p, want := range map[string]string{
		"": "/", "/": "/", "a": "/a", "/abs": "/a/b", "abs/x/y": "/a/b/x/y", "rel/up/z": "/c/z", "gone": "/missing/dir", "/gone/sub/": "/missing/dir/sub",
		"chain": "/missing/dir/more", "out/passwd": "/etc/passwd", "abs/dots": "/a/b/none", "none/../a": "/a", "../..": "/",
	} {
		if got, err := root.Follow(p); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", p, got, err, want)
		}
	}
	if _, err := root.Follow("loop"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("a loop: %v", err)
	}
}
