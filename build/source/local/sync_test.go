package local

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"

	"berth/build/session"
	"berth/build/snapshot"
)

// look describes what is in a directory, one line for each file.
func look(t testing.TB, dir string) map[string]string {
	t.Helper()
	list, first := map[string]string{}, map[uint64]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		fi, err := d.Info()
		if err != nil {
			return err
		}
		st := fi.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%v %d", fi.Mode(), fi.ModTime().UnixNano())
		switch {
		case fi.Mode()&fs.ModeSymlink != 0:
			to, _ := os.Readlink(p)
			line += " -> " + to
		case fi.Mode().IsRegular():
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(raw))
			if other, ok := first[st.Ino]; ok {
				line += " = " + other
			} else {
				first[st.Ino] = rel
			}
		}
		list[rel] = line
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// mustEqual compares a tree with the client's directory, and with what its index says.
func mustEqual(t testing.TB, tr *Tree, dir string) {
	t.Helper()
	want, got := look(t, dir), look(t, tr.Dir())
	if !maps.Equal(want, got) {
		for _, k := range slices.Sorted(maps.Keys(want)) {
			if want[k] != got[k] {
				t.Errorf("%s\n client %s\n tree   %s", k, want[k], got[k])
			}
		}
		for k := range got {
			if _, ok := want[k]; !ok {
				t.Errorf("%s is only in the tree", k)
			}
		}
		t.FailNow()
	}
	checkIndex(t, tr)
}

func checkIndex(t testing.TB, tr *Tree) {
	t.Helper()
	x := tr.Index()
	names := slices.Sorted(maps.Keys(look(t, tr.Dir())))
	if x.Len() != len(names) {
		t.Fatalf("the index has %d files, the tree %d", x.Len(), len(names))
	}
	last := ""
	for i := range x.Len() {
		e := x.At(i)
		if i > 0 && snapshot.ComparePaths(last, e.Path) >= 0 {
			t.Fatalf("%s after %s", e.Path, last)
		}
		last = e.Path
		if x.Find(e.Path) != i {
			t.Fatalf("Find(%s) = %d, want %d", e.Path, x.Find(e.Path), i)
		}
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(tr.Dir(), e.Path), &st); err != nil {
			t.Fatal(err)
		}
		if st.Mode != e.Mode || st.Uid != e.UID || st.Gid != e.GID {
			t.Errorf("%s: index %o %d:%d, tree %o %d:%d", e.Path, e.Mode, e.UID, e.GID, st.Mode, st.Uid, st.Gid)
		}
		if e.Mode&syscall.S_IFMT == syscall.S_IFREG {
			raw, err := os.ReadFile(filepath.Join(tr.Dir(), e.Path))
			if err != nil {
				t.Fatal(err)
			}
			if sum := sha256.Sum256(raw); e.Digest.Encoded() != hex.EncodeToString(sum[:]) {
				t.Errorf("%s: digest %s, content %x", e.Path, e.Digest, sum)
			}
		}
	}
}

