package layer

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

// makeDeep makes directories below each other, more than any path can name.
func makeDeep(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for range depth {
		if err := at.Mkdir("d", 0o755); err != nil {
			t.Fatal(err)
		}
		sub, err := at.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		at.Close()
		at = sub
	}
	f, err := at.Create("file", 0o644)
	if err != nil {
		t.Fatal(err)
	}
	f.Write([]byte("12345"))
	f.Close()
	at.Close()
}

// few lets the process have few descriptors more than it has.
func few(t *testing.T, more int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("needs /proc")
	}
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now := unix.Rlimit{Cur: uint64(len(list) + more), Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &was) })
}

// A step decides how deep a tree is, and not how many descriptors it takes to measure and to delete it.
func TestDeepTrees(t *testing.T) {
	const depth = 3000
	s := openHere(t)
	defer s.Close()
	d, err := s.Draft(plainDir)
	if err != nil {
		t.Fatal(err)
	}
	makeDeep(t, d.Upper(), depth)
	few(t, 250)
	if sp, err := Measure(t.Context(), d.Upper()); err != nil || sp.Size != 5 {
		t.Errorf("%+v, %v", sp, err)
	}
	// No archive can name it.
	if _, err := s.Seal(t.Context(), d, nil); err == nil {
		t.Error("it is a layer")
	}
	d.Drop()
	if err := s.WaitTrash(t.Context()); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(s.path("trash", "*")); len(left) != 0 {
		t.Errorf("%v is left", left)
	}
}
