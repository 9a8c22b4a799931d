package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesAndCountsSyncs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	before := Syncs()
	if err := Write(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n := Syncs() - before; n != 2 {
		t.Errorf("%d fsyncs, want 2: the file's and the directory's", n)
	}
	if err := Write(path, []byte("two"), 0o666); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(path)
	if string(b) != "two" {
		t.Errorf("content %q", b)
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o666 {
		t.Errorf("mode %v", st.Mode())
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	f, err := Create(filepath.Join(dir, "f"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("half")
	f.Abort()
	f.Abort()
	if names, _ := os.ReadDir(dir); len(names) != 0 {
		t.Errorf("left %v", names)
	}
}

func TestFailedRenameLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "d")
	os.MkdirAll(filepath.Join(target, "full"), 0o700)
	if err := Write(target, []byte("x"), 0o600); err == nil {
		t.Fatal("a file replaced a directory")
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 {
		t.Errorf("left %v", names)
	}
}

func TestLinkIsReplacedNotFollowed(t *testing.T) {
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "link")
	os.WriteFile(victim, []byte("safe"), 0o600)
	os.Symlink(victim, link)
	if err := Write(link, []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(victim); string(b) != "safe" {
		t.Error("wrote through the link")
	}
}

func TestSweepAndRemove(t *testing.T) {
	dir := t.TempDir()
	f, _ := Create(filepath.Join(dir, "f"), 0o600) // a writer that dies here
	f.Close()
	keep := filepath.Join(dir, "keep")
	os.WriteFile(keep, nil, 0o600)
	if err := Sweep(dir); err != nil {
		t.Fatal(err)
	}
	if names, _ := os.ReadDir(dir); len(names) != 1 || names[0].Name() != "keep" {
		t.Errorf("left %v", names)
	}
	if err := Remove(keep); err != nil {
		t.Fatal(err)
	}
	if err := Remove(keep); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

func TestRename(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	os.WriteFile(filepath.Join(a, "x"), nil, 0o600)
	before := Syncs()
	if err := Rename(filepath.Join(a, "x"), filepath.Join(b, "y")); err != nil {
		t.Fatal(err)
	}
	if n := Syncs() - before; n != 2 {
		t.Errorf("%d fsyncs, want both directories", n)
	}
}
