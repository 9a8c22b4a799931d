package fuse

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/idmap"
	"berth/kernel/mount"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// memory is a file system with the files "f" (big), "slow" (waits), "bad" (EIO), "link", "null", and the directory "many".
type memory struct {
	names map[Node][]string
	nodes map[string]Node // by path
	attrs map[Node]Attr
	wait  chan struct{} // closed: "slow" may be read
	slow  atomic.Int32  // readers of it
}

const many = 3000

func newMemory() *memory {
	m := &memory{names: map[Node][]string{}, nodes: map[string]Node{}, attrs: map[Node]Attr{}, wait: make(chan struct{})}
	m.add("", unix.S_IFDIR|0o755, 0)
	m.add("f", unix.S_IFREG|0o640, 5<<20+3)
	m.add("slow", unix.S_IFREG|0o644, 10)
	m.add("bad", unix.S_IFREG|0o644, 10)
	m.add("link", unix.S_IFLNK|0o777, 3)
	m.add("null", unix.S_IFCHR|0o666, 0)
	m.add("many", unix.S_IFDIR|0o700, 0)
	for i := range many {
		m.add(fmt.Sprintf("many/file-%d", i), unix.S_IFREG|0o644, 1)
	}
	return m
}

func (m *memory) add(path string, mode uint32, size int64) {
	n := Node(len(m.nodes) + 1)
	m.nodes[path] = n
	a := Attr{Mode: mode, Nlink: 1, Size: size, UID: 7, GID: 8, Mtime: tree.Time{Sec: 1600000000, Nsec: 5}}
	if mode&unix.S_IFMT == unix.S_IFCHR {
		a.Major, a.Minor = 1, 259
	}
	m.attrs[n] = a
	if path != "" {
		dir := m.nodes[strings.TrimSuffix(filepath.Dir(path), ".")]
		m.names[dir] = append(m.names[dir], path)
	}
}

func (m *memory) Features() Features { return Features{Xattrs: true} }
func (m *memory) Statfs() Statfs     { return Statfs{Bytes: 1 << 20, Files: uint64(len(m.nodes))} }
func (m *memory) Attr(n Node) (Attr, error) {
	a, ok := m.attrs[n]
	if !ok {
		return a, unix.ESTALE
	}
	return a, nil
}
func (m *memory) Lookup(dir Node, name string) (Node, error) {
	for path, n := range m.nodes {
		if path != "" && filepath.Base(path) == name && m.nodes[strings.TrimSuffix(filepath.Dir(path), ".")] == dir {
			return n, nil
		}
	}
	return 0, unix.ENOENT
}
func (m *memory) Entry(dir Node, i int) (string, Node, bool) {
	if i >= len(m.names[dir]) {
		return "", 0, false
	}
	p := m.names[dir][i]
	return filepath.Base(p), m.nodes[p], true
}
func (m *memory) Readlink(n Node) (string, error) { return "f/x", nil }
func (m *memory) Xattr(n Node, name string) ([]byte, error) {
	if n == m.nodes["f"] && name == "user.colour" {
		return []byte("blue"), nil
	}
	return nil, unix.ENODATA
}
func (m *memory) Xattrs(n Node) ([]string, error) {
	if n == m.nodes["f"] {
		return []string{"user.colour", "user.other"}, nil
	}
	return nil, nil
}
func (m *memory) Fetch(ctx context.Context, n Node, off int64, size int) error {
	switch n {
	case m.nodes["slow"]:
		m.slow.Add(1)
		select {
		case <-m.wait:
		case <-ctx.Done():
			return ctx.Err()
		}
	case m.nodes["bad"]:
		return errors.New("the registry is gone")
	}
	return nil
}
func (m *memory) Read(ctx context.Context, n Node, b []byte, off int64) (int, error) {
	size := m.attrs[n].Size
	if off >= size {
		return 0, nil
	}
	b = b[:min(int64(len(b)), size-off)]
	for i := range b {
		b[i] = at(off + int64(i))
	}
	return len(b), nil
}

