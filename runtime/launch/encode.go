package launch

import "encoding/binary"

// formatVersion is the first byte of an encoded Program. Engine and keeper may be of different
// builds for a while; a program is only run by a keeper that knows its format.
const formatVersion = 1

// Encode gives the Program as bytes: the version, then every field in order. Numbers are varints,
// strings and bytes are preceded by their length.
func (p *Program) Encode() []byte {
	e := &encoder{b: make([]byte, 0, 16<<10), seen: make([]*Data, 0, len(p.Prepare)+len(p.Child))}
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
	e.b = append(e.b, c.origin())
	e.bool(c.GateStops)
	e.str("") // formerly offsets of a time namespace, which the child sets itself by now
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

// The mount namespaces that a child may be cloned from, as a byte.
const (
	fromHost byte = iota
	fromEmpty
	fromViews
)

func (c *Clone) origin() byte {
	switch {
	case c.Covered:
		return fromEmpty
	case c.Views:
		return fromViews
	}
	return fromHost
}

// encoder numbers the data it has written from 1; a repetition is its number, new data are 0 and the
// bytes.
type encoder struct {
	b    []byte
	seen []*Data
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
	if i := a.D.index; i < len(e.seen) && e.seen[i] == a.D {
		e.uint(uint64(i + 1))
		return
	}
	a.D.index = len(e.seen)
	e.seen = append(e.seen, a.D)
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
