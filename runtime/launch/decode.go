package launch

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

var errShort = errors.New("the program ends in the middle")

// Decode reads what Encode wrote. Every slot, skip and offset is checked, so that a decoded Program
// cannot make the launcher or the child's loop reach outside its table.
//
// The Program lies in b, which is its own from now on: Prepare writes addresses into its structures.
func Decode(b []byte) (*Program, error) { return new(Decoder).Decode(b) }

// Decoder reads what Encode wrote. Every slot, skip and offset is checked, so that a decoded Program
// cannot make the launcher or the child's loop reach outside its table.
//
// It decodes programs one after the other into the same memory: a program has a thousand parts. The
// zero value is ready.
type Decoder struct {
	slots      chunk[string]
	steps      chunk[Step]
	structures chunk[Data]
	pointers   chunk[Ptr]
	fills      chunk[Fill]
	rescues    chunk[Rescue]
	data       []*Data
}

// Decode reads a program, and ends the one that it gave the time before. The Program lies in b, which is its own from now on:
// Prepare writes addresses into its structures.
func (m *Decoder) Decode(b []byte) (*Program, error) {
	m.slots.reset()
	m.steps.reset()
	m.structures.reset()
	m.pointers.reset()
	m.fills.reset()
	m.rescues.reset()
	m.data = m.data[:0]
	d := &decoder{Decoder: m, b: b}
	if v := d.byte(); d.err == nil && v != formatVersion {
		return nil, fault.New(fault.Invalid, "the launch program has format %d; this build knows %d", v, formatVersion)
	}
	p := &Program{}
	p.Slots = m.slots.take(d.count())
	for i := range p.Slots {
		p.Slots[i] = d.str()
	}
	p.Args0, p.Owner, p.Terminal, p.Listener = d.str(), int(d.int()), d.bool(), d.slot(p)
	c := &p.Clone
	c.Flags, c.Cgroup, c.PidNS = d.uint(), d.slot(p), d.slot(p)
	c.Waits = d.bool()
	switch from := d.byte(); from {
	case fromHost, fromEmpty, fromViews:
		c.Covered, c.Views = from == fromEmpty, from == fromViews
	default:
		d.fail(errors.New("a mount namespace is unknown"))
	}
	if c.GateStops = d.bool(); d.str() != "" {
		d.fail(errors.New("it wants a time namespace from the launcher, which makes none any more"))
	}
	if d.bool() {
		c.Maps = &Maps{UID: d.str(), GID: d.str(), DenySetgroups: d.bool()}
	}
	p.Prepare = d.section(p, true)
	p.Child = d.section(p, false)
	if d.err == nil && len(d.b) != 0 {
		d.err = errors.New("bytes follow the program's end")
	}
	if d.err == nil && (len(p.Slots) < int(fixedSlots) || len(p.Child) == 0) {
		d.err = errors.New("it lacks slots or steps")
	}
	if d.err != nil {
		return nil, fault.Wrap(fault.Invalid, d.err, "read a launch program")
	}
	return p, nil
}

// chunk makes slices of the same life together.
type chunk[T any] struct{ all, free []T }

func (c *chunk[T]) reset() { c.free = c.all }

// take gives n elements of unknown content.
func (c *chunk[T]) take(n int) []T {
	const few = 32
	if n == 0 {
		return nil
	}
	if n > len(c.free) {
		c.all = make([]T, max(n, few, 2*len(c.all)))
		c.free = c.all
	}
	v := c.free[:n:n]
	c.free = c.free[n:]
	return v
}

// decoder is the reading of one program. After an error nothing is left to be read.
type decoder struct {
	*Decoder
	b   []byte // what is still to be read
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail(errShort)
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

func (d *decoder) bool() bool { return d.byte() != 0 }

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) int() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return v
}

// count is a number of things that follow, each at least a byte long.
func (d *decoder) count() int {
	n := d.uint()
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return 0
	}
	return int(n)
}

