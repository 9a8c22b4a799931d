package jsonfile

import (
	"time"
	"unicode/utf8"
)

// MaxPiece is the longest piece of a line that stands in one record, in bytes before escaping:
// longer lines are cut, as Docker's copier does with its 16 KiB buffer.
const MaxPiece = 16 << 10

// Append appends one record with its newline to dst. line is the output without its newline;
// newline says whether one follows it. attrs is an encoded JSON object (Attrs) or empty.
func Append(dst, line []byte, newline bool, stream string, attrs []byte, at time.Time) []byte {
	dst = append(dst, `{"log":"`...)
	dst = appendEscaped(dst, line)
	if newline {
		dst = append(dst, `\n`...)
	}
	dst = append(dst, `","stream":"`...)
	dst = append(dst, stream...)
	dst = append(dst, '"')
	if len(attrs) > 0 {
		dst = append(dst, `,"attrs":`...)
		dst = append(dst, attrs...)
	}
	dst = append(dst, `,"time":"`...)
	dst = at.UTC().AppendFormat(dst, time.RFC3339Nano)
	return append(dst, "\"}\n"...)
}

// Attrs encodes extra fields as a JSON object, in the given order (Docker sorts them by key). No
// fields are no bytes.
func Attrs(keys, values []string) []byte {
	if len(keys) == 0 {
		return nil
	}
	dst := []byte{'{'}
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, '"')
		dst = appendEscaped(dst, []byte(k))
		dst = append(dst, `":"`...)
		dst = appendEscaped(dst, []byte(values[i]))
		dst = append(dst, '"')
	}
	return append(dst, '}')
}

const hex = "0123456789abcdef"

// plain marks the ASCII bytes that stand for themselves.
var plain = func() (t [256]bool) {
	for b := 0x20; b < utf8.RuneSelf; b++ {
		t[b] = true
	}
	for _, b := range `"\<>&` {
		t[b] = false
	}
	return t
}()

func appendEscaped(dst, s []byte) []byte {
	from := 0
	for i := 0; i < len(s); {
		b := s[i]
		if plain[b] {
			i++
			continue
		}
		if b < utf8.RuneSelf {
			dst = append(dst, s[from:i]...)
			switch b {
			case '"', '\\':
				dst = append(dst, '\\', b)
			case '\n':
				dst = append(dst, `\n`...)
			case '\r':
				dst = append(dst, `\r`...)
			default:
				dst = append(dst, '\\', 'u', '0', '0', hex[b>>4], hex[b&15])
			}
			i++
			from = i
			continue
		}
		r, n := utf8.DecodeRune(s[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, s[from:i]...)
			dst = append(dst, `\ufffd`...)
			i++
			from = i
			continue
		}
		// Legal in JSON but not in JavaScript before ES2019.
		if r == '\u2028' || r == '\u2029' {
			dst = append(dst, s[from:i]...)
			dst = append(dst, '\\', 'u', '2', '0', '2', hex[r&15])
			i += n
			from = i
			continue
		}
		i += n
	}
	return append(dst, s[from:]...)
}
