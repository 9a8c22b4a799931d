package file

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/kernel/tree"
)

func copyOf(src, dest string, change ...func(*pb.FileActionCopy)) *pb.FileActionCopy {
	a := &pb.FileActionCopy{Src: src, Dest: dest, Mode: -1, Timestamp: -1, CreateDestPath: true}
	for _, c := range change {
		c(a)
	}
	return a
}

// dockerfile is what a Dockerfile's COPY asks for beside its paths.
func dockerfile(a *pb.FileActionCopy) {
	a.AllowWildcard, a.AllowEmptyWildcard, a.DirCopyContents, a.FollowSymlink = true, true, true, true
}

// A file may have more names than the file system of the copy has room for: 65,000 on ext4, here two. It becomes several files then.
func TestMoreNamesThanTheFileSystemAllows(t *testing.T) {
	src, dst := grow(t, "d/a 640 0:0 A", "d/b == d/a", "d/c == d/a", "d/s/", "d/s/d == d/a", "d/s/e == d/a"), grow(t)
	c, err := newCopier(t.Context(), src, place{root: dst}, copyOf("/d", "/", dockerfile), nil)
	need(t, err)
	c.hardlink = func(to, from *tree.Dir, oldName, name string) error {
		st, err := from.Stat(oldName)
		need(t, err)
		if st.Nlink >= 2 {
			return &fs.PathError{Op: "link", Path: name, Err: unix.EMLINK}
		}
		return to.Link(from, oldName, name)
	}
	need(t, c.match("d", "/", true, true))
	if got, want := dump(t, dst), "a 640 0:0 A\nb == a\nc 640 0:0 A\ns/ 755 0:0\ns/d == c\ns/e 640 0:0 A"; got != want {
		t.Errorf("%s", got)
	}
}

