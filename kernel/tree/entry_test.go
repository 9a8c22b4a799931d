package tree

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEntries(t *testing.T) {
	root := t.TempDir()
	for i := range 500 { // more than one buffer of getdents64(2)
		name := strings.Repeat("n", 100) + string(rune('a'+i/26)) + string(rune('a'+i%26))
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(root, "dir"), 0o700), os.Symlink("dir", filepath.Join(root, "link")),
		syscall.Mkfifo(filepath.Join(root, "fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for range 2 { // from the beginning each time
		list, err := d.Entries()
		if err != nil {
			t.Fatal(err)
		}
		if len(list) != 503 || !slices.IsSortedFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }) {
			t.Fatalf("%d entries", len(list))
		}
		for _, e := range list {
			st, err := d.Stat(e.Name)
			if err != nil || e.Type != 0 && e.Type != st.Type() {
				t.Errorf("%s: type %o, %o, %v", e.Name, e.Type, st.Type(), err)
			}
		}
	}
	f, st, err := d.OpenEntry(strings.Repeat("n", 100) + "aa")
	if err != nil || st.Type() != TypeRegular {
		t.Fatalf("%v, %o", err, st.Mode)
	}
	f.Close()
	for name, want := range map[string]unix.Errno{"link": unix.ELOOP, "fifo": unix.EINVAL, "dir": unix.EINVAL, "none": unix.ENOENT} {
		if _, _, err := d.OpenEntry(name); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

func TestLinkXattrs(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: links have trusted attributes only")
	}
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Symlink("nowhere", "l"); err != nil {
		t.Fatal(err)
	}
	if attrs, err := d.LinkXattrs("l"); err != nil || len(attrs) != 0 {
		t.Errorf("%q, %v", attrs, err)
	}
	long := strings.Repeat("v", 1000)
	if err := d.SetLinkXattr("l", "trusted.berth", []byte(long)); err != nil {
		t.Skipf("needs trusted attributes on the temporary directory's file system: %v", err)
	}
	attrs, err := d.LinkXattrs("l")
	if err != nil || !slices.Equal(attrs, []string{"trusted.berth"}) {
		t.Errorf("%q, %v", attrs, err)
	}
	if v, found, err := d.LinkXattr("l", "trusted.berth"); err != nil || !found || string(v) != long {
		t.Errorf("%d bytes, %v, %v", len(v), found, err)
	}
	if _, found, err := d.LinkXattr("l", "trusted.none"); found || err != nil {
		t.Errorf("%v, %v", found, err)
	}
}
