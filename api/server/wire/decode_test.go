package wire

import (
	"encoding/json"
	"slices"
	"testing"

	"berth/base/fault"
)

type Inner struct {
	A   int
	B   map[string]int
	Low []Inner `json:"low"`
}

type outer struct {
	*Inner
	Name  string
	Words Words
	Any   any
	Skip  int `json:"-"`
}

func TestDecode(t *testing.T) {
	for _, tt := range []struct {
		in, err string
		unknown []string
	}{
		{in: `{"Name":"x","a":1,"B":{"k":1,"K":2},"low":[{"A":1},{"A":2}]}`},
		{in: " {\n\"Name\" : \"x\" , \"Words\":\"one\"}\n\t "},
		{in: `{"Words":["a","b"],"Any":{"x":{"x":1}}}`},
		{in: `{"Nope":1,"Zero":0,"Empty":{ },"None":[ ],"No":false,"Nil":null,"Text":"","low":[{"Deep":true}]}`, unknown: []string{"Nope", "low.Deep"}},
		{in: `{"Skip":1}`, unknown: []string{"Skip"}},
		{in: `{"Name":"a","name":"b"}`, err: `invalid JSON: "name" is there twice`},
		{in: `{"Name":"a","N\u0061me":"b"}`, err: `invalid JSON: "Name" is there twice`},
		{in: "{\"Words\":[],\"Word\u017f\":[]}", err: "invalid JSON: \"Word\u017f\" is there twice"},
		{in: `{"B":{"k":1,"k":2}}`, err: `invalid JSON: "B.k" is there twice`},
		{in: `{"Any":{"k":1,"k":2}}`, err: `invalid JSON: "Any.k" is there twice`},
		{in: `{"low":[{},{"A":1,"a":2}]}`, err: `invalid JSON: "low.a" is there twice`},
		{in: ``, err: `invalid JSON: got EOF while reading request body`},
		{in: "  \n", err: `invalid JSON: got EOF while reading request body`},
		{in: `{`, err: `invalid JSON: unexpected EOF`},
		{in: `{"Name":1}`, err: `invalid JSON: json: cannot unmarshal number into Go struct field outer.Name of type string`},
		{in: `{}{}`, err: `unexpected content after JSON`},
		{in: `{}}`, err: `unexpected content after JSON`},
		{in: `null`},
	} {
		var o outer
		unknown, err := Decode([]byte(tt.in), &o)
		if err != nil && (err.Error() != tt.err || !fault.Is(err, fault.Invalid)) || err == nil && tt.err != "" {
			t.Errorf("%s: error %v, want %q", tt.in, err, tt.err)
		}
		if err == nil && !slices.Equal(unknown, tt.unknown) {
			t.Errorf("%s: unknown %q, want %q", tt.in, unknown, tt.unknown)
		}
	}
}

// The walker goes over what the decoder has accepted: it must find its end exactly, whatever stands in it.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"Image":"a","HostConfig":{"Ulimits":[null],"Mounts":[{}]}}`, `{"a":[1,[2,"x\\\""],{}],"b":-1e5 }`, `[]`, `"x"`, `{"HostConfig":{"Devices":[{"PathOnHost":"/dev/a"}]}}`, `{"\ud800":1,"\ud801":2}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var r CreateRequest
		_, err := Decode(data, &r)
		if accepted := json.Valid(data); err == nil && !accepted {
			t.Errorf("accepted what is no JSON: %q", data)
		}
		if err == nil {
			w := walker{data: data}
			if w.value(nil, ""); w.at > len(data) {
				t.Errorf("the walker went past the end: %q", data)
			}
			for _, v := range []Version{Oldest, 43, Newest} {
				again := CreateRequest{}
				_, _ = Decode(data, &again)
				if s, _, err := again.Spec(v); err == nil && s.Network.Mode == "" {
					t.Errorf("a specification without a network mode from %q", data)
				}
			}
		}
	})
}