func TestCopy(t *testing.T) {
	root(t)
	source := []string{"a/x 640 1:2 X", "a/sub/y 755 3:4 Y", "a/empty/ 700 5:6", "b 600 0:0 B", "l -> a/x", "la -> a", "abs -> /a/x", "s 4755 0:0 S"}
	own := &owner{7, 8}
	tests := []struct {
		name string
		src  []string // source, when nil
		dst  []string
		op   *pb.FileActionCopy
		own  *owner
		want string // of the destination
		err  string
	}{
		{name: "file to name", op: copyOf("/b", "/c", dockerfile), want: "c 600 0:0 B"},
		{name: "file into new directory", op: copyOf("/b", "/d/", dockerfile), want: "d/ 755 0:0\nd/b 600 0:0 B"},
		{name: "file into directory that is there", dst: []string{"d/ 700 9:9"}, op: copyOf("/b", "/d", dockerfile), want: "d/ 700 9:9\nd/b 600 0:0 B"},
		{name: "file below new directories", op: copyOf("/b", "/x/y/c", dockerfile), own: own, want: "x/ 755 7:8\nx/y/ 755 7:8\nx/y/c 600 7:8 B"},
		{name: "file to the root", op: copyOf("/b", "/", dockerfile), want: "b 600 0:0 B"},
		{name: "file replaces file", dst: []string{"c 644 0:0 old"}, op: copyOf("/b", "/c", dockerfile), want: "c 600 0:0 B"},
		{name: "file replaces what a link means", dst: []string{"real 644 0:0 old", "c -> real"}, op: copyOf("/b", "/c", dockerfile), want: "c -> real\nreal 600 0:0 B"},
		{name: "file through a link into a directory", dst: []string{"real/", "d -> /real"}, op: copyOf("/b", "/d/", dockerfile), want: "d -> /real\nreal/ 755 0:0\nreal/b 600 0:0 B"},
		{name: "file to where a dangling link points", dst: []string{"d -> /real/deep"}, op: copyOf("/b", "/d/c", dockerfile),
			want: "d -> /real/deep\nreal/ 755 0:0\nreal/deep/ 755 0:0\nreal/deep/c 600 0:0 B"},
		{name: "file over directory", dst: []string{"d/b/z"}, op: copyOf("/b", "/d/", dockerfile), err: "cannot replace to directory /d/b with file"},
		{name: "file over directory, always replaced", dst: []string{"d/b/z"}, op: copyOf("/b", "/d/", dockerfile, func(a *pb.FileActionCopy) { a.AlwaysReplaceExistingDestPaths = true }),
			want: "d/ 755 0:0\nd/b 600 0:0 B"},
		{name: "below a file", dst: []string{"f"}, op: copyOf("/b", "/f/c", dockerfile), err: "not a directory"},
		{name: "setuid stays", op: copyOf("/s", "/s", dockerfile), own: own, want: "s 4755 7:8 S"},

		{name: "contents of a directory", op: copyOf("/a", "/d", dockerfile), want: "d/ 755 0:0\nd/empty/ 700 5:6\nd/sub/ 755 0:0\nd/sub/y 755 3:4 Y\nd/x 640 1:2 X"},
		{name: "contents of a directory with an owner", op: copyOf("/a/", "/d/", dockerfile), own: own,
			want: "d/ 755 7:8\nd/empty/ 700 7:8\nd/sub/ 755 7:8\nd/sub/y 755 7:8 Y\nd/x 640 7:8 X"},
		{name: "contents into a directory that is there", dst: []string{"d/ 711 9:9", "d/x 600 9:9 old", "d/sub/ 700 9:9", "d/sub/keep"}, op: copyOf("/a", "/d", dockerfile),
			want: "d/ 711 9:9\nd/empty/ 700 5:6\nd/sub/ 755 0:0\nd/sub/keep 644 0:0\nd/sub/y 755 3:4 Y\nd/x 640 1:2 X"},
		{name: "a directory as itself", op: copyOf("/a", "/d/"), want: "d/ 755 0:0\nd/a/ 755 0:0\nd/a/empty/ 700 5:6\nd/a/sub/ 755 0:0\nd/a/sub/y 755 3:4 Y\nd/a/x 640 1:2 X"},
		{name: "a directory under a new name", op: copyOf("/a/empty", "/d"), want: "d/ 700 5:6"},
		{name: "all of the source", op: copyOf("/", "/", dockerfile),
			want: "a/ 755 0:0\na/empty/ 700 5:6\na/sub/ 755 0:0\na/sub/y 755 3:4 Y\na/x 640 1:2 X\nabs -> /a/x\nb 600 0:0 B\nl -> a/x\nla -> a\ns 4755 0:0 S"},
		{name: "directory over file", dst: []string{"d/sub 644"}, op: copyOf("/a", "/d", dockerfile), err: "cannot copy to non-directory: /d/sub"},
		{name: "directory over link to directory", dst: []string{"real/", "d/sub -> /real"}, op: copyOf("/a", "/d", dockerfile), err: "cannot copy to non-directory"},
		{name: "directory over file, always replaced", dst: []string{"d/sub 644", "d/x/y"}, op: copyOf("/a", "/d", dockerfile, func(a *pb.FileActionCopy) { a.AlwaysReplaceExistingDestPaths = true }),
			want: "d/ 755 0:0\nd/empty/ 700 5:6\nd/sub/ 755 0:0\nd/sub/y 755 3:4 Y\nd/x 640 1:2 X"},

		{name: "link is followed", op: copyOf("/l", "/c", dockerfile), want: "c 640 1:2 X"},
		{name: "absolute link is followed inside", op: copyOf("/abs", "/c", dockerfile), want: "c 640 1:2 X"},
		{name: "link is kept", op: copyOf("/l", "/c"), want: "c -> a/x"},
		{name: "directory behind a link", op: copyOf("/la", "/d", dockerfile), want: "d/ 755 0:0\nd/empty/ 700 5:6\nd/sub/ 755 0:0\nd/sub/y 755 3:4 Y\nd/x 640 1:2 X"},
		{name: "link on the way", op: copyOf("/la/sub/y", "/", dockerfile), want: "y 755 3:4 Y"},

		{name: "mode", op: copyOf("/a", "/d", dockerfile, func(a *pb.FileActionCopy) { a.Mode = 0o2710 }),
			want: "d/ 2710 0:0\nd/empty/ 2710 5:6\nd/sub/ 2710 0:0\nd/sub/y 2710 3:4 Y\nd/x 2710 1:2 X"},
		{name: "symbolic mode", op: copyOf("/a", "/d", dockerfile, func(a *pb.FileActionCopy) { a.ModeStr = "go-rwx,u+X" }),
			want: "d/ 755 0:0\nd/empty/ 700 5:6\nd/sub/ 700 0:0\nd/sub/y 700 3:4 Y\nd/x 600 1:2 X"},
		{name: "bad symbolic mode", op: copyOf("/a", "/d", dockerfile, func(a *pb.FileActionCopy) { a.ModeStr = "z+q" }), err: "mode"},

		{name: "wildcard", op: copyOf("/[ab]*", "/d/", dockerfile),
			want: "d/ 755 0:0\nd/abs 640 1:2 X\nd/b 600 0:0 B\nd/empty/ 700 5:6\nd/sub/ 755 0:0\nd/sub/y 755 3:4 Y\nd/x 640 1:2 X"},
		{name: "wildcard in the middle", op: copyOf("/*/s?b/*", "/", dockerfile), want: "y 755 3:4 Y"},
		{name: "wildcard without match", op: copyOf("/nope*", "/", dockerfile), want: ""},
		{name: "wildcard without match, refused", op: copyOf("/nope*", "/", func(a *pb.FileActionCopy) { a.AllowWildcard = true }), err: "/nope* not found"},
		{name: "missing", op: copyOf("/nope", "/", dockerfile), err: "/nope: no such file or directory"},
		{name: "destination not made", op: copyOf("/b", "/x/y", func(a *pb.FileActionCopy) { a.CreateDestPath = false }), err: "failed to stat /x/y"},

		{name: "include", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) { a.IncludePatterns = []string{"a/*/y"} }),
			want: "a/ 755 0:0\na/sub/ 755 0:0\na/sub/y 755 3:4 Y"},
		{name: "include what is required", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) {
			a.IncludePatterns, a.RequiredPaths = []string{"a/sub"}, []string{"/a/sub"}
		}), want: "a/ 755 0:0\na/sub/ 755 0:0\na/sub/y 755 3:4 Y"},
		{name: "required and missing", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) {
			a.IncludePatterns, a.RequiredPaths = []string{"a/nope"}, []string{"/a/nope"}
		}), err: `"/a/nope": not found`},
		{name: "exclude", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) { a.ExcludePatterns = []string{"a", "l*", "abs"} }), want: "b 600 0:0 B\ns 4755 0:0 S"},
		{name: "exclude with an exception", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) { a.ExcludePatterns = []string{"*", "!a/sub"} }),
			want: "a/ 755 0:0\na/sub/ 755 0:0\na/sub/y 755 3:4 Y"},
		{name: "include and exclude", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) {
			a.IncludePatterns, a.ExcludePatterns = []string{"a"}, []string{"**/y"}
		}), want: "a/ 755 0:0\na/empty/ 700 5:6\na/sub/ 755 0:0\na/x 640 1:2 X"},
		{name: "bad pattern", op: copyOf("/", "/", dockerfile, func(a *pb.FileActionCopy) { a.IncludePatterns = []string{"[z-a"} }), err: "includepatterns"},

		{name: "names of one file stay so", src: []string{"d/f 644 0:0 F", "d/g == d/f", "d/sub/", "d/sub/h == d/f", "other == d/f"}, op: copyOf("/d", "/", dockerfile),
			want: "f 644 0:0 F\ng == f\nsub/ 755 0:0\nsub/h == f"},
		{name: "source leads out", src: []string{"out -> ../../../../etc"}, op: copyOf("/out/passwd", "/", dockerfile), err: "no such file"},
		{name: "destination leads out", dst: []string{"out -> ../../../.."}, op: copyOf("/b", "/out/c", dockerfile), want: "c 600 0:0 B\nout -> ../../../.."},
		{name: "endless link", dst: []string{"x -> y", "y -> x"}, op: copyOf("/b", "/x/c", dockerfile), err: "too many levels"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			from := tt.src
			if from == nil {
				from = source
			}
			src, dst := grow(t, from...), grow(t, tt.dst...)
			before := dump(t, src)
			err := copyTo(t.Context(), src, place{root: dst}, tt.op, tt.own)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			need(t, err)
			if got := dump(t, dst); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if after := dump(t, src); after != before {
				t.Errorf("the source was changed:\n%s", after)
			}
		})
	}
}

