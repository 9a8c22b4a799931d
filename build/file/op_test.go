package file

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/build/snapshot"
	"berth/image/layer"
	"berth/kernel/tree"
)

// store gives a snapshot store on a layer store of its own.
func store(t testing.TB) *snapshot.Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Open(snapshot.Config{Layers: layers, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		layers.Close()
	})
	return s
}

// snap makes a snapshot of a tree as grow makes it.
func snap(t *testing.T, s *snapshot.Store, lines ...string) *snapshot.Snapshot {
	t.Helper()
	src := grow(t, lines...)
	scratch := s.Scratch()
	defer scratch.Release()
	d, err := s.Draft(t.Context(), scratch)
	need(t, err)
	defer d.Drop()
	need(t, d.Do(t.Context(), func(to *tree.Dir) error {
		return copyTo(t.Context(), src, place{root: to}, copyOf("/", "/", dockerfile), nil)
	}))
	out, err := d.Seal(t.Context())
	need(t, err)
	t.Cleanup(out.Release)
	return out
}

func view(t *testing.T, s *snapshot.Snapshot) (got string) {
	t.Helper()
	need(t, s.View(t.Context(), func(root *tree.Dir) error {
		var lines []string
		walk(t, root, "", &lines)
		got = strings.Join(lines, "\n")
		return nil
	}))
	return got
}

// walk lists a tree that has no path in the file system.
func walk(t *testing.T, d *tree.Dir, at string, lines *[]string) {
	entries, err := d.Entries()
	need(t, err)
	for _, e := range entries {
		p := strings.TrimPrefix(at+"/"+e.Name, "/")
		switch e.Type {
		case tree.TypeDir:
			*lines = append(*lines, p+"/")
			sub, err := d.Sub(e.Name)
			need(t, err)
			walk(t, sub, p, lines)
			sub.Close()
		case tree.TypeRegular:
			f, st, err := d.OpenEntry(e.Name)
			need(t, err)
			b := make([]byte, st.Size)
			if st.Size > 0 {
				_, err = f.ReadAt(b, 0)
				need(t, err)
			}
			f.Close()
			*lines = append(*lines, p+" "+string(b))
		default:
			*lines = append(*lines, p)
		}
	}
}

func act(input, secondary, output int64, kind any) *pb.FileAction {
	a := &pb.FileAction{Input: input, SecondaryInput: secondary, Output: output}
	switch k := kind.(type) {
	case *pb.FileActionCopy:
		a.Action = &pb.FileAction_Copy{Copy: k}
	case *pb.FileActionMkFile:
		a.Action = &pb.FileAction_Mkfile{Mkfile: k}
	case *pb.FileActionMkDir:
		a.Action = &pb.FileAction_Mkdir{Mkdir: k}
	case *pb.FileActionRm:
		a.Action = &pb.FileAction_Rm{Rm: k}
	case *pb.FileActionSymlink:
		a.Action = &pb.FileAction_Symlink{Symlink: k}
	}
	return a
}

func mkfileOf(p, data string) *pb.FileActionMkFile {
	return &pb.FileActionMkFile{Path: p, Mode: 0o644, Data: []byte(data), Timestamp: -1}
}

