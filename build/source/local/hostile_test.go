package local

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
)

// liar is a client that sends what a test wants.
type liar struct {
	filesync.UnimplementedFileSyncServer
	say func(s filesync.FileSync_DiffCopyServer) error
}

func (l *liar) Register(s *grpc.Server) { filesync.RegisterFileSyncServer(s, l) }

func (l *liar) DiffCopy(s filesync.FileSync_DiffCopyServer) error { return l.say(s) }

func dir(path string) *types.Stat {
	return &types.Stat{Path: path, Mode: uint32(fs.ModeDir | 0o755)}
}
func file_(path string) *types.Stat { return &types.Stat{Path: path, Mode: 0o644, Size: 3} }
func link(path, to string) *types.Stat {
	return &types.Stat{Path: path, Mode: uint32(fs.ModeSymlink | 0o777), Linkname: to}
}
func hard(path, to string) *types.Stat { return &types.Stat{Path: path, Mode: 0o644, Linkname: to} }

// sends gives a client that sends this list, and "abc" for every file it is asked for.
func sends(list ...*types.Stat) *liar {
	return &liar{say: func(s filesync.FileSync_DiffCopyServer) error {
		for _, st := range append(list, nil) {
			if err := s.Send(&types.Packet{Type: types.PACKET_STAT, Stat: st}); err != nil {
				return err
			}
		}
		return answer(s)
	}}
}

func answer(s filesync.FileSync_DiffCopyServer) error {
	for {
		p, err := s.Recv()
		if err != nil {
			return err
		}
		switch p.Type {
		case types.PACKET_REQ:
			for _, data := range []string{"abc", ""} {
				if err := s.Send(&types.Packet{Type: types.PACKET_DATA, ID: p.ID, Data: []byte(data)}); err != nil {
					return err
				}
			}
		case types.PACKET_FIN:
			return s.Send(&types.Packet{Type: types.PACKET_FIN})
		case types.PACKET_ERR:
			return fmt.Errorf("the receiver says %s", p.Data)
		}
	}
}

func TestHostileLists(t *testing.T) {
	outside := t.TempDir()
	for _, x := range []struct {
		name, want string
		list       []*types.Stat
	}{
		{"up", "without its directory", []*types.Stat{file_("../x")}},
		{"up alone", "sent the path", []*types.Stat{dir("..")}},
		{"up inside", "without its directory", []*types.Stat{dir("a"), file_("a/../../x")}},
		{"absolute", "sent the path", []*types.Stat{file_("/etc/x")}},
		{"absolute directory", "without its directory", []*types.Stat{dir("a"), file_("b//x")}},
		{"empty", "sent the path", []*types.Stat{file_("")}},
		{"dot", "sent the path", []*types.Stat{dir("."), file_("./x")}},
		{"trailing slash", "sent the path", []*types.Stat{dir("a/")}},
		{"nul", "sent the path", []*types.Stat{file_("a\x00b")}},
		{"below a file", "without its directory", []*types.Stat{file_("a"), file_("a/b")}},
		{"below a link", "without its directory", []*types.Stat{link("a", outside), file_("a/b")}},
		{"below nothing", "without its directory", []*types.Stat{file_("a/b")}},
		{"left directory", "out of order", []*types.Stat{dir("a"), dir("b"), file_("a/c")}},
		{"twice", "out of order", []*types.Stat{file_("a"), file_("a")}},
		{"a link and then a directory", "out of order", []*types.Stat{link("a", outside), dir("a"), file_("a/b")}},
		{"order", "out of order", []*types.Stat{file_("b"), file_("a")}},
		{"name of nothing", "unknown path", []*types.Stat{hard("a", "/etc/passwd")}},
		{"name of what comes later", "unknown path", []*types.Stat{hard("a", "b"), file_("b")}},
		{"name of a link", "unknown path", []*types.Stat{link("a", outside), hard("b", "a")}},
		{"name of a directory", "unknown path", []*types.Stat{dir("a"), hard("b", "a")}},
		{"whiteout", "device 0/0", []*types.Stat{{Path: "a", Mode: uint32(fs.ModeDevice | fs.ModeCharDevice)}}},
		{"two kinds", "of a kind", []*types.Stat{{Path: "a", Mode: uint32(fs.ModeDir | fs.ModeSymlink), Linkname: outside}, file_("a/b")}},
		{"no kind", "of a kind", []*types.Stat{{Path: "a", Mode: uint32(fs.ModeIrregular)}}},
		{"long name", "", []*types.Stat{file_(strings.Repeat("x", 300))}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, m := newStore(t)
			c := dialWith(t, m, "key", sends(x.list...))
			tr, err := c.try(s, Request{})
			if err == nil {
				tr.Close()
				t.Fatalf("accepted: %v", look(t, tr.Dir()))
			}
			if !strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want %q", err, x.want)
			}
			if left := look(t, outside); len(left) > 0 {
				t.Errorf("written outside: %v", left)
			}
		})
	}
}

