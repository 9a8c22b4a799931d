package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/compose-spec/compose-go/v2/consts"
	"github.com/compose-spec/compose-go/v2/dotenv"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/types"

	"berth/compose/file"
)

// Answer answers a question. What is wrong with the files is in the answer; nothing else can go wrong.
func Answer(q file.Question) file.Answer {
	var b *file.Builds
	var err error
	if q.Guess {
		_, err = (&composition{env: q.Environment}).load(q.Files, func(o *loader.Options) { o.SkipConsistencyCheck = true })
	} else {
		b, err = builds(q)
	}
	if err != nil {
		return file.Answer{Wrong: err.Error()}
	}
	return file.Answer{Builds: b}
}

// A composition is what compose files say together.
type composition struct {
	env  map[string]string
	read []string // files that those named have led to
}

func builds(q file.Question) (*file.Builds, error) {
	env, err := withDotEnv(q.Environment)
	if err != nil {
		return nil, err
	}
	c := &composition{env: env}
	p, err := c.load(q.Files)
	if err != nil {
		return nil, err
	}
	all := &file.Builds{}
	for _, name := range p.ServiceNames() {
		if s := p.Services[name]; s.Build != nil {
			all.Services = append(all.Services, build(p, s))
		}
	}
	all.Read = c.read
	return all, nil
}

// parts are what is kept of a service. The rest is not for builds, and need not even be valid.
var parts = []string{"image", "build", "environment", "env_file"}

// load reads files as Compose does, and what is not about builds is left out before it can be wrong.
func (c *composition) load(files []file.File, more ...func(*loader.Options)) (p *types.Project, err error) {
	// Whatever the files say, and however it confuses the library, is an error and no end.
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, fmt.Errorf("it cannot be read: %v", r)
		}
	}()
	details := types.ConfigDetails{Environment: c.env}
	for _, f := range files {
		details.ConfigFiles = append(details.ConfigFiles, types.ConfigFile{Filename: f.Name, Content: f.Text})
	}
	ours := func(o *loader.Options) {
		name := c.env[consts.ComposeProjectName]
		if name == "" {
			name = "bake"
		}
		o.SetProjectName(name, false)
		o.SkipNormalization = true
		o.ResourceLoaders = append(o.ResourceLoaders, (*noted)(c))
	}
	more = append([]func(*loader.Options){ours}, more...)
	raw, err := loader.LoadModelWithContext(context.Background(), details, append(more, func(o *loader.Options) { o.SkipValidation = true })...)
	if err != nil {
		return nil, err
	}
	model := onlyBuilds(raw)
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
			c.read = append(c.read, e.Path)
		}
	}
	return p, nil
}

// onlyBuilds is what a model says about builds.
func onlyBuilds(raw map[string]any) map[string]any {
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
	return model
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

// build gives the plain values of a service's build section.
func build(p *types.Project, s types.ServiceConfig) file.Build {
	b := s.Build
	out := file.Build{
		Service: s.Name, Image: s.Image, Context: b.Context, Dockerfile: b.Dockerfile, DockerfileInline: b.DockerfileInline, Target: b.Target,
		Network: b.Network, Tags: b.Tags, Platforms: b.Platforms, Entitlements: b.Entitlements, Args: map[string]string{}, Labels: b.Labels,
		ExtraHosts: b.ExtraHosts, Contexts: b.AdditionalContexts, ShmSize: int64(b.ShmSize), NoCache: b.NoCache, Pull: b.Pull, Privileged: b.Privileged,
		Ulimits: map[string]file.Ulimit{}, CacheFrom: b.CacheFrom, CacheTo: b.CacheTo, Provenance: b.Provenance, SBOM: b.SBOM,
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
			out.Args[k] = *v
		}
	}
	for _, k := range b.SSH {
		out.SSH = append(out.SSH, file.SSH{ID: k.ID, Path: k.Path})
	}
	for _, u := range b.Secrets {
		def, ok := p.Secrets[u.Source]
		out.Secrets = append(out.Secrets, file.Secret{
			Source: u.Source, Target: u.Target, File: def.File, Environment: def.Environment, External: bool(def.External), Missing: !ok,
		})
	}
	for name, u := range b.Ulimits {
		limit := file.Ulimit{Soft: u.Soft, Hard: u.Hard}
		if u.Single != 0 {
			limit = file.Ulimit{Soft: u.Single, Hard: u.Single}
		}
		out.Ulimits[name] = limit
	}
	out.Bake = b.Extensions["x-bake"]
	return out
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
