package swagger

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The versions that have a document.
const (
	Oldest = 25
	Newest = 56
)

// A Document is the description of one version of the API.
type Document struct {
	Minor      int // of 1.Minor
	Operations []Operation

	definitions map[string]any
}

// An Operation is one method on one path.
type Operation struct {
	Method     string // "GET"
	Path       string // "/containers/{id}/json"
	Tag        string // "Container", "Exec", "Image" …
	Parameters []Parameter
	Produces   []string // media types; empty where the document does not say
	Codes      []int    // what it lists, ascending

	responses map[string]any
}

// Key names the operation: "GET /containers/{id}/json".
func (o *Operation) Key() string { return o.Method + " " + o.Path }

// A Parameter is what a request may carry, apart from its method.
type Parameter struct {
	Name     string
	In       string // path, query, header or body
	Type     string // string, integer, boolean, array; "" for a body
	Required bool
	Enum     []string
	Schema   map[string]any // of a body
}

// Dir gives the directory of the documents in the module cache.
func Dir() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/moby/api").Output()
	if err != nil || len(bytes.TrimSpace(out)) == 0 {
		return "", fmt.Errorf("needs the module github.com/moby/moby/api on disk: %w", err)
	}
	return filepath.Join(string(bytes.TrimSpace(out)), "docs"), nil
}

// Read reads the document of version 1.minor from dir.
func Read(dir string, minor int) (*Document, error) {
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("v1.%d.yaml", minor)))
	if err != nil {
		return nil, err
	}
	var raw struct {
		Definitions map[string]any            `yaml:"definitions"`
		Paths       map[string]map[string]any `yaml:"paths"`
	}
	if err := yaml.Unmarshal(data, &raw); err != nil {
		return nil, err
	}
	d := &Document{Minor: minor, definitions: raw.Definitions}
	for path, methods := range raw.Paths {
		for method, item := range methods {
			op, ok := item.(map[string]any)
			if !ok {
				return nil, fmt.Errorf("1.%d: %s %s is no operation", minor, method, path)
			}
			d.Operations = append(d.Operations, operation(strings.ToUpper(method), path, op))
		}
	}
	sort.Slice(d.Operations, func(a, b int) bool { return d.Operations[a].Key() < d.Operations[b].Key() })
	return d, nil
}

func operation(method, path string, raw map[string]any) Operation {
	o := Operation{Method: method, Path: path, Produces: texts(raw["produces"])}
	if tags := texts(raw["tags"]); len(tags) > 0 {
		o.Tag = tags[0]
	}
	list, _ := raw["parameters"].([]any)
	for _, p := range list {
		m, _ := p.(map[string]any)
		one := Parameter{Name: text(m["name"]), In: text(m["in"]), Type: text(m["type"]), Required: m["required"] == true, Enum: texts(m["enum"])}
		one.Schema, _ = m["schema"].(map[string]any)
		o.Parameters = append(o.Parameters, one)
	}
	o.responses, _ = raw["responses"].(map[string]any)
	for code := range o.responses {
		if n, err := strconv.Atoi(code); err == nil {
			o.Codes = append(o.Codes, n)
		}
	}
	sort.Ints(o.Codes)
	return o
}

// Schema gives what the document says of the body that comes with a code; nil where it says nothing.
func (o *Operation) Schema(code int) map[string]any {
	response, _ := o.responses[strconv.Itoa(code)].(map[string]any)
	schema, _ := response["schema"].(map[string]any)
	return schema
}

func text(v any) string {
	s, _ := v.(string)
	return s
}

func texts(v any) []string {
	list, _ := v.([]any)
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprint(e))
	}
	return out
}
