package archive

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"berth/base/tarstream"
	"berth/kernel/tree"
)

// names lists an archive: name, type, link target.
func names(t testing.TB, archive []byte) (lines []string) {
	t.Helper()
	r := tar.NewReader(bytes.NewReader(archive))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%c %s", h.Typeflag, h.Name)
		if h.Linkname != "" {
			line += " -> " + h.Linkname
		}
		if h.Size > 0 {
			b, _ := io.ReadAll(r)
			line += " = " + string(b)
		}
		lines = append(lines, line)
	}
}

func TestDiffWritesWhiteoutsBack(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	d := openTree(t, root)
	os.Mkdir(filepath.Join(root, "opq"), 0o755)
	os.Mkdir(filepath.Join(root, "dir"), 0o755)
	os.WriteFile(filepath.Join(root, "dir/f"), []byte("hi"), 0o644)
	os.Link(filepath.Join(root, "dir/f"), filepath.Join(root, "h"))
	os.Symlink("/x", filepath.Join(root, "l"))
	d.Mknod("gone", tree.TypeChar, 0, 0)
	d.Mknod("null", tree.TypeChar|0o666, 1, 3)
	l, err := net.Listen("unix", filepath.Join(root, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d.SetXattr("opq", "trusted.overlay.opaque", []byte("y"))
	var b bytes.Buffer
	if err := Diff(context.Background(), d, &b, WriteOptions{Whiteouts: Overlay}); err != nil {
		t.Fatal(err)
	}
	want := []string{"5 dir/", "0 dir/f = hi", "0 .wh.gone", "1 h -> dir/f", "2 l -> /x", "3 null", "5 opq/", "0 opq/.wh..wh..opq"}
	if got := names(t, b.Bytes()); !slices.Equal(got, want) {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
}

func TestDiffIsReproducibleAndRoundTrips(t *testing.T) {
	needRoot(t)
	long := strings.Repeat("long/", 40)
	archive := pack(t, dirOf("d/"), file("d/a", "A"), link("d/b", "d/a"), file(".wh.gone", ""), dirOf("o/"), file("o/.wh..wh..opq", ""),
		item{name: long + "f", body: "x", h: tar.Header{Uid: 4000000000, Mode: 0o4755}},
		item{name: "caps", body: "x", h: tar.Header{PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v"}}})
	var before []byte
	for range 3 {
		root, _, err := apply(t, archive, ApplyOptions{Whiteouts: Overlay})
		if err != nil {
			t.Fatal(err)
		}
		// Implied directories get the time of unpacking.
		filepath.WalkDir(root, func(p string, e os.DirEntry, err error) error {
			if e.IsDir() {
				os.Chtimes(p, time.Unix(5, 0), time.Unix(5, 0))
			}
			return nil
		})
		var b bytes.Buffer
		if err := Diff(context.Background(), openTree(t, root), &b, WriteOptions{Whiteouts: Overlay}); err != nil {
			t.Fatal(err)
		}
		if before != nil && !bytes.Equal(before, b.Bytes()) {
			t.Fatal("two archives of equal trees differ")
		}
		before = b.Bytes()
		again, _, err := apply(t, b.Bytes(), ApplyOptions{Whiteouts: Overlay})
		if err != nil {
			t.Fatal(err)
		}
		if x, y := list(t, root), list(t, again); !slices.Equal(x, y) {
			t.Errorf("\n one %q\n two %q", x, y)
		}
	}
}

func TestDiffOfSparseFileReadsNoHoles(t *testing.T) {
	root := t.TempDir()
	f, _ := os.Create(filepath.Join(root, "s"))
	f.WriteAt([]byte("data"), 3<<20)
	f.Truncate(8 << 20)
	f.Close()
	var b bytes.Buffer
	if err := Diff(context.Background(), openTree(t, root), &b, WriteOptions{}); err != nil {
		t.Fatal(err)
	}
	r := tar.NewReader(&b)
	h, err := r.Next()
	if err != nil || h.Size != 8<<20 {
		t.Fatalf("%+v %v", h, err)
	}
	got, _ := io.ReadAll(r)
	want := make([]byte, 8<<20)
	copy(want[3<<20:], "data")
	if !bytes.Equal(got, want) {
		t.Error("content differs")
	}
}

func TestTreeOfOnePath(t *testing.T) {
	root := t.TempDir()
	os.MkdirAll(filepath.Join(root, "etc/d"), 0o755)
	os.WriteFile(filepath.Join(root, "etc/d/f"), []byte("1"), 0o600)
	os.Symlink("etc", filepath.Join(root, "l"))
	os.Symlink("/etc/passwd", filepath.Join(root, "etc/out"))
	d := openTree(t, root)
	for _, c := range []struct {
		rel, name string
		want      []string
	}{
		{"etc/d/f", "f", []string{"0 f = 1"}},
		{"etc", "x", []string{"5 x/", "5 x/d/", "0 x/d/f = 1", "2 x/out -> /etc/passwd"}},
		{"l/d", "d", []string{"5 d/", "0 d/f = 1"}},
		{"l", "l", []string{"2 l -> etc"}},
		{"etc/out", "out", []string{"2 out -> /etc/passwd"}},
		{"", "", []string{"5 etc/", "5 etc/d/", "0 etc/d/f = 1", "2 etc/out -> /etc/passwd", "2 l -> etc"}},
		{"/", "r", []string{"5 r/", "5 r/etc/", "5 r/etc/d/", "0 r/etc/d/f = 1", "2 r/etc/out -> /etc/passwd", "2 r/l -> etc"}},
	} {
		var b bytes.Buffer
		if err := Tree(context.Background(), d, c.rel, c.name, &b, WriteOptions{}); err != nil {
			t.Errorf("%s: %v", c.rel, err)
			continue
		}
		if got := names(t, b.Bytes()); !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.rel, got, c.want)
		}
	}
	if err := Tree(context.Background(), d, "none", "x", io.Discard, WriteOptions{}); !tree.Missing(err) {
		t.Errorf("%v", err)
	}
}

// A layer of the largest kind of owners and times must not be refused by our own reader.
func TestDiffIsReadByApply(t *testing.T) {
	needRoot(t)
	root := t.TempDir()
	p := filepath.Join(root, "f")
	os.WriteFile(p, []byte("x"), 0o644)
	os.Chown(p, 4294967294, 4294967294)
	os.Chtimes(p, time.Unix(1<<33, 0), time.Unix(1<<33, 0))
	var b bytes.Buffer
	if err := Diff(context.Background(), openTree(t, root), &b, WriteOptions{Nanoseconds: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := Apply(context.Background(), openTree(t, t.TempDir()), tarstream.FromReader(&b), ApplyOptions{}); err != nil {
		t.Error(err)
	}
}
