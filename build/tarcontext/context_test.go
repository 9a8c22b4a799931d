package tarcontext

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"

	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/base/fault"
)

// entry is one header of a tar and its content.
type entry struct {
	tar.Header
	content string
}

func file(name, content string) entry {
	return entry{tar.Header{Name: name, Mode: 0o640, Uid: 7, Size: int64(len(content))}, content}
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, e.content)
	}
	w.Close()
	return b.Bytes()
}

// list walks a context: a line for each name, with what is in it.
func list(t testing.TB, f fsutil.FS, target string) string {
	t.Helper()
	var b strings.Builder
	err := f.Walk(context.Background(), target, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*fstypes.Stat)
		fmt.Fprintf(&b, "%s %s %d", name, fs.FileMode(st.Mode), st.Uid)
		if st.Linkname != "" {
			fmt.Fprintf(&b, " -> %s", st.Linkname)
		}
		if fs.FileMode(st.Mode).IsRegular() && st.Linkname == "" {
			r, err := f.Open(name)
			if err != nil {
				return err
			}
			defer r.Close()
			content, err := io.ReadAll(r)
			if err != nil || int64(len(content)) != st.Size {
				t.Errorf("%s: %d bytes of %d, %v", name, len(content), st.Size, err)
			}
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteString("\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestContext(t *testing.T) {
	raw := tarOf(t,
		file("z", "last"), file("./a-b", "dash"), file("a/x", "replaced"), file("/a/x", "in a"),
		entry{Header: tar.Header{Name: "a/", Typeflag: tar.TypeDir, Mode: 0o700}},
		entry{Header: tar.Header{Name: "link", Typeflag: tar.TypeSymlink, Linkname: "../../etc/passwd"}},
		entry{Header: tar.Header{Name: "again", Typeflag: tar.TypeLink, Linkname: "z"}},
		file(strings.Repeat("long/", 40)+"name", "deep"),
	)
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write(raw)
	z.Close()
	want := `a drwx------ 0
a/x -rw-r----- 0 "in a"
a-b -rw-r----- 0 "dash"
again -rw-r----- 0 "last"
link Lrwxrwxrwx 0 -> ../../etc/passwd
`
	for what, b := range map[string][]byte{"plain": raw, "gzip": packed.Bytes()} {
		dir := t.TempDir()
		c, err := Read(context.Background(), bytes.NewReader(b), dir)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		got := list(t, c.FS(), "")
		if !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "name -rw-r----- 0 \"deep\"\nz -rw-r----- 0 -> again\n") {
			t.Errorf("%s:\n%s", what, got)
		}
		if got := list(t, c.FS(), "a"); got != "a drwx------ 0\na/x -rw-r----- 0 \"in a\"\n" {
			t.Errorf("%s: below a:\n%s", what, got)
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: %v is left", what, left)
		}
		for _, name := range []string{"nosuch", "a", "link", "../z"} {
			if _, err := c.FS().Open(name); err == nil {
				t.Errorf("%s: %s opened", what, name)
			}
		}
		c.Close()
	}
}

func TestSkip(t *testing.T) {
	c, err := Read(context.Background(), bytes.NewReader(tarOf(t, file("a/1", ""), file("a/2", ""), file("b/1", ""), file("b/2", ""), file("c", ""))), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var seen []string
	c.FS().Walk(context.Background(), "", func(name string, d fs.DirEntry, err error) error {
		seen = append(seen, name)
		switch name {
		case "a", "b/1":
			return fs.SkipDir
		}
		return nil
	})
	if got := strings.Join(seen, " "); got != "a b b/1 c" {
		t.Error(got)
	}
}

// TestUnclean: names mean what they mean to a file system whose root this is, as in Docker.
func TestUnclean(t *testing.T) {
	c, err := Read(context.Background(), bytes.NewReader(tarOf(t, file("../x", "1"), file("/y", "2"), file("a/../../../b/z", "3"), file("./..", ""),
		entry{Header: tar.Header{Name: "b/l", Typeflag: tar.TypeLink, Linkname: "../../x"}})), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string]string{"x": "1", "y": "2", "b/z": "3", "b/l": "1"} {
		f, err := c.FS().Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if b, err := io.ReadAll(f); err != nil || string(b) != want {
			t.Errorf("%s: %q %v", name, b, err)
		}
		f.Close()
	}
}

func TestRefused(t *testing.T) {
	for what, b := range map[string][]byte{
		"no target": tarOf(t, entry{Header: tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "nosuch"}}),
		"no tar":    []byte("FROM busybox\n" + strings.Repeat("RUN true\n", 200)),
		"torn":      tarOf(t, file("x", strings.Repeat("x", 5000)))[:3000],
		"too deep":  tarOf(t, file(strings.Repeat("d/", maxDepth+1)+"x", "")),
	} {
		dir := t.TempDir()
		c, err := Read(context.Background(), bytes.NewReader(b), dir)
		if err == nil {
			c.Close()
			t.Errorf("%s: accepted", what)
		} else if fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v is of kind %v", what, err, fault.KindOf(err))
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("%s: %v is left", what, left)
		}
	}
	c, err := Read(context.Background(), bytes.NewReader(nil), t.TempDir())
	if err != nil {
		t.Fatalf("nothing at all: %v", err)
	}
	c.Close()
}

// FuzzRead feeds streams; whatever is accepted must walk, in order, and stay inside.
func FuzzRead(f *testing.F) {
	f.Add(tarOf(f, file("a/x", "1"), file("b", "2"), entry{Header: tar.Header{Name: "c", Typeflag: tar.TypeLink, Linkname: "b"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Read(context.Background(), bytes.NewReader(b), t.TempDir())
		if err != nil {
			return
		}
		defer c.Close()
		seen := map[string]bool{"": true}
		c.FS().Walk(context.Background(), "", func(name string, d fs.DirEntry, err error) error {
			if dir := path.Dir("/" + name)[1:]; !seen[dir] || seen[name] || path.Clean("/"+name) != "/"+name {
				t.Errorf("%q comes out of order or is no clean name", name)
			}
			seen[name] = true
			return err
		})
	})
}
