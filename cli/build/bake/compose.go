package bake

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/docker/cli/opts"

	"berth/compose/file"
)

// A Composer reads compose files. Its error is of the way to who reads them; what is wrong with the files is in the answer.
type Composer func(file.Question) (file.Answer, error)

// ask has a question answered.
func (c Composer) ask(files []File, env map[string]string, guess bool) (*file.Builds, error) {
	q := file.Question{Environment: env, Guess: guess}
	for _, f := range files {
		q.Files = append(q.Files, file.File(f))
	}
	a, err := c(q)
	if err == nil && a.Wrong != "" {
		err = wrong(a.Wrong)
	}
	return a.Builds, err
}

// wrong is what is wrong with files.
type wrong string

func (w wrong) Error() string { return string(w) }

// read reads the builds of compose files.
func (c Composer) read(files []File, env map[string]string) (*Config, error) {
	builds, err := c.ask(files, env, false)
	if err != nil {
		return nil, err
	}
	config, all := &Config{}, &Group{Name: "default"}
	for _, b := range builds.Services {
		t, err := composed(b)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", b.Service, err)
		}
		t.files = builds.Read
		config.Targets = append(config.Targets, t)
		all.Targets = append(all.Targets, t.Name)
	}
	config.Groups = []*Group{all}
	return config, nil
}

// guess reports whether text without a telling name is a compose file.
func (c Composer) guess(f File, env map[string]string) (bool, error) {
	_, err := c.ask([]File{f}, env, true)
	var no wrong
	if errors.As(err, &no) {
		return false, nil
	}
	return err == nil, err
}

// composed is the target of a service.
func composed(b file.Build) (*Target, error) {
	t := &Target{
		Name: targetName(b.Service), Tags: b.Tags, Platforms: b.Platforms, Entitlements: b.Entitlements, Args: map[string]*string{},
		Labels: map[string]*string{}, ExtraHosts: map[string]*string{},
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
	for k, v := range b.Args {
		t.Args[k] = &v
	}
	for k, v := range b.Labels {
		t.Labels[k] = &v
	}
	for k, v := range b.ExtraHosts {
		text := strings.Join(v, ",")
		t.ExtraHosts[k] = &text
	}
	t.merge(&Target{Contexts: namedContexts(b.Contexts)})
	for _, k := range b.SSH {
		o := object{"id": k.ID}
		if k.Path != "" {
			o["paths"] = k.Path
		}
		t.SSH = append(t.SSH, o)
	}
	slices.SortFunc(t.SSH, func(a, b object) int { return strings.Compare(a["id"], b["id"]) })
	if err := t.addSecrets(b.Secrets); err != nil {
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
		t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%d:%d", k, b.Ulimits[k].Soft, b.Ulimits[k].Hard))
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
	if err := t.extend(b.Bake); err != nil {
		return nil, fmt.Errorf("x-bake: %w", err)
	}
	if len(t.Tags) == 0 && b.Image != "" {
		t.Tags = []string{b.Image}
	}
	return t, nil
}

// targetName is what a target is called that a service makes.
func targetName(service string) string { return strings.ReplaceAll(service, ".", "_") }

// namedContexts are those of a service: another service's result is another target's.
func namedContexts(m map[string]string) map[string]string {
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

func (t *Target) addSecrets(uses []file.Secret) error {
	for _, u := range uses {
		if u.Missing {
			return fmt.Errorf("undefined secret %s", u.Source)
		}
		if u.External {
			return fmt.Errorf("unsupported external secret %s", u.Source)
		}
		o := object{"id": u.Source}
		if u.Target != "" {
			o["id"] = u.Target
		}
		switch {
		case u.File != "":
			o["src"] = u.File
		case u.Environment != "":
			o["env"] = u.Environment
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
