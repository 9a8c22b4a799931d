package content_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/content"
	"berth/build/snapshot"
	"berth/image/layer"
	"berth/kernel/tree"
)

type local struct {
	dir   string
	index snapshot.Index
}

func (l *local) Dir() string           { return l.dir }
func (l *local) Index() snapshot.Index { return l.index }
func (l *local) Close()                {}

func store(t testing.TB) *snapshot.Store {
	t.Helper()
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.Open(snapshot.Config{Layers: layers, Root: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { layers.Close() })
	return s
}

// forms gives one tree as a local tree without an index, one with it, and as a chain.
func forms(t *testing.T, s *snapshot.Store, script string) map[string]*snapshot.Snapshot {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, script)
	index, err := snapshot.Scan(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	bare := s.FromTree(&local{dir: dir})
	known := s.FromTree(&local{dir: "/nowhere", index: index}) // the disk must not be touched
	var chain *snapshot.Snapshot
	d, err := s.Draft(t.Context(), s.Scratch())
	if err != nil {
		t.Fatal(err)
	}
	err = d.Do(t.Context(), func(root *tree.Dir) error {
		sh(t, fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.FD()), script)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if chain, err = d.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	two, err := s.Draft(t.Context(), chain)
	if err != nil {
		t.Fatal(err)
	}
	merged, err := two.Seal(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]*snapshot.Snapshot{"tree": bare, "index": known, "chain": chain, "longer chain": merged}
	t.Cleanup(func() {
		for _, x := range all {
			x.Release()
		}
	})
	return all
}

func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("sh", "-ec", "umask 022; "+script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
}

const base = `mkdir -p src/sub/deep other; echo 1 >src/a.go; echo 2 >src/b.txt; echo 3 >src/sub/c.go; echo 4 >src/sub/deep/d.go; echo 5 >other/e; ln -s src link; ln -s ../src/a.go other/l; ln -s /other/e abs; ln -s nowhere dangling; touch x.y`

// Whether a change to the tree changes what a selector sees.
func TestWhatCounts(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: owners and overlay mounts")
	}
	all := content.Selector{}
	src := content.Selector{Path: "/src"}
	goFiles := content.Selector{Path: "src/*.go", Wildcard: true}
	deepGo := content.Selector{Path: "src", Include: []string{"**/*.go"}}
	noText := content.Selector{Path: "/src/", Exclude: []string{"*.txt"}}
	butOne := content.Selector{Path: "/", Exclude: []string{"src", "!src/sub/c.go"}}
	for name, c := range map[string]struct {
		change string
		sees   map[string]bool // by selector; those not named must not
	}{
		"touched":        {`touch -d @77 src/a.go src x.y`, nil},
		"content":        {`echo 9 >src/a.go`, map[string]bool{"all": true, "src": true, "*.go": true, "**/*.go": true, "!*.txt": true, "through link": true, "file": true, "by link": true}},
		"mode":           {`chmod 600 src/a.go`, map[string]bool{"all": true, "src": true, "*.go": true, "**/*.go": true, "!*.txt": true, "through link": true, "file": true, "by link": true}},
		"owner":          {`chown 5:6 src/sub/c.go`, map[string]bool{"all": true, "src": true, "**/*.go": true, "!*.txt": true, "through link": true, "but one": true}},
		"text":           {`echo 9 >src/b.txt`, map[string]bool{"all": true, "src": true, "through link": true}},
		"new go":         {`echo 1 >src/z.go`, map[string]bool{"all": true, "src": true, "*.go": true, "**/*.go": true, "!*.txt": true, "through link": true}},
		"new deep text":  {`echo 1 >src/sub/deep/z.txt`, map[string]bool{"all": true, "src": true, "!*.txt": true, "through link": true}},
		"new directory":  {`mkdir src/empty`, map[string]bool{"all": true, "src": true, "!*.txt": true, "through link": true}},
		"renamed":        {`mv src/a.go src/aa.go`, map[string]bool{"all": true, "src": true, "*.go": true, "**/*.go": true, "!*.txt": true, "through link": true, "file": true, "by link": true}},
		"elsewhere":      {`echo 1 >other/e`, map[string]bool{"all": true, "absolute link": true, "but one": true}},
		"link's target":  {`rm abs; ln -s other/e abs`, map[string]bool{"all": true, "link": true, "but one": true}},
		"became a file":  {`rm -r src/sub/deep; echo 1 >src/sub/deep`, map[string]bool{"all": true, "src": true, "**/*.go": true, "!*.txt": true, "through link": true}},
		"directory mode": {`chmod 700 src/sub`, map[string]bool{"all": true, "src": true, "**/*.go": true, "!*.txt": true, "through link": true, "but one": true}},
	} {
		t.Run(name, func(t *testing.T) {
			s := store(t)
			h := content.New()
			before, after := forms(t, s, base), forms(t, s, base+"; "+c.change)
			for what, sel := range map[string]content.Selector{
				"all": all, "src": src, "*.go": goFiles, "**/*.go": deepGo, "!*.txt": noText, "but one": butOne,
				"through link": {Path: "link/", FollowLinks: true}, "link": {Path: "abs"}, "absolute link": {Path: "abs", FollowLinks: true},
				"file": {Path: "src/a.go"}, "by link": {Path: "other/l", FollowLinks: true}, "unchanged": {Path: "dangling"}, "dot": {Path: "/x.y"},
			} {
				var first digest.Digest
				for form := range before {
					x, err := h.Digest(t.Context(), before[form], sel)
					if err != nil {
						t.Fatalf("%s of %s: %v", what, form, err)
					}
					y, err := h.Digest(t.Context(), after[form], sel)
					if err != nil && !(name == "renamed" && fault.KindOf(err) == fault.NotFound) {
						t.Fatalf("%s of %s: %v", what, form, err)
					}
					if (x != y) != c.sees[what] {
						t.Errorf("%s of %s: changed %v, want %v", what, form, x != y, c.sees[what])
					}
					again, _ := h.Digest(t.Context(), before[form], sel)
					if again != x {
						t.Errorf("%s of %s: another time %s", what, form, again)
					}
					// All of a chain may differ from all of a tree only in how it is asked for.
					if what == "all" {
						continue
					}
					if first == "" {
						first = x
					}
					if x != first {
						t.Errorf("%s of %s: %s, elsewhere %s", what, form, x, first)
					}
				}
			}
		})
	}
}

func TestMissing(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	s := store(t)
	h := content.New()
	for form, x := range forms(t, s, base) {
		for _, c := range []struct {
			sel  content.Selector
			want string // in the error; "": none
		}{
			{content.Selector{Path: "/src/none"}, `"/src/none": not found`},
			{content.Selector{Path: "dangling", FollowLinks: true}, `"/dangling": not found`},
			{content.Selector{Path: "src/a.go/x"}, `"/src/a.go/x": not found`},
			{content.Selector{Path: "none*", Wildcard: true}, ""},
			{content.Selector{Path: "none/*/x", Wildcard: true}, ""},
			{content.Selector{Path: "src/a.go/*", Wildcard: true}, ""},
			{content.Selector{Path: "none", Exclude: []string{"x"}}, ""},
			{content.Selector{Path: "../../src/../src/a.go"}, ""},
			{content.Selector{Path: "[", Wildcard: true}, "pattern"},
			{content.Selector{Exclude: []string{"["}}, "invalid excludepatterns"},
			{content.Selector{Path: "/", Include: []string{"src/none"}, Required: []string{"/src/none"}}, `"/src/none": not found`},
			{content.Selector{Path: "/", Include: []string{"src/a.go"}, Required: []string{"/src/a.go"}}, ""},
		} {
			_, err := h.Digest(t.Context(), x, c.sel)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%s %+v: %v", form, c.sel, err)
			}
		}
	}
}

