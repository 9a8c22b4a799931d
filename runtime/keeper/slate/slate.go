package slate

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	magic   = 0x6b736c31 // "ksl1"
	version = 1

	// BufferLen is the largest piece of output handled at once: a pipe's whole default capacity.
	BufferLen = 64 << 10
	// LineLen is the longest unfinished line kept in a slot.
	LineLen = 16 << 10

	opOffset     = 4096
	bufferOffset = 8192
	fixedLen     = bufferOffset + BufferLen

	chunkSlots = 64
	slotLen    = 256
	bodyLen    = 2*LineLen + 2*BufferLen
	chunkLen   = chunkSlots * (slotLen + bodyLen)

	// MaxSlots bounds the processes held at once. 16,384 slots are 2.7 GB of addresses.
	MaxSlots = 16384
)

type head struct {
	Magic, Version uint32
	Chunks         uint32
}

// Phase is how far the op has come.
type Phase = uint32

// The op's phases, see the package comment.
const (
	Idle Phase = iota
	Taking
	Taken
	Logged
)

// Op is the piece of output that is being handled. It lies in shared memory: fields are added at
// the end only.
type Op struct {
	phase uint32

	Slot   uint32
	Stream uint32 // 0 stdout or terminal, 1 stderr
	Want   uint32 // bytes asked of read
	Exact  uint32 // 1: the kernel had said that so many are there, so read gives all of them
	Got    uint32 // bytes in the buffer, from Taken on
	EOF    uint32 // 1: nothing follows; an unfinished line is written as it is
	Stash  uint32 // 1: the piece came from the slot's stash
	Time   int64  // nanoseconds of the Unix epoch: every record of this piece carries it

	current uint32 // which of commits is valid
	Sent    uint32 // attachments up to this number have been served
	commits [2]Commit
}

// Commit is how far a piece is logged.
type Commit struct {
	Pos   uint32 // bytes of the buffer that are in the log or in Line
	Line  uint32 // bytes of the slot's line that still count before Tail
	Tail  uint32 // with it: bytes of the buffer, up to Got, that become (more of) the unfinished line
	More  uint32 // pieces of the present line that are in the log already (1 for any number, of older keepers)
	First int64  // with More: the time that the line's records carry
	Off   int64  // bytes of the log file that are good
	Inode uint64 // of the log file
}

// Slot is the head of one process's part. It lies in shared memory: fields are added at the end only.
type Slot struct {
	Used  uint32
	TornN uint32 // attachments in Torn; more than fit: all are torn
	Off   int64  // bytes of the log file that are good
	Inode uint64 // of the log file
	Line  [2]Line
	Torn  [8]uint32 // numbers of attachments that have part of a piece in the dead keeper's memory

	Shipped uint64 // inode of the file of the log that is being shipped: older ones were
}

// Line is an unfinished line and a refused piece of one stream.
type Line struct {
	Len   uint32
	More  uint32 // pieces of this line that are in the log already
	First int64  // with More: the time that its records carry

	StashLen  uint32
	StashEOF  uint32
	StashTime int64
}

// Slate is the mapped memory. It is used by one goroutine.
type Slate struct {
	fd      int
	fixed   []byte
	chunks  [][]byte
	free    []uint32
	pattern [4096]byte
}

// New makes an empty slate. seed makes its pattern one that output does not hold by chance.
func New(seed uint64) (*Slate, error) {
	fd, err := unix.MemfdCreate("berth-slate", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	// Memory that vanishes beneath a mapping is a SIGBUS: whoever holds the descriptor cannot cause it.
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("seal the slate: %w", err)
	}
	if err := unix.Ftruncate(fd, fixedLen); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("size the slate: %w", err)
	}
	s := &Slate{fd: fd}
	if err := s.mapFixed(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	h := s.head()
	h.Magic, h.Version = magic, version
	// The pattern's seed stands in the head so that a successor knows the pattern.
	*(*uint64)(unsafe.Pointer(&s.fixed[16])) = seed
	s.makePattern(seed)
	s.Repaint(BufferLen)
	return s, nil
}

