package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"regexp"
	"sort"
	"strings"
	"testing"

	"berth/test/conform/swagger"
)

// The page that says what works is made from the route table: run this test with -update after a change.
func TestCompatibilityPageIsCurrent(t *testing.T) {
	golden(t, "../../docs/compatibility.md", compatibilityPage(routes()))
}

func compatibilityPage(all []route) []byte {
	var b bytes.Buffer
	b.WriteString(`# Compatibility with Docker's API

<!-- Made from the route table in api/server/routes.go by "go test ./api/server -update". Do not edit. -->

Berth answers Docker's API from version 1.24 to 1.56, with the shapes that each version had. What this build has not yet answers
status 501 with a sentence; nothing that a client asks for is dropped without a word.

| Route | Here | Remarks |
|---|---|---|
`)
	have, total := 0, 0
	for _, r := range all {
		if r.own {
			continue
		}
		total++
		state, remark := "yes", r.note
		if r.handle == nil {
			state, remark = "no", r.lacks+" not in this build"
			if r.alone != "" {
				remark += "; 503 as from an engine in no swarm"
			}
			if r.absent != "" {
				remark += "; every name is answered with 404"
			}
		} else {
			have++
		}
		if r.since != 0 {
			remark = strings.TrimSuffix("since "+r.since.String()+"; "+remark, "; ")
		}
		fmt.Fprintf(&b, "| `%s %s` | %s | %s |\n", r.method, r.path, state, remark)
	}
	fmt.Fprintf(&b, "\n%d of %d routes.\n\n## Berth's own routes\n\nA client knows Berth by the header `Berth-Version` of `/_ping`. `/berth/v1/openapi.json` describes them.\n\n", have, total)
	for _, r := range all {
		if r.own {
			fmt.Fprintf(&b, "- `%s %s`\n", r.method, r.path)
		}
	}
	b.WriteString(`
## What is stricter than Docker

| Matter | Docker | Berth |
|---|---|---|
| A name given twice in one JSON object | the last one counts | 400: a proxy that allows and an engine that acts must read the same |
| A field of a container's configuration that the build does not honour | some are ignored | 400 or 501, naming the field |
| A field that Docker does not know | ignored | ignored, with a warning in create's answer |
| Numbers and times in a query that cannot be read | 500 | 400, same words |
| A filter of ` + "`/events`" + ` that does not exist | ignored | 400 |
| Size of a JSON body | no bound | 8 MB |
| Plain TCP on an address that is not the loopback | a warning | refused unless ` + "`--tls=false`" + ` says that it is meant |
| A unix socket on which another engine listens | taken over | refused |
`)
	return b.Bytes()
}

// description reads Docker's of one version of the API.
func description(t *testing.T, minor int) *swagger.Document {
	t.Helper()
	dir, err := swagger.Dir()
	if err != nil {
		t.Skipf("needs the swagger documents of moby's API module: %v", err)
	}
	doc, err := swagger.Read(dir, minor)
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestEveryRouteOfDockerIsInTheTable(t *testing.T) {
	table := newTable(routes())
	param := regexp.MustCompile(`\{[^}]*\}`)
	for minor := swagger.Oldest; minor <= swagger.Newest; minor++ {
		for _, op := range description(t, minor).Operations {
			p := strings.TrimSuffix(param.ReplaceAllString(op.Path, "some/thing"), "/")
			if r, _ := table.find(op.Method, p); r == nil {
				t.Errorf("API 1.%d has %s, and the table has not", minor, op.Key())
			} else if strings.Count(r.path, "/") != strings.Count(op.Path, "/") {
				t.Errorf("%s is found as %s", op.Key(), r.path)
			}
		}
	}
}

func TestRoutesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range routes() {
		key := r.method + " " + r.path
		if seen[key] {
			t.Errorf("%s is there twice", key)
		}
		seen[key] = true
		if (r.handle == nil) == (r.lacks == "") {
			t.Errorf("%s has neither or both of a handler and a reason", key)
		}
	}
}

// What Berth's own description says and what is served are the same.
func TestOwnRoutesAreDescribed(t *testing.T) {
	var doc struct{ Paths map[string]map[string]any }
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	var described, served []string
	for path, methods := range doc.Paths {
		for m := range methods {
			described = append(described, strings.ToUpper(m)+" "+path)
		}
	}
	for _, r := range routes() {
		if r.own {
			served = append(served, r.method+" "+r.path)
		}
	}
	sort.Strings(described)
	sort.Strings(served)
	if strings.Join(described, "\n") != strings.Join(served, "\n") {
		t.Errorf("described:\n%s\nserved:\n%s", strings.Join(described, "\n"), strings.Join(served, "\n"))
	}
}

func FuzzFind(f *testing.F) {
	for _, s := range []string{"/containers/x/json", "/containers//json", "/v1.44/images/a/b/get", "/containers/x/checkpoints/y", "//", "/v/", "/v1./x"} {
		f.Add("GET", s)
	}
	table := newTable(routes())
	f.Fuzz(func(t *testing.T, method, path string) {
		clean := cleanPath(path)
		if cleanPath(clean) != clean {
			t.Errorf("%q is not clean", clean)
		}
		_, rest := splitVersion(clean)
		if r, name := table.find(method, rest); r != nil && strings.Contains(r.path, "{name}") && (name == "" || !strings.Contains(rest, name)) {
			t.Errorf("%q in %q", name, rest)
		}
	})
}
