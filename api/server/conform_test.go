package server

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sort"
	"strings"
	"testing"
)

// schema checks JSON values against a part of a swagger 2.0 description.
type schema struct {
	doc    map[string]any
	closed bool // a name that the description has not is a fault
	faults []string
}

func (s *schema) say(at, format string, args ...any) {
	s.faults = append(s.faults, at+": "+fmt.Sprintf(format, args...))
}

// resolve follows $ref and joins allOf.
func (s *schema) resolve(def map[string]any) map[string]any {
	if ref, ok := def["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/definitions/")
		to, _ := s.doc["definitions"].(map[string]any)[name].(map[string]any)
		return s.resolve(to)
	}
	parts, ok := def["allOf"].([]any)
	if !ok {
		return def
	}
	out := map[string]any{}
	properties := map[string]any{}
	var required []any
	for _, p := range append(slices.Clone(parts), any(map[string]any{"properties": def["properties"], "required": def["required"]})) {
		one := s.resolve(p.(map[string]any))
		for _, k := range []string{"type", "enum", "additionalProperties"} {
			if one[k] != nil {
				out[k] = one[k]
			}
		}
		props, _ := one["properties"].(map[string]any)
		for k, v := range props {
			properties[k] = v
		}
		more, _ := one["required"].([]any)
		required = append(required, more...)
	}
	if len(properties) > 0 {
		out["properties"] = properties
	}
	out["required"] = required
	if def["x-nullable"] == true {
		out["x-nullable"] = true
	}
	return out
}

// check says what of v does not fit def.
func (s *schema) check(at string, def map[string]any, v any) {
	def = s.resolve(def)
	kind, _ := def["type"].(string)
	switch v := v.(type) {
	case nil:
		// Docker's own answers have null for lists, maps and objects that are empty, whatever the description says.
		if def["x-nullable"] != true && (kind == "string" || kind == "boolean" || kind == "integer" || kind == "number") {
			s.say(at, "null instead of a %s", kind)
		}
	case map[string]any:
		s.object(at, def, v)
	case []any:
		if kind != "array" && kind != "" {
			s.say(at, "a list instead of %s", kind)
			return
		}
		items, _ := def["items"].(map[string]any)
		for i, e := range v {
			if items != nil {
				s.check(fmt.Sprintf("%s[%d]", at, i), items, e)
			}
		}
	case string:
		if kind != "string" && kind != "" {
			s.say(at, "the text %q instead of %s", v, kind)
		}
		if allowed, ok := def["enum"].([]any); ok && !slices.Contains(allowed, any(v)) {
			s.say(at, "%q is none of %v", v, allowed)
		}
	case bool:
		if kind != "boolean" && kind != "" {
			s.say(at, "a boolean instead of %s", kind)
		}
	case float64:
		if kind == "integer" && v != math.Trunc(v) || kind != "integer" && kind != "number" && kind != "" {
			s.say(at, "the number %v instead of %s", v, kind)
		}
	}
}

func (s *schema) object(at string, def map[string]any, v map[string]any) {
	if kind, _ := def["type"].(string); kind != "object" && kind != "" {
		s.say(at, "an object instead of %s", kind)
		return
	}
	properties, _ := def["properties"].(map[string]any)
	required, _ := def["required"].([]any)
	for _, name := range required {
		if _, there := v[name.(string)]; !there {
			s.say(at, "%s is missing", name)
		}
	}
	rest, open := def["additionalProperties"]
	for name, value := range v {
		sub, known := properties[name].(map[string]any)
		switch more, is := rest.(map[string]any); {
		case known:
			s.check(at+"."+name, sub, value)
		case is:
			s.check(at+"."+name, more, value)
		case properties != nil && !open && s.closed:
			s.say(at, "%s is unknown", name)
		}
	}
}

// response gives the schema of an answer.
func (s *schema) response(method, path string) map[string]any {
	item, _ := s.doc["paths"].(map[string]any)[path].(map[string]any)
	op, _ := item[method].(map[string]any)
	answers, _ := op["responses"].(map[string]any)
	for _, code := range []string{"200", "201", "202"} {
		if a, ok := answers[code].(map[string]any); ok {
			def, _ := a["schema"].(map[string]any)
			return def
		}
	}
	return nil
}

// knownDifferences are places where Docker's answers are not what its descriptions say, and ours are as Docker's answers.
var knownDifferences = []string{
	".ExitCode: null", // of an exec that has not ended
	".HostConfig.MemorySwappiness: null",
	".HostConfig.PidsLimit: null",
	".ExecIDs: null",
	`.RestartPolicy.Name: "no" is none`,                  // until 1.40
	".Containers[0]: an object instead of array",         // of /system/df until 1.38
	".NetworkSettings.Ports: an object instead of array", // until 1.27
	".PortBindings.80/tcp: a list instead of object",     // until 1.30
	".AuxiliaryAddresses: an object instead of string",   // of networks until 1.40
	".IPAM.Options: an object instead of array",          // likewise
}