func TestCopyTimes(t *testing.T) {
	src, dst := grow(t, "d/f 644"), grow(t)
	old := time.Unix(1000000000, 123456789)
	need(t, os.Chtimes(filepath.Join(real(t, src), "d/f"), old, old))
	need(t, os.Chtimes(filepath.Join(real(t, src), "d"), old, old))
	need(t, copyTo(t.Context(), src, place{root: dst}, copyOf("/", "/", dockerfile), nil))
	for _, p := range []string{"d", "d/f"} {
		fi, err := os.Stat(filepath.Join(real(t, dst), p))
		need(t, err)
		if !fi.ModTime().Equal(old.Truncate(time.Second)) { // layers have no fractions
			t.Errorf("%s: %v, want the original's time", p, fi.ModTime())
		}
	}
	need(t, copyTo(t.Context(), src, place{root: dst}, copyOf("/d", "/new/way/", dockerfile, func(a *pb.FileActionCopy) { a.Timestamp = 5e9 }), nil))
	for _, p := range []string{"new", "new/way", "new/way/f"} {
		fi, err := os.Stat(filepath.Join(real(t, dst), p))
		need(t, err)
		if fi.ModTime().Unix() != 5 {
			t.Errorf("%s: %v, want the time that was asked for", p, fi.ModTime())
		}
	}
}

