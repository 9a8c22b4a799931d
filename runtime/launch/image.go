package launch

import (
	"encoding/binary"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An image is a Program laid out in memory for the child's loop: a shared anonymous mapping outside
// the Go heap, so that the collector never looks at it and a forked child's results are visible.
//
//	header   0  address of the child's first entry
//	         8  address of the slots
//	        16  index of the entry that failed, -1 before
//	        24  its errno
//	entries 128 bytes each, Prepare's first, then Child's
//	         0  system call number, negative: OpFail
//	         8  six arguments of eight bytes
//	        56  u32 mask: bit i says that argument i is a slot's index
//	        60  i32 slot for the result, -1 none
//	        64  i32 entries to skip on success
//	        68  three pairs {u32 errno, i32 entries to skip}; errno 0 never matches
//	        92  u32 flags, bit 0: a result of 0 is EPIPE
//	        96  i64 result
//	slots    eight bytes each
//	data     strings and structures, each at a multiple of 8
const (
	headerSize = 64
	entrySize  = 128

	offSlotMask = 56
	offOut      = 60
	offOnOK     = 64
	offRescue   = 68
	offFlags    = 92
	offResult   = 96
)

type image struct {
	mem      []byte
	base     uint64
	prepared int // entries of Prepare
	slots    int // offset of the slots
	steps    []Step
	placed   map[*Data]int // offset of each piece of data; what it points to follows it
}

// load lays p out. The mapping must be closed.
func load(p *Program) (*image, error) {
	im := &image{prepared: len(p.Prepare)}
	im.steps = make([]Step, 0, len(p.Prepare)+len(p.Child))
	im.steps = append(append(im.steps, p.Prepare...), p.Child...)
	im.slots = headerSize + entrySize*len(im.steps)
	data := im.slots + 8*len(p.Slots)
	size := data + im.place(data)
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for the launch program: %w", size, err)
	}
	im.mem, im.base = mem, uint64(uintptr(unsafe.Pointer(unsafe.SliceData(mem))))
	le := binary.LittleEndian
	le.PutUint64(mem[0:], im.base+headerSize+uint64(entrySize*im.prepared))
	le.PutUint64(mem[8:], im.base+uint64(im.slots))
	le.PutUint64(mem[16:], ^uint64(0))
	for d, at := range im.placed {
		copy(mem[at:], d.Bytes)
		to := at + pad8(len(d.Bytes))
		for _, ptr := range d.Ptrs {
			copy(mem[to:], ptr.To)
			le.PutUint64(mem[at+ptr.Off:], im.base+uint64(to))
			to += pad8(len(ptr.To))
		}
	}
	for i := range im.steps {
		im.entry(i)
	}
	for i := range p.Slots {
		im.set(Slot(i), -1)
	}
	return im, nil
}

// place gives every piece of data its offset, shared ones only one, and tells their size together.
func (im *image) place(from int) int {
	im.placed = make(map[*Data]int, 2*len(im.steps))
	at := from
	for i := range im.steps {
		for j := range im.steps[i].Args {
			d := im.steps[i].Args[j].D
			if d == nil {
				continue
			}
			if _, shared := im.placed[d]; shared {
				continue
			}
			im.placed[d] = at
			at += pad8(len(d.Bytes))
			for _, ptr := range d.Ptrs {
				at += pad8(len(ptr.To))
			}
		}
	}
	return at - from
}

// entry writes step i.
func (im *image) entry(i int) {
	le := binary.LittleEndian
	st := &im.steps[i]
	e := im.mem[headerSize+entrySize*i:][:entrySize]
	le.PutUint64(e, uint64(int64(st.Nr)))
	var mask uint32
	for j := range st.Args {
		a := &st.Args[j]
		v := a.N
		switch a.Kind {
		case ArgSlot:
			mask |= 1 << j
		case ArgData:
			v = im.base + uint64(im.placed[a.D])
		}
		le.PutUint64(e[8+8*j:], v)
	}
	le.PutUint32(e[offSlotMask:], mask)
	le.PutUint32(e[offOut:], uint32(int32(st.Out)))
	le.PutUint32(e[offOnOK:], uint32(int32(st.OnOK)))
	for k, r := range st.OnErr {
		le.PutUint32(e[offRescue+8*k:], uint32(r.Errno))
		le.PutUint32(e[offRescue+4+8*k:], uint32(int32(r.Skip)))
	}
	if st.Positive {
		le.PutUint32(e[offFlags:], 1)
	}
}

func pad8(n int) int { return (n + 7) &^ 7 }

func (im *image) close() { _ = unix.Munmap(im.mem) }

// header is the address that the child's loop starts from.
func (im *image) header() unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(im.mem)) }

func (im *image) get(s Slot) int {
	return int(int64(binary.LittleEndian.Uint64(im.mem[im.slots+8*int(s):])))
}

func (im *image) set(s Slot, v int) {
	binary.LittleEndian.PutUint64(im.mem[im.slots+8*int(s):], uint64(int64(v)))
}

// failure gives the child's failed step and errno; ok is false when no step failed.
func (im *image) failure() (step int, errno unix.Errno, ok bool) {
	i := int64(binary.LittleEndian.Uint64(im.mem[16:]))
	if i < 0 {
		return 0, 0, false
	}
	return int(i), unix.Errno(binary.LittleEndian.Uint64(im.mem[24:])), true
}

// prepare runs Prepare's steps on the calling thread. It returns the index of the step that failed.
func (im *image) prepare() (int, error) {
	for i := 0; i < im.prepared; {
		st := &im.steps[i]
		r, err := im.run(i, st)
		if err == nil {
			if st.Out != NoSlot {
				im.set(st.Out, r)
			}
			i += 1 + st.OnOK
			continue
		}
		skip, ok := rescue(st, err)
		if !ok {
			return i, err
		}
		i += 1 + skip
	}
	return 0, nil
}

func rescue(st *Step, err error) (int, bool) {
	for _, r := range st.OnErr {
		if r.Errno == err {
			return r.Skip, true
		}
	}
	return 0, false
}

// run makes one call of Prepare.
func (im *image) run(i int, st *Step) (int, error) {
	if st.Nr < 0 {
		return runOp(st)
	}
	le := binary.LittleEndian
	e := im.mem[headerSize+entrySize*i:][:entrySize]
	var a [6]uintptr
	for j := range a {
		v := le.Uint64(e[8+8*j:])
		switch st.Args[j].Kind {
		case ArgSlot:
			v = uint64(int64(im.get(Slot(v))))
		case ArgData:
			d := st.Args[j].D
			for _, f := range d.Fill {
				le.PutUint64(im.mem[im.placed[d]+f.Off:], uint64(int64(im.get(f.Slot))))
			}
		}
		a[j] = uintptr(v)
	}
	for {
		r, _, err := unix.Syscall6(uintptr(st.Nr), a[0], a[1], a[2], a[3], a[4], a[5])
		if err == unix.EINTR {
			continue // the runtime's own preemption signals may land here
		}
		if err != 0 {
			return -1, err
		}
		return int(r), nil
	}
}
