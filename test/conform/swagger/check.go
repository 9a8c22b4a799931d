package swagger

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"sort"
	"strings"
	"time"
)

// Check says what of a JSON body does not fit a schema of the document, as "PATH: what is wrong", sorted. Names that the schema
// does not have are faults too. In PATH a map's keys and a list's places are "*", so that one deviation has one name.
func (d *Document) Check(schema map[string]any, body []byte) []string {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return []string{": no JSON: " + err.Error()}
	}
	c := checker{doc: d, faults: map[string]bool{}}
	if _, err := dec.Token(); err != io.EOF {
		c.say("", "more than one JSON value")
	}
	c.value("", schema, v)
	out := make([]string, 0, len(c.faults))
	for f := range c.faults {
		out = append(out, f)
	}
	sort.Strings(out)
	return out
}

type checker struct {
	doc    *Document
	faults map[string]bool
}

func (c *checker) say(at, format string, args ...any) {
	c.faults[at+": "+fmt.Sprintf(format, args...)] = true
}

// value checks v, which stands at a place, against a schema.
func (c *checker) value(at string, def map[string]any, v any) {
	def = c.resolve(def)
	kinds := kindsOf(def)
	if v == nil {
		// Go's nil maps, lists and pointers are null, and the documents hardly ever say so: only where a scalar is promised is null a fault.
		if def["x-nullable"] != true && len(kinds) > 0 && !slices.Contains(kinds, "array") && !slices.Contains(kinds, "object") {
			c.say(at, "null instead of %s", kinds[0])
		}
		return
	}
	got := kindOf(v)
	if len(kinds) > 0 && !slices.Contains(kinds, got) && !(got == "integer" && slices.Contains(kinds, "number")) {
		c.say(at, "%s instead of %s", got, kinds[0])
		return
	}
	switch v := v.(type) {
	case map[string]any:
		c.object(at, def, v)
	case []any:
		items, _ := def["items"].(map[string]any)
		for _, e := range v {
			if items != nil {
				c.value(at+"[*]", items, e)
			}
		}
	case string:
		c.text(at, def, v)
	case json.Number:
		c.number(at, def, v)
	}
}

func (c *checker) object(at string, def, v map[string]any) {
	properties, _ := def["properties"].(map[string]any)
	for _, name := range texts(def["required"]) {
		if _, there := v[name]; !there {
			c.say(at+"."+name, "missing")
		}
	}
	rest, open := def["additionalProperties"]
	more, _ := rest.(map[string]any)
	for name, value := range v {
		sub, known := properties[name].(map[string]any)
		switch {
		case known:
			c.value(at+"."+name, sub, value)
		case more != nil:
			c.value(at+".*", more, value)
		case len(properties) > 0 && !open:
			c.say(at+"."+name, "unknown")
		}
	}
}

func (c *checker) text(at string, def map[string]any, v string) {
	if allowed := texts(def["enum"]); allowed != nil && !slices.Contains(allowed, v) {
		c.say(at, "%q is none of %q", v, allowed)
	}
	if f := text(def["format"]); (f == "dateTime" || f == "date-time") && v != "" {
		if _, err := time.Parse(time.RFC3339Nano, v); err != nil {
			c.say(at, "no date: %q", v)
		}
	}
}

// ranges are the formats of whole numbers.
var ranges = map[string][2]*big.Float{
	"int64":  {big.NewFloat(math.MinInt64), big.NewFloat(math.MaxInt64)},
	"uint64": {new(big.Float), big.NewFloat(math.MaxUint64)},
	"uint32": {new(big.Float), big.NewFloat(math.MaxUint32)},
	"uint16": {new(big.Float), big.NewFloat(math.MaxUint16)},
	"uint8":  {new(big.Float), big.NewFloat(math.MaxUint8)},
}

func (c *checker) number(at string, def map[string]any, v json.Number) {
	n, _, err := big.ParseFloat(v.String(), 10, 128, big.ToNearestEven)
	if err != nil {
		c.say(at, "no number: %s", v)
		return
	}
	if r, ok := ranges[text(def["format"])]; ok && (n.Cmp(r[0]) < 0 || n.Cmp(r[1]) > 0) {
		c.say(at, "%s is no %s", v, def["format"])
	}
	for _, bound := range []struct {
		name string
		bad  int
	}{{"minimum", -1}, {"maximum", 1}} {
		if b, ok := bigOf(def[bound.name]); ok && n.Cmp(b) == bound.bad {
			c.say(at, "%s is beyond the %s of %v", v, bound.name, def[bound.name])
		}
	}
}

func bigOf(v any) (*big.Float, bool) {
	if v == nil {
		return nil, false
	}
	b, _, err := big.ParseFloat(fmt.Sprint(v), 10, 128, big.ToNearestEven)
	return b, err == nil
}

// kindsOf gives the types that a schema allows; none where it allows any.
func kindsOf(def map[string]any) []string {
	if list := texts(def["type"]); list != nil {
		return list
	}
	if t := text(def["type"]); t != "" {
		return []string{t}
	}
	if def["properties"] != nil || def["additionalProperties"] != nil {
		return []string{"object"}
	}
	return nil
}

func kindOf(v any) string {
	switch v := v.(type) {
	case map[string]any:
		return "object"
	case []any:
		return "array"
	case string:
		return "string"
	case bool:
		return "boolean"
	case json.Number:
		if strings.ContainsAny(v.String(), ".eE") {
			return "number"
		}
		return "integer"
	}
	return "null"
}

// resolve follows $ref and joins allOf.
func (c *checker) resolve(def map[string]any) map[string]any {
	if ref := text(def["$ref"]); ref != "" {
		name, ok := strings.CutPrefix(ref, "#/definitions/")
		to, there := c.doc.definitions[name].(map[string]any)
		if !ok || !there {
			panic(fmt.Sprintf("1.%d: %s leads nowhere", c.doc.Minor, ref))
		}
		if to = c.resolve(to); def["x-nullable"] == true && to["x-nullable"] != true {
			to = with(to, "x-nullable", true)
		}
		return to
	}
	parts, ok := def["allOf"].([]any)
	if !ok {
		return def
	}
	out, properties := map[string]any{}, map[string]any{}
	var required []any
	own := map[string]any{}
	for k, v := range def {
		if k != "allOf" {
			own[k] = v
		}
	}
	for _, p := range append(slices.Clone(parts), any(own)) {
		one := c.resolve(p.(map[string]any))
		for k, v := range one {
			switch k {
			case "properties":
				for name, sub := range v.(map[string]any) {
					properties[name] = sub
				}
			case "required":
				required = append(required, v.([]any)...)
			default:
				out[k] = v
			}
		}
	}
	if len(properties) > 0 {
		out["properties"] = properties
	}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

func with(m map[string]any, key string, v any) map[string]any {
	out := make(map[string]any, len(m)+1)
	for k, e := range m {
		out[k] = e
	}
	out[key] = v
	return out
}