func at(off int64) byte { return byte(off>>12) ^ byte(off) }

func needFuse(t testing.TB) {
	if os.Getuid() != 0 {
		t.Skip("needs CAP_SYS_ADMIN: mounts")
	}
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil {
		t.Skip("needs /dev/fuse: " + err.Error())
	} else {
		f.Close()
	}
}

// mountMemory mounts and gives the connection; the test unmounts.
func mountMemory(t *testing.T, m *memory) (string, *os.File) {
	t.Helper()
	needFuse(t)
	dir := t.TempDir()
	conn, err := Mount(dir, "berth-test", m.Features())
	if fault.KindOf(err) == fault.NotImplemented {
		t.Skip("needs FUSE with resend: " + err.Error())
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Unmount(dir, unix.MNT_FORCE|unix.MNT_DETACH) // whoever still waits gets an error
		conn.Close()
		mount.Unmount(dir)
	})
	return dir, conn
}

func serve(t *testing.T, conn *os.File, m *memory) *Server {
	t.Helper()
	s, err := Serve(conn, m, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServe(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	defer s.Stop()
	b, err := os.ReadFile(dir + "/f")
	if err != nil || len(b) != 5<<20+3 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	for i := range b {
		if b[i] != at(int64(i)) {
			t.Fatalf("byte %d is wrong", i)
		}
	}
	var st unix.Stat_t
	if err := unix.Lstat(dir+"/f", &st); err != nil || st.Uid != 7 || st.Gid != 8 || st.Mode != unix.S_IFREG|0o640 || st.Mtim.Sec != 1600000000 || st.Mtim.Nsec != 5 || st.Size != 5<<20+3 {
		t.Errorf("%+v %v", st, err)
	}
	if err := unix.Lstat(dir+"/null", &st); err != nil || unix.Major(st.Rdev) != 1 || unix.Minor(st.Rdev) != 259 {
		t.Errorf("device %d:%d %v", unix.Major(st.Rdev), unix.Minor(st.Rdev), err)
	}
	if l, err := os.Readlink(dir + "/link"); err != nil || l != "f/x" {
		t.Errorf("%q %v", l, err)
	}
	v := make([]byte, 100)
	if n, err := unix.Lgetxattr(dir+"/f", "user.colour", v); err != nil || string(v[:n]) != "blue" {
		t.Errorf("%q %v", v[:max(n, 0)], err)
	}
	if _, err := unix.Lgetxattr(dir+"/f", "user.colour", v[:2]); err != unix.ERANGE {
		t.Errorf("%v", err)
	}
	if _, err := unix.Lgetxattr(dir+"/f", "user.none", v); err != unix.ENODATA {
		t.Errorf("%v", err)
	}
	if n, err := unix.Llistxattr(dir+"/f", v); err != nil || string(v[:n]) != "user.colour\x00user.other\x00" {
		t.Errorf("%q %v", v[:max(n, 0)], err)
	}
	names, err := os.ReadDir(dir + "/many")
	if err != nil || len(names) != many {
		t.Errorf("%d names, %v", len(names), err)
	}
	for _, n := range names[:10] {
		if i, err := n.Info(); err != nil || i.Size() != 1 {
			t.Errorf("%v %v", n, err)
		}
	}
	for range 2 { // the second time out of the kernel's memory
		if _, err := os.Stat(dir + "/nothing"); !os.IsNotExist(err) {
			t.Errorf("%v", err)
		}
	}
	if _, err := os.ReadFile(dir + "/bad"); !errors.Is(err, unix.EIO) {
		t.Errorf("%v", err)
	}
	if err := os.WriteFile(dir+"/new", nil, 0o644); !errors.Is(err, unix.EROFS) {
		t.Errorf("%v", err)
	}
	if err := unix.Statfs(dir, new(unix.Statfs_t)); err != nil {
		t.Error(err)
	}
}

func TestUnmountEndsServing(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	defer s.Stop()
	open, err := os.Open(dir + "/f")
	if err != nil {
		t.Fatal(err)
	}
	if err := mount.Unmount(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(open, make([]byte, 1<<20)); err != nil {
		t.Errorf("read from what is still open: %v", err)
	}
	select {
	case <-s.Done():
		t.Error("done while somebody has a file open")
	default:
	}
	open.Close()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		t.Error("the end of the mount is not noticed")
	}
}

// A reader that waits while its server goes gets its bytes from the next one.
func TestNextServer(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	first := serve(t, conn, m)
	got := make(chan string, 8)
	for range cap(got) {
		go func() {
			b, err := os.ReadFile(dir + "/slow")
			got <- fmt.Sprint(len(b), err)
		}()
	}
	waitFor(t, func() bool { return m.slow.Load() >= 1 })
	first.Stop()
	if len(got) != 0 {
		t.Fatalf("answered when it stopped: %s", <-got)
	}
	late := make(chan error, 1)
	go func() {
		_, err := os.Stat(dir + "/many/file-77")
		late <- err
	}()
	next := newMemory()
	close(next.wait)
	second := serve(t, conn, next)
	defer second.Stop()
	if err := second.Resend(); err != nil {
		t.Fatal(err)
	}
	for range cap(got) {
		select {
		case g := <-got:
			if g != "10 <nil>" {
				t.Error(g)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("a reader of the first server hangs")
		}
	}
	if err := <-late; err != nil {
		t.Error(err)
	}
}

// A process that is killed while it waits is let go, also when it got another signal first.
func TestKilledReader(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	defer s.Stop()
	for i, signals := range [][]syscall.Signal{{syscall.SIGKILL}, {syscall.SIGUSR1, syscall.SIGKILL}} {
		cmd := exec.Command("sh", "-c", `trap : USR1; read x < "$0"`, dir+"/slow")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		before := m.slow.Load()
		waitFor(t, func() bool { return i > 0 || m.slow.Load() > before })
		time.Sleep(50 * time.Millisecond)
		for _, sig := range signals {
			cmd.Process.Signal(sig)
			time.Sleep(50 * time.Millisecond)
		}
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			close(m.wait)
			t.Fatalf("%v: hangs", signals)
		}
	}
}

// What a killed server waited for itself is answered by Release, and nothing else is.
func TestRelease(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	if _, err := os.Stat(dir + "/f"); err != nil {
		t.Fatal(err)
	}
	other := make(chan error, 1)
	s.Stop()
	cmd := exec.Command("stat", dir+"/many/file-5")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := os.Stat(dir + "/null") // not in the same directory: whoever looks up the same name waits for the other, not for us
		other <- err
	}()
	time.Sleep(100 * time.Millisecond)
	if n, err := Release(conn); n != 0 || err != nil { // reads both requests, as a dead server would have
		t.Fatal(n, err)
	}
	cmd.Process.Kill()
	time.Sleep(50 * time.Millisecond)
	if _, err := Release(conn); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the killed process hangs")
	}
	if len(other) != 0 {
		t.Errorf("somebody else was answered: %v", <-other)
	}
	s = serve(t, conn, m)
	defer s.Stop()
	s.Resend()
	if err := <-other; err != nil {
		t.Error(err)
	}
}

