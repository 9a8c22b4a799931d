// Package layertest is the contract of a layer store, as a test that every implementation runs.
package layertest

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/archive"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Store is what the suite asks of an implementation.
type Store interface {
	Add(ctx context.Context, r io.Reader, want digest.Digest) (layer.Info, error)
	Has(d digest.Digest) bool
	Retain(chain ...digest.Digest) error
	Release(chain ...digest.Digest) []digest.Digest
	Sweep() int64
	Tar(ctx context.Context, d digest.Digest, w io.Writer) error
	Create(ctx context.Context, containerID string, chain []digest.Digest, o layer.CreateOptions) (layer.Mount, error)
	Get(containerID string) (layer.Mount, error)
	Remove(containerID string) error
	Usage(ctx context.Context, containerID string) (int64, error)
	Changes(ctx context.Context, containerID string) ([]layer.Change, error)
	WithMount(ctx context.Context, containerID string, readOnly bool, f func(root *tree.Dir) error) error
	Diff(ctx context.Context, containerID string, w io.Writer, o archive.WriteOptions) error
	Export(ctx context.Context, containerID string, w io.Writer, o archive.WriteOptions) error
	WaitTrash(ctx context.Context) error
	Close() error
}

// Opener opens a store in a directory, again and again.
type Opener func(t *testing.T, root string) Store

// Run runs the suite. It needs root and overlay mounts.
func Run(t *testing.T, open Opener) {
	if os.Getuid() != 0 {
		t.Skip("needs root: overlay mounts and trusted attributes")
	}
	for name, f := range map[string]func(t *testing.T, open Opener){
		"chain is merged":      testMerge,
		"exact tar":            testTar,
		"verified":             testVerified,
		"shared and counted":   testCounted,
		"container life":       testContainer,
		"changes":              testChanges,
		"commit round trip":    testCommit,
		"recovery":             testRecovery,
		"depth":                testDepth,
		"root attributes":      testRootAttributes,
		"skeleton":             testSkeleton,
		"removal is at once":   testRemoval,
		"concurrent":           testConcurrent,
		"implied and opaque":   testOpaqueRoot,
		"bad container ids":    testBadIDs,
		"user of two layers":   testOverlapping,
		"read-only while open": testReadOnlyMount,
		"implied directories":  testImplied,
	} {
		t.Run(name, func(t *testing.T) { f(t, open) })
	}
}

var ctx = context.Background()

// Entry is one entry of a test layer. Type is guessed: a name with a slash at the end is a directory.
type Entry struct {
	Name, Body, Link string
	Mode             int64
	UID              int
}

