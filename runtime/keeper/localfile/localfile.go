package localfile

import "encoding/binary"

// MaxPiece is the longest piece of a line in one record, in bytes: longer lines are cut, as Docker's
// copier does.
const MaxPiece = 16 << 10

// Overhead is what a record has beside its line, its attributes and its partial-id, in bytes, at most.
const Overhead = 64

// Numbers of fields, with their wire type in the low three bits.
const (
	tagSource  = 1<<3 | 2
	tagTime    = 2 << 3
	tagLine    = 3<<3 | 2
	tagPartial = 4 << 3
	tagMeta    = 5<<3 | 2
	tagAttrs   = 6<<3 | 2

	tagMetaLast    = 1 << 3
	tagMetaID      = 2<<3 | 2
	tagMetaOrdinal = 3 << 3

	tagAttrKey   = 1<<3 | 2
	tagAttrValue = 2<<3 | 2
)

// Partial is the place of a record among those of one line. A line that is one record with a newline has
// none: its Ordinal is 0.
type Partial struct {
	ID      string
	Ordinal int32
	Last    bool
}

// Append appends one record to dst. line is the output without its newline, at is in nanoseconds of the
// Unix epoch, attrs is what Attrs made.
func Append(dst, line []byte, source string, at int64, part Partial, attrs []byte) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0)
	dst = appendBytes(dst, tagSource, []byte(source))
	if at != 0 {
		dst = append(dst, tagTime)
		dst = binary.AppendUvarint(dst, uint64(at))
	}
	if len(line) > 0 {
		dst = appendBytes(dst, tagLine, line)
	}
	if part.Ordinal != 0 {
		dst = append(dst, tagPartial, 1, tagMeta)
		dst = binary.AppendUvarint(dst, uint64(part.size()))
		dst = part.appendTo(dst)
	}
	dst = append(dst, attrs...)
	n := uint32(len(dst) - start - 4)
	binary.BigEndian.PutUint32(dst[start:], n)
	return binary.BigEndian.AppendUint32(dst, n)
}

func (p *Partial) appendTo(dst []byte) []byte {
	if p.Last {
		dst = append(dst, tagMetaLast, 1)
	}
	if p.ID != "" {
		dst = appendBytes(dst, tagMetaID, []byte(p.ID))
	}
	dst = append(dst, tagMetaOrdinal)
	return binary.AppendUvarint(dst, uint64(p.Ordinal))
}

func (p *Partial) size() (n int) {
	if p.Last {
		n += 2
	}
	if p.ID != "" {
		n += 1 + uvarintLen(uint64(len(p.ID))) + len(p.ID)
	}
	return n + 1 + uvarintLen(uint64(p.Ordinal))
}

// Attrs encodes extra fields of every record, in the given order (Docker sorts them by key).
func Attrs(keys, values []string) (dst []byte) {
	for i, k := range keys {
		n := 2 + uvarintLen(uint64(len(k))) + len(k) + uvarintLen(uint64(len(values[i]))) + len(values[i])
		dst = append(dst, tagAttrs)
		dst = binary.AppendUvarint(dst, uint64(n))
		dst = appendBytes(dst, tagAttrKey, []byte(k))
		dst = appendBytes(dst, tagAttrValue, []byte(values[i]))
	}
	return dst
}

const hex = "0123456789abcdef"

// PartialID makes an id of 64 hexadecimal digits from what names a line: the container, the stream and
// the time of its first piece. It is no random number, as Docker's is, so that a record that has to be
// written a second time is the same record.
func PartialID(container string, stream uint32, first int64) string {
	h := uint64(14695981039346656037) // FNV-1a, then mixed four times
	for i := range len(container) {
		h = (h ^ uint64(container[i])) * 1099511628211
	}
	h ^= uint64(first)<<1 | uint64(stream)
	var id [64]byte
	for i := range 4 {
		h += 0x9e3779b97f4a7c15
		x := h
		x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
		x = (x ^ x>>27) * 0x94d049bb133111eb
		x ^= x >> 31
		for j := range 16 {
			id[i*16+j] = hex[x>>(60-4*j)&15]
		}
	}
	return string(id[:])
}

func appendBytes(dst []byte, tag byte, b []byte) []byte {
	dst = append(dst, tag)
	dst = binary.AppendUvarint(dst, uint64(len(b)))
	return append(dst, b...)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}
