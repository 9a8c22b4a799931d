package localfile

import (
	"encoding/binary"
	"errors"
)

// MaxEntry bounds a LogEntry, in bytes: more is no record. Docker's reader has the same bound.
const MaxEntry = 1_000_000

// Errors of Cut and CutLast.
var (
	ErrShort  = errors.New("local log: the record is not whole")
	ErrBroken = errors.New("local log: not a record")
)

// Entry is one decoded LogEntry.
type Entry struct {
	Source  string
	Time    int64 // nanoseconds of the Unix epoch
	Line    []byte
	Partial Partial // Ordinal 0: the line is whole, and a newline follows
	Keys    []string
	Values  []string // of Keys
}

// Newline reports whether the line ends with this record.
func (e *Entry) Newline() bool { return e.Partial.Ordinal == 0 || e.Partial.Last }

// Cut takes the first record off b and gives its LogEntry and the length of the whole record.
func Cut(b []byte) (entry []byte, n int, err error) {
	if len(b) < 4 {
		return nil, 0, ErrShort
	}
	size := int64(binary.BigEndian.Uint32(b))
	if size == 0 || size > MaxEntry {
		return nil, 0, ErrBroken
	}
	if int64(len(b)) < size+8 {
		return nil, 0, ErrShort
	}
	n = int(size) + 8
	if int64(binary.BigEndian.Uint32(b[n-4:])) != size {
		return nil, 0, ErrBroken
	}
	return b[4 : n-4], n, nil
}

// LastLen gives the length of the record that ends with tail, the last four bytes of it, at least.
func LastLen(tail []byte) (int64, error) {
	if len(tail) < 4 {
		return 0, ErrShort
	}
	size := int64(binary.BigEndian.Uint32(tail[len(tail)-4:]))
	if size == 0 || size > MaxEntry {
		return 0, ErrBroken
	}
	return size + 8, nil
}

// Find gives where in b the next record may begin, at from or beyond, len(b) where nowhere: what is
// between is damaged.
func Find(b []byte, from int) int {
	for i := from; i+4 <= len(b); i++ {
		if b[i] != 0 { // no record is of 16 MiB
			continue
		}
		entry, _, err := Cut(b[i:])
		var e Entry
		if err == nil && e.Decode(entry) == nil {
			return i
		}
	}
	return len(b)
}

// Decode reads a LogEntry. Line points into b. Fields that it does not know are skipped.
func (e *Entry) Decode(b []byte) error {
	*e = Entry{Keys: e.Keys[:0], Values: e.Values[:0]}
	partial := false
	err := fields(b, func(tag uint64, num uint64, val []byte) error {
		switch tag {
		case tagSource:
			e.Source = source(val)
		case tagTime:
			e.Time = int64(num)
		case tagLine:
			e.Line = val
		case tagPartial:
			partial = num != 0
		case tagMeta:
			return e.Partial.decode(val)
		case tagAttrs:
			var k, v string
			err := fields(val, func(tag uint64, _ uint64, val []byte) error {
				switch tag {
				case tagAttrKey:
					k = string(val)
				case tagAttrValue:
					v = string(val)
				}
				return nil
			})
			e.Keys, e.Values = append(e.Keys, k), append(e.Values, v)
			return err
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case e.Source == "":
		return ErrBroken
	case !partial:
		e.Partial = Partial{}
	case e.Partial.Ordinal == 0: // partial all the same
		e.Partial.Ordinal = 1
	}
	return nil
}

func (p *Partial) decode(b []byte) error {
	return fields(b, func(tag uint64, num uint64, val []byte) error {
		switch tag {
		case tagMetaLast:
			p.Last = num != 0
		case tagMetaID:
			p.ID = string(val)
		case tagMetaOrdinal:
			p.Ordinal = int32(num)
		}
		return nil
	})
}

// source gives the name of a stream without making a string for each line.
func source(b []byte) string {
	switch string(b) {
	case "stdout":
		return "stdout"
	case "stderr":
		return "stderr"
	}
	return string(b)
}

// fields walks a protobuf message. num is set for varints and fixed numbers, val for byte strings.
func fields(b []byte, f func(tag, num uint64, val []byte) error) error {
	for len(b) > 0 {
		tag, n := binary.Uvarint(b)
		if n <= 0 || tag>>3 == 0 {
			return ErrBroken
		}
		b = b[n:]
		var num uint64
		var val []byte
		switch tag & 7 {
		case 0:
			if num, n = binary.Uvarint(b); n <= 0 {
				return ErrBroken
			}
			b = b[n:]
		case 1:
			if len(b) < 8 {
				return ErrBroken
			}
			num, b = binary.LittleEndian.Uint64(b), b[8:]
		case 2:
			size, n := binary.Uvarint(b)
			if n <= 0 || size > uint64(len(b)-n) {
				return ErrBroken
			}
			val, b = b[n:n+int(size)], b[n+int(size):]
		case 5:
			if len(b) < 4 {
				return ErrBroken
			}
			num, b = uint64(binary.LittleEndian.Uint32(b)), b[4:]
		default:
			return ErrBroken
		}
		if err := f(tag, num, val); err != nil {
			return err
		}
	}
	return nil
}
