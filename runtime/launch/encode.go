package launch

import (
	"encoding/binary"
	"errors"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// formatVersion is the first byte of an encoded Program. Engine and keeper may be of different
// builds for a while; a program is only run by a keeper that knows its format.
const formatVersion = 1

// Encode gives the Program as bytes: the version, then every field in order. Numbers are varints,
// strings and bytes are preceded by their length.
func (p *Program) Encode() []byte {
	e := &encoder{b: make([]byte, 0, 16<<10)}
	e.b = append(e.b, formatVersion)
	e.uint(uint64(len(p.Slots)))
	for _, s := range p.Slots {
		e.bytes([]byte(s))
	}
	e.str(p.Args0)
	e.int(int64(p.Owner))
	e.bool(p.Terminal)
	e.int(int64(p.Listener))
	c := &p.Clone
	e.uint(c.Flags)
	e.int(int64(c.Cgroup))
	e.int(int64(c.PidNS))
	e.bool(c.Waits)
	e.bool(c.Covered)
	e.bool(c.GateStops)
	e.str(c.TimeNS)
	e.bool(c.Maps != nil)
	if c.Maps != nil {
		e.str(c.Maps.UID)
		e.str(c.Maps.GID)
		e.bool(c.Maps.DenySetgroups)
	}
	e.steps(p.Prepare)
	e.steps(p.Child)
	return e.b
}

// encoder numbers the data it has written from 1; a repetition is its number, new data are 0 and the
// bytes.
type encoder struct {
	b    []byte
	seen map[*Data]int
}

func (e *encoder) uint(n uint64)  { e.b = binary.AppendUvarint(e.b, n) }
func (e *encoder) int(n int64)    { e.b = binary.AppendVarint(e.b, n) }
func (e *encoder) str(s string)   { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) bytes(s []byte) { e.uint(uint64(len(s))); e.b = append(e.b, s...) }
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) steps(steps []Step) {
	e.uint(uint64(len(steps)))
	what := ""
	for i := range steps {
		st := &steps[i]
		e.int(int64(st.Nr))
		e.int(int64(st.Out))
		e.int(int64(st.OnOK))
		e.bool(st.Positive)
		e.bool(st.What == what)
		if st.What != what {
			what = st.What
			e.str(what)
		}
		e.uint(uint64(len(st.OnErr)))
		for _, r := range st.OnErr {
			e.uint(uint64(r.Errno))
			e.int(int64(r.Skip))
		}
		last := len(st.Args)
		for last > 0 && isZero(&st.Args[last-1]) {
			last--
		}
		e.uint(uint64(last))
		for j := range st.Args[:last] {
			e.arg(&st.Args[j])
		}
	}
}

func isZero(a *Arg) bool { return a.Kind == ArgInt && a.N == 0 }

func (e *encoder) arg(a *Arg) {
	e.b = append(e.b, byte(a.Kind))
	if a.Kind != ArgData {
		e.uint(a.N)
		return
	}
	if n, shared := e.seen[a.D]; shared {
		e.uint(uint64(n))
		return
	}
	if e.seen == nil {
		e.seen = map[*Data]int{}
	}
	e.seen[a.D] = len(e.seen) + 1
	e.uint(0)
	e.bytes(a.D.Bytes)
	e.uint(uint64(len(a.D.Ptrs)))
	for _, p := range a.D.Ptrs {
		e.uint(uint64(p.Off))
		e.bytes(p.To)
	}
	e.uint(uint64(len(a.D.Fill)))
	for _, f := range a.D.Fill {
		e.uint(uint64(f.Off))
		e.int(int64(f.Slot))
	}
}

var errShort = errors.New("the program ends in the middle")

// Decode reads what Encode wrote. Every slot, skip and offset is checked, so that a decoded Program
// cannot make the launcher or the child's loop reach outside its table.
func Decode(b []byte) (*Program, error) {
	d := &decoder{b: b}
	if v := d.byte(); d.err == nil && v != formatVersion {
		return nil, fault.New(fault.Invalid, "the launch program has format %d; this build knows %d", v, formatVersion)
	}
	p := &Program{}
	for range d.count() {
		p.Slots = append(p.Slots, d.str())
	}
	p.Args0, p.Owner, p.Terminal, p.Listener = d.str(), int(d.int()), d.bool(), d.slot(p)
	c := &p.Clone
	c.Flags, c.Cgroup, c.PidNS = d.uint(), d.slot(p), d.slot(p)
	c.Waits, c.Covered, c.GateStops, c.TimeNS = d.bool(), d.bool(), d.bool(), d.str()
	if d.bool() {
		c.Maps = &Maps{UID: d.str(), GID: d.str(), DenySetgroups: d.bool()}
	}
	p.Prepare = d.steps(p, true)
	p.Child = d.steps(p, false)
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

type decoder struct {
	b    []byte
	data []*Data
	err  error
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
	v := append([]byte(nil), d.b[:n]...)
	d.b = d.b[n:]
	return v
}

func (d *decoder) str() string { return string(d.bytes()) }

func (d *decoder) slot(p *Program) Slot {
	v := d.int()
	if v < int64(NoSlot) || v >= int64(len(p.Slots)) {
		d.fail(errors.New("a slot is out of range"))
		return NoSlot
	}
	return Slot(v)
}

func (d *decoder) steps(p *Program, prepare bool) []Step {
	n := d.count()
	steps := make([]Step, 0, min(n, 4096))
	what := ""
	for i := 0; i < n && d.err == nil; i++ {
		st := Step{Nr: int(d.int()), Out: d.slot(p)}
		st.OnOK = d.skip(n - i - 1)
		st.Positive = d.bool()
		if !d.bool() {
			what = d.str()
		}
		st.What = what
		if st.Nr < OpOverlay || st.Nr < OpFail && !prepare {
			d.fail(errors.New("an operation is unknown"))
		}
		rescues := d.count()
		if rescues > maxRescues {
			d.fail(errors.New("a step has too many expected errnos"))
			rescues = 0
		}
		for range rescues {
			st.OnErr = append(st.OnErr, Rescue{unix.Errno(d.uint()), d.skip(n - i - 1)})
		}
		args := d.count()
		if args > len(st.Args) {
			d.fail(errors.New("a step has too many arguments"))
			args = 0
		}
		for j := range args {
			st.Args[j] = d.arg(p, prepare)
		}
		steps = append(steps, st)
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
		a.D = d.pointed(p, prepare)
	default:
		d.fail(errors.New("an argument is of an unknown kind"))
	}
	return a
}

// pointed reads data, or a reference to data read before.
func (d *decoder) pointed(p *Program, prepare bool) *Data {
	if n := d.uint(); n > uint64(len(d.data)) {
		d.fail(errors.New("an argument refers to data that is not there"))
		return &Data{}
	} else if n > 0 {
		return d.data[n-1]
	}
	v := &Data{Bytes: d.bytes()}
	for range d.count() {
		v.Ptrs = append(v.Ptrs, Ptr{d.offset(v), d.bytes()})
	}
	for range d.count() {
		v.Fill = append(v.Fill, Fill{d.offset(v), d.slot(p)})
		if !prepare || v.Fill[len(v.Fill)-1].Slot == NoSlot {
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
