package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Flags of sets and elements (nf_tables.h).
const (
	setInterval   = 0x4
	setMap        = 0x8
	setTimeout    = 0x10
	setEval       = 0x20
	setConcat     = 0x80
	elemIntervEnd = 0x1
)

// Kinds of what nft keeps as user data for its listings: comments of rules and elements, byte orders of sets.
const (
	udataComment       = 0
	udataKeyByteorder  = 0
	udataDataByteorder = 1
	byteorderHost      = 1
	byteorderBig       = 2
)

// set writes a set's declaration. The id is its number within the batch, which the kernel wants for every new set.
func (w *writer) set(f Family, table string, s Set, id uint32) {
	at := w.start(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, f, "add set "+s.Name)
	w.str(unix.NFTA_SET_TABLE, table)
	w.str(unix.NFTA_SET_NAME, s.Name)
	w.u32(unix.NFTA_SET_ID, id)
	w.u32(unix.NFTA_SET_FLAGS, s.flags())
	w.u32(unix.NFTA_SET_KEY_TYPE, typeID(s.Key))
	w.u32(unix.NFTA_SET_KEY_LEN, uint32(width(s.Key)))
	user := userdata(udataKeyByteorder, byteorder(s.Key))
	if len(s.Data) > 0 {
		w.u32(unix.NFTA_SET_DATA_TYPE, typeID(s.Data))
		if s.Data[0] != Verdict {
			w.u32(unix.NFTA_SET_DATA_LEN, uint32(width(s.Data)))
			user += userdata(udataDataByteorder, byteorder(s.Data))
		}
	}
	if s.Timeout != 0 {
		w.u64(unix.NFTA_SET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	}
	if s.Size != 0 || s.concat() {
		d := w.open(unix.NFTA_SET_DESC)
		if s.Size != 0 {
			w.u32(unix.NFTA_SET_DESC_SIZE, s.Size)
		}
		if s.concat() {
			w.concat(s.Key)
		}
		w.end(d)
	}
	w.attr(unix.NFTA_SET_USERDATA, user)
	w.finish(at)
}

// concat tells the kernel where the parts of a key end; it needs that for ranges only.
func (w *writer) concat(key []Type) {
	const descConcat, fieldLen = 2, 1
	c := w.open(descConcat)
	for _, t := range key {
		e := w.open(unix.NFTA_LIST_ELEM)
		w.u32(fieldLen, uint32(t.size))
		w.end(e)
	}
	w.end(c)
}

// concat reports whether the set has ranges in keys of several parts, which the kernel keeps in another way than plain ranges.
func (s Set) concat() bool { return s.Interval && len(s.Key) > 1 }

func (s Set) flags() uint32 {
	var f uint32
	if s.Interval {
		f |= setInterval
	}
	if s.concat() {
		f |= setConcat
	}
	if len(s.Data) > 0 {
		f |= setMap
	}
	if s.Dynamic {
		f |= setEval
	}
	if s.Timeout != 0 {
		f |= setTimeout
	}
	return f
}

// typeID is nft's number of a row of types: six bits each.
func typeID(types []Type) uint32 {
	var id uint32
	for _, t := range types {
		id = id<<6 | t.id
	}
	return id
}

// width is how many bytes a value of the types takes: each begins a register when there are several.
func width(types []Type) int {
	if len(types) == 1 {
		return types[0].size
	}
	n := 0
	for _, t := range types {
		n += slot(t.size)
	}
	return n
}

func byteorder(types []Type) string {
	order := uint32(byteorderBig)
	if len(types) == 1 && types[0].host {
		order = byteorderHost
	}
	return string(binary.NativeEndian.AppendUint32(nil, order))
}

// userdata is one entry of what nft keeps beside an object: type, length, value.
func userdata(kind byte, value string) string {
	return string([]byte{kind, byte(len(value))}) + value
}

// An attribute's length has 16 bits, so a message holds a part of many elements only.
const maxElementBytes = 32 << 10

// elements writes the messages that add or delete elements.
func (w *writer) elements(kind uint16, f Family, table string, s Set, elements []Element) {
	flags, verb := uint16(0), "delete elements of "
	if kind == unix.NFT_MSG_NEWSETELEM {
		flags, verb = unix.NLM_F_CREATE, "add elements to "
	}
	for len(elements) > 0 {
		what := verb + s.Name
		if len(elements) == 1 {
			what += ": " + elements[0].text(false)
		}
		at := w.start(kind, flags, f, what)
		w.str(unix.NFTA_SET_ELEM_LIST_TABLE, table)
		w.str(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
		list := w.open(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for len(elements) > 0 && len(w.b)-list < maxElementBytes {
			w.element(s, elements[0], kind == unix.NFT_MSG_NEWSETELEM)
			elements = elements[1:]
		}
		w.end(list)
		w.finish(at)
	}
}

// element writes one element; a range of a key with one part takes two, of which the second says where it has ended.
func (w *writer) element(s Set, e Element, adding bool) {
	n := w.open(unix.NFTA_LIST_ELEM)
	w.data(unix.NFTA_SET_ELEM_KEY, packed(e.Key, false))
	if s.concat() {
		const keyEnd = 10 // NFTA_SET_ELEM_KEY_END
		w.data(keyEnd, packed(e.Key, true))
	}
	if adding {
		w.elementData(s, e)
	}
	w.end(n)
	if !s.Interval || s.concat() {
		return
	}
	end, ok := next(packed(e.Key, true))
	if !ok {
		return // it goes up to the highest value
	}
	n = w.open(unix.NFTA_LIST_ELEM)
	w.data(unix.NFTA_SET_ELEM_KEY, end)
	w.u32(unix.NFTA_SET_ELEM_FLAGS, elemIntervEnd)
	w.end(n)
}

func (w *writer) elementData(s Set, e Element) {
	switch v := e.Verdict.(type) {
	case verdict:
		d := w.open(unix.NFTA_SET_ELEM_DATA)
		v.data(&w.message)
		w.end(d)
	default:
		if len(s.Data) > 0 {
			w.data(unix.NFTA_SET_ELEM_DATA, packed(e.Data, false))
		}
	}
	if e.Comment != "" {
		w.attr(unix.NFTA_SET_ELEM_USERDATA, userdata(udataComment, cut(e.Comment)+"\x00"))
	}
}

// packed gives a key's lowest or highest value as registers hold it.
func packed(values []Value, highest bool) string {
	s := ""
	for _, v := range values {
		b := v.lo
		if highest && v.hi != "" {
			b = v.hi
		}
		s += b
		if len(values) > 1 {
			s += zeros(slot(len(b)) - len(b))
		}
	}
	return s
}
