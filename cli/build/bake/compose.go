package bake

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/cli/opts"
)

// A composition is what compose files say together: one may change what another says, extend its services and include more files.
type composition struct {
	env  map[string]string
	read []string // files that those named have led to
}

// parts are what is kept of a service. The rest is not for us, and need not even be valid.
var parts = []string{"image", "build", "environment", "env_file"}

// readCompose reads the builds of compose files.
func readCompose(files []File, env map[string]string) (*Config, error) {
	env, err := withDotEnv(env)
	if err != nil {
		return nil, err
	}
	f := &composition{env: env}
	p, err := f.load(files)
	if err != nil {
		return nil, err
	}
	c, all := &Config{}, &Group{Name: "default"}
	for _, name := range sortedKeys(p.Services) {
		s := p.Services[name]
		if s.Build == nil {
			continue
		}
		t, err := f.target(p, s)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
		c.Targets = append(c.Targets, t)
		all.Targets = append(all.Targets, t.Name)
	}
	c.Groups = []*Group{all}
	return c, nil
}

// isCompose reports whether text without a telling name is a compose file.
func isCompose(f File, env map[string]string) bool {
	_, err := (&composition{env: env}).load([]File{f}, func(o *loader.Options) { o.SkipConsistencyCheck = true })
	return err == nil
}

// load reads files as Compose does, and what is not about builds is left out before it can be wrong.
func (f *composition) load(files []File, more ...func(*loader.Options)) (p *types.Project, err error) {
	// Whatever the files say, and however it confuses the library, is an error and no end.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("it cannot be read: %v", r)
		}
	}()
	details := types.ConfigDetails{Environment: f.env}
	for _, file := range files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: file.Name, Content: file.Text})
	}
	common := func(o *loader.Options) {
		name := f.env[consts.ComposeProjectName]
		if name == "" {
			name = "bake"
		}
		o.SetProjectName(name, false)
		o.SkipNormalization = true
		o.ResourceLoaders = append(o.ResourceLoaders, (*noted)(f))
	}
	more = append([]func(*loader.Options){common}, more...)
	raw, err := loader.LoadModelWithContext(context.Background(), details, append(more, func(o *loader.Options) { o.SkipValidation = true })...)
	if err != nil {
		return nil, err
	}
	model := map[string]any{}
	if services, ok := raw["services"].(map[string]any); ok {
		kept := map[string]any{}
		for name, s := range services {
			one := map[string]any{}
			if s, ok := s.(map[string]any); ok {
				for _, key := range parts {
					if v, ok := s[key]; ok {
						one[key] = v
					}
				}
			}
			kept[name] = one
		}
		model["services"] = kept
	}
	if v, ok := raw["secrets"]; ok {
		model["secrets"] = v
	}
	if len(model) == 0 {
		return nil, errors.New("empty compose file")
	}
	if err := schema.Validate(model); err != nil {
		return nil, err
	}
	o := loader.ToOptions(&details, append(more, func(o *loader.Options) { o.Profiles = []string{"*"} }))
	if p, err = loader.ModelToProject(model, o, details); err != nil {
		return nil, err
	}
	for _, s := range p.Services {
		for _, e := range s.EnvFiles {
			f.read = append(f.read, e.Path)
		}
	}
	return p, nil
}

// noted takes note of the files that others lead to, and leaves them to the library's own loader.
type noted composition

// Accept is asked about each file.
func (n *noted) Accept(path string) bool {
	n.read = append(n.read, path)
	return false
}

// Load is of what was accepted, which nothing is.
func (n *noted) Load(context.Context, string) (string, error) {
	return "", errors.New("not a file of ours")
}

// Dir is too.
func (n *noted) Dir(path string) string { return filepath.Dir(path) }

func (f *composition) target(p *types.Project, s types.ServiceConfig) (*Target, error) {
	b := s.Build
	t := &Target{
		Name: targetName(s.Name), Tags: b.Tags, Platforms: b.Platforms, Entitlements: b.Entitlements, Args: map[string]*string{},
		Labels: map[string]*string{}, ExtraHosts: map[string]*string{}, files: f.read,
	}
	if !validName(t.Name) {
		return nil, fmt.Errorf("invalid service name %q", t.Name)
	}
	for _, p := range []struct {
		to   **string
		from string
	}{{&t.Context, b.Context}, {&t.Dockerfile, b.Dockerfile}, {&t.DockerfileInline, b.DockerfileInline}, {&t.Target, b.Target}, {&t.Network, b.Network}} {
		if p.from != "" {
			*p.to = &p.from
		}
	}
	args := b.Args.Resolve(func(name string) (string, bool) {
		if v, ok := s.Environment[name]; ok && v != nil {
			return *v, true
		}
		v, ok := p.Environment[name]
		return v, ok
	})
	for k, v := range args {
		if v != nil {
			t.Args[k] = v
		}
	}
	for k, v := range b.Labels {
		t.Labels[k] = &v
	}
	for k, v := range b.ExtraHosts {
		text := strings.Join(v, ",")
		t.ExtraHosts[k] = &text
	}
	t.merge(&Target{Contexts: namedContexts(b.AdditionalContexts)})
	for _, k := range b.SSH {
		o := object{"id": k.ID}
		if k.Path != "" {
			o["paths"] = k.Path
		}
		t.SSH = append(t.SSH, o)
	}
	slices.SortFunc(t.SSH, func(a, b object) int { return strings.Compare(a["id"], b["id"]) })
	if err := t.addSecrets(b.Secrets, p.Secrets); err != nil {
		return nil, err
	}
	if b.ShmSize > 0 {
		size := opts.MemBytes(b.ShmSize)
		text := size.String()
		t.ShmSize = &text
	}
	if b.NoCache {
		t.NoCache = &b.NoCache
	}
	if b.Pull {
		t.Pull = &b.Pull
	}
	if b.Privileged {
		t.Entitlements = append(t.Entitlements, "security.insecure")
	}
	for _, k := range sortedKeys(b.Ulimits) {
		soft, hard := b.Ulimits[k].Soft, b.Ulimits[k].Hard
		if one := b.Ulimits[k].Single; one != 0 {
			soft, hard = one, one
		}
		t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%d:%d", k, soft, hard))
	}
	for _, p := range []struct {
		texts []string
		to    *[]object
	}{{b.CacheFrom, &t.CacheFrom}, {b.CacheTo, &t.CacheTo}} {
		for _, text := range p.texts {
			more, err := cacheObjects(text)
			if err != nil {
				return nil, err
			}
			*p.to = append(*p.to, more...)
		}
	}
	if err := t.addAttests(b.Provenance, b.SBOM); err != nil {
		return nil, err
	}
	if err := t.extend(b.Extensions["x-bake"]); err != nil {
		return nil, fmt.Errorf("x-bake: %w", err)
	}
	if len(t.Tags) == 0 && s.Image != "" {
		t.Tags = []string{s.Image}
	}
	return t, nil
}