// TestHostileMarks: attributes that overlayfs reads are not taken over.
func TestHostileMarks(t *testing.T) {
	s, m := newStore(t)
	st := dir("a")
	st.Xattrs = map[string][]byte{"trusted.overlay.opaque": []byte("y"), "user.overlay.redirect": []byte("/x"), "user.mine": []byte("1"), "security.selinux": []byte("x")}
	tr := dialWith(t, m, "key", sends(st, file_("a/b"))).sync(s, Request{})
	defer tr.Close()
	e := tr.Index().At(0)
	if len(e.Xattrs) != 1 || e.Xattrs[0].Name != "user.mine" {
		t.Errorf("attributes in the index: %v", e.Xattrs)
	}
	if raw, err := os.ReadFile(filepath.Join(tr.Dir(), "a/b")); string(raw) != "abc" {
		t.Errorf("%q %v", raw, err)
	}
}

// TestHostileData: bytes that nobody asked for, files without an end, clients that leave.
func TestHostileData(t *testing.T) {
	stat := func(s filesync.FileSync_DiffCopyServer, list ...*types.Stat) {
		for _, st := range list {
			_ = s.Send(&types.Packet{Type: types.PACKET_STAT, Stat: st})
		}
	}
	data := func(s filesync.FileSync_DiffCopyServer, id uint32, text string) {
		_ = s.Send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte(text)})
	}
	for _, x := range []struct {
		name, want string
		say        func(s filesync.FileSync_DiffCopyServer) error
	}{
		{"data for nothing", "invalid file request 7", func(s filesync.FileSync_DiffCopyServer) error {
			data(s, 7, "x")
			return answer(s)
		}},
		{"data after the end", "invalid file request 0", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, file_("a"))
			for _, text := range []string{"x", "", "y"} {
				data(s, 0, text)
			}
			return answer(s)
		}},
		{"data for a directory", "invalid file request 0", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, dir("a"))
			data(s, 0, "x")
			return answer(s)
		}},
		{"files after the last", "after the last", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, file_("a"), nil, file_("b"))
			return answer(s)
		}},
		{"an error", "error from sender: no such thing", func(s filesync.FileSync_DiffCopyServer) error {
			_ = s.Send(&types.Packet{Type: types.PACKET_ERR, Data: []byte("no such thing")})
			_, err := s.Recv()
			return err
		}},
		{"goes in the list", "ended the transfer early", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, file_("a"))
			return nil
		}},
		{"goes in a file", "ended the transfer early", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, file_("a"), nil)
			data(s, 0, "half")
			return nil
		}},
		{"ends early", "ended the transfer early", func(s filesync.FileSync_DiffCopyServer) error {
			stat(s, file_("a"))
			return s.Send(&types.Packet{Type: types.PACKET_FIN})
		}},
	} {
		t.Run(x.name, func(t *testing.T) {
			s, m := newStore(t)
			c := dialWith(t, m, "key", &liar{say: x.say})
			if _, err := c.try(s, Request{}); err == nil || !strings.Contains(err.Error(), x.want) {
				t.Errorf("got %v, want %q", err, x.want)
			}
		})
	}
}