func TestOp(t *testing.T) {
	s := store(t)
	base := snap(t, s, "etc/passwd 644 0:0 www:x:33:33::/:/bin/sh", "old 644 0:0 old")
	src := snap(t, s, "a/x 644 0:0 X", "b 644 0:0 B")
	tests := []struct {
		name    string
		actions []*pb.FileAction
		want    []string
		layers  []int // in each output
	}{
		{"one copy", []*pb.FileAction{act(0, 1, 0, copyOf("/b", "/"))}, []string{"b B\netc/\netc/passwd www:x:33:33::/:/bin/sh\nold old"}, []int{2}},
		{"a chain is one layer", []*pb.FileAction{
			act(0, 1, -1, copyOf("/a/x", "/n/")), act(2, 1, -1, copyOf("/b", "/n/")), act(3, -1, 0, &pb.FileActionRm{Path: "/old"})},
			[]string{"etc/\netc/passwd www:x:33:33::/:/bin/sh\nn/\nn/b B\nn/x X"}, []int{2}},
		{"from nothing", []*pb.FileAction{act(-1, -1, 0, mkfileOf("/f", "F"))}, []string{"f F"}, []int{1}},
		{"two outputs", []*pb.FileAction{act(-1, -1, 0, mkfileOf("/f", "F")), act(2, -1, 1, mkfileOf("/g", "G"))}, []string{"f F", "f F\ng G"}, []int{1, 2}},
		{"outputs in another order", []*pb.FileAction{act(-1, -1, 1, mkfileOf("/f", "F")), act(-1, -1, 0, mkfileOf("/g", "G"))}, []string{"g G", "f F"}, []int{1, 1}},
		{"two go on from one", []*pb.FileAction{act(-1, -1, -1, mkfileOf("/f", "F")), act(2, -1, 0, mkfileOf("/g", "G")), act(2, -1, 1, mkfileOf("/h", "H"))},
			[]string{"f F\ng G", "f F\nh H"}, []int{2, 2}},
		{"copied from an action's result", []*pb.FileAction{act(-1, -1, -1, mkfileOf("/f", "F")), act(0, 2, 0, copyOf("/f", "/"))},
			[]string{"etc/\netc/passwd www:x:33:33::/:/bin/sh\nf F\nold old"}, []int{2}},
		{"copied from its own base", []*pb.FileAction{act(-1, -1, -1, mkfileOf("/f", "F")), act(2, 2, 0, copyOf("/f", "/g"))}, []string{"f F\ng F"}, []int{2}},
		{"what no output needs does not happen", []*pb.FileAction{act(-1, -1, -1, &pb.FileActionRm{Path: "/nothing"}), act(-1, -1, 0, mkfileOf("/f", "F"))}, []string{"f F"}, []int{1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			op, err := New(s).Op(&pb.FileOp{Actions: tt.actions}, 2)
			need(t, err)
			outs, err := op.Run(t.Context(), []*snapshot.Snapshot{base, src}, nil)
			need(t, err)
			for i, o := range outs {
				if got := view(t, o); got != tt.want[i] {
					t.Errorf("output %d:\n%s\nwant\n%s", i, got, tt.want[i])
				}
				if n := len(o.Chain()); n != tt.layers[i] {
					t.Errorf("output %d has %d layers, want %d", i, n, tt.layers[i])
				}
				o.Release()
			}
			if got := view(t, src); got != "a/\na/x X\nb B" {
				t.Errorf("the source was changed: %s", got)
			}
		})
	}
}

func TestOpNamesInBase(t *testing.T) {
	s := store(t)
	base := snap(t, s, "etc/passwd 644 0:0 www:x:33:34::/:/bin/sh", "etc/group 644 0:0 staff:x:50:")
	name := func(n string, input int64) *pb.UserOpt {
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: n, Input: input}}}
	}
	first, second := mkfileOf("/f", "F"), mkfileOf("/g", "G")
	first.Owner = &pb.ChownOpt{User: name("www", 0), Group: name("staff", 0)}
	second.Owner = &pb.ChownOpt{User: name("www", 1)} // in what the first action gave
	op, err := New(s).Op(&pb.FileOp{Actions: []*pb.FileAction{act(0, -1, -1, first), act(1, -1, 0, second)}}, 1)
	need(t, err)
	outs, err := op.Run(t.Context(), []*snapshot.Snapshot{base}, nil)
	need(t, err)
	defer outs[0].Release()
	if n := len(outs[0].Chain()); n != 2 {
		t.Errorf("%d layers, want 2", n)
	}
	need(t, outs[0].View(t.Context(), func(root *tree.Dir) error {
		for p, want := range map[string][2]uint32{"f": {33, 50}, "g": {33, 34}} {
			st, err := root.Stat(p)
			need(t, err)
			if st.UID != want[0] || st.GID != want[1] {
				t.Errorf("%s belongs to %d:%d", p, st.UID, st.GID)
			}
		}
		return nil
	}))
}

func TestOpFails(t *testing.T) {
	s := store(t)
	op, err := New(s).Op(&pb.FileOp{Actions: []*pb.FileAction{act(-1, -1, -1, mkfileOf("/f", "F")), act(0, -1, 0, &pb.FileActionRm{Path: "/nothing"})}}, 0)
	need(t, err)
	_, err = op.Run(t.Context(), nil, nil)
	var failed *Failed
	if !errors.As(err, &failed) || failed.Action != 1 || !strings.Contains(err.Error(), "/nothing: no such file or directory") {
		t.Errorf("%T %v", err, err)
	}
}

