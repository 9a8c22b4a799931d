package tree

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestOpenStaysInside(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	os.Mkdir(filepath.Join(root, "real"), 0o755)
	os.Mkdir(filepath.Join(root, "tmp"), 0o755)
	os.MkdirAll(filepath.Join(root, outside), 0o755) // what the absolute link means inside
	os.Symlink(outside, filepath.Join(root, "abs"))
	os.Symlink("../../../../../../tmp", filepath.Join(root, "up"))
	os.Symlink("/proc/self/root", filepath.Join(root, "magic"))
	os.Symlink("real", filepath.Join(root, "link"))
	d := open(t, root)
	for _, c := range []struct {
		path, real string
		linked     bool
	}{
		{"", "", false}, {".", "", false}, {"..", "", false}, {"../..", "", false}, {"/", "", false}, {"real", "real", false},
		{"abs", strings.TrimPrefix(outside, "/"), true}, {"up", "tmp", true}, {"link", "real", true}, {"link/..", "", true}, {"/link", "real", true},
	} {
		sub, linked, err := d.Open(c.path)
		if err != nil {
			t.Errorf("%q: %v", c.path, err)
			continue
		}
		real, err := sub.Real(d)
		sub.Close()
		if err != nil || real != c.real || linked != c.linked {
			t.Errorf("%q is %q (linked %v, %v), want %q (%v)", c.path, real, linked, err, c.real, c.linked)
		}
	}
	if _, _, err := d.Open("magic"); !Missing(err) {
		t.Errorf("/proc/self/root inside must be looked up inside: %v", err)
	}
}

func TestNothingFollowsALink(t *testing.T) {
	outside, root := t.TempDir(), t.TempDir()
	victim := filepath.Join(outside, "victim")
	os.WriteFile(victim, []byte("safe"), 0o644)
	before, _ := os.Stat(victim)
	os.Symlink(victim, filepath.Join(root, "l"))
	os.Symlink(outside, filepath.Join(root, "ld"))
	d := open(t, root)
	if err := d.Chmod("l", 0o777); !errors.Is(err, unix.ELOOP) {
		t.Errorf("chmod: %v", err)
	}
	if err := d.SetXattr("l", "trusted.x", []byte("1")); !errors.Is(err, unix.ELOOP) {
		t.Errorf("setxattr: %v", err)
	}
	if _, err := d.Create("l", 0o600); !Exists(err) {
		t.Errorf("create: %v", err)
	}
	if _, err := d.Sub("ld"); err == nil {
		t.Error("sub followed a link")
	}
	if err := d.Chown("l", 12345, 12345); err != nil {
		t.Error(err)
	}
	if err := d.Chtimes("l", Time{1, 2}, Time{3, 4}); err != nil {
		t.Error(err)
	}
	if st, _ := d.Stat("l"); st.UID != 12345 || st.Mtime != (Time{3, 4}) {
		t.Errorf("the link itself: %+v", st)
	}
	if err := d.Link(d, "l", "l2"); err != nil {
		t.Error(err)
	}
	if s, err := d.Readlink("l2"); err != nil || s != victim {
		t.Errorf("%q %v", s, err)
	}
	if err := d.RemoveAll("ld"); err != nil {
		t.Error(err)
	}
	after, err := os.Stat(victim)
	if err != nil || after.Mode() != before.Mode() || after.ModTime() != before.ModTime() {
		t.Errorf("victim changed: %v %v", after, err)
	}
}

func TestOpenFileRefusesNodes(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	if err := d.Mknod("fifo", TypeFifo|0o600, 0, 0); err != nil {
		t.Fatal(err)
	}
	os.WriteFile(filepath.Join(root, "f"), []byte("hello"), 0o600)
	os.Symlink("/f", filepath.Join(root, "l"))
	for _, n := range []string{"fifo", "."} {
		if _, err := d.OpenFile(n); !errors.Is(err, unix.EINVAL) {
			t.Errorf("%s: %v", n, err)
		}
	}
	f, err := d.OpenFile("l")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 10)
	if n, _ := f.Read(b); string(b[:n]) != "hello" {
		t.Errorf("%q", b[:n])
	}
}