// TestInterrupted: what has come before a client went away is not sent again, and nothing that had not is believed.
func TestInterrupted(t *testing.T) {
	s, m := newStore(t)
	root := t.TempDir()
	files := map[string]string{"a": "1", "b/c": "2", "b/d": "3", "e": "4"}
	write(t, root, files)
	if err := os.Link(filepath.Join(root, "e"), filepath.Join(root, "f")); err != nil {
		t.Fatal(err)
	}
	c := dial(t, m, root)
	c.sync(s, Request{}).Close()

	// A client of the same place that breaks off in the middle: a is new, b/c half there, the rest never compared.
	broken := dialWith(t, m, root, &liar{say: func(s filesync.FileSync_DiffCopyServer) error {
		for _, st := range []*types.Stat{file_("a"), dir("b"), file_("b/c")} {
			_ = s.Send(&types.Packet{Type: types.PACKET_STAT, Stat: st})
		}
		for _, id := range []uint32{0, 2} {
			_ = s.Send(&types.Packet{Type: types.PACKET_DATA, ID: id, Data: []byte("abc")})
		}
		_ = s.Send(&types.Packet{Type: types.PACKET_DATA, ID: 0})
		_, _ = s.Recv()
		return nil
	}})
	if _, err := broken.try(s, Request{}); err == nil {
		t.Fatal("half a context was accepted")
	}
	list, err := s.Usage(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatalf("the tree is gone: %v %v", list, err)
	}
	x, _, err := readIndex(s.path(list[0].ID, fileIndex))
	if err != nil {
		t.Fatal(err)
	}
	tr := &Tree{x: x, dir: s.path(list[0].ID, dirFS)}
	checkIndex(t, tr)
	if names := strings.Join(slices.Sorted(maps.Keys(look(t, tr.Dir()))), " "); names != "a b b/d e" {
		t.Errorf("the tree has %s", names)
	}
	good := c.sync(s, Request{})
	defer good.Close()
	mustEqual(t, good, root)
}

// TestManyRequests: what we ask for and what the client sends at the same time must not wait for each other.
func TestManyRequests(t *testing.T) {
	s, m := newStore(t)
	root := many(t, 20_000, 5)
	c := dial(t, m, root)
	done := make(chan *Tree, 1)
	go func() {
		tr, err := c.try(s, Request{})
		if err != nil {
			t.Error(err)
		}
		done <- tr
	}()
	select {
	case tr := <-done:
		if tr != nil {
			defer tr.Close()
			if n := tr.Index().Len(); n != 20_200 {
				t.Errorf("%d files", n)
			}
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the two sides wait for each other")
	}
}

func FuzzPacket(f *testing.F) {
	for _, p := range []*types.Packet{{Type: types.PACKET_STAT, Stat: file_("a/b")}, {Type: types.PACKET_DATA, ID: 7, Data: []byte("x")}, {Type: types.PACKET_STAT}} {
		raw, _ := p.MarshalVT()
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := parsePacket(raw)
		if err != nil {
			return
		}
		var want types.Packet
		if want.UnmarshalVT(raw) != nil {
			return // it is stricter, with what nobody sends
		}
		if want.ID != p.id || string(want.Data) != string(p.data) {
			t.Errorf("%+v, want %+v", p, &want)
		}
		st, err := parseStat(p.stat)
		if err != nil {
			return
		}
		if string(pathOf(p.stat)) != string(st.path) {
			t.Errorf("path %q, %q", pathOf(p.stat), st.path)
		}
		var o order
		if o.check(&st) == nil && !filepath.IsLocal(string(st.path)) {
			t.Errorf("%q was accepted", st.path)
		}
	})
}

func FuzzIndex(f *testing.F) {
	var b builder
	for _, st := range []*types.Stat{dir("a"), file_("a/b"), link("c", "x")} {
		raw, _ := st.MarshalVT()
		_, _ = b.add(raw, nil)
	}
	f.Add(b.list)
	f.Fuzz(func(t *testing.T, list []byte) {
		offsets, err := offsetsOf(list, nil)
		if err != nil {
			return
		}
		x := index{list: list, offsets: offsets}
		for i := range x.Len() {
			x.At(i)
		}
		x.Find("a")
	})
}
