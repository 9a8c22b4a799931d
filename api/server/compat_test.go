package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
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

// apiDir is where the module with Docker's API description lies.
func apiDir(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		t.Skipf("needs the module github.com/moby/moby/api on disk: %v", err)
	}
	return string(bytes.TrimSpace(out))
}

// swagger reads the description of one API version.
func swagger(t *testing.T, version string) map[string]any {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(apiDir(t), "docs", "v"+version+".yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := yaml.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestEveryRouteOfDockerIsInTheTable(t *testing.T) {
	table := newTable(routes())
	param := regexp.MustCompile(`\{[^}]*\}`)
	for _, version := range []string{"1.25", "1.30", "1.40", "1.44", "1.50", "1.56"} {
		for path, item := range swagger(t, version)["paths"].(map[string]any) {
			for method := range item.(map[string]any) {
				method = strings.ToUpper(method)
				if method == "PARAMETERS" {
					continue
				}
				p := param.ReplaceAllString(path, "some/thing")
				p = strings.TrimSuffix(p, "/")
				if r, _ := table.find(method, p); r == nil {
					t.Errorf("API %s has %s %s, and the table has not", version, method, path)
				} else if strings.Count(r.path, "/") != strings.Count(path, "/") {
					t.Errorf("%s %s is found as %s", method, path, r.path)
				}
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
