package jsonread

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may nest: far more than any configuration, far less than
// what would exhaust the stack.
const maxDepth = 1000

// Reader is a position in a JSON text.
type Reader struct {
	data  []byte
	pos   int
	depth int
	path  []string // keys of the objects around pos, for errors
	err   error
}

// New starts reading at the beginning of data, which must not change while the Reader is in use.
func New(data []byte) *Reader {
	return &Reader{data: bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))}
}

// End checks that nothing but blanks follows, and gives the first mistake, with its place in the text, or nil.
func (r *Reader) End() error {
	if r.next() != 0 || r.err == nil && r.pos < len(r.data) {
		r.fail("text after the end")
	}
	return r.err
}

func (r *Reader) fail(what string) {
	if r.err != nil {
		return
	}
	before := r.data[:min(r.pos, len(r.data))]
	line := 1 + bytes.Count(before, []byte{'\n'})
	column := len(before) - bytes.LastIndexByte(before, '\n')
	where := ""
	for i, k := range r.path {
		if i > 0 && k[0] != '[' {
			where += "."
		}
		where += k
	}
	if where != "" {
		where += ": "
	}
	r.err = fmt.Errorf("line %d, column %d: %s%s", line, column, where, what)
	r.pos = len(r.data)
}

// next skips blanks and gives the next byte without taking it; 0 at the end or after a mistake.
func (r *Reader) next() byte {
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; c {
		case ' ', '\n', '\t', '\r':
			r.pos++
		case 0:
			r.fail("unexpected byte 0")
			return 0
		default:
			return c
		}
	}
	return 0
}

func (r *Reader) expected(what string) {
	c := r.next()
	switch {
	case r.err != nil:
	case c == 0:
		r.fail("the text ends where " + what + " is expected")
	default:
		r.fail("expected " + what + ", found " + strconv.QuoteRune(rune(c)))
	}
}

// take consumes c if it is next.
func (r *Reader) take(c byte) bool {
	if r.next() != c || r.err != nil {
		return false
	}
	r.pos++
	return true
}

// Null consumes a null if it is next.
func (r *Reader) Null() bool {
	return r.next() == 'n' && r.word("null")
}

func (r *Reader) word(w string) bool {
	if len(r.data)-r.pos >= len(w) && string(r.data[r.pos:r.pos+len(w)]) == w {
		r.pos += len(w)
		return true
	}
	return false
}

// Object reads an object: member is called with each key and must consume the value (Skip does, too).
// null is an object without members.
func (r *Reader) Object(member func(key string)) {
	if r.Null() {
		return
	}
	if !r.take('{') {
		r.expected("an object")
		return
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
		return
	}
	defer func() { r.depth-- }()
	if r.take('}') {
		return
	}
	for r.err == nil {
		if r.next() != '"' {
			r.expected("a key")
			return
		}
		key := r.Text()
		if !r.take(':') {
			r.expected(`":"`)
			return
		}
		r.path = append(r.path, label(key))
		member(key)
		r.path = r.path[:len(r.path)-1]
		if r.take(',') {
			continue
		}
		if !r.take('}') {
			r.expected(`"," or "}"`)
		}
		return
	}
}

// label is how a key is shown in an error.
func label(key string) string {
	if key == "" {
		return `""`
	}
	return key
}

// Array reads an array: element is called for each element and must consume it. null is empty.
func (r *Reader) Array(element func(i int)) {
	if r.Null() {
		return
	}
	if !r.take('[') {
		r.expected("an array")
		return
	}
	if r.depth++; r.depth > maxDepth {
		r.fail("nested too deeply")
		return
	}
	defer func() { r.depth-- }()
	if r.take(']') {
		return
	}
	r.path = append(r.path, "")
	for i := 0; r.err == nil; i++ {
		r.path[len(r.path)-1] = "[" + strconv.Itoa(i) + "]"
		element(i)
		if r.take(',') {
			continue
		}
		if !r.take(']') {
			r.expected(`"," or "]"`)
		}
		break
	}
	r.path = r.path[:len(r.path)-1]
}

// Text reads a string. null is "".
func (r *Reader) Text() string {
	if r.Null() {
		return ""
	}
	if !r.take('"') {
		r.expected("a string")
		return ""
	}
	start := r.pos
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; {
		case c == '"':
			s := r.data[start:r.pos]
			r.pos++
			return string(s)
		case c == '\\' || c >= utf8.RuneSelf:
			return r.slowText(start)
		case c < 0x20:
			r.fail("a control character inside a string")
			return ""
		}
		r.pos++
	}
	r.fail("the text ends inside a string")
	return ""
}

// slowText reads on in a string that has escapes or bytes beyond ASCII.
func (r *Reader) slowText(start int) string {
	b := append([]byte(nil), r.data[start:r.pos]...)
	for r.pos < len(r.data) {
		switch c := r.data[r.pos]; {
		case c == '"':
			r.pos++
			return string(b)
		case c < 0x20:
			r.fail("a control character inside a string")
			return ""
		case c == '\\':
			r.pos++
			b = r.escape(b)
			if r.err != nil {
				return ""
			}
		case c < utf8.RuneSelf:
			b = append(b, c)
			r.pos++
		default:
			ru, n := utf8.DecodeRune(r.data[r.pos:])
			b = utf8.AppendRune(b, ru)
			r.pos += n
		}
	}
	r.fail("the text ends inside a string")
	return ""
}