func TestCopyXattrsAndNodes(t *testing.T) {
	root(t)
	src, dst := grow(t, "f 644 0:0 F", "d/"), grow(t)
	for _, p := range []string{"f", "d"} {
		if err := syscall.Setxattr(filepath.Join(real(t, src), p), "user.berth", []byte("v-"+p), 0); err != nil {
			t.Skip("needs user xattrs on the temporary directory's file system:", err)
		}
	}
	need(t, syscall.Setxattr(filepath.Join(real(t, src), "f"), "trusted.overlay.opaque", []byte("y"), 0))
	need(t, syscall.Mkfifo(filepath.Join(real(t, src), "p"), 0o600))
	need(t, syscall.Chmod(filepath.Join(real(t, src), "p"), 0o622))
	need(t, syscall.Mknod(filepath.Join(real(t, src), "null"), syscall.S_IFCHR|0o600, 1<<8|3))
	need(t, syscall.Mknod(filepath.Join(real(t, src), "sock"), syscall.S_IFSOCK|0o700, 0))
	need(t, copyTo(t.Context(), src, place{root: dst}, copyOf("/", "/", dockerfile), nil))
	want := "d/ 755 0:0\nf 644 0:0 F\nnull Dc--------- 600 0:0\np p--------- 622 0:0\nsock 700 0:0"
	if got := dump(t, dst); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	b := make([]byte, 100)
	for _, p := range []string{"f", "d"} {
		n, err := syscall.Getxattr(filepath.Join(real(t, dst), p), "user.berth", b)
		if err != nil || string(b[:n]) != "v-"+p {
			t.Errorf("%s: attribute %q, %v", p, b[:max(n, 0)], err)
		}
	}
	if _, err := syscall.Getxattr(filepath.Join(real(t, dst), "f"), "trusted.overlay.opaque", b); err == nil {
		t.Error("a mark of overlayfs was copied")
	}
}

func TestCopyLargeAndSparse(t *testing.T) {
	src, dst := grow(t), grow(t)
	content := []byte(strings.Repeat("0123456789abcdef", (3<<20)/16+1))
	need(t, os.WriteFile(filepath.Join(real(t, src), "large"), content, 0o644))
	f, err := os.Create(filepath.Join(real(t, src), "sparse"))
	need(t, err)
	_, err = f.WriteAt([]byte("middle"), 8<<20)
	need(t, err)
	need(t, f.Truncate(32<<20))
	need(t, f.Close())
	need(t, copyTo(t.Context(), src, place{root: dst}, copyOf("/", "/", dockerfile), nil))
	got, err := os.ReadFile(filepath.Join(real(t, dst), "large"))
	need(t, err)
	if string(got) != string(content) {
		t.Error("a large file differs")
	}
	fi, err := os.Stat(filepath.Join(real(t, dst), "sparse"))
	need(t, err)
	if st := fi.Sys().(*syscall.Stat_t); fi.Size() != 32<<20 || st.Blocks*512 > 4<<20 {
		t.Errorf("a sparse file has %d bytes in %d blocks", fi.Size(), st.Blocks)
	}
	got, err = os.ReadFile(filepath.Join(real(t, dst), "sparse"))
	need(t, err)
	if string(got[8<<20:8<<20+6]) != "middle" {
		t.Error("a sparse file lost its data")
	}
}

func TestCopyIsCancelled(t *testing.T) {
	src, dst := grow(t, "a", "b"), grow(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := copyTo(ctx, src, place{root: dst}, copyOf("/", "/", dockerfile), nil); err == nil {
		t.Error("a cancelled copy went on")
	}
}