func (d *decoder) bytes() []byte {
	n := d.count()
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

// str gives bytes that nothing writes to, unlike those of a structure.
func (d *decoder) str() string {
	b := d.bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

func (d *decoder) slot(p *Program) Slot {
	v := d.int()
	if v < int64(NoSlot) || v >= int64(len(p.Slots)) {
		d.fail(errors.New("a slot is out of range"))
		return NoSlot
	}
	return Slot(v)
}

func (d *decoder) section(p *Program, prepare bool) []Step {
	const least = 7 // bytes of a step
	n := d.count()
	if n > len(d.b)/least {
		d.fail(errShort)
		return nil
	}
	steps := d.steps.take(n)
	what := ""
	for i := 0; i < n && d.err == nil; i++ {
		st := &steps[i]
		*st = Step{Nr: int(d.int()), Out: d.slot(p)}
		st.OnOK = d.skip(n - i - 1)
		st.Positive = d.bool()
		if !d.bool() {
			what = d.str()
		}
		st.What = what
		if st.Nr < OpCreateAs || st.Nr < OpFail && !prepare {
			d.fail(errors.New("an operation is unknown"))
		}
		rescues := d.count()
		if rescues > maxRescues {
			d.fail(errors.New("a step has too many expected errnos"))
			rescues = 0
		}
		st.OnErr = d.rescues.take(rescues)
		for j := range st.OnErr {
			st.OnErr[j] = Rescue{unix.Errno(d.uint()), d.skip(n - i - 1)}
		}
		args := d.count()
		if args > len(st.Args) {
			d.fail(errors.New("a step has too many arguments"))
			args = 0
		}
		for j := range args {
			st.Args[j] = d.arg(p, prepare)
		}
	}
	if !prepare && d.err == nil && n > 0 && steps[n-1].Nr != OpFail {
		d.fail(errors.New("the child's last step can fall off the end"))
	}
	return steps
}

// skip is a distance forward; what it lands on must be a step (or, in Prepare, the end).
func (d *decoder) skip(room int) int {
	v := d.int()
	if v < 0 || v > int64(room) {
		d.fail(errors.New("a step skips out of the program"))
		return 0
	}
	return int(v)
}

func (d *decoder) arg(p *Program, prepare bool) Arg {
	a := Arg{Kind: ArgKind(d.byte())}
	switch a.Kind {
	case ArgInt:
		a.N = d.uint()
	case ArgSlot, ArgSlotAddress:
		if a.Kind == ArgSlotAddress && prepare {
			d.fail(errors.New("a slot's address is used where it has none"))
		}
		a.N = d.uint()
		if a.N >= uint64(len(p.Slots)) {
			d.fail(errors.New("an argument's slot is out of range"))
		}
	case ArgData:
		a.D = d.pointed(p)
	default:
		d.fail(errors.New("an argument is of an unknown kind"))
	}
	return a
}

// pointed reads data, or a reference to data read before.
func (d *decoder) pointed(p *Program) *Data {
	if n := d.uint(); n > uint64(len(d.data)) {
		d.fail(errors.New("an argument refers to data that is not there"))
		return &Data{}
	} else if n > 0 {
		return d.data[n-1]
	}
	v := &d.structures.take(1)[0]
	v.Bytes = d.bytes()
	v.Ptrs = d.pointers.take(d.count())
	for i := range v.Ptrs {
		v.Ptrs[i] = Ptr{d.offset(v), d.bytes()}
	}
	v.Fill = d.fills.take(d.count())
	for i := range v.Fill {
		v.Fill[i] = Fill{d.offset(v), d.slot(p)}
		if v.Fill[i].Slot == NoSlot {
			d.fail(errors.New("a structure is filled where it cannot be"))
		}
	}
	if d.err == nil && len(v.Bytes) == 0 {
		d.fail(errors.New("a pointer points to nothing"))
	}
	d.data = append(d.data, v)
	return v
}

func (d *decoder) offset(v *Data) int {
	off := d.uint()
	if off%8 != 0 || off > uint64(len(v.Bytes)) || off+8 > uint64(len(v.Bytes)) {
		d.fail(errors.New("a pointer is outside its structure"))
		return 0
	}
	return int(off)
}
