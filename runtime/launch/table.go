package launch

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// A table is a list of steps laid out in memory for walk, the loop in clone_*.s:
//
//	header   0  address of the first entry
//	         8  address of the slots
//	        16  index of the entry that failed, -1 before
//	        24  its errno
//	        32  descriptor to which the failure (the two numbers above) is written, or -1
//	entries 128 bytes each
//	         0  system call number, negative: OpFail
//	         8  six arguments of eight bytes
//	        56  u32 mask: bit i says that argument i is a slot's index
//	        60  i32 slot for the result, -1 none
//	        64  i32 entries to skip on success
//	        68  three pairs {u32 errno, i32 entries to skip}; errno 0 never matches
//	        92  u32 flags, bit 0: a result of 0 is EPIPE
//	slots    eight bytes each
//	data     strings and structures, each at a multiple of 8
const (
	headerSize = 64
	entrySize  = 128

	offEntries = 0
	offSlots   = 8
	offFailed  = 16
	offErrno   = 24
	offSync    = 32

	offSlotMask = 56
	offOut      = 60
	offOnOK     = 64
	offRescue   = 68
	offFlags    = 92
)

// layout turns steps into the bytes of a table that will stand at the address, in mem where they fit. sync
// is the descriptor for failures.
func layout(mem []byte, steps []Step, slots []int, sync int, address uint64) []byte {
	l := newPlacing(steps, slots)
	if l.size > cap(mem) {
		mem = make([]byte, l.size+l.size/4)
	}
	l.mem = mem[:l.size]
	clear(l.mem)
	l.write(steps, slots, sync, address)
	return l.mem
}

// placing is a table under construction.
type placing struct {
	mem     []byte
	size    int
	slotsAt int
	address uint64
	data    []*Data // every piece once
	offsets []int   // of each; what it points to follows it
}

func newPlacing(steps []Step, slots []int) *placing {
	l := &placing{data: make([]*Data, 0, 2*len(steps)), offsets: make([]int, 0, 2*len(steps)), slotsAt: headerSize + entrySize*len(steps)}
	l.size = l.place(steps, l.slotsAt+8*len(slots))
	return l
}

// write fills mem, which will be seen at the address.
func (l *placing) write(steps []Step, slots []int, sync int, address uint64) {
	l.address = address
	le := binary.LittleEndian
	le.PutUint64(l.mem[offEntries:], address+headerSize)
	le.PutUint64(l.mem[offSlots:], address+uint64(l.slotsAt))
	le.PutUint64(l.mem[offFailed:], ^uint64(0))
	le.PutUint64(l.mem[offSync:], uint64(int64(sync)))
	for i := range steps {
		l.entry(l.mem[headerSize+entrySize*i:][:entrySize], &steps[i])
	}
	for i, v := range slots {
		le.PutUint64(l.mem[l.slotsAt+8*i:], uint64(int64(v)))
	}
	l.copyData(slots)
}

// place gives every piece of data its offset, shared ones only one, and tells where they end.
func (l *placing) place(steps []Step, at int) int {
	for i := range steps {
		for j := range steps[i].Args {
			d := steps[i].Args[j].D
			if d == nil {
				continue
			}
			if l.has(d) {
				continue
			}
			d.index = len(l.data)
			l.data, l.offsets = append(l.data, d), append(l.offsets, at)
			at += pad8(len(d.Bytes))
			for _, ptr := range d.Ptrs {
				at += pad8(len(ptr.To))
			}
		}
	}
	return at
}

// has tells whether d has its place. Its index may be from another layout.
func (l *placing) has(d *Data) bool { return d.index < len(l.data) && l.data[d.index] == d }

// copyData copies every piece of data and resolves its pointers.
func (l *placing) copyData(slots []int) {
	for i, d := range l.data {
		at := l.offsets[i]
		copy(l.mem[at:], d.Bytes)
		for _, f := range d.Fill {
			binary.LittleEndian.PutUint64(l.mem[at+f.Off:], uint64(int64(slots[f.Slot])))
		}
		to := at + pad8(len(d.Bytes))
		for _, ptr := range d.Ptrs {
			copy(l.mem[to:], ptr.To)
			binary.LittleEndian.PutUint64(l.mem[at+ptr.Off:], l.address+uint64(to))
			to += pad8(len(ptr.To))
		}
	}
}

func (l *placing) entry(e []byte, st *Step) {
	le := binary.LittleEndian
	le.PutUint64(e, uint64(int64(st.Nr)))
	var mask uint32
	for j := range st.Args {
		a := &st.Args[j]
		v := a.N
		switch a.Kind {
		case ArgSlot:
			mask |= 1 << j
		case ArgSlotAddress:
			v = l.address + uint64(l.slotsAt) + 8*a.N
		case ArgData:
			v = l.address + uint64(l.offsets[a.D.index])
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

// failureOf reads a failure as walk writes it.
func failureOf(b []byte) (step int, errno unix.Errno) {
	return int(binary.LittleEndian.Uint64(b)), unix.Errno(binary.LittleEndian.Uint64(b[8:]))
}