func TestOpIsChecked(t *testing.T) {
	deep := &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "x", Input: 7}}}}
	own := mkfileOf("/f", "")
	own.Owner = deep
	for name, actions := range map[string][]*pb.FileAction{
		"no output":           {act(-1, -1, -1, mkfileOf("/f", ""))},
		"output twice":        {act(-1, -1, 0, mkfileOf("/f", "")), act(-1, -1, 0, mkfileOf("/f", ""))},
		"output missing":      {act(-1, -1, 0, mkfileOf("/f", "")), act(-1, -1, 2, mkfileOf("/f", "")), act(-1, -1, -1, mkfileOf("/f", ""))},
		"input too high":      {act(9, -1, 0, mkfileOf("/f", ""))},
		"input too low":       {act(-2, -1, 0, mkfileOf("/f", ""))},
		"itself":              {act(1, -1, 0, mkfileOf("/f", ""))},
		"later one":           {act(2, -1, 0, mkfileOf("/f", "")), act(-1, -1, -1, mkfileOf("/f", ""))},
		"name's input":        {act(-1, -1, 0, own)},
		"no kind":             {{Input: -1, SecondaryInput: -1, Output: 0}},
		"nothing":             nil,
		"output out of sight": {act(-1, -1, 1<<40, mkfileOf("/f", ""))},
	} {
		if _, err := New(nil).Op(&pb.FileOp{Actions: actions}, 1); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestKeyAndReads(t *testing.T) {
	op := func(actions ...*pb.FileAction) *fileOp {
		o, err := New(nil).Op(&pb.FileOp{Actions: actions}, 3)
		need(t, err)
		return o.(*fileOp)
	}
	base := op(act(0, 1, 0, copyOf("/dir/f", "/")))
	same := map[string]*fileOp{
		"again":             op(act(0, 1, 0, copyOf("/dir/f", "/"))),
		"another directory": op(act(0, 1, 0, copyOf("/other/f", "/"))),
	}
	for name, o := range same {
		if o.Key() != base.Key() {
			t.Errorf("%s: another key", name)
		}
	}
	ts := copyOf("/dir/f", "/")
	ts.Timestamp = 0
	others := map[string]*fileOp{
		"another name":                 op(act(0, 1, 0, copyOf("/dir/g", "/"))),
		"another destination":          op(act(0, 1, 0, copyOf("/dir/f", "/x"))),
		"another time":                 op(act(0, 1, 0, ts)),
		"another input":                op(act(0, 2, 0, copyOf("/dir/f", "/"))),
		"another base":                 op(act(-1, 1, 0, copyOf("/dir/f", "/"))),
		"a source of several, swapped": op(act(0, 1, -1, copyOf("/a/f", "/1")), act(3, 1, 0, copyOf("/b/f", "/2"))),
		"a source of several":          op(act(0, 1, -1, copyOf("/b/f", "/1")), act(3, 1, 0, copyOf("/a/f", "/2"))),
	}
	seen := map[string]string{string(base.Key()): "base"}
	for name, o := range others {
		if twin, is := seen[string(o.Key())]; is {
			t.Errorf("%s has the key of %s", name, twin)
		}
		seen[string(o.Key())] = name
	}

	if base.Reads(0) != nil {
		t.Error("of a base, all is read")
	}
	c := copyOf("/d*/[x", "/", dockerfile)
	c.IncludePatterns, c.ExcludePatterns = []string{"i"}, []string{"e"}
	c.Owner = &pb.ChownOpt{User: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "u", Input: 2}}},
		Group: &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: "g", Input: 2}}}}
	o := op(act(0, 1, -1, c), act(3, 1, 0, copyOf("/plain", "/")))
	if r := o.Reads(1); len(r) != 2 || r[0].Path != "/d*/[x" || !r[0].Wildcard || !r[0].FollowLinks || r[0].Include[0] != "i" || r[0].Exclude[0] != "e" || r[1].Wildcard {
		t.Errorf("%+v", r)
	}
	if r := o.Reads(2); len(r) != 2 || r[0].Path != "/etc/passwd" || r[1].Path != "/etc/group" || !r[0].FollowLinks {
		t.Errorf("%+v", r)
	}
}