func TestConcurrentReaders(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	defer s.Stop()
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			f, err := os.Open(dir + "/f")
			if err != nil {
				t.Error(err)
				return
			}
			defer f.Close()
			b := make([]byte, 10000)
			for i := range 40 {
				off := int64((g*131071 + i*65537*3) % (5 << 20))
				n, err := f.ReadAt(b, off)
				if err != nil && err != io.EOF {
					t.Error(err)
					return
				}
				for j := range b[:n] {
					if b[j] != at(off+int64(j)) {
						t.Errorf("byte %d is wrong", off+int64(j))
						return
					}
				}
			}
		}()
	}
	wg.Wait()
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for range 200 {
		if ok() {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("did not happen")
}

// The kernel is trusted, but the parser must not fall over whatever it is given.
func FuzzRequest(f *testing.F) {
	header := func(op uint32, node uint64, body []byte) []byte {
		b := order.AppendUint32(nil, uint32(inHeaderSize+len(body)))
		b = order.AppendUint32(b, op)
		b = order.AppendUint64(b, 2)
		b = order.AppendUint64(b, node)
		b = append(b, make([]byte, 16)...)
		return append(b, body...)
	}
	for _, op := range []uint32{opLookup, opGetattr, opReadlink, opReaddir, opReaddirplus, opGetxattr, opListxattr, opStatfs, opInterrupt, opInit, opRead} {
		f.Add(header(op, 1, append(bytes.Repeat([]byte{0, 1}, 16), "user.colour\x00f\x00pad pad"...)))
		f.Add(header(op, 7, make([]byte, 40)))
		f.Add(header(op, 2, nil))
	}
	m := newMemory()
	s := &Server{fs: m, has: m.Features(), waited: map[uint64]*waiting{}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := parse(raw)
		if err != nil {
			return
		}
		parseInit(r.body)
		if r.op == opRead {
			parseSpan(r.body)
			return
		}
		if r.op == opInterrupt {
			s.interrupted(r)
			return
		}
		b, err := s.reply(r)
		if err == nil && len(b) < outHeaderSize {
			t.Errorf("answer of %d bytes", len(b))
		}
		if (r.op == opReaddir || r.op == opReaddirplus) && err == nil {
			if at, _ := parseSpan(r.body); len(b) > outHeaderSize+int(at.size) {
				t.Errorf("%d bytes of names, %d were asked for", len(b)-outHeaderSize, at.size)
			}
		}
	})
}

