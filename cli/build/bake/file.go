package bake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// A File is one that describes builds.
type File struct {
	Name string
	Text []byte
}

// DefaultNames are looked for where no file is named; all that are there are read.
func DefaultNames() []string {
	return []string{
		"compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml",
		"docker-bake.json", "docker-bake.hcl", "docker-bake.override.json", "docker-bake.override.hcl",
	}
}

// ReadFiles reads the named files; "-" is in. Without names the default ones are read, those of them that exist.
func ReadFiles(names []string, in io.Reader) ([]File, error) {
	optional := len(names) == 0
	if optional {
		names = DefaultNames()
	}
	var files []File
	for _, n := range names {
		var text []byte
		var err error
		if n == "-" {
			text, err = io.ReadAll(in)
		} else {
			text, err = os.ReadFile(n)
		}
		if optional && errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files = append(files, File{n, text})
	}
	if len(files) == 0 {
		return nil, errors.New("couldn't find a bake definition")
	}
	return files, nil
}

// Parse makes a Config of files; later ones say more about what earlier ones have. given are variables by name that win over all others, env is
// the environment, compose reads compose files. Its errors have the lines that they are about, for solver/errdefs to find.
func Parse(files []File, given, env map[string]string, compose Composer) (*Config, error) {
	c, err := parse(files, given, env, compose)
	return c, withLines(err, files)
}

// withLines adds the lines of a file that HCL complains about.
func withLines(err error, files []File) error {
	var diags hcl.Diagnostics
	if !errors.As(err, &diags) {
		return err
	}
	for _, d := range diags {
		if d.Severity != hcl.DiagError || d.Subject == nil {
			continue
		}
		i := slices.IndexFunc(files, func(f File) bool { return f.Name == d.Subject.Filename })
		if i < 0 {
			continue
		}
		at := &pb.Range{Start: &pb.Position{Line: int32(d.Subject.Start.Line)}, End: &pb.Position{Line: int32(d.Subject.End.Line)}}
		err = errdefs.WithSource(err, &errdefs.Source{Info: &pb.SourceInfo{Filename: files[i].Name, Data: files[i].Text}, Ranges: []*pb.Range{at}})
	}
	return err
}

func parse(files []File, given, env map[string]string, compose Composer) (*Config, error) {
	m := newModule(given, env)
	var compositions []File
	for _, f := range files {
		isCompose, err := m.read(f, env, compose)
		if err != nil {
			return nil, err
		}
		if isCompose {
			compositions = append(compositions, f)
		}
	}
	c := &Config{}
	if len(compositions) > 0 {
		all := maps.Clone(env)
		if all == nil {
			all = map[string]string{}
		}
		maps.Copy(all, given)
		part, err := compose.read(compositions, all)
		if err != nil {
			return nil, fmt.Errorf("failed to parse compose files: %w", err)
		}
		c = part
	}
	rest, err := m.config()
	if err != nil {
		return nil, err
	}
	for _, t := range rest.Targets {
		c.addTarget(t)
	}
	for _, g := range rest.Groups {
		c.addGroup(g)
	}
	c.Variables = rest.Variables
	return c, nil
}

// read reads a file by what its name says it is, else by what it looks like. Compose files are read later, all together.
func (m *module) read(f File, env map[string]string, compose Composer) (isCompose bool, err error) {
	switch strings.ToLower(filepath.Ext(f.Name)) {
	case ".json":
		return false, m.addJSON(f.Name, f.Text)
	case ".hcl":
		return false, m.addHCL(f.Name, f.Text)
	case ".yaml", ".yml":
		return true, nil
	}
	var top map[string]json.RawMessage
	isJSON := json.Unmarshal(f.Text, &top) == nil
	if _, services := top["services"]; !isJSON || services { // JSON is YAML too
		if isCompose, err := compose.guess(f, env); isCompose || err != nil {
			return isCompose, err
		}
	}
	if isJSON {
		return false, m.addJSON(f.Name, f.Text)
	}
	if err := m.addHCL(f.Name, f.Text); err != nil {
		return false, fmt.Errorf("failed to parse %s: %w", f.Name, err)
	}
	return false, nil
}

// fromYAML makes of decoded YAML what the readers of attributes take.
func fromYAML(v any) (cty.Value, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return cty.NilVal, err
	}
	kind, err := ctyjson.ImpliedType(text)
	if err != nil {
		return cty.NilVal, err
	}
	return ctyjson.Unmarshal(text, kind)
}
