package slate

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"
)

func newSlate(t *testing.T) *Slate {
	t.Helper()
	s, err := New(12345)
	if err != nil {
		t.Skipf("needs memfd_create: %v", err)
	}
	t.Cleanup(func() {
		if s.fd >= 0 {
			s.Close()
		}
	})
	return s
}

func again(t *testing.T, s *Slate) *Slate {
	t.Helper()
	fd, err := unix.Dup(s.FD())
	if err != nil {
		t.Fatal(err)
	}
	o, err := Open(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

func TestSlots(t *testing.T) {
	s := newSlate(t)
	seen := map[uint32]bool{}
	for range 3 * chunkSlots {
		n, err := s.Alloc()
		if err != nil || seen[n] || !s.Has(n) {
			t.Fatal(n, err)
		}
		seen[n] = true
		s.Slot(n).Off = int64(n)
		copy(s.LineBuf(n, 1), []byte{byte(n), 1})
		copy(s.StashBuf(n, 0), []byte{byte(n), 2})
	}
	s.Free(70)
	o := again(t, s)
	if o.Has(70) || o.Has(3*chunkSlots) || o.Has(1<<31) {
		t.Error("a slot that is not")
	}
	for n := range seen {
		if n != 70 && (o.Slot(n).Off != int64(n) || !bytes.Equal(o.LineBuf(n, 1)[:2], []byte{byte(n), 1}) || !bytes.Equal(o.StashBuf(n, 0)[:2], []byte{byte(n), 2})) {
			t.Fatalf("slot %d is another's", n)
		}
	}
	if n, err := o.Alloc(); err != nil || n != 70 || o.Slot(70).Off != 0 || o.LineBuf(70, 1)[0] != 0 {
		t.Error("the freed slot is not given again, clean", n, err)
	}
}

func TestFull(t *testing.T) {
	s := newSlate(t)
	for range MaxSlots {
		if _, err := s.Alloc(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Alloc(); err == nil {
		t.Error("more than all")
	}
}

// TestPainted finds how much was read without having been told: what a killed keeper leaves.
func TestPainted(t *testing.T) {
	s := newSlate(t)
	for _, n := range []int{0, 1, 2, 100, 4095, 4096, 4097, BufferLen} {
		for i := range s.Buffer()[:n] {
			s.Buffer()[i] = byte(i) ^ 0x5a
		}
		got := again(t, s).Painted()
		// The last byte may be the pattern's own, once in 256 times: that is the price.
		if got != n && got != n-1 {
			t.Errorf("%d bytes written, %d found", n, got)
		}
		s.Repaint(n)
		if got := s.Painted(); got != 0 {
			t.Errorf("after repainting, %d found", got)
		}
	}
}

func TestApplyTwice(t *testing.T) {
	s := newSlate(t)
	n, err := s.Alloc()
	if err != nil {
		t.Fatal(err)
	}
	copy(s.LineBuf(n, 0), "begin ")
	s.Slot(n).Line[0].Len = 6
	op := s.Op()
	*op = Op{Slot: n, Got: uint32(copy(s.Buffer(), "middle"))}
	op.SetCommit(Commit{Line: 6, Tail: 6, More: 1, First: 9, Off: 77, Inode: 5})
	op.Enter(Logged)
	for range 2 {
		s.Apply()
		l := s.Slot(n).Line[0]
		if got := string(s.LineBuf(n, 0)[:l.Len]); got != "begin middle" || l.More != 1 || l.First != 9 || s.Slot(n).Off != 77 {
			t.Errorf("%q %+v", got, l)
		}
	}
}

func TestCommitsAreWhole(t *testing.T) {
	s := newSlate(t)
	op := s.Op()
	for i := range uint32(5) {
		op.SetCommit(Commit{Pos: i, Off: int64(i)})
		if c := again(t, s).Op().Commit(); c.Pos != i || c.Off != int64(i) {
			t.Errorf("%+v", c)
		}
	}
	for _, bad := range []Op{{Got: BufferLen + 1}, {Got: 1, commits: [2]Commit{{Pos: 2}}}, {Got: 5, commits: [2]Commit{{Tail: 6}}}, {commits: [2]Commit{{Line: LineLen + 1}}}} {
		if bad.Sane() {
			t.Errorf("%+v", bad)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, size := range []int64{0, 100, fixedLen} {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
		if err != nil {
			t.Skipf("needs memfd_create: %v", err)
		}
		if err := unix.Ftruncate(fd, size); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(fd); err == nil {
			s.Close()
			t.Errorf("%d bytes of nothing are a slate", size)
		}
	}
	s := newSlate(t)
	s.head().Chunks = 3 // claims more than there is
	fd, _ := unix.Dup(s.FD())
	if _, err := Open(fd); err == nil {
		t.Error("chunks that are not there")
	}
	s.head().Chunks = 0
}