func TestWanted(t *testing.T) {
	if w := wanted(1<<63-1, Features{}); w&initPosixACL != 0 || w&initHasResend == 0 {
		t.Errorf("%x", w)
	}
	if w := wanted(1<<63-1, Features{ACL: true}); w&initPosixACL == 0 {
		t.Errorf("%x", w)
	}
	if w := wanted(initAsyncRead, Features{ACL: true}); w != initAsyncRead {
		t.Errorf("%x", w)
	}
	b := appendInit(nil, initIn{minor: 99, readahead: 131072}, initHasResend|initExt)
	if len(b) != 64 || order.Uint32(b[4:]) != protocolMinor || !slices.Equal(b[32:36], []byte{0x80, 0, 0, 0}) {
		t.Errorf("%x", b)
	}
}

// Containers in a user namespace see layers through id-mapped mounts.
func TestIDMap(t *testing.T) {
	m := newMemory()
	dir, conn := mountMemory(t, m)
	s := serve(t, conn, m)
	defer s.Stop()
	ns, err := idmap.Namespace(idmap.Pair{Users: idmap.Map{{Inside: 0, Outside: 100000, Size: 1000}}, Groups: idmap.Map{{Inside: 0, Outside: 200000, Size: 1000}}})
	if err != nil {
		t.Skip("needs user namespaces: " + err.Error())
	}
	defer unix.Close(ns)
	clone, err := mount.OpenTree(unix.AT_FDCWD, dir, true, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(clone)
	if err := mount.IDMap(clone, ns, false); err != nil {
		if v := probe.KernelVersion(); v.Less(probe.Version{Major: 6, Minor: 12}) {
			t.Skip("needs FUSE_ALLOW_IDMAP, Linux 6.12")
		}
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(clone, "f", &st, 0); err != nil || st.Uid != 100007 || st.Gid != 200008 {
		t.Errorf("%d:%d %v", st.Uid, st.Gid, err)
	}
}
