package jsonread

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestValues(t *testing.T) {
	r := New([]byte(`{"a":"x","b":[1,-2,18446744073709551615],"c":{"d":true,"e":null},"f":"\u00e9\ud83d\ude00\n\"","g":null,"h":[]}`))
	var text, esc string
	var a, b int64
	var c uint64
	var d bool
	var null, empty []string
	r.Object(func(k string) {
		switch k {
		case "a":
			text = r.Text()
		case "b":
			r.Array(func(i int) {
				switch i {
				case 0:
					a = r.Int()
				case 1:
					b = r.Int()
				case 2:
					c = r.Uint()
				}
			})
		case "c":
			r.Object(func(k string) {
				if k == "d" {
					d = r.Bool()
				} else {
					r.Skip()
				}
			})
		case "f":
			esc = r.Text()
		case "g":
			null = r.Texts()
		case "h":
			empty = r.Texts()
		}
	})
	if err := r.End(); err != nil {
		t.Fatal(err)
	}
	if text != "x" || a != 1 || b != -2 || c != 1<<64-1 || !d || esc != "é😀\n\"" || null != nil || empty == nil {
		t.Errorf("%q %d %d %d %v %q %v %v", text, a, b, c, d, esc, null, empty)
	}
}

func TestMistakesSayWhere(t *testing.T) {
	for text, want := range map[string]string{
		"{\n \"a\": {\"b\": 5}}":   "line 2, column 13: a.b: expected a string, found '5'",
		`{"a": {"b": "x}}`:         "line 1, column 17: a.b: the text ends inside a string",
		`{"a": {"b": "x"}`:         `line 1, column 17: the text ends where "," or "}" is expected`,
		`{"a": {"b": "x"}} x`:      "line 1, column 19: text after the end",
		`{"a": {"b": "x",}}`:       "line 1, column 17: a: expected a key, found '}'",
		``:                         "line 1, column 1: the text ends where an object is expected",
		`[]`:                       "line 1, column 1: expected an object, found '['",
		`{"a": {"b": "` + "\x01}}": "line 1, column 14: a.b: a control character inside a string",
	} {
		r := New([]byte(text))
		r.Object(func(string) { r.Object(func(string) { r.Text() }) })
		if err := r.End(); err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", text, err, want)
		}
	}
	r := New([]byte(`{"xs":[1,{"y":2.5}]}`))
	r.Object(func(string) {
		r.Array(func(i int) {
			if i == 0 {
				r.Int()
				return
			}
			r.Object(func(string) { r.Int() })
		})
	})
	if want := "line 1, column 18: xs[1].y: expected a whole number of 64 bits, found 2.5"; r.err == nil || r.err.Error() != want {
		t.Errorf("got %v, want %s", r.err, want)
	}
}

func TestDepthHasALimit(t *testing.T) {
	r := New([]byte(strings.Repeat("[", 100000)))
	r.Skip()
	if r.err == nil || !strings.Contains(r.err.Error(), "nested too deeply") {
		t.Errorf("got %v", r.err)
	}
}

// What is JSON and what a string means is encoding/json's opinion, too.
func FuzzAgainstStandardLibrary(f *testing.F) {
	for _, s := range []string{`{}`, `[1,2.5e-3,"\ud800x",null,true]`, `"é"`, `-0`, `01`, `{"a":}`, "\"\xff\"", `"\u12"`, ` [ ] `, `nul`, `{"a":1,"a":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 3 && string(data[:3]) == "\xef\xbb\xbf" {
			return
		}
		r := New(data)
		r.Skip()
		if got, want := r.End() == nil, json.Valid(data); got != want {
			t.Fatalf("%q: valid %v, encoding/json says %v (%v)", data, got, want, r.err)
		}
		var s string
		if json.Unmarshal(data, &s) == nil && len(data) > 0 {
			r := New(data)
			if got := r.Text(); got != s {
				t.Fatalf("%q: %q, encoding/json says %q", data, got, s)
			}
		}
	})
}