// Answers are what Docker's description of their version says: nothing required is missing, and every value has its type. From 1.52 on
// nothing else is there either; the descriptions before are not complete, and Docker adds new fields to old versions, too.
func TestAnswersFitTheirDescription(t *testing.T) {
	for _, version := range []string{"1.25", "1.30", "1.35", "1.40", "1.41", "1.43", "1.44", "1.46", "1.48", "1.50", "1.51", "1.52", "1.53", "1.56"} {
		t.Run(version, func(t *testing.T) {
			doc := swagger(t, version)
			registries, shopHost := newOracle(t)
			for _, tt := range []struct{ method, path, ask, body string }{
				{"get", "/containers/json", "/containers/json?all=1&size=1", ""},
				{"get", "/containers/{id}/json", "/containers/web/json?size=1", ""},
				{"get", "/containers/{id}/top", "/containers/web/top", ""},
				{"get", "/containers/{id}/stats", "/containers/web/stats?stream=0&one-shot=1", ""},
				{"post", "/containers/create", "/containers/create", `{"Image":"a","HostConfig":{"NetworkMode":"none"}}`},
				{"post", "/containers/{id}/update", "/containers/web/update", `{"Memory":10000000}`},
				{"post", "/containers/{id}/wait", "/containers/web/wait", ""},
				{"post", "/containers/prune", "/containers/prune", ""},
				{"post", "/containers/{id}/exec", "/containers/web/exec", `{"Cmd":["a"]}`},
				{"get", "/exec/{id}/json", "/exec/e1/json", ""},
				{"get", "/info", "/info", ""},
				{"get", "/version", "/version", ""},
				{"get", "/images/json", "/images/json?shared-size=1", ""},
				{"get", "/images/{name}/json", "/images/busybox/json", ""},
				{"get", "/images/{name}/history", "/images/busybox/history", ""},
				{"delete", "/images/{name}", "/images/busybox", ""},
				{"post", "/images/prune", "/images/prune", ""},
				{"get", "/images/json", "/images/json?manifests=1", ""},
				{"get", "/images/{name}/json", "/images/busybox/json?manifests=1", ""},
				{"get", "/images/search", "/images/search?term=tomcat", ""},
				{"post", "/auth", "/auth", `{"username":"ann"}`},
				{"get", "/distribution/{name}/json", "/distribution/" + shopHost + "/a:one/json", ""},
				{"get", "/images/{name}/attestations", "/images/busybox/attestations", ""},
				{"get", "/system/df", "/system/df?verbose=1", ""},
				{"get", "/networks", "/networks", ""},
				{"get", "/networks/{id}", "/networks/front", ""},
				{"post", "/networks/create", "/networks/create", `{"Name":"n"}`},
				{"post", "/networks/prune", "/networks/prune", ""},
				{"get", "/volumes", "/volumes", ""},
				{"get", "/volumes/{name}", "/volumes/data", ""},
				{"post", "/volumes/create", "/volumes/create", `{"Name":"n1"}`},
				{"post", "/volumes/prune", "/volumes/prune", ""},
				{"get", "/events", "/events?since=1&until=1772600767.100", ""},
			} {
				f := newFake()
				f.info = networked(f.info)
				f.stats = statsSample()
				f.waits <- exitSample()
				srv, web, bus := serve(t, f)
				a := newAlbum()
				describeParts(a)
				srv.cfg.Images, srv.cfg.Networks, srv.cfg.Volumes, srv.cfg.Registries = a, newNets(), newShelf(), registries
				bus.Publish(eventOf("container", "start"))
				if version < "1.41" && strings.Contains(tt.ask, "one-shot") {
					continue // would take a second
				}
				if version < "1.30" && strings.Contains(tt.ask, "/distribution/") || version < "1.55" && strings.Contains(tt.ask, "/attestations") {
					continue // was not there yet
				}
				code, text, _ := ask(t, web, strings.ToUpper(tt.method), "/v"+version+tt.ask, tt.body)
				if code/100 != 2 {
					t.Errorf("%s %s: %d %s", tt.method, tt.path, code, text)
					continue
				}
				s := &schema{doc: doc, closed: version >= "1.52"}
				def := s.response(tt.method, tt.path)
				if def == nil {
					t.Errorf("%s %s has no schema", tt.method, tt.path)
					continue
				}
				var v any
				if err := json.Unmarshal([]byte(strings.SplitN(text, "\n", 2)[0]), &v); err != nil {
					t.Fatal(err)
				}
				s.check("", def, v)
				sort.Strings(s.faults)
				for _, fault := range s.faults {
					if !slices.ContainsFunc(knownDifferences, func(k string) bool { return strings.Contains(fault, k) }) {
						t.Errorf("%s %s%s", tt.method, tt.path, fault)
					}
				}
			}
		})
	}
}
