package file

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/build/snapshot"
	"berth/kernel/tree"
)

// TestCopyBelowTheOverlay: what is made in the upper directory itself is what would have been made through the overlay, for the actions that
// follow on the same mount too. The same actions on a plain directory are the reference.
func TestCopyBelowTheOverlay(t *testing.T) {
	s := store(t)
	lines := []string{"app/old 644 0:0 old", "app/a 600 1:1 was here", "g/ 2755 0:5", "was/x 644 0:0 x", "was/s/y 644 0:0 y", "file 644 0:0 f"}
	base := snap(t, s, lines...)
	sources := []string{
		"d/a 644 0:0 A", "d/s/b 4755 3:4 B", "d/s/t/c 444 0:0 C", "d/s/t/e/ 1777 9:9", "d/s/link -> b", "d/s/t/again == d/a", "d/s/t/twin == d/s/b",
		"e/a 640 0:0 EA", "e/s/new 644 0:0 N", "e/s/t/c 600 2:2 other", "one 750 7:8 one", "r/file/now/x 644 0:0 dir",
	}
	src := snap(t, s, sources...)
	into := func(from, to string) *pb.FileActionCopy { return copyOf(from, to, dockerfile) }
	replace := func(a *pb.FileActionCopy) { a.AlwaysReplaceExistingDestPaths = true }
	steps := []any{
		into("/d", "/app/"),       // a goes through the overlay, its other name below s does not
		into("/d", "/new/place/"), // made for it: all of it below
		into("/e", "/new/place"),  // through the overlay, on top of that
		into("/one", "/new/place/s/t/"),
		into("/d", "/g/sub"), // in a directory that hands its group down
		&pb.FileActionRm{Path: "/new/place/s/t/twin"},
		&pb.FileActionRm{Path: "/was"},
		into("/d", "/was"), // hides what was there
		into("/e", "/was/"),
		into("/d/s", "/made/by/name"),
		copyOf("/r", "/", dockerfile, replace), // a directory in the place of a file
		&pb.FileActionSymlink{Oldpath: "b", Newpath: "/was/s/second", Timestamp: -1},
		mkfileOf("/new/place/s/t/late", "late"),
	}

	plain, from := grow(t, lines...), grow(t, sources...)
	var actions []*pb.FileAction
	for i, step := range steps {
		input, secondary, output := int64(0), int64(1), int64(-1)
		if i > 0 {
			input = int64(1 + i)
		}
		if i == len(steps)-1 {
			output = 0
		}
		var err error
		switch k := step.(type) {
		case *pb.FileActionCopy:
			err = copyTo(t.Context(), from, place{root: plain}, k, nil)
		case *pb.FileActionRm:
			err, secondary = rm(plain, k), -1
		case *pb.FileActionSymlink:
			err, secondary = symlink(plain, k, nil), -1
		case *pb.FileActionMkFile:
			err, secondary = mkfile(plain, k, nil), -1
		}
		need(t, err)
		actions = append(actions, act(input, secondary, output, step))
	}
	op, err := New(s).Op(&pb.FileOp{Actions: actions}, 2)
	need(t, err)
	outs, err := op.Run(t.Context(), []*snapshot.Snapshot{base, src}, nil)
	need(t, err)
	defer outs[0].Release()
	want := details(t, plain)
	need(t, outs[0].View(t.Context(), func(root *tree.Dir) error {
		got := details(t, root)
		for _, line := range got {
			if !slices.Contains(want, line) {
				t.Errorf("too much: %s", line)
			}
		}
		for _, line := range want {
			if !slices.Contains(got, line) {
				t.Errorf("missing: %s", line)
			}
		}
		return nil
	}))
}

// details lists a tree with all that a copy decides.
func details(t *testing.T, root *tree.Dir) (lines []string) {
	t.Helper()
	names := map[uint64]int{}
	var look func(d *tree.Dir, at string)
	look = func(d *tree.Dir, at string) {
		entries, err := d.Entries()
		need(t, err)
		for _, e := range entries {
			p := strings.TrimPrefix(at+"/"+e.Name, "/")
			st, err := d.Stat(e.Name)
			need(t, err)
			line := fmt.Sprintf("%s %o %d:%d", p, st.Mode, st.UID, st.GID)
			switch st.Type() {
			case tree.TypeDir:
				sub, err := d.Sub(e.Name)
				need(t, err)
				look(sub, p)
				sub.Close()
			case tree.TypeSymlink:
				target, err := d.Readlink(e.Name)
				need(t, err)
				line += " -> " + target
			default:
				f, st, err := d.OpenEntry(e.Name)
				need(t, err)
				b := make([]byte, st.Size)
				_, err = f.ReadAt(b, 0)
				need(t, err)
				f.Close()
				if _, known := names[st.Ino]; !known {
					names[st.Ino] = len(names)
				}
				line += fmt.Sprintf(" %d names, the file %d: %s", st.Nlink, names[st.Ino], b)
			}
			lines = append(lines, line)
		}
	}
	look(root, "")
	return lines
}

// TestCopyMakesNoWhiteouts: below the overlay nobody else refuses a device 0/0.
func TestCopyMakesNoWhiteouts(t *testing.T) {
	s := store(t)
	base := snap(t, s, "f 644")
	src := grow(t, "d/")
	need(t, syscall.Mknod(filepath.Join(real(t, src), "d/x"), syscall.S_IFCHR|0o600, 0))
	d, err := s.Draft(t.Context(), base)
	need(t, err)
	defer d.Drop()
	root, upper, err := d.OpenBoth(t.Context())
	need(t, err)
	defer root.Close()
	defer upper.Close()
	if err := copyTo(t.Context(), src, place{root, upper}, copyOf("/", "/", dockerfile), nil); err == nil {
		t.Error("a device 0/0 was copied")
	}
}

// BenchmarkCopyToDraft is BenchmarkCopy onto a base, with and without the upper directory.
func BenchmarkCopyToDraft(b *testing.B) {
	s := store(b)
	src := b.TempDir()
	content := make([]byte, 27<<10)
	for i := range 2000 {
		dir := filepath.Join(src, fmt.Sprint("d", i/50))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint("f", i)), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	from, err := tree.OpenDir(src)
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	scratch := s.Scratch()
	defer scratch.Release()
	first, err := s.Draft(b.Context(), scratch)
	if err != nil {
		b.Fatal(err)
	}
	if err := first.Do(b.Context(), func(root *tree.Dir) error { return mkfile(root, mkfileOf("/f", "f"), nil) }); err != nil {
		b.Fatal(err)
	}
	base, err := first.Seal(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer base.Release()
	for _, direct := range []bool{false, true} {
		b.Run(fmt.Sprint("direct=", direct), func(b *testing.B) {
			var before, after syscall.Rusage
			var cpu int64
			for b.Loop() {
				d, err := s.Draft(b.Context(), base)
				if err != nil {
					b.Fatal(err)
				}
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
				root, upper, err := d.OpenBoth(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				to := place{root, upper}
				if !direct {
					to.upper = nil
				}
				if err := copyTo(b.Context(), from, to, copyOf("/", "/app/src", dockerfile), nil); err != nil {
					b.Fatal(err)
				}
				root.Close()
				upper.Close()
				_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
				cpu += after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
				d.Drop()
			}
			b.ReportMetric(float64(cpu)/float64(b.N)/2000/1000, "cpu-µs/file")
		})
	}
}
