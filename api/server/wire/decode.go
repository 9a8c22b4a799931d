package wire

import (
	"bytes"
	"encoding"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"berth/base/fault"
)

// Decode reads one JSON document into the struct that into points to. It speaks Docker's words for what is malformed and is
// stricter in one thing: a name given twice in one object is refused, also when the two differ in case only where Go's decoder
// takes both for one field. Two programs that read such a document (a proxy that allows, an engine that acts) may disagree.
//
// unknown names the fields, as "HostConfig.Foo", that into has not and whose value is no default. Docker drops them; a caller may
// say so.
func Decode(data []byte, into any) (unknown []string, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(into); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fault.New(fault.Invalid, "invalid JSON: got EOF while reading request body")
		}
		return nil, fault.Wrap(fault.Invalid, err, "invalid JSON")
	}
	end := int(dec.InputOffset())
	if len(bytes.TrimLeft(data[end:], " \t\r\n")) > 0 {
		return nil, fault.New(fault.Invalid, "unexpected content after JSON")
	}
	w := walker{data: data[:end]}
	w.value(reflect.TypeOf(into), "")
	if w.twice != "" {
		return nil, fault.New(fault.Invalid, "invalid JSON: %s is there twice", w.twice)
	}
	return w.unknown, nil
}

// walker goes over a document that the decoder has accepted, beside the type it was decoded into; it need not check syntax.
type walker struct {
	data    []byte
	at      int
	twice   string
	unknown []string
}

// value passes one value. t is the type it was decoded into, nil where that is not followed further.
func (w *walker) value(t reflect.Type, path string) {
	switch w.space(); w.peek() {
	case '{':
		w.object(followed(t), path)
	case '[':
		var elem reflect.Type
		if t = followed(t); t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Array) {
			elem = t.Elem()
		}
		for w.at++; w.next(']'); {
			w.value(elem, path)
		}
	case '"':
		w.text()
	default:
		for w.at < len(w.data) && !strings.ContainsRune(",]} \t\r\n", rune(w.data[w.at])) {
			w.at++
		}
	}
}

func (w *walker) object(t reflect.Type, path string) {
	var fields map[string]reflect.Type
	var elem reflect.Type
	if t != nil && t.Kind() == reflect.Struct {
		fields = fieldsOf(t)
	} else if t != nil && t.Kind() == reflect.Map {
		elem = t.Elem()
	}
	seen := map[string]bool{}
	for w.at++; w.next('}'); {
		name := w.text()
		key, child := name, elem
		full := name
		if path != "" {
			full = path + "." + name
		}
		known := fields == nil
		if fields != nil {
			key = fold(name)
			child, known = fields[key]
		}
		if seen[key] && w.twice == "" {
			w.twice = strconv.Quote(full)
		}
		seen[key] = true
		w.space()
		w.at++ // the colon
		w.space()
		from := w.at
		w.value(child, full)
		if !known && !isDefault(w.data[from:w.at]) {
			w.unknown = append(w.unknown, full)
		}
	}
}

// next moves to the next element of an array or object, over the comma, or past its end.
func (w *walker) next(end byte) bool {
	w.space()
	if w.peek() == ',' {
		w.at++
		w.space()
	}
	if w.peek() == end || w.at >= len(w.data) {
		w.at++
		return false
	}
	return true
}

// text passes a string and gives its value.
func (w *walker) text() string {
	from := w.at
	for w.at++; w.at < len(w.data) && w.data[w.at] != '"'; w.at++ {
		if w.data[w.at] == '\\' {
			w.at++
		}
	}
	w.at++
	raw := w.data[from:min(w.at, len(w.data))]
	if bytes.IndexByte(raw, '\\') < 0 && utf8.Valid(raw) && len(raw) >= 2 {
		return string(raw[1 : len(raw)-1])
	}
	var s string
	_ = json.Unmarshal(raw, &s) // the decoder has accepted it
	return s
}

func (w *walker) space() {
	for w.at < len(w.data) && strings.IndexByte(" \t\r\n", w.data[w.at]) >= 0 {
		w.at++
	}
}

func (w *walker) peek() byte {
	if w.at < len(w.data) {
		return w.data[w.at]
	}
	return 0
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// followed gives the type behind pointers, nil for one that decodes itself.
func followed(t reflect.Type) reflect.Type {
	for t != nil {
		if p := reflect.PointerTo(t); p.Implements(unmarshaler) || p.Implements(textUnmarshaler) {
			return nil
		}
		if t.Kind() != reflect.Pointer {
			break
		}
		t = t.Elem()
	}
	return t
}

// known has the fields of the types in Docker's largest request, which are the costly ones to list.
var known = sync.OnceValue(func() map[reflect.Type]map[string]reflect.Type {
	all := map[reflect.Type]map[string]reflect.Type{}
	var add func(t reflect.Type)
	add = func(t reflect.Type) {
		t = followed(t)
		for t != nil && (t.Kind() == reflect.Slice || t.Kind() == reflect.Map || t.Kind() == reflect.Array) {
			t = followed(t.Elem())
		}
		if t == nil || t.Kind() != reflect.Struct || all[t] != nil {
			return
		}
		fields := map[string]reflect.Type{}
		collect(t, fields)
		all[t] = fields
		for _, f := range fields {
			add(f)
		}
	}
	add(reflect.TypeFor[CreateRequest]())
	return all
})

func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if fields := known()[t]; fields != nil {
		return fields
	}
	fields := map[string]reflect.Type{}
	collect(t, fields)
	return fields
}

// collect lists the fields that the decoder knows in a struct, by folded name. Outer fields hide those of embedded structs.
func collect(t reflect.Type, into map[string]reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			inner := map[string]reflect.Type{}
			e := f.Type
			if e.Kind() == reflect.Pointer {
				e = e.Elem()
			}
			collect(e, inner)
			for k, v := range inner {
				if _, hidden := into[k]; !hidden {
					into[k] = v
				}
			}
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		into[fold(name)] = f.Type
	}
}

// fold maps names that Go's JSON decoder takes for one to one text: case does not count, by Unicode's simple folding.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, s)
}

// isDefault reports whether a JSON text says nothing.
func isDefault(raw []byte) bool {
	switch s := string(bytes.TrimSpace(raw)); s {
	case "null", "false", "0", `""`, "[]", "{}":
		return true
	default:
		return len(s) > 2 && (s[0] == '[' || s[0] == '{') && len(strings.TrimSpace(s[1:len(s)-1])) == 0
	}
}