// targetName is what a target is called that a service makes.
func targetName(service string) string { return strings.ReplaceAll(service, ".", "_") }

// namedContexts are those of a service: another service's result is another target's.
func namedContexts(m types.Mapping) map[string]string {
	out := map[string]string{}
	for name, place := range m {
		for _, kind := range []string{"service:", "target:"} {
			if used, ok := strings.CutPrefix(place, kind); ok {
				place = "target:" + targetName(used)
			}
		}
		out[name] = place
	}
	return out
}

func (t *Target) addSecrets(uses []types.ServiceSecretConfig, all types.Secrets) error {
	for _, u := range uses {
		def, ok := all[u.Source]
		if !ok {
			return fmt.Errorf("undefined secret %s", u.Source)
		}
		if def.External {
			return fmt.Errorf("unsupported external secret %s", u.Source)
		}
		o := object{"id": u.Source}
		if u.Target != "" {
			o["id"] = u.Target
		}
		switch {
		case def.File != "":
			o["src"] = def.File
		case def.Environment != "":
			o["env"] = def.Environment
		}
		t.Secrets = append(t.Secrets, o)
	}
	return nil
}

func (t *Target) addAttests(provenance, sbom string) error {
	for _, a := range []struct{ kind, text string }{{"provenance", provenance}, {"sbom", sbom}} {
		text := "type=" + a.kind
		switch a.text {
		case "":
			continue
		case "true", "1":
		case "false", "0":
			text += ",disabled=true"
		default:
			text += "," + a.text
		}
		more, err := attestObjects(text)
		if err != nil {
			return err
		}
		t.Attest = append(t.Attest, more...)
	}
	return nil
}

// extend adds what x-bake says, in the words of bake files. A text where a list belongs has its elements between spaces.
func (t *Target) extend(said any) error {
	more, ok := said.(map[string]any)
	if !ok && said != nil {
		return errors.New("a mapping is needed")
	}
	x := &Target{}
	fields := x.fields()
	for _, key := range sortedKeys(more) {
		read, ok := fields[key]
		if !ok {
			return fmt.Errorf("unknown key %s", key)
		}
		given := more[key]
		if text, ok := given.(string); ok && wantsList(key) {
			words := []any{}
			for _, w := range strings.Fields(text) {
				words = append(words, w)
			}
			given = words
		}
		v, err := fromYAML(given)
		if err == nil {
			err = read(v)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	// These are added to what the service has, where a bake file's would take its place.
	x.Tags, x.Platforms = append(slices.Clone(t.Tags), x.Tags...), append(slices.Clone(t.Platforms), x.Platforms...)
	x.CacheTo, x.Outputs = append(slices.Clone(t.CacheTo), x.CacheTo...), append(slices.Clone(t.Outputs), x.Outputs...)
	x.Contexts = namedContexts(x.Contexts)
	t.merge(x)
	return nil
}

func wantsList(key string) bool {
	switch key {
	case "tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output", "no-cache-filter", "attest", "entitlements", "annotations", "ulimits":
		return true
	}
	return false
}

// withDotEnv is the environment with what compose's .env says beneath it.
func withDotEnv(env map[string]string) (map[string]string, error) {
	text, err := os.ReadFile(".env")
	if fi, statErr := os.Stat(".env"); errors.Is(err, os.ErrNotExist) || statErr == nil && fi.IsDir() {
		return env, nil
	}
	if err != nil {
		return nil, err
	}
	all, err := dotenv.UnmarshalBytesWithLookup(text, func(name string) (string, bool) { v, ok := env[name]; return v, ok })
	if err != nil {
		return nil, fmt.Errorf(".env: %w", err)
	}
	for k, v := range env {
		all[k] = v
	}
	return all, nil
}