// Open maps an existing slate and takes over fd, also when it fails. Every slot in use stays so.
func Open(fd int) (*Slate, error) {
	s := &Slate{fd: fd}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if st.Size < fixedLen {
		unix.Close(fd)
		return nil, fmt.Errorf("slate of %d bytes is too short", st.Size)
	}
	if err := s.mapFixed(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	h := *s.head() // a copy: Close unmaps it
	if h.Magic != magic || h.Version != version || h.Chunks > MaxSlots/chunkSlots ||
		st.Size < fixedLen+int64(h.Chunks)*chunkLen {
		s.Close()
		return nil, fmt.Errorf("slate of another layout (version %d)", h.Version)
	}
	s.makePattern(*(*uint64)(unsafe.Pointer(&s.fixed[16])))
	for range h.Chunks {
		if err := s.mapChunk(); err != nil {
			s.Close()
			return nil, err
		}
	}
	for i := int(h.Chunks)*chunkSlots - 1; i >= 0; i-- {
		if s.Slot(uint32(i)).Used == 0 {
			s.free = append(s.free, uint32(i))
		}
	}
	return s, nil
}

// Close unmaps the slate and closes its descriptor.
func (s *Slate) Close() {
	for _, c := range s.chunks {
		unix.Munmap(c)
	}
	if s.fixed != nil {
		unix.Munmap(s.fixed)
	}
	unix.Close(s.fd)
	s.chunks, s.fixed, s.fd = nil, nil, -1
}

// FD is the memfd: to be given to whoever shall be able to Open it.
func (s *Slate) FD() int { return s.fd }

func (s *Slate) head() *head { return (*head)(unsafe.Pointer(&s.fixed[0])) }

func (s *Slate) mapFixed() (err error) {
	s.fixed, err = unix.Mmap(s.fd, 0, fixedLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the slate: %w", err)
	}
	return nil
}

func (s *Slate) mapChunk() error {
	off := fixedLen + int64(len(s.chunks))*chunkLen
	c, err := unix.Mmap(s.fd, off, chunkLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return fmt.Errorf("map slots: %w", err)
	}
	s.chunks = append(s.chunks, c)
	return nil
}

func (s *Slate) makePattern(seed uint64) {
	x := seed | 1
	for i := range s.pattern {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		s.pattern[i] = byte(x >> 32)
	}
}

// Alloc takes a free slot, its head zeroed.
func (s *Slate) Alloc() (uint32, error) {
	if len(s.free) == 0 {
		if err := s.grow(); err != nil {
			return 0, err
		}
	}
	n := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	*s.Slot(n) = Slot{Used: 1}
	return n, nil
}

func (s *Slate) grow() error {
	n := len(s.chunks)
	if (n+1)*chunkSlots > MaxSlots {
		return fmt.Errorf("more than %d processes", MaxSlots)
	}
	if err := unix.Ftruncate(s.fd, fixedLen+int64(n+1)*chunkLen); err != nil {
		return fmt.Errorf("grow the slate: %w", err)
	}
	if err := s.mapChunk(); err != nil {
		return err
	}
	s.head().Chunks = uint32(n + 1)
	for i := chunkSlots - 1; i >= 0; i-- {
		s.free = append(s.free, uint32(n*chunkSlots+i))
	}
	return nil
}

// Free gives a slot back and its body's memory to the kernel.
func (s *Slate) Free(n uint32) {
	s.Slot(n).Used = 0
	s.punch(n, 0, bodyLen)
	s.free = append(s.free, n)
}

// Has reports whether n is a slot in use: numbers come from outside when a process is adopted.
func (s *Slate) Has(n uint32) bool {
	return int(n) < len(s.chunks)*chunkSlots && s.Slot(n).Used != 0
}

// Slot gives the head of slot n.
func (s *Slate) Slot(n uint32) *Slot {
	return (*Slot)(unsafe.Pointer(&s.chunks[n/chunkSlots][n%chunkSlots*slotLen]))
}

func bodyAt(n uint32) int { return chunkSlots*slotLen + int(n%chunkSlots)*bodyLen }

// LineBuf is the memory of a stream's unfinished line; Slot.Line says how much of it counts.
func (s *Slate) LineBuf(n uint32, stream int) []byte {
	at := bodyAt(n) + stream*LineLen
	return s.chunks[n/chunkSlots][at : at+LineLen : at+LineLen]
}

// StashBuf is the memory of a stream's refused piece; Slot.Line says how much of it counts.
func (s *Slate) StashBuf(n uint32, stream int) []byte {
	at := bodyAt(n) + 2*LineLen + stream*BufferLen
	return s.chunks[n/chunkSlots][at : at+BufferLen : at+BufferLen]
}

// DropStash empties a stream's stash and gives its memory to the kernel.
func (s *Slate) DropStash(n uint32, stream int) {
	s.Slot(n).Line[stream].StashLen = 0
	s.punch(n, 2*LineLen+stream*BufferLen, BufferLen)
}

func (s *Slate) punch(n uint32, from, length int) {
	off := fixedLen + int64(n/chunkSlots)*chunkLen + int64(bodyAt(n)+from)
	// Failure leaves the memory in use until the slot is used again: nothing to do about it.
	unix.Fallocate(s.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, int64(length))
}

// Op gives the op.
func (s *Slate) Op() *Op { return (*Op)(unsafe.Pointer(&s.fixed[opOffset])) }

// Buffer is the op's memory, BufferLen bytes.
func (s *Slate) Buffer() []byte { return s.fixed[bufferOffset:fixedLen:fixedLen] }

// Repaint fills the first n bytes of the buffer with the pattern again.
func (s *Slate) Repaint(n int) {
	b := s.Buffer()[:n]
	for len(b) > 0 {
		b = b[copy(b, s.pattern[:]):]
	}
}

// Painted gives the length of what was written over the pattern since the last Repaint: up to the
// last byte that differs from it.
func (s *Slate) Painted() int {
	b := s.Buffer()
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] != s.pattern[i%len(s.pattern)] {
			return i + 1
		}
	}
	return 0
}

