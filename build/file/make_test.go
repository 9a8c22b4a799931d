package file

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/kernel/tree"
)

func TestMake(t *testing.T) {
	root(t)
	own := &owner{7, 8}
	mkdirOf := func(p string, parents bool) func(*tree.Dir) error {
		return func(d *tree.Dir) error {
			return mkdir(d, &pb.FileActionMkDir{Path: p, Mode: 0o775, MakeParents: parents, Timestamp: -1}, own)
		}
	}
	mkfileOf := func(p string) func(*tree.Dir) error {
		return func(d *tree.Dir) error {
			return mkfile(d, &pb.FileActionMkFile{Path: p, Mode: 0o100666, Data: []byte("new"), Timestamp: -1}, own)
		}
	}
	symlinkOf := func(old, p string) func(*tree.Dir) error {
		return func(d *tree.Dir) error {
			return symlink(d, &pb.FileActionSymlink{Oldpath: old, Newpath: p, Timestamp: 0}, own)
		}
	}
	rmOf := func(p string, change ...func(*pb.FileActionRm)) func(*tree.Dir) error {
		return func(d *tree.Dir) error {
			a := &pb.FileActionRm{Path: p}
			for _, c := range change {
				c(a)
			}
			return rm(d, a)
		}
	}
	wild := func(a *pb.FileActionRm) { a.AllowWildcard = true }
	maybe := func(a *pb.FileActionRm) { a.AllowNotFound = true }
	tests := []struct {
		name string
		dst  []string
		do   func(*tree.Dir) error
		want string
		err  string
	}{
		{name: "mkdir", do: mkdirOf("/d", false), want: "d/ 775 7:8"},
		{name: "mkdir that is there", dst: []string{"d/ 700 1:1"}, do: mkdirOf("/d", false), want: "d/ 700 1:1"},
		{name: "mkdir without parent", do: mkdirOf("/a/d", false), err: "no such file"},
		{name: "mkdir over a file, ignored as in BuildKit's", dst: []string{"d 644 0:0 F"}, do: mkdirOf("/d", false), want: "d 644 0:0 F"},
		{name: "mkdir with parents", dst: []string{"a/ 700 1:1"}, do: mkdirOf("/a/b/c", true), want: "a/ 700 1:1\na/b/ 775 7:8\na/b/c/ 775 7:8"},
		{name: "mkdir with parents that is there", dst: []string{"a/ 700 1:1"}, do: mkdirOf("/a", true), want: "a/ 700 1:1"},
		{name: "mkdir with parents through a link", dst: []string{"a -> /real", "real/"}, do: mkdirOf("/a/b", true), want: "a -> /real\nreal/ 755 0:0\nreal/b/ 775 7:8"},
		{name: "mkdir with parents below a file", dst: []string{"a 644"}, do: mkdirOf("/a/b", true), err: "not a directory"},
		{name: "mkdir of the root", do: mkdirOf("/", true), want: ""},
		{name: "mkfile", do: mkfileOf("/f"), want: "f 666 7:8 new"},
		{name: "mkfile over a file", dst: []string{"f 600 0:0 old"}, do: mkfileOf("f"), want: "f 666 7:8 new"},
		{name: "mkfile through a link", dst: []string{"f -> ../g"}, do: mkfileOf("/f"), want: "f -> ../g\ng 666 7:8 new"},
		{name: "mkfile over a directory", dst: []string{"f/"}, do: mkfileOf("/f"), err: "f: "},
		{name: "mkfile of the root", do: mkfileOf("/"), err: "is a directory"},
		{name: "mkfile without parent", do: mkfileOf("/a/f"), err: "no such file"},
		{name: "symlink", do: symlinkOf("/anywhere", "/l"), want: "l -> /anywhere"},
		{name: "symlink over a file", dst: []string{"l 644"}, do: symlinkOf("x", "/l"), err: "file exists"},
		{name: "rm", dst: []string{"a/b 644", "c"}, do: rmOf("/a"), want: "c 644 0:0"},
		{name: "rm of nothing", do: rmOf("/a"), err: "no such file"},
		{name: "rm of nothing, allowed", do: rmOf("/a/b", maybe), want: ""},
		{name: "rm of a link", dst: []string{"real/x 644", "l -> real"}, do: rmOf("/l"), want: "real/ 755 0:0\nreal/x 644 0:0"},
		{name: "rm behind a link", dst: []string{"real/x 644", "l -> real"}, do: rmOf("/l/x"), want: "l -> real\nreal/ 755 0:0"},
		{name: "rm by pattern", dst: []string{"a1", "a2/x", "b"}, do: rmOf("/a?", wild), want: "b 644 0:0"},
		{name: "rm by pattern without match", do: rmOf("/a?", wild), want: ""},
		{name: "rm of the root", do: rmOf("/"), err: "root"},
		{name: "rm outside", dst: []string{"b"}, do: rmOf("/../../../../b"), want: ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dst := grow(t, tt.dst...)
			err := tt.do(dst)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if got := dump(t, dst); tt.err == "" && got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
			if got := dump(t, dst); strings.Contains(got, ".tmp-") {
				t.Errorf("something was left:\n%s", got)
			}
		})
	}
}