// Links that lead in circles or out of the tree stay in it and end.
func TestHostileLinks(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	s := store(t)
	h := content.New()
	secret := filepath.Join(t.TempDir(), "secret")
	os.WriteFile(secret, []byte("1"), 0o600)
	for form, x := range forms(t, s, "ln -s loop loop; ln -s a b; ln -s b a; ln -s "+secret+" out; ln -s ../../../../../../../../.."+secret+" up; mkdir d; ln -s .. d/up; ln -s / root") {
		for _, p := range []string{"loop", "a", "out", "up", "loop/x"} {
			if d, err := h.Digest(t.Context(), x, content.Selector{Path: p, FollowLinks: true}); err == nil {
				t.Errorf("%s %s: %s", form, p, d)
			}
		}
		for _, p := range []string{"d/up/d/up/d", "root/root/d"} {
			if _, err := h.Digest(t.Context(), x, content.Selector{Path: p, FollowLinks: true}); err != nil {
				t.Errorf("%s %s: %v", form, p, err)
			}
		}
	}
}

// An index may leave directories out; then they look like any.
func TestIndexWithoutDirectories(t *testing.T) {
	dig := digest.FromString("x")
	e := snapshot.Entries{{Path: "a/b/c", Mode: tree.TypeRegular | 0o644, Digest: dig}, {Path: "a/b.c", Mode: tree.TypeRegular | 0o644, Digest: dig}, {Path: "a-b", Mode: tree.TypeRegular | 0o644, Digest: dig}}
	e.Sort()
	s := store(t)
	x := s.FromTree(&local{dir: "/nowhere", index: e})
	defer x.Release()
	for _, sel := range []content.Selector{{Path: "*", Wildcard: true}, {Include: []string{"**/c"}}} {
		if _, err := content.New().Digest(t.Context(), x, sel); err != nil {
			t.Errorf("%+v: %v", sel, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	s := store(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for form, x := range forms(t, s, base) {
		if _, err := content.New().Digest(ctx, x, content.Selector{Path: "src"}); err == nil {
			t.Errorf("%s: no error", form)
		}
	}
}

func FuzzSelector(f *testing.F) {
	var e snapshot.Entries
	for _, p := range []string{"a", "a/b", "a/b/c", "a/l", "x"} {
		mode := uint32(tree.TypeDir | 0o755)
		link := ""
		if p == "a/l" {
			mode, link = tree.TypeSymlink|0o777, "../a/./l/../b"
		} else if p == "x" || p == "a/b/c" {
			mode = tree.TypeRegular | 0o644
		}
		e = append(e, snapshot.Entry{Path: p, Mode: mode, Link: link, Digest: digest.FromString(p)})
	}
	e.Sort()
	s := store(f)
	x := s.FromTree(&local{dir: "/nowhere", index: e})
	for _, p := range []string{"", "/a/*", "a/l/..", "[a-", `\*`, "../..", "a/[^b]/?"} {
		f.Add(p, "*", true, true)
	}
	f.Fuzz(func(t *testing.T, path, pattern string, wildcard, links bool) {
		sel := content.Selector{Path: path, Wildcard: wildcard, FollowLinks: links, Exclude: []string{pattern}}
		_, err := content.New().Digest(context.Background(), x, sel)
		if err != nil && fault.KindOf(err) != fault.Invalid && fault.KindOf(err) != fault.NotFound {
			t.Fatalf("%q %q: %v", path, pattern, err)
		}
	})
}

// A context of 100,000 files that has an index costs no disk.
func BenchmarkIndex(b *testing.B) {
	var e snapshot.Entries
	for i := range 100_000 {
		if i%100 == 0 {
			e = append(e, snapshot.Entry{Path: fmt.Sprintf("d%d", i/100), Mode: uint32(tree.TypeDir) | uint32(fs.FileMode(0o755))})
		}
		e = append(e, snapshot.Entry{Path: fmt.Sprintf("d%d/f%d", i/100, i), Mode: tree.TypeRegular | 0o644, Digest: digest.FromString(fmt.Sprint(i))})
	}
	e.Sort()
	s := store(b)
	for name, sel := range map[string]content.Selector{"all": {}, "one": {Path: "d5/f505"}, "half": {Path: "d5*", Wildcard: true}, "filtered": {Exclude: []string{"**/*9"}}} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				x := s.FromTree(&local{dir: "/nowhere", index: e})
				if _, err := content.New().Digest(b.Context(), x, sel); err != nil {
					b.Fatal(err)
				}
				x.Release()
			}
		})
	}
}
