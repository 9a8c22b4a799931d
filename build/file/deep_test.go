package file

import (
	"os"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

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

// nest makes directories called d below each other, with a file beside each and a link to the first of these at the bottom.
func nest(t *testing.T, dir string, depth int) {
	t.Helper()
	at, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	top, err := tree.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	for range depth {
		f, err := at.Create("f", 0o644)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		if err := at.Mkdir("d", 0o750); err != nil {
			t.Fatal(err)
		}
		sub, err := at.Sub("d")
		if err != nil {
			t.Fatal(err)
		}
		at.Close()
		at = sub
	}
	if err := at.Link(top, "f", "z"); err != nil {
		t.Fatal(err)
	}
	at.Close()
}

// count counts what is below a directory, and how deep it is.
func count(t *testing.T, d *tree.Dir, down *tree.Descent) (entries, depth int) {
	t.Helper()
	names, err := d.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		entries++
		st, err := d.Stat(n)
		if err != nil {
			t.Fatal(err)
		}
		if !st.IsDir() {
			continue
		}
		sub, err := down.Enter(d, n)
		if err != nil {
			t.Fatal(err)
		}
		e, deep := count(t, sub, down)
		if st.Mode&tree.PermMask != 0o750 {
			t.Errorf("mode %o", st.Mode)
		}
		entries, depth = entries+e, max(depth, deep+1)
		if err := down.Leave(sub); err != nil {
			t.Fatal(err)
		}
	}
	return entries, depth
}

// How deep a tree is, is for whoever wrote it; how many descriptors a copy takes is not.
func TestDeepCopies(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners")
	}
	const depth = 1500
	for name, a := range map[string]*pb.FileActionCopy{
		"all":      {Src: "/", Dest: "/", DirCopyContents: true},
		"named":    {Src: "/d", Dest: "/to/"},
		"selected": {Src: "/", Dest: "/", DirCopyContents: true, IncludePatterns: []string{"**/z"}},
		"again":    {Src: "/", Dest: "/there", DirCopyContents: true},
	} {
		from, to := t.TempDir(), t.TempDir()
		nest(t, from, depth)
		if name == "again" {
			if err := os.Mkdir(to+"/there", 0o750); err != nil {
				t.Fatal(err)
			}
			nest(t, to+"/there", depth/2)
		}
		src, err := tree.OpenDir(from)
		if err != nil {
			t.Fatal(err)
		}
		dst, err := tree.OpenDir(to)
		if err != nil {
			t.Fatal(err)
		}
		a.Mode, a.CreateDestPath, a.Timestamp = -1, true, -1
		few(t, 150)
		if err := copyTo(t.Context(), src, place{root: dst}, a, nil); err != nil {
			t.Errorf("%s: %.300v", name, err)
		}
		want, deepest := 2*depth+1, depth
		switch name {
		case "named":
			deepest++ // in to/, and without the first file
			_ = dst.Chmod("to", 0o750)
		case "selected":
			want = depth + 1
		case "again":
			want, deepest = want+2, depth+1 // the link that was at the bottom there
		}
		if n, deep := count(t, dst, &tree.Descent{}); n != want || deep != deepest {
			t.Errorf("%s: %d entries and %d levels, want %d and %d", name, n, deep, want, deepest)
		}
		src.Close()
		dst.Close()
	}
}

// The same below an overlay, where the directories of both are open for a while.
func TestDeepCopyBelowTheOverlay(t *testing.T) {
	s := store(t)
	base := snap(t, s, "there/mine 644")
	const depth = 1500
	from := t.TempDir()
	nest(t, from, depth)
	src, err := tree.OpenDir(from)
	need(t, err)
	defer src.Close()
	d, err := s.Draft(t.Context(), base)
	need(t, err)
	defer d.Drop()
	root, upper, err := d.OpenBoth(t.Context())
	need(t, err)
	few(t, 150)
	a := copyOf("/", "/there/", dockerfile)
	if err := copyTo(t.Context(), src, place{root, upper}, a, nil); err != nil {
		t.Errorf("%.300v", err)
	}
	there, err := root.Sub("there")
	need(t, err)
	if n, deep := count(t, there, &tree.Descent{}); n != 2*depth+2 || deep != depth {
		t.Errorf("%d entries and %d levels, want %d and %d", n, deep, 2*depth+2, depth)
	}
	there.Close()
	upper.Close()
	root.Close()
}