// A device that stands where a file is to be written is replaced; the host's device is not touched.
func TestMkfileReplacesDevices(t *testing.T) {
	root(t)
	dst := grow(t)
	p := filepath.Join(real(t, dst), "null")
	if err := syscall.Mknod(p, syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Skip("needs mknod:", err)
	}
	need(t, mkfile(dst, &pb.FileActionMkFile{Path: "/null", Mode: 0o644, Data: []byte("x"), Timestamp: 1e18}, nil))
	fi, err := os.Lstat(p)
	need(t, err)
	if !fi.Mode().IsRegular() || fi.Size() != 1 || fi.ModTime().Unix() != 1e9 {
		t.Errorf("%v of %d bytes, %v", fi.Mode(), fi.Size(), fi.ModTime())
	}
}

func TestOwner(t *testing.T) {
	users := grow(t, "etc/passwd 644 0:0 root:x:0:0::/:/bin/sh\nwww:x:33:34::/:/bin/sh\n", "etc/group 644 0:0 root:x:0:\nstaff:x:50:\n")
	linked := grow(t, "etc/passwd -> ../../../../../etc/group")
	empty := grow(t)
	trees := []*tree.Dir{users, linked, empty}
	in := func(n int64, read func(*tree.Dir) error) error { return read(trees[n]) }
	name := func(s string, input int64) *pb.UserOpt {
		return &pb.UserOpt{User: &pb.UserOpt_ByName{ByName: &pb.NamedUserOpt{Name: s, Input: input}}}
	}
	id := func(n uint32) *pb.UserOpt { return &pb.UserOpt{User: &pb.UserOpt_ByID{ByID: n}} }
	tests := []struct {
		name string
		opt  *pb.ChownOpt
		want *owner
	}{
		{"none", nil, nil},
		{"by id", &pb.ChownOpt{User: id(5)}, &owner{5, 5}},
		{"by ids", &pb.ChownOpt{User: id(5), Group: id(6)}, &owner{5, 6}},
		{"group alone", &pb.ChownOpt{Group: id(6)}, &owner{0, 6}},
		{"by name", &pb.ChownOpt{User: name("www", 0)}, &owner{33, 34}},
		{"by names", &pb.ChownOpt{User: name("www", 0), Group: name("staff", 0)}, &owner{33, 50}},
		{"id and group's name", &pb.ChownOpt{User: id(9), Group: name("staff", 0)}, &owner{9, 50}},
		{"unknown", &pb.ChownOpt{User: name("nobodyknows", 0), Group: name("nor", 0)}, &owner{0, 0}},
		{"no file", &pb.ChownOpt{User: name("www", 2)}, &owner{0, 0}},
		{"a link out of the tree", &pb.ChownOpt{User: name("daemon", 1)}, &owner{0, 0}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ownerOf(tt.opt, in)
			need(t, err)
			if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
