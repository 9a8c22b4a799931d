package wire

import (
	"encoding/binary"
	"errors"
)

// Fields are encoded as tag (1 byte), length (uvarint), value. Numbers are uvarints, signed ones
// zigzagged. A field whose value is zero is not written; a reader skips tags it does not know. So
// both ends may be of different ages as long as a tag never changes its meaning.

// ErrTruncated is a field that claims more bytes than there are.
var ErrTruncated = errors.New("keeper protocol: field runs past the end of the message")

// ErrNumber is a number field that is not one uvarint.
var ErrNumber = errors.New("keeper protocol: malformed number")

// Enc appends fields to B. The zero value is ready.
type Enc struct{ B []byte }

// Bytes appends a byte string; an empty one is not written.
func (e *Enc) Bytes(tag byte, v []byte) {
	if len(v) == 0 {
		return
	}
	e.B = append(e.B, tag)
	e.B = binary.AppendUvarint(e.B, uint64(len(v)))
	e.B = append(e.B, v...)
}

// Str appends a string; an empty one is not written.
func (e *Enc) Str(tag byte, v string) {
	if v == "" {
		return
	}
	e.B = append(e.B, tag)
	e.B = binary.AppendUvarint(e.B, uint64(len(v)))
	e.B = append(e.B, v...)
}

// Uint appends a number; zero is not written.
func (e *Enc) Uint(tag byte, v uint64) {
	if v == 0 {
		return
	}
	e.B = append(e.B, tag, byte(uvarintLen(v)))
	e.B = binary.AppendUvarint(e.B, v)
}

// Int appends a signed number; zero is not written.
func (e *Enc) Int(tag byte, v int64) { e.Uint(tag, uint64(v<<1)^uint64(v>>63)) }

// Bool appends true; false is not written.
func (e *Enc) Bool(tag byte, v bool) {
	if v {
		e.Uint(tag, 1)
	}
}

// Msg appends a nested message, also an empty one: its presence may carry meaning, as the elements
// of a list do.
func (e *Enc) Msg(tag byte, m interface{ Encode(*Enc) }) {
	var in Enc
	m.Encode(&in)
	e.B = append(e.B, tag)
	e.B = binary.AppendUvarint(e.B, uint64(len(in.B)))
	e.B = append(e.B, in.B...)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// Dec walks the fields of a message:
//
//	for d.Next() {
//		switch d.Tag {
//		case 1:
//			m.ID = d.Str()
//		}
//	}
//	return d.Err
//
// Err is the first malformed field; Next is false from then on.
type Dec struct {
	Tag byte
	Err error

	val  []byte
	rest []byte
}

// NewDec makes a decoder of b, which it neither copies nor changes.
func NewDec(b []byte) *Dec { return &Dec{rest: b} }

// Next steps to the next field.
func (d *Dec) Next() bool {
	if d.Err != nil || len(d.rest) == 0 {
		return false
	}
	n, w := binary.Uvarint(d.rest[1:])
	if w <= 0 || n > uint64(len(d.rest)-1-w) {
		d.Err = ErrTruncated
		return false
	}
	d.Tag = d.rest[0]
	d.val = d.rest[1+w : 1+w+int(n)]
	d.rest = d.rest[1+w+int(n):]
	return true
}

// Bytes gives the field's value; it points into the message.
func (d *Dec) Bytes() []byte { return d.val }

// Str gives the field's value as a string of its own.
func (d *Dec) Str() string { return string(d.val) }

// Uint gives the field's value as a number.
func (d *Dec) Uint() uint64 {
	v, w := binary.Uvarint(d.val)
	if w <= 0 || w != len(d.val) {
		if d.Err == nil {
			d.Err = ErrNumber
		}
		return 0
	}
	return v
}

// Int gives the field's value as a signed number.
func (d *Dec) Int() int64 {
	u := d.Uint()
	return int64(u>>1) ^ -int64(u&1)
}

// Bool gives the field's value as a truth value.
func (d *Dec) Bool() bool { return d.Uint() != 0 }

// Msg decodes the field's value as a nested message; a failure in it is the outer decoder's too.
func (d *Dec) Msg(m interface{ Decode(*Dec) }) {
	in := Dec{rest: d.val}
	m.Decode(&in)
	if in.Err != nil && d.Err == nil {
		d.Err = in.Err
	}
}
