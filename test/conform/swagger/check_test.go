package swagger

import (
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	object := func(properties map[string]any, more ...any) map[string]any {
		def := map[string]any{"type": "object", "properties": properties}
		for i := 0; i < len(more); i += 2 {
			def[more[i].(string)] = more[i+1]
		}
		return def
	}
	d := &Document{Minor: 99, definitions: map[string]any{
		"Id":    object(map[string]any{"Id": map[string]any{"type": "string"}}, "required", []any{"Id"}),
		"Named": map[string]any{"allOf": []any{map[string]any{"$ref": "#/definitions/Id"}, object(map[string]any{"Name": map[string]any{"type": "string", "enum": []any{"a", "b"}}})}},
	}}
	for _, tt := range []struct {
		name   string
		schema map[string]any
		body   string
		want   string
	}{
		{"all well", map[string]any{"$ref": "#/definitions/Named"}, `{"Id":"x","Name":"a"}`, ""},
		{"missing", map[string]any{"$ref": "#/definitions/Named"}, `{"Name":"a"}`, ".Id: missing"},
		{"unknown", map[string]any{"$ref": "#/definitions/Id"}, `{"Id":"x","id":"x"}`, ".id: unknown"},
		{"enum", map[string]any{"$ref": "#/definitions/Named"}, `{"Id":"x","Name":"c"}`, `.Name: "c" is none of ["a" "b"]`},
		{"null for a text", map[string]any{"$ref": "#/definitions/Id"}, `{"Id":null}`, ".Id: null instead of string"},
		{"nullable", object(map[string]any{"A": map[string]any{"type": "string", "x-nullable": true}}), `{"A":null}`, ""},
		{"null for a list", object(map[string]any{"A": map[string]any{"type": "array"}}), `{"A":null}`, ""},
		{"types", object(map[string]any{"A": map[string]any{"type": "integer"}}), `{"A":1.5}`, ".A: number instead of integer"},
		{"a whole number for a number", object(map[string]any{"A": map[string]any{"type": "number"}}), `{"A":1}`, ""},
		{"format", object(map[string]any{"A": map[string]any{"type": "integer", "format": "uint16"}}), `{"A":65536}`, ".A: 65536 is no uint16"},
		{"a large one", object(map[string]any{"A": map[string]any{"type": "integer", "format": "uint64"}}), `{"A":18446744073709551615}`, ""},
		{"minimum", object(map[string]any{"A": map[string]any{"type": "integer", "minimum": 0}}), `{"A":-1}`, ".A: -1 is beyond the minimum of 0"},
		{"date", object(map[string]any{"A": map[string]any{"type": "string", "format": "dateTime"}}), `{"A":"now"}`, `.A: no date: "now"`},
		{"a map's values", map[string]any{"type": "object", "additionalProperties": map[string]any{"type": "string"}}, `{"x":1,"y":2}`, ".*: integer instead of string"},
		{"in lists", map[string]any{"type": "array", "items": map[string]any{"$ref": "#/definitions/Id"}}, `[{"Id":"x"},{}]`, "[*].Id: missing"},
		{"two values", map[string]any{"type": "object"}, `{} {}`, ": more than one JSON value"},
		{"no JSON", map[string]any{"type": "object"}, `<html>`, ": no JSON: invalid character '<' looking for beginning of value"},
	} {
		if got := strings.Join(d.Check(tt.schema, []byte(tt.body)), "\n"); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestEveryDocumentIsRead(t *testing.T) {
	dir, err := Dir()
	if err != nil {
		t.Skipf("needs the swagger documents of moby's API module: %v", err)
	}
	for minor := Oldest; minor <= Newest; minor++ {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			d, err := Read(dir, minor)
			if err != nil {
				t.Fatal(err)
			}
			for i := range d.Operations {
				o := &d.Operations[i]
				if len(o.Codes) == 0 {
					t.Errorf("1.%d %s lists no answers", minor, o.Key())
				}
				for _, code := range o.Codes {
					if s := o.Schema(code); s != nil {
						d.Check(s, []byte("null")) // every reference of the first level leads somewhere
					}
				}
			}
			if len(d.Operations) < 90 {
				t.Errorf("1.%d has %d operations only", minor, len(d.Operations))
			}
		})
	}
}
