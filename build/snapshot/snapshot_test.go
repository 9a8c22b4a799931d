package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/image/layer"
	"berth/kernel/tree"
)

type bed struct {
	*snapshot.Store
	t      *testing.T
	layers *layer.Store
}

func open(t *testing.T) *bed {
	t.Helper()
	if os.Getuid() != 0 {
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
	return &bed{Store: s, t: t, layers: layers}
}

func run(root *tree.Dir, script string) (string, error) {
	cmd := exec.Command("sh", "-ec", "umask 022; "+script)
	cmd.Dir = fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.FD())
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

// step runs a script on a draft of base and seals it.
func (b *bed) step(base *snapshot.Snapshot, script string) *snapshot.Snapshot {
	b.t.Helper()
	d, err := b.Draft(b.t.Context(), base)
	if err != nil {
		b.t.Fatal(err)
	}
	defer d.Drop()
	if err := d.Do(b.t.Context(), func(root *tree.Dir) error { _, err := run(root, script); return err }); err != nil {
		b.t.Fatal(err)
	}
	s, err := d.Seal(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Release)
	return s
}

// files lists a snapshot's files with their contents.
func (b *bed) files(s *snapshot.Snapshot) string {
	b.t.Helper()
	var out string
	err := s.View(b.t.Context(), func(root *tree.Dir) error {
		var err error
		out, err = run(root, `find . -type f | sort | while read f; do printf '%s=%s ' "${f#./}" "$(cat $f)"; done`)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// local is a tree on disk.
type local struct {
	dir    string
	closed atomic.Int32
}

func (l *local) Dir() string           { return l.dir }
func (l *local) Index() snapshot.Index { return nil }
func (l *local) Close()                { l.closed.Add(1) }

func TestSteps(t *testing.T) {
	b := open(t)
	one := b.step(b.Scratch(), "mkdir d; echo 1 >d/a; echo 1 >d/b")
	two := b.step(one, "rm d/a; echo 2 >d/c")
	same := b.step(two, "true")
	if got, want := b.files(same), "d/b=1 d/c=2"; got != want {
		t.Errorf("%s", got)
	}
	if got := b.files(one); got != "d/a=1 d/b=1" {
		t.Errorf("%s", got)
	}
	if c := same.Chain(); len(c) != 3 || c[2] != layer.EmptyDiff || !slices.Equal(c[:2], two.Chain()) {
		t.Errorf("%v", c)
	}
	if got := b.files(b.Scratch()); got != "" {
		t.Errorf("%s", got)
	}
	if n, err := two.TopSize(t.Context()); n != 2 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if n, err := two.Size(t.Context()); n != 6 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	if err := same.Durable(t.Context()); err != nil {
		t.Error(err)
	}
	a, _ := two.Identity(t.Context())
	c, _ := same.Identity(t.Context())
	if a == c {
		t.Error("a step that changed nothing must be told from none: chains differ")
	}
}

// The last handle gives the layers back; what drafts and later snapshots need stays.
func TestHolds(t *testing.T) {
	b := open(t)
	seal := func(base *snapshot.Snapshot, script string) *snapshot.Snapshot {
		d, err := b.Draft(t.Context(), base)
		if err != nil {
			t.Fatal(err)
		}
		d.Do(t.Context(), func(root *tree.Dir) error { _, err := run(root, script); return err })
		s, err := d.Seal(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	one := seal(b.Scratch(), "echo 1 >a")
	two := seal(one, "echo 2 >b")
	chain := two.Chain()
	other := two.Share()
	one.Release()
	one.Release()
	two.Release()
	if got := b.files(other); got != "a=1 b=2" {
		t.Errorf("%s", got)
	}
	d, err := b.Draft(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	other.Release()
	if !b.layers.Has(chain[0]) || !b.layers.Has(chain[1]) {
		t.Error("the draft has lost its base")
	}
	d.Drop()
	d.Drop()
	if b.layers.Has(chain[0]) || b.layers.Has(chain[1]) {
		t.Error("layers stay without a handle")
	}
	if _, err := b.FromChain(chain); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
}

func TestPromise(t *testing.T) {
	b := open(t)
	made := b.step(b.Scratch(), "echo 1 >a")
	chain := append(made.Chain(), digest.FromString("elsewhere"))
	var calls atomic.Int32
	boom := errors.New("boom")
	p := b.Promise(chain, func(ctx context.Context) error { calls.Add(1); return boom })
	defer p.Release()
	if id, err := p.Identity(t.Context()); err != nil || id != snapshot.ChainIdentity(chain) {
		t.Errorf("%s %v", id, err)
	}
	if calls.Load() != 0 {
		t.Error("its identity needed its layers")
	}
	if err := p.Ready(t.Context()); !errors.Is(err, boom) {
		t.Errorf("%v", err)
	}
	// Many at once: one brings it.
	started, finish := make(chan bool), make(chan bool)
	calls.Store(0)
	q := b.Promise([]digest.Digest{layer.EmptyDiff}, func(ctx context.Context) error {
		calls.Add(1)
		started <- true
		<-finish
		return b.layers.Retain(made.Chain()...) // stands for what a pull holds
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := q.Ready(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	<-started
	close(finish)
	all.Wait()
	if calls.Load() != 1 {
		t.Errorf("brought %d times", calls.Load())
	}
	// What is here needs nobody.
	r := b.Promise(made.Chain(), func(context.Context) error { return boom })
	defer r.Release()
	if got := b.files(r); got != "a=1" {
		t.Errorf("%s", got)
	}
}

func TestLocalTree(t *testing.T) {
	b := open(t)
	l := &local{dir: t.TempDir()}
	os.WriteFile(filepath.Join(l.dir, "f"), []byte("1"), 0o644)
	os.WriteFile(filepath.Join(l.dir, ".wh.odd"), []byte("1"), 0o644)
	s := b.FromTree(l)
	id, err := s.Identity(t.Context())
	if err != nil || len(s.Chain()) != 0 || s.IsScratch() {
		t.Errorf("%v %v", s.Chain(), err)
	}
	// Touched: the same content. Changed: another.
	os.Chtimes(filepath.Join(l.dir, "f"), timeOf(5), timeOf(5))
	again := b.FromTree(&local{dir: l.dir})
	if other, _ := again.Identity(t.Context()); other != id {
		t.Error("a time counts")
	}
	again.Release()
	top := b.step(s, "echo 2 >g")
	if got := b.files(top); got != "f=1 g=2" {
		t.Errorf("%s", got)
	}
	if len(top.Chain()) != 2 {
		t.Errorf("%v", top.Chain())
	}
	x, err := s.Solid(t.Context())
	if err != nil || !slices.Equal(x.Chain(), top.Chain()[:1]) {
		t.Errorf("%v %v", x.Chain(), err)
	}
	s.Release()
	if l.closed.Load() != 1 {
		t.Error("the tree was not given back")
	}
	if got := b.files(x); got != "f=1" {
		t.Errorf("%s", got)
	}
	x.Release()
	os.WriteFile(filepath.Join(l.dir, "f"), []byte("2"), 0o644)
	third := b.FromTree(&local{dir: l.dir})
	defer third.Release()
	if other, _ := third.Identity(t.Context()); other == id {
		t.Error("a content does not count")
	}
}

func TestMerge(t *testing.T) {
	b := open(t)
	base := b.step(b.Scratch(), "mkdir d e; echo 0 >d/a; echo 0 >e/x")
	// Made on nothing: their directories must not hide those of what they are laid on.
	one := b.step(b.Scratch(), "mkdir d; echo 1 >d/b")
	two := b.step(b.Scratch(), "mkdir -p d/n; echo 2 >d/b; echo 2 >d/n/c")
	less := b.step(base, "rm d/a; rm -r e; mkdir e; echo 3 >e/y")
	gone, err := b.Diff(t.Context(), base, less)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		list []*snapshot.Snapshot
		want string
	}{
		"none":            {nil, ""},
		"one":             {[]*snapshot.Snapshot{nil, base, b.Scratch()}, "d/a=0 e/x=0"},
		"on top":          {[]*snapshot.Snapshot{base, one, two}, "d/a=0 d/b=2 d/n/c=2 e/x=0"},
		"other order":     {[]*snapshot.Snapshot{base, two, one}, "d/a=0 d/b=1 d/n/c=2 e/x=0"},
		"base in between": {[]*snapshot.Snapshot{one, base, one}, "d/a=0 d/b=1 e/x=0"},
		"deletions":       {[]*snapshot.Snapshot{base, one, gone}, "d/b=1 e/y=3"},
		"deletions first": {[]*snapshot.Snapshot{gone, base}, "d/a=0 e/x=0 e/y=3"},
		"deletions alone": {[]*snapshot.Snapshot{gone}, "e/y=3"},
	} {
		m, err := b.Merge(t.Context(), c.list)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := b.files(m); got != c.want {
			t.Errorf("%s: %s", name, got)
		}
		// And as a base.
		s := b.step(m, "echo new >new")
		if got := b.files(s); !slices.Equal(sorted(got), sorted(c.want+" new=new")) {
			t.Errorf("%s, one step later: %s", name, got)
		}
		m.Release()
	}
}

func TestDiff(t *testing.T) {
	b := open(t)
	base := b.step(b.Scratch(), "mkdir -p d/k; echo 0 >d/a; echo 0 >d/b; ln -s a d/l; touch -d @9 d/a d/b")
	top := b.step(base, "echo 1 >d/a")
	rest, err := b.Diff(t.Context(), base, top)
	if err != nil || !slices.Equal(rest.Chain(), top.Chain()[1:]) {
		t.Fatalf("%v %v", rest, err)
	}
	rest.Release()
	if s, err := b.Diff(t.Context(), top, top); err != nil || !s.IsScratch() {
		t.Errorf("%v", err)
	}
	if s, err := b.Diff(t.Context(), nil, top); err != nil || !slices.Equal(s.Chain(), top.Chain()) {
		t.Errorf("%v", err)
	}
	if s, err := b.Diff(t.Context(), b.Scratch(), top); err != nil || !slices.Equal(s.Chain(), top.Chain()) {
		t.Errorf("%v", err)
	}
	// Trees of no common history: compared.
	other := b.step(b.Scratch(), "mkdir -p d/k d/m/n; chmod 700 d/k; echo 0 >d/a; echo 9 >d/c; ln -s b d/l; touch -d @9 d/a; echo q >d/m/n/q")
	made, err := b.Diff(t.Context(), base, other)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.files(made), "d/c=9 d/m/n/q=q"; got != want {
		t.Errorf("%s", got)
	}
	whole, err := b.Merge(t.Context(), []*snapshot.Snapshot{base, made})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := b.looks(whole), b.looks(other); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	// Everything deleted.
	none, err := b.Diff(t.Context(), base, nil)
	if err != nil {
		t.Fatal(err)
	}
	empty, err := b.Merge(t.Context(), []*snapshot.Snapshot{base, none})
	if err != nil {
		t.Fatal(err)
	}
	if got := b.looks(empty); got != "" {
		t.Errorf("%s", got)
	}
}

// A deletion of what is not there, in a directory that is merged with none, must not show: not alone, not below others, not from an archive.
func TestMarksDoNotShow(t *testing.T) {
	b := open(t)
	base := b.step(b.Scratch(), "mkdir -p d/e/k; echo 1 >d/a; echo 1 >d/e/b; echo 1 >d/e/k/x")
	top := b.step(base, "rm d/a; rm d/e/b; rm -r d/e/k; mkdir d/e/k; echo 2 >d/e/k/y")
	rest, err := b.Diff(t.Context(), base, top)
	if err != nil {
		t.Fatal(err)
	}
	other := b.step(b.Scratch(), "echo 1 >other")
	merged, err := b.Merge(t.Context(), []*snapshot.Snapshot{rest, other})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := b.layers.Tar(t.Context(), rest.Chain()[0], &archive); err != nil {
		t.Fatal(err)
	}
	elsewhere := open(t)
	info, err := elsewhere.layers.Add(t.Context(), &archive, "")
	if err != nil {
		t.Fatal(err)
	}
	unpacked, err := elsewhere.FromChain([]digest.Digest{info.DiffID})
	if err != nil {
		t.Fatal(err)
	}
	for name, x := range map[string]struct {
		b *bed
		s *snapshot.Snapshot
	}{"alone": {b, rest}, "with others": {b, merged}, "one step later": {b, b.step(rest, "echo 3 >d/new")}, "unpacked": {elsewhere, unpacked}} {
		err := x.s.View(t.Context(), func(root *tree.Dir) error {
			out, err := run(root, "ls -R . 2>&1 | grep -w 'a\\|b\\|x' || true")
			if out != "" {
				t.Errorf("%s shows %q", name, out)
			}
			return err
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func (b *bed) looks(s *snapshot.Snapshot) string {
	b.t.Helper()
	var out string
	err := s.View(b.t.Context(), func(root *tree.Dir) error {
		var err error
		out, err = run(root, `find . -mindepth 1 | sort | while read n; do s=; [ -d "$n" ] || s=$(stat -c '%s %Y' "$n"); [ ! -L "$n" ] || s=$(readlink "$n"); stat -c "%n %f %u:%g $s" "$n"; done`)
		return err
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return out
}

// Mount points are there to be mounted on, look like the base around them, and leave nothing.
func TestPoints(t *testing.T) {
	b := open(t)
	base := b.step(b.Scratch(), "mkdir -p etc var/run opt run; echo x >etc/hosts; chmod 750 opt; chown 5:6 opt; rmdir var/run; ln -s ../run var/run; ln -s /run/x/resolv.conf etc/resolv.conf; ln -s loop loop")
	points := []snapshot.Point{{Path: "/proc"}, {Path: "/etc/hosts", File: true}, {Path: "/etc/resolv.conf", File: true}, {Path: "/opt/a/b"}, {Path: "/var/run/lock/"}, {Path: "/../up"}, {Path: "/"}, {Path: "/loop/x"}, {Path: "opt/a/f", File: true}}
	d, err := b.Draft(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Drop()
	for range 2 { // twice: a second process in the same draft
		m, err := d.Mount(t.Context(), points...)
		if err != nil {
			t.Fatal(err)
		}
		root, err := b.layers.Attach(m)
		if err != nil {
			t.Fatal(err)
		}
		out, err := run(root, `test -d proc; test -f run/x/resolv.conf; test -d opt/a/b; test -f opt/a/f; test -d run/lock; test -d up; stat -c '%n %a %u:%g' opt opt/a; cat etc/hosts; echo y >opt/new`)
		root.Close()
		if err != nil || out != "opt 750 5:6\nopt/a 755 0:0\nx\n" {
			t.Errorf("%v %s", err, out)
		}
	}
	s, err := d.Seal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if got := b.files(s); got != "etc/hosts=x opt/new=y" {
		t.Errorf("%s", got)
	}
	if got := b.looks(s); strings.Contains(got, "proc") || strings.Contains(got, "opt/a") || strings.Contains(got, "lock") {
		t.Errorf("%s", got)
	}
	// Nothing missing: no directory more.
	d, err = b.Draft(t.Context(), base)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Drop()
	if m, err := d.Mount(t.Context(), snapshot.Point{Path: "/etc"}); err != nil || len(m.Lower) != 1 {
		t.Errorf("%v %v", m.Lower, err)
	}
}

func TestDepth(t *testing.T) {
	b := open(t)
	s := b.step(b.Scratch(), "echo 0 >f")
	for i := 1; i < layer.MaxDepth; i++ {
		s = b.step(s, fmt.Sprintf("echo %d >f", i))
	}
	if got := b.files(s); got != "f=124" {
		t.Errorf("%s", got)
	}
	if _, err := b.Draft(t.Context(), s); fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), "max depth exceeded") {
		t.Errorf("%v", err)
	}
	if _, err := b.Merge(t.Context(), []*snapshot.Snapshot{s, b.step(b.Scratch(), "echo 1 >x")}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("%v", err)
	}
}

func TestCancelled(t *testing.T) {
	b := open(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	d, err := b.Draft(t.Context(), b.Scratch())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(ctx, func(*tree.Dir) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	d.Drop()
	if _, err := d.Seal(t.Context()); err == nil {
		t.Error("sealed what was dropped")
	}
}

func timeOf(sec int64) time.Time { return time.Unix(sec, 0) }

func sorted(s string) []string { return slices.Sorted(strings.FieldsSeq(s)) }

func TestOrder(t *testing.T) {
	e := snapshot.Entries{{Path: "a.b"}, {Path: "a/b"}, {Path: "a"}, {Path: "a/b/c"}, {Path: "a-b"}, {Path: "a/c"}, {Path: "b"}}
	e.Sort()
	var got []string
	for _, x := range e {
		got = append(got, x.Path)
	}
	if want := []string{"a", "a/b", "a/b/c", "a/c", "a-b", "a.b", "b"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	for path, want := range map[string]int{"": 0, "a": 0, "a/": 1, "a/bb": 3, "a!": 4, "z": 7} {
		if n := e.Find(path); n != want {
			t.Errorf("%q: %d, want %d", path, n, want)
		}
	}
}