// escape reads what follows a backslash.
func (r *Reader) escape(b []byte) []byte {
	if r.pos >= len(r.data) {
		r.fail("the text ends inside a string")
		return b
	}
	c := r.data[r.pos]
	r.pos++
	switch c {
	case '"', '\\', '/':
		return append(b, c)
	case 'b':
		return append(b, '\b')
	case 'f':
		return append(b, '\f')
	case 'n':
		return append(b, '\n')
	case 'r':
		return append(b, '\r')
	case 't':
		return append(b, '\t')
	case 'u':
	default:
		r.pos--
		r.fail("unknown escape in a string")
		return b
	}
	ru := r.hex4()
	if !utf16.IsSurrogate(ru) {
		return utf8.AppendRune(b, ru)
	}
	if len(r.data)-r.pos >= 2 && r.data[r.pos] == '\\' && r.data[r.pos+1] == 'u' {
		at := r.pos
		r.pos += 2
		if pair := utf16.DecodeRune(ru, r.hex4()); pair != utf8.RuneError {
			return utf8.AppendRune(b, pair)
		}
		if r.err == nil {
			r.pos = at // the second one stands for itself
		}
	}
	return utf8.AppendRune(b, utf8.RuneError)
}

func (r *Reader) hex4() rune {
	if len(r.data)-r.pos >= 4 {
		if n, err := strconv.ParseUint(string(r.data[r.pos:r.pos+4]), 16, 16); err == nil {
			r.pos += 4
			return rune(n)
		}
	}
	r.fail(`\u needs four hex digits`)
	return utf8.RuneError
}

// Bool reads true or false. null is false.
func (r *Reader) Bool() bool {
	switch r.next() {
	case 't':
		if r.word("true") {
			return true
		}
	case 'f':
		if r.word("false") {
			return false
		}
	case 'n':
		if r.word("null") {
			return false
		}
	}
	r.expected("true or false")
	return false
}

// Int reads a whole number that fits into int64. null is 0.
func (r *Reader) Int() int64 {
	if r.Null() {
		return 0
	}
	text := r.number()
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		r.fail("expected a whole number of 64 bits, found " + text)
	}
	return n
}

// IntBelow is Int for numbers that must lie between low and high, both included.
func (r *Reader) IntBelow(low, high int64) int64 {
	n := r.Int()
	if r.err == nil && (n < low || n > high) {
		r.fail(fmt.Sprintf("%d is not between %d and %d", n, low, high))
		return 0
	}
	return n
}

// Uint32 reads a whole number between 0 and 4294967295. null is 0.
func (r *Reader) Uint32() uint32 { return uint32(r.IntBelow(0, math.MaxUint32)) }

// Uint reads a whole number that fits into uint64. null is 0.
func (r *Reader) Uint() uint64 {
	if r.Null() {
		return 0
	}
	text := r.number()
	if r.err != nil {
		return 0
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		r.fail("expected a whole number that is not negative, found " + text)
	}
	return n
}

// number reads a number's text and checks its grammar: -? (0|[1-9][0-9]*) (.[0-9]+)? ([eE][+-]?[0-9]+)?
func (r *Reader) number() string {
	r.next()
	start := r.pos
	digits := func() bool {
		from := r.pos
		for r.pos < len(r.data) && r.data[r.pos] >= '0' && r.data[r.pos] <= '9' {
			r.pos++
		}
		return r.pos > from
	}
	at := func(set string) bool {
		if r.pos < len(r.data) && bytes.IndexByte([]byte(set), r.data[r.pos]) >= 0 {
			r.pos++
			return true
		}
		return false
	}
	at("-")
	ok := at("0") || digits()
	if ok && at(".") {
		ok = digits()
	}
	if ok && at("eE") {
		at("+-")
		ok = digits()
	}
	if !ok {
		if r.pos == start {
			r.expected("a number")
		} else {
			r.fail("a malformed number")
		}
		return ""
	}
	return string(r.data[start:r.pos])
}

// Texts reads an array of strings. null is nil; an empty array is not.
func (r *Reader) Texts() []string {
	if r.Null() {
		return nil
	}
	ss := []string{}
	r.Array(func(int) { ss = append(ss, r.Text()) })
	return ss
}

// TextMap reads an object whose values are strings. null is nil; an empty object is not.
func (r *Reader) TextMap() map[string]string {
	if r.Null() {
		return nil
	}
	m := map[string]string{}
	r.Object(func(k string) { m[k] = r.Text() })
	return m
}

// Raw checks and consumes any value and gives its text, which is part of the Reader's data.
func (r *Reader) Raw() []byte {
	r.next()
	start := r.pos
	r.Skip()
	if r.err != nil {
		return nil
	}
	return r.data[start:r.pos]
}

// Skip checks and consumes any value.
func (r *Reader) Skip() {
	switch c := r.next(); {
	case c == '{':
		r.Object(func(string) { r.Skip() })
	case c == '[':
		r.Array(func(int) { r.Skip() })
	case c == '"':
		r.skipText()
	case c == 't' || c == 'f' || c == 'n':
		r.Bool()
	case c == '-' || c >= '0' && c <= '9':
		r.number()
	default:
		r.expected("a value")
	}
}

// skipText checks and consumes a string without copying it.
func (r *Reader) skipText() {
	if end := bytes.IndexByte(r.data[r.pos+1:], '"'); end >= 0 {
		plain := r.data[r.pos+1 : r.pos+1+end]
		if !bytes.ContainsFunc(plain, func(c rune) bool { return c < 0x20 || c == '\\' }) {
			r.pos += end + 2
			return
		}
	}
	r.Text()
}
