package logs

import (
	"bytes"
	"time"
	"unicode/utf8"
)

// quick reads a line in the order of fields and the spelling that Docker and the keeper write. Whatever looks otherwise is not ok, and is for
// encoding/json, which takes ten times as long.
func quick(b []byte) (l Line, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte(`{"log":"`))
	if !ok {
		return l, false
	}
	if l.Data, rest, ok = quickString(rest); !ok {
		return l, false
	}
	if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"stdout","time":"`)); ok {
		l.Stream = 1
	} else if rest, ok = bytes.CutPrefix(rest, []byte(`,"stream":"stderr","time":"`)); ok {
		l.Stream = 2
	} else {
		return l, false
	}
	stamp, ok := bytes.CutSuffix(rest, []byte(`"}`))
	if !ok || len(stamp) > len(time.RFC3339Nano)+5 || l.Time.UnmarshalText(stamp) != nil {
		return l, false
	}
	return l, true
}

// quickString reads up to the closing quote.
func quickString(b []byte) (text, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '"')
	for end > 0 && b[end-1] == '\\' { // perhaps within: escapes are counted below
		next := bytes.IndexByte(b[end+1:], '"')
		if next < 0 {
			break
		}
		if !escapes(b[:end]) {
			break
		}
		end += 1 + next
	}
	if end < 0 {
		return nil, nil, false
	}
	text = make([]byte, 0, end)
	for in := b[:end]; ; {
		n := bytes.IndexByte(in, '\\')
		if n < 0 {
			text = append(text, in...)
			break
		}
		if n+1 >= len(in) {
			return nil, nil, false
		}
		text = append(text, in[:n]...)
		c, skip := in[n+1], 2
		switch c {
		case '"', '\\', '/':
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			// What the writers write so is ASCII; the rest is encoding/json's.
			if n+6 > len(in) || in[n+2] != '0' || in[n+3] != '0' {
				return nil, nil, false
			}
			hi, lo := nibble(in[n+4]), nibble(in[n+5])
			if hi > 7 || lo > 15 {
				return nil, nil, false
			}
			c, skip = hi<<4|lo, 6
		default:
			return nil, nil, false
		}
		text = append(text, c)
		in = in[n+skip:]
	}
	for _, c := range b[:end] {
		if c < ' ' {
			return nil, nil, false
		}
	}
	return text, b[end+1:], utf8.Valid(b[:end])
}

// escapes reports whether what follows b is escaped by the backslashes that b ends in.
func escapes(b []byte) bool {
	n := len(b)
	for n > 0 && b[n-1] == '\\' {
		n--
	}
	return (len(b)-n)%2 == 1
}

func nibble(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