// Phase gives the op's phase.
func (o *Op) Phase() Phase { return atomic.LoadUint32(&o.phase) }

// Enter moves the op to a phase; what was stored before is seen by whoever sees the phase.
func (o *Op) Enter(p Phase) { atomic.StoreUint32(&o.phase, p) }

// Sane reports whether the op's numbers fit the memory that they speak of.
func (o *Op) Sane() bool {
	c := o.Commit()
	return o.Got <= BufferLen && c.Pos <= o.Got && c.Line <= LineLen && c.Tail <= o.Got && c.Line+c.Tail <= LineLen
}

// Commit gives the valid commit.
func (o *Op) Commit() *Commit { return &o.commits[atomic.LoadUint32(&o.current)&1] }

// SetCommit replaces the valid commit as a whole.
func (o *Op) SetCommit(c Commit) {
	next := (atomic.LoadUint32(&o.current) + 1) & 1
	o.commits[next] = c
	atomic.StoreUint32(&o.current, next)
}

// Apply puts the commit and the piece's unfinished rest into the slot. Doing it twice is doing it
// once.
func (s *Slate) Apply() {
	o := s.Op()
	c := o.Commit()
	slot := s.Slot(o.Slot)
	slot.Off, slot.Inode = c.Off, c.Inode
	l := &slot.Line[o.Stream&1]
	rest := s.Buffer()[o.Got-c.Tail : o.Got]
	copy(s.LineBuf(o.Slot, int(o.Stream&1))[c.Line:], rest)
	l.Len = c.Line + c.Tail
	l.More, l.First = c.More, c.First
}