func TestSync(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	c := dial(t, m, dir)
	do := func(name string, change func()) {
		t.Helper()
		change()
		tr := c.sync(s, Request{})
		defer tr.Close()
		t.Log(name)
		mustEqual(t, tr, dir)
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do("nothing", func() {})
	do("files", func() {
		write(t, dir, map[string]string{"a": "1", "b/c": "2", "b/d/e": "", "b-c": "3", "b.c": "4", "ü": "5", "big": strings.Repeat("x", 300_000)})
		must(os.Chmod(p("b/c"), 0o4711))
		must(os.Chmod(p("b/d"), 0o1777))
		must(os.Symlink("/etc/passwd", p("link")))
		must(os.Symlink("nowhere", p("b/dangling")))
		must(os.Link(p("b/c"), p("b/hard")))
		must(os.Link(p("b/c"), p("z")))
		must(syscall.Mkfifo(p("fifo"), 0o640))
		must(os.Mkdir(p("empty"), 0o700))
	})
	do("unchanged", func() {})
	do("a file's content", func() { write(t, dir, map[string]string{"a": "one"}) })
	do("the content of one with three names", func() { write(t, dir, map[string]string{"b/c": "two"}) })
	do("time only", func() { must(os.Chtimes(p("big"), time.Unix(1, 5), time.Unix(1, 5))) })
	do("mode only", func() { must(os.Chmod(p("big"), 0o600)) })
	do("mode of a directory", func() { must(os.Chmod(p("b"), 0o750)) })
	do("a name goes", func() { must(os.Remove(p("b/c"))) })
	do("a file becomes a directory", func() {
		must(os.Remove(p("a")))
		write(t, dir, map[string]string{"a/b/c": "x"})
	})
	do("a directory becomes a file", func() {
		must(os.RemoveAll(p("b")))
		write(t, dir, map[string]string{"b": "x"})
	})
	do("a directory becomes a link to another", func() {
		must(os.RemoveAll(p("a")))
		must(os.Symlink("empty", p("a")))
	})
	do("a link becomes a directory", func() {
		must(os.Remove(p("a")))
		write(t, dir, map[string]string{"a/f": "x"})
	})
	do("most go", func() {
		for _, n := range []string{"a", "b", "big", "fifo", "ü", "empty"} {
			must(os.RemoveAll(p(n)))
		}
	})
	do("all go", func() {
		list, _ := os.ReadDir(dir)
		for _, e := range list {
			must(os.RemoveAll(p(e.Name())))
		}
	})
}

// TestSyncRandom changes a directory at random, again and again.
func TestSyncRandom(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	c := dial(t, m, dir)
	r := rand.New(rand.NewPCG(1, 2))
	files := func() (list []string) {
		for n := range look(t, dir) {
			list = append(list, n)
		}
		slices.Sort(list)
		return list
	}
	for range 60 {
		for range r.IntN(8) {
			list := files()
			name := string(rune('a'+r.IntN(5))) + []string{"", ".x", "-y", "/z", "/z/w", "0"}[r.IntN(6)]
			p := filepath.Join(dir, name)
			switch k := r.IntN(6); {
			case k == 0 && len(list) > 0:
				_ = os.RemoveAll(filepath.Join(dir, list[r.IntN(len(list))]))
			case k == 1 && len(list) > 0:
				_ = os.Link(filepath.Join(dir, list[r.IntN(len(list))]), p)
			case k == 2:
				_ = os.Symlink(name, p)
			case k == 3:
				_ = os.MkdirAll(p, 0o755)
			default:
				_ = os.MkdirAll(filepath.Dir(p), 0o755)
				_ = os.WriteFile(p, []byte(fmt.Sprint(r.IntN(100))), 0o644)
			}
		}
		tr := c.sync(s, Request{})
		mustEqual(t, tr, dir)
		tr.Close()
	}
}

func TestUnchangedTouchesNothing(t *testing.T) {
	s, m := newStore(t)
	dir := many(t, 300, 100)
	c := dial(t, m, dir)
	first := c.sync(s, Request{})
	id, place := first.ID(), first.Dir()
	first.Close()
	index := filepath.Join(filepath.Dir(place), fileIndex)
	before, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	again := c.sync(s, Request{})
	defer again.Close()
	after, err := os.Stat(index)
	if err != nil {
		t.Fatal(err)
	}
	if again.Dir() != place || again.ID() != id || !os.SameFile(before, after) {
		t.Error("an unchanged context was written anew")
	}
}

func TestFilters(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a.go": "1", "b.txt": "2", "sub/c.go": "3", "sub/d.txt": "4", "grün/x": "5"})
	if err := os.Symlink("sub/d.txt", filepath.Join(dir, "follow")); err != nil {
		t.Fatal(err)
	}
	c := dial(t, m, dir)
	for _, x := range []struct {
		req  Request
		want string
	}{
		{Request{}, "a.go b.txt follow grün grün/x sub sub/c.go sub/d.txt"},
		{Request{Include: []string{"**/*.go"}}, "a.go sub sub/c.go"},
		{Request{Exclude: []string{"sub", "*.txt"}}, "a.go follow grün grün/x"},
		{Request{Follow: []string{"follow"}}, "follow sub sub/d.txt"},
		{Request{Include: []string{"grün"}}, "grün grün/x"},
		{Request{Include: []string{"none"}}, ""},
	} {
		tr := c.sync(s, x.req)
		if got := strings.Join(slices.Sorted(maps.Keys(look(t, tr.Dir()))), " "); got != x.want {
			t.Errorf("%+v: %q, want %q", x.req, got, x.want)
		}
		checkIndex(t, tr)
		tr.Close()
	}
}

// TestLocked: a tree that somebody has stays as it is; the next one is made of links to it.
func TestLocked(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"same": "1", "other": "2"})
	old := dial(t, m, dir)
	first := old.sync(s, Request{})
	defer first.Close()
	was := look(t, first.Dir())
	write(t, dir, map[string]string{"other": "changed", "new": "3"})
	second := dial(t, m, dir).sync(s, Request{})
	defer second.Close()
	if first.Dir() == second.Dir() || !maps.Equal(was, look(t, first.Dir())) {
		t.Fatal("a tree that was in use has changed")
	}
	mustEqual(t, second, dir)
	a, _ := os.Stat(filepath.Join(first.Dir(), "same"))
	b, _ := os.Stat(filepath.Join(second.Dir(), "same"))
	if !os.SameFile(a, b) {
		t.Error("the same file was sent twice")
	}
}