func TestLookup(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "a/b"), 0o755)
	os.Symlink("b", filepath.Join(root, "a/l"))
	os.Symlink("a", filepath.Join(root, "la"))
	os.WriteFile(filepath.Join(root, "f"), nil, 0o600)
	d := open(t, root)
	for path, typ := range map[string]uint32{"": TypeDir, "a/b": TypeDir, "a/l": TypeSymlink, "f": TypeRegular, "x": 0, "la/b": 0, "f/x": 0, "a/l/x": 0} {
		st, found, err := d.Lookup(path)
		if err != nil || found != (typ != 0) || found && st.Type() != typ {
			t.Errorf("%q: found %v type %o, %v", path, found, st.Type(), err)
		}
	}
}

func TestRemoveAllAndNames(t *testing.T) {
	root := t.TempDir()
	deep := root
	for range 60 {
		deep = filepath.Join(deep, "d")
		os.Mkdir(deep, 0o755)
		os.WriteFile(filepath.Join(deep, "f"), nil, 0o600)
	}
	d := open(t, root)
	if names, err := d.Names(); err != nil || !slices.Equal(names, []string{"d"}) {
		t.Fatalf("%v %v", names, err)
	}
	if err := d.RemoveAll("d"); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveAll("d"); err != nil {
		t.Fatal(err)
	}
	if names, _ := d.Names(); len(names) != 0 {
		t.Errorf("left %v", names)
	}
}

func TestFileHolesTimesAndXattrs(t *testing.T) {
	d := open(t, t.TempDir())
	f, err := d.Create("f", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	f.Write([]byte("data"))
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Chtimes(Time{10, 1}, Time{20, 123456789}); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(0o4755); err != nil {
		t.Fatal(err)
	}
	st, err := f.Stat()
	if err != nil || st.Mode != TypeRegular|0o4755 || st.Mtime != (Time{20, 123456789}) || st.Size != 1<<20 {
		t.Errorf("%+v %v", st, err)
	}
	start, end, ok, err := f.NextData(0)
	if err != nil || !ok || start != 0 || end < 4 {
		t.Errorf("data %d-%d %v %v", start, end, ok, err)
	}
	if end < 1<<20 { // the file system has holes
		if _, _, ok, err := f.NextData(end); ok || err != nil {
			t.Errorf("data after the end: %v %v", ok, err)
		}
	}
	big := make([]byte, 2000)
	if err := d.SetXattr("f", "trusted.berth", big); Denied(err) || Unsupported(err) {
		t.Skip("needs trusted xattrs: " + err.Error())
	} else if err != nil {
		t.Fatal(err)
	}
	if v, ok, err := d.Xattr("f", "trusted.berth"); !ok || err != nil || len(v) != 2000 {
		t.Errorf("%d %v %v", len(v), ok, err)
	}
	if _, ok, err := d.Xattr("f", "trusted.none"); ok || err != nil {
		t.Errorf("%v %v", ok, err)
	}
	if l, err := d.Xattrs("f"); err != nil || !slices.Contains(l, "trusted.berth") {
		t.Errorf("%v %v", l, err)
	}
	if err := d.SetXattr("", "trusted.dir", nil); err != nil {
		t.Error(err)
	}
	if _, ok, _ := d.Xattr("", "trusted.dir"); !ok {
		t.Error("the directory's own attribute")
	}
}

func TestErrorsKeepErrno(t *testing.T) {
	d := open(t, t.TempDir())
	_, err := d.Sub("x")
	var pe *fs.PathError
	if !errors.As(err, &pe) || !errors.Is(err, fs.ErrNotExist) || !Missing(err) {
		t.Errorf("%v", err)
	}
}

func TestLockIsForOne(t *testing.T) {
	root := t.TempDir()
	d, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(root); fault.KindOf(err) != fault.Conflict {
		t.Errorf("%v", err)
	}
	same, err := OpenFD(d.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer same.Close()
	d.Close()
	again, err := Lock(root)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

// A tree deeper than any path can name is removed, with few descriptors.
func TestRemoveAllOfADeepTree(t *testing.T) {
	d, err := OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Mkdir("deep", 0o700); err != nil {
		t.Fatal(err)
	}
	at, err := d.Sub("deep")
	if err != nil {
		t.Fatal(err)
	}
	const levels = 3000
	for range levels {
		if err := errors.Join(at.Mkdir("d", 0o700), at.Symlink("d", "link")); err != nil {
			t.Fatal(err)
		}
		next, err := at.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		at.Close()
		at = next
	}
	at.Close()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := old
	few.Cur = 512 // a descriptor for each level would not do
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
	if err := d.RemoveAll("deep"); err != nil {
		t.Fatal(err)
	}
	if names, err := d.Names(); err != nil || len(names) > 0 {
		t.Errorf("left: %v, %v", names, err)
	}
}