// Tar makes a layer.
func Tar(t testing.TB, entries ...Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.Name, Size: int64(len(e.Body)), Mode: e.Mode, Uid: e.UID, ModTime: time.Unix(1600000000, 0), Typeflag: tar.TypeReg}
		switch {
		case strings.HasSuffix(e.Name, "/"):
			h.Typeflag = tar.TypeDir
			if h.Mode == 0 {
				h.Mode = 0o755
			}
		case e.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.Body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func add(t *testing.T, s Store, entries ...Entry) digest.Digest {
	t.Helper()
	b := Tar(t, entries...)
	info, err := s.Add(ctx, bytes.NewReader(b), digest.FromBytes(b))
	if err != nil {
		t.Fatal(err)
	}
	return info.DiffID
}

// look lists the regular files that a container sees, with their content, outside the skeleton.
func look(t *testing.T, s Store, id string) (lines []string) {
	t.Helper()
	err := s.WithMount(ctx, id, true, func(root *tree.Dir) error {
		return filepath.WalkDir(root.Path()+"/", func(p string, e os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel := strings.TrimPrefix(p, root.Path()+"/")
			for _, skip := range []string{"dev", "etc", "proc", "sys", ".dockerenv"} {
				if rel == skip || strings.HasPrefix(rel, skip+"/") {
					return nil
				}
			}
			switch {
			case e.IsDir() && rel != "":
				lines = append(lines, rel+"/")
			case e.Type().IsRegular():
				b, err := os.ReadFile(p)
				if err != nil {
					return err
				}
				lines = append(lines, rel+"="+string(b))
			case e.Type()&os.ModeSymlink != 0:
				target, _ := os.Readlink(p)
				lines = append(lines, rel+"->"+target)
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

func want(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func create(t *testing.T, s Store, id string, chain ...digest.Digest) layer.Mount {
	t.Helper()
	m, err := s.Create(ctx, id, chain, layer.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func testMerge(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "d/"}, Entry{Name: "d/one", Body: "1"}, Entry{Name: "d/two", Body: "2"}, Entry{Name: "gone", Body: "x"}, Entry{Name: "o/"}, Entry{Name: "o/old", Body: "o"}, Entry{Name: "dd/"}, Entry{Name: "dd/old", Body: "x"})
	b := add(t, s, Entry{Name: "d/two", Body: "22"}, Entry{Name: "d/three", Body: "3"}, Entry{Name: ".wh.gone"}, Entry{Name: "o/"}, Entry{Name: "o/.wh..wh..opq"}, Entry{Name: "o/new", Body: "n"}, Entry{Name: ".wh.dd"}, Entry{Name: "dd/"}, Entry{Name: "dd/new", Body: "y"})
	create(t, s, "c1", a, b)
	want(t, look(t, s, "c1"), "d/", "d/one=1", "d/three=3", "d/two=22", "dd/", "dd/new=y", "o/", "o/new=n")
	create(t, s, "c2", a)
	want(t, look(t, s, "c2"), "d/", "d/one=1", "d/two=2", "dd/", "dd/old=x", "gone=x", "o/", "o/old=o")
	// The same diff above another one: it must hide there what it hides, and nothing else.
	c := add(t, s, Entry{Name: "gone", Body: "z"}, Entry{Name: "keep", Body: "k"}, Entry{Name: "o/"}, Entry{Name: "o/other", Body: "1"})
	create(t, s, "c3", c, b)
	want(t, look(t, s, "c3"), "d/", "d/three=3", "d/two=22", "dd/", "dd/new=y", "keep=k", "o/", "o/new=n")
	// The empty chain is a container without an image.
	create(t, s, "c4")
	want(t, look(t, s, "c4"))
}

func testTar(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	raw := Tar(t, Entry{Name: "a", Body: "one"}, Entry{Name: "a", Body: "two"}, Entry{Name: "d/"}, Entry{Name: "d/.wh.x"}, Entry{Name: "big", Body: strings.Repeat("z", 1<<20)})
	info, err := s.Add(ctx, bytes.NewReader(raw), "")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := s.Tar(ctx, info.DiffID, &out); err != nil || !bytes.Equal(out.Bytes(), raw) {
		t.Errorf("%d bytes, want %d, %v", out.Len(), len(raw), err)
	}
	if err := s.Tar(ctx, digest.FromString("none"), &out); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
}

func testVerified(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	defer s.Close()
	raw := Tar(t, Entry{Name: "a", Body: "1"})
	for name, c := range map[string]struct {
		raw  []byte
		want digest.Digest
	}{
		"wrong digest": {raw, digest.FromString("other")},
		"cut":          {raw[:600], digest.FromBytes(raw)},
		"no tar":       {[]byte(strings.Repeat("hello", 200)), ""},
		"escape":       {Tar(t, Entry{Name: "../../evil", Body: "x"}), ""},
		"bad digest":   {raw, "sha256:../.."},
	} {
		if _, err := s.Add(ctx, bytes.NewReader(c.raw), c.want); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := s.WaitTrash(ctx); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"d", "tmp", "trash"} {
		if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func testCounted(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	defer s.Close()
	e := Entry{Name: "a", Body: "1"}
	d := add(t, s, e)
	add(t, s, e) // a second hold on the same copy
	if left, _ := os.ReadDir(filepath.Join(root, "d")); len(left) != 1 {
		t.Errorf("%d copies", len(left))
	}
	create(t, s, "c", d)
	if gone := s.Release(d, d); len(gone) != 0 || !s.Has(d) {
		t.Errorf("released under a container: %v", gone)
	}
	if err := s.Remove("c"); err != nil {
		t.Fatal(err)
	}
	if s.Has(d) {
		t.Error("still there without any hold")
	}
	if err := s.Retain(d); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	if _, err := s.Create(ctx, "c", []digest.Digest{d}, layer.CreateOptions{}); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
}

func testContainer(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	d := add(t, s, Entry{Name: "a", Body: "1"})
	m := create(t, s, "c", d)
	if again := create(t, s, "c", d); again.Upper != m.Upper {
		t.Error("Create on an existing id must give the same layer")
	}
	err := s.WithMount(ctx, "c", false, func(root *tree.Dir) error {
		return os.WriteFile(root.Path()+"/new", []byte("12345"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	want(t, look(t, s, "c"), "a=1", "new=12345")
	if n, err := s.Usage(ctx, "c"); err != nil || n != 5 {
		t.Errorf("usage %d %v", n, err)
	}
	if got, err := s.Get("c"); err != nil || got.Upper != m.Upper || !slices.Equal(got.Lower, m.Lower) {
		t.Errorf("%+v %v", got, err)
	}
	if err := s.Remove("c"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("c"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	if err := s.Remove("c"); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

func testChanges(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "d/"}, Entry{Name: "d/keep", Body: "k"}, Entry{Name: "d/mod", Body: "1"}, Entry{Name: "d/del", Body: "1"}, Entry{Name: "gone/"}, Entry{Name: "gone/x", Body: "1"}, Entry{Name: "remade/"}, Entry{Name: "remade/old", Body: "1"}, Entry{Name: "chmod", Body: "1"}, Entry{Name: "kind", Body: "f"})
	b := add(t, s, Entry{Name: "d/upper", Body: "1"})
	create(t, s, "c", a, b)
	err := s.WithMount(ctx, "c", false, func(root *tree.Dir) error {
		p := root.Path() + "/"
		os.WriteFile(p+"d/mod", []byte("22"), 0o644)
		os.Remove(p + "d/del")
		os.WriteFile(p+"d/new", nil, 0o644)
		os.RemoveAll(p + "gone")
		os.RemoveAll(p + "remade")
		os.Mkdir(p+"remade", 0o755)
		os.WriteFile(p+"remade/fresh", nil, 0o644)
		os.Chmod(p+"chmod", 0o600)
		os.Remove(p + "kind")
		os.Mkdir(p+"kind", 0o755)
		os.MkdirAll(p+"n/e/w", 0o755)
		os.WriteFile(p+"tmpfile", nil, 0o644)
		return os.Remove(p + "tmpfile")
	})
	if err != nil {
		t.Fatal(err)
	}
	changes, err := s.Changes(ctx, "c")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range changes {
		got = append(got, c.Kind.String()+" "+c.Path)
	}
	want(t, got, "C /chmod", "C /d", "D /d/del", "C /d/mod", "A /d/new", "D /gone", "C /kind", "A /n", "A /n/e", "A /n/e/w",
		"C /remade", "A /remade/fresh", "D /remade/old")
}

func testCommit(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "d/"}, Entry{Name: "d/a", Body: "1"}, Entry{Name: "gone", Body: "x"}, Entry{Name: "re/"}, Entry{Name: "re/old", Body: "x"})
	create(t, s, "c", a)
	err := s.WithMount(ctx, "c", false, func(root *tree.Dir) error {
		p := root.Path() + "/"
		os.Remove(p + "gone")
		os.RemoveAll(p + "re")
		os.Mkdir(p+"re", 0o755)
		os.WriteFile(p+"re/new", []byte("n"), 0o644)
		os.Symlink("a", p+"d/l")
		return os.WriteFile(p+"d/a", []byte("2"), 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := s.Diff(ctx, "c", &b, archive.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	info, err := s.Add(ctx, &b, "")
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "c2", a, info.DiffID)
	want(t, look(t, s, "c2"), "d/", "d/a=2", "d/l->a", "re/", "re/new=n")
	var all bytes.Buffer
	if err := s.Export(ctx, "c2", &all, archive.WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	flat, err := s.Add(ctx, &all, "")
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "c3", flat.DiffID)
	want(t, look(t, s, "c3"), "d/", "d/a=2", "d/l->a", "re/", "re/new=n")
}

func testRecovery(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	a, b := add(t, s, Entry{Name: "a", Body: "1"}), add(t, s, Entry{Name: "b", Body: "2"})
	m := create(t, s, "c", a)
	os.WriteFile(filepath.Join(m.Upper, "w"), []byte("w"), 0o644)
	// What a crash leaves behind.
	os.MkdirAll(filepath.Join(root, "tmp", "half", "fs"), 0o755)
	os.MkdirAll(filepath.Join(root, "trash", "old", "fs"), 0o755)
	os.MkdirAll(filepath.Join(root, "c", "torn", "fs"), 0o755)
	os.WriteFile(filepath.Join(root, "c", "torn", "layer.json"), nil, 0o600)
	s.Close()

	s = open(t, root)
	defer s.Close()
	if !s.Has(a) || !s.Has(b) {
		t.Fatal("a committed layer is lost")
	}
	if freed := s.Sweep(); freed != 1 || !s.Has(a) || s.Has(b) {
		t.Errorf("swept %d bytes; the container's layer must stay, the other go", freed)
	}
	want(t, look(t, s, "c"), "a=1", "w=w")
	if _, err := s.Get("torn"); fault.KindOf(err) != fault.NotFound {
		t.Errorf("%v", err)
	}
	create(t, s, "torn", a)
	want(t, look(t, s, "torn"), "a=1")
	s.WaitTrash(ctx)
	for _, dir := range []string{"tmp", "trash"} {
		if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func testDepth(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	var chain []digest.Digest
	for i := range layer.MaxDepth {
		chain = append(chain, add(t, s, Entry{Name: fmt.Sprintf("f%d", i), Body: "x"}))
	}
	create(t, s, "deep", chain...)
	if n := len(look(t, s, "deep")); n != layer.MaxDepth {
		t.Errorf("%d files", n)
	}
	one := add(t, s, Entry{Name: "more", Body: "x"})
	if _, err := s.Create(ctx, "deeper", append(chain, one), layer.CreateOptions{}); err == nil || err.Error() != "max depth exceeded" {
		t.Errorf("%v", err)
	}
}

func testRootAttributes(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "./", Mode: 0o711, UID: 5}, Entry{Name: "etc/", Mode: 0o700, UID: 7})
	b := add(t, s, Entry{Name: "x", Body: "1"})
	create(t, s, "c", a, b)
	err := s.WithMount(ctx, "c", true, func(root *tree.Dir) error {
		st, err := root.Stat("")
		if err != nil || st.Mode&tree.PermMask != 0o711 || st.UID != 5 {
			t.Errorf("root %o %d %v", st.Mode, st.UID, err)
		}
		st, err = root.Stat("etc")
		if err != nil || st.Mode&tree.PermMask != 0o700 || st.UID != 7 {
			t.Errorf("etc %o %d %v", st.Mode, st.UID, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A directory without an entry of its own must look as in the layers below, in each chain as that chain has it.
func testImplied(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	base := add(t, s, Entry{Name: "tmp/", Mode: 0o1777}, Entry{Name: "var/", Mode: 0o750, UID: 3}, Entry{Name: "var/lib/", Mode: 0o700, UID: 4}, Entry{Name: "gone/", Mode: 0o700},
		Entry{Name: "made/", Mode: 0o711}, Entry{Name: "hid/", Mode: 0o711}, Entry{Name: "etc/", Mode: 0o750})
	other := add(t, s, Entry{Name: "tmp/", Mode: 0o700}, Entry{Name: "x", Body: "1"})
	middle := add(t, s, Entry{Name: ".wh.gone"}, Entry{Name: "made/", Mode: 0o777}, Entry{Name: ".wh.hid"})
	top := add(t, s, Entry{Name: "tmp/a", Body: "1"}, Entry{Name: "var/lib/x/a", Body: "1"}, Entry{Name: "gone/a", Body: "1"}, Entry{Name: "made/a", Body: "1"}, Entry{Name: "etc/a", Body: "1"})
	create(t, s, "c1", base, middle, top)
	create(t, s, "c2", other, top)
	create(t, s, "c3", top)
	check := func(id string, want map[string]tree.Stat) {
		t.Helper()
		err := s.WithMount(ctx, id, true, func(root *tree.Dir) error {
			for name, w := range want {
				st, ok, err := root.Lookup(name)
				if ok != (w.Mode != 0) || err != nil || ok && (st.Mode&tree.PermMask != w.Mode || st.UID != w.UID) {
					t.Errorf("%s: %s: there %v, %o of %d, want %o of %d, %v", id, name, ok, st.Mode, st.UID, w.Mode, w.UID, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		check("c1", map[string]tree.Stat{"tmp": {Mode: 0o1777}, "var": {Mode: 0o750, UID: 3}, "var/lib": {Mode: 0o700, UID: 4}, "var/lib/x": {Mode: 0o755}, "gone": {Mode: 0o755},
			"made": {Mode: 0o777}, "hid": {}, "etc": {Mode: 0o750}, "tmp/a": {Mode: 0o644}})
		check("c2", map[string]tree.Stat{"tmp": {Mode: 0o700}, "var": {Mode: 0o755}, "var/lib/x": {Mode: 0o755}})
		check("c3", map[string]tree.Stat{"tmp": {Mode: 0o755}, "etc": {Mode: 0o755}})
		if changes, err := s.Changes(ctx, "c1"); err != nil || len(changes) != 0 {
			t.Errorf("%v %v", changes, err)
		}
		s.Close()
		s = open(t, root)
	}
	s.Close()
}

func testSkeleton(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "etc/"}, Entry{Name: "etc/hosts", Body: "image's"}, Entry{Name: "etc/passwd", Body: "p"}, Entry{Name: "etc/resolv.conf", Link: "/run/nowhere"})
	m := create(t, s, "c", a)
	err := s.WithMount(ctx, "c", false, func(root *tree.Dir) error {
		for name, typ := range map[string]uint32{
			"dev": tree.TypeDir, "dev/pts": tree.TypeDir, "dev/shm": tree.TypeDir, "proc": tree.TypeDir, "sys": tree.TypeDir, "dev/console": tree.TypeRegular,
			"etc/hosts": tree.TypeRegular, "etc/hostname": tree.TypeRegular, "etc/resolv.conf": tree.TypeRegular, "etc/mtab": tree.TypeSymlink,
			".dockerenv": tree.TypeRegular, "etc/passwd": tree.TypeRegular,
		} {
			st, ok, err := root.Lookup(name)
			if err != nil || !ok || st.Type() != typ {
				t.Errorf("%s: %v %o %v", name, ok, st.Mode, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(m.Upper); len(left) != 0 {
		t.Errorf("in the upper directory: %v", left)
	}
	if changes, err := s.Changes(ctx, "c"); err != nil || len(changes) != 0 {
		t.Errorf("%v %v", changes, err)
	}
}

func testRemoval(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	defer s.Close()
	d := add(t, s, Entry{Name: "a", Body: "1"})
	for i := range 400 { // more than are let wait
		id := fmt.Sprintf("c%d", i)
		m := create(t, s, id, d)
		os.MkdirAll(filepath.Join(m.Upper, "x/y/z"), 0o755)
		os.Mkdir(filepath.Join(m.Work, "work"), 0) // as overlayfs leaves it
		if err := s.Remove(id); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(m.Upper); !os.IsNotExist(err) {
			t.Fatalf("%s still there: %v", id, err)
		}
	}
	if err := s.WaitTrash(ctx); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "trash")); len(left) != 0 {
		t.Errorf("%d left in the trash", len(left))
	}
}

func testConcurrent(t *testing.T, open Opener) {
	root := t.TempDir()
	s := open(t, root)
	defer s.Close()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range 15 {
				raw := Tar(t, Entry{Name: "f", Body: fmt.Sprint((g + i) % 3)})
				info, err := s.Add(ctx, bytes.NewReader(raw), "")
				if err != nil {
					t.Error(err)
					return
				}
				id := fmt.Sprintf("c-%d-%d", g, i)
				if _, err := s.Create(ctx, id, []digest.Digest{info.DiffID}, layer.CreateOptions{}); err != nil {
					t.Error(err)
				}
				var out bytes.Buffer
				if err := s.Tar(ctx, info.DiffID, &out); err != nil || !bytes.Equal(out.Bytes(), raw) {
					t.Errorf("held layer is not whole: %v", err)
				}
				s.Release(info.DiffID)
				if err := s.Remove(id); err != nil {
					t.Error(err)
				}
			}
		}()
	}
	wg.Wait()
	s.WaitTrash(ctx)
	for _, dir := range []string{"d", "c", "tmp", "trash"} {
		if left, _ := os.ReadDir(filepath.Join(root, dir)); len(left) != 0 {
			t.Errorf("left in %s: %v", dir, left)
		}
	}
}

func testOpaqueRoot(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a := add(t, s, Entry{Name: "below", Body: "1"})
	b := add(t, s, Entry{Name: ".wh..wh..opq"}, Entry{Name: "i/m/plied", Body: "2"})
	create(t, s, "c", a, b)
	want(t, look(t, s, "c"), "i/", "i/m/", "i/m/plied=2")
}

func testBadIDs(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	for _, id := range []string{"", ".", "..", "../x", "a/b", "a\x00b", strings.Repeat("x", 200)} {
		if _, err := s.Create(ctx, id, nil, layer.CreateOptions{}); fault.KindOf(err) != fault.Invalid {
			t.Errorf("create %q: %v", id, err)
		}
		if err := s.Remove(id); fault.KindOf(err) != fault.Invalid {
			t.Errorf("remove %q: %v", id, err)
		}
	}
}

// A file that two layers have: the container sees the upper one, and changes below stay where they are.
func testOverlapping(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	a, b := add(t, s, Entry{Name: "f", Body: "a"}), add(t, s, Entry{Name: "f", Body: "b"})
	create(t, s, "ab", a, b)
	create(t, s, "ba", b, a)
	want(t, look(t, s, "ab"), "f=b")
	want(t, look(t, s, "ba"), "f=a")
	s.WithMount(ctx, "ab", false, func(root *tree.Dir) error { return os.WriteFile(root.Path()+"/f", []byte("c"), 0o644) })
	want(t, look(t, s, "ab"), "f=c")
	want(t, look(t, s, "ba"), "f=a")
}

func testReadOnlyMount(t *testing.T, open Opener) {
	s := open(t, t.TempDir())
	defer s.Close()
	create(t, s, "c", add(t, s, Entry{Name: "f", Body: "a"}))
	err := s.WithMount(ctx, "c", false, func(*tree.Dir) error {
		return s.WithMount(ctx, "c", true, func(root *tree.Dir) error {
			if err := os.WriteFile(root.Path()+"/x", nil, 0o644); err == nil {
				t.Error("wrote to a read-only mount")
			}
			return nil
		})
	})
	if err != nil {
		t.Error(err)
	}
}