// TestSharedFlight: one session's wish is fulfilled once, for as long as somebody has what came of it.
func TestSharedFlight(t *testing.T) {
	s, m := newStore(t)
	dir := many(t, 50, 10)
	c := dial(t, m, dir)
	results := make(chan *Tree, 8)
	for range 8 {
		go func() {
			tr, err := c.try(s, Request{})
			if err != nil {
				t.Error(err)
			}
			results <- tr
		}()
	}
	places := map[string]int{}
	var list []*Tree
	for range 8 {
		tr := <-results
		list = append(list, tr)
		places[tr.Dir()]++
	}
	if len(places) != 1 {
		t.Errorf("%d trees for one session: %v", len(places), places)
	}
	write(t, dir, map[string]string{"new": "x"})
	again := c.sync(s, Request{})
	if again.Index().Len() != list[0].Index().Len() {
		t.Error("a build saw two states of one context")
	}
	again.Close()
	for _, tr := range list {
		tr.Close()
	}
	last := c.sync(s, Request{})
	defer last.Close()
	mustEqual(t, last, dir)
}

func TestNoSuchDirectory(t *testing.T) {
	s, m := newStore(t)
	c := dial(t, m, t.TempDir())
	_, err := c.try(s, Request{Name: "elsewhere"})
	if err == nil || !strings.Contains(err.Error(), "no access allowed to dir") || !elsewhere(err) {
		t.Errorf("got %v", err)
	}
}

func TestCancelled(t *testing.T) {
	s, m := newStore(t)
	c := dial(t, m, many(t, 500, 1000))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sync(ctx, c.id, c.caller, Request{Name: "context"}, nil); err == nil {
		t.Error("a cancelled sync succeeded")
	}
	tr := c.sync(s, Request{})
	defer tr.Close()
	mustEqual(t, tr, c.dir)
}

// TestOnce: what a door serves for one request is for nobody else, and goes with it.
func TestOnce(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"a": "1"})
	offer := func(key string) (string, session.Caller, func()) {
		fs, err := fsutil.NewFS(dir)
		if err != nil {
			t.Fatal(err)
		}
		id, end, err := m.Local(t.Context(), key, filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": fs}))
		if err != nil {
			t.Fatal(err)
		}
		c, err := m.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return id, c, end
	}
	id, c, end := offer(session.Once + "x")
	tr, err := s.Sync(t.Context(), id, c, Request{Name: "context"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, tr, dir)
	place := tr.Dir()
	tr.Close()
	end()
	if _, err := os.Stat(place); !os.IsNotExist(err) {
		t.Errorf("the tree of one build is still there: %v", err)
	}
	if _, err := s.Sync(t.Context(), id, c, Request{Name: "context"}, nil); err == nil {
		t.Error("a session that has ended was used")
	}
	if len(m.Sessions()) != 0 {
		t.Errorf("sessions left: %v", m.Sessions())
	}
}

// TestMetadataOnly: the list of all files, the contents of some.
func TestMetadataOnly(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"data": "x", "dir/file1": "file1", "dir/file2": "2", "dir/sub/bar1": "bar1", "dir/sub/bar2": "3", "dir/sub2/bar3": "4", "foo": "foo", "-first": "5"})
	c := dial(t, m, dir)
	req := Request{Meta: true, MetaSaved: []string{"dir/**/*1", "foo"}}
	look2 := func() ([]string, string) {
		tr := c.sync(s, req)
		defer tr.Close()
		checkIndex(t, tr)
		raw, err := os.ReadFile(filepath.Join(tr.Dir(), metaName))
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for len(raw) > 0 {
			n := binary.LittleEndian.Uint32(raw)
			paths = append(paths, string(pathOf(raw[4:4+n])))
			raw = raw[4+n:]
		}
		return paths, strings.Join(slices.Sorted(maps.Keys(look(t, tr.Dir()))), " ")
	}
	for range 2 {
		paths, files := look2()
		if want := "-first data dir dir/file1 dir/file2 dir/sub dir/sub/bar1 dir/sub/bar2 dir/sub2 dir/sub2/bar3 foo"; strings.Join(paths, " ") != want {
			t.Errorf("listed %v", paths)
		}
		if want := ".fsutil-metadata dir dir/file1 dir/sub dir/sub/bar1 foo"; files != want {
			t.Errorf("files %s", files)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "dir/sub")); err != nil {
		t.Fatal(err)
	}
	write(t, dir, map[string]string{"dir/file1": "changed"})
	paths, files := look2()
	if len(paths) != 8 || files != ".fsutil-metadata dir dir/file1 foo" {
		t.Errorf("after a change: %v, %s", paths, files)
	}
	none := Request{Meta: true, MetaSaved: []string{"nothing"}}
	tr := c.sync(s, none)
	defer tr.Close()
	if tr.Index().Len() != 1 {
		t.Errorf("%d files", tr.Index().Len())
	}
}

// Names of files are any bytes; what this process serves itself (builds of the classic API) has such names too.
func TestNamesOfAnyBytes(t *testing.T) {
	s, m := newStore(t)
	dir := t.TempDir()
	write(t, dir, map[string]string{"caf\xe9": "latin", "d\xff/f": "deep"})
	if err := os.Symlink("caf\xe9", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	from, err := fsutil.NewFS(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, end, err := m.Local(t.Context(), session.Once+"x", filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": from}))
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	c, err := m.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := s.Sync(t.Context(), id, c, Request{Name: "context"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	mustEqual(t, tr, dir)
}
