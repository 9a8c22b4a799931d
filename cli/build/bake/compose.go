package bake

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// composeFile is what a compose file says about builds.
type composeFile struct {
	Services map[string]composeService `yaml:"services"`
	Secrets  map[string]composeSecret  `yaml:"secrets"`
}

type composeService struct {
	Image string        `yaml:"image"`
	Build *composeBuild `yaml:"build"`
}

type composeSecret struct {
	File        string `yaml:"file"`
	Environment string `yaml:"environment"`
}

type composeBuild struct {
	Context            string               `yaml:"context"`
	Dockerfile         string               `yaml:"dockerfile"`
	DockerfileInline   string               `yaml:"dockerfile_inline"`
	Args               mapping              `yaml:"args"`
	Labels             mapping              `yaml:"labels"`
	AdditionalContexts mapping              `yaml:"additional_contexts"`
	ExtraHosts         mapping              `yaml:"extra_hosts"`
	SSH                mapping              `yaml:"ssh"`
	Ulimits            map[string]any       `yaml:"ulimits"`
	Tags               []string             `yaml:"tags"`
	Platforms          []string             `yaml:"platforms"`
	CacheFrom          []string             `yaml:"cache_from"`
	CacheTo            []string             `yaml:"cache_to"`
	Entitlements       []string             `yaml:"entitlements"`
	Secrets            []composeUse         `yaml:"secrets"`
	Target             string               `yaml:"target"`
	Network            string               `yaml:"network"`
	ShmSize            any                  `yaml:"shm_size"`
	NoCache            bool                 `yaml:"no_cache"`
	Pull               bool                 `yaml:"pull"`
	Privileged         bool                 `yaml:"privileged"`
	Provenance         any                  `yaml:"provenance"`
	SBOM               any                  `yaml:"sbom"`
	Bake               map[string]any       `yaml:"x-bake"`
	Others             map[string]yaml.Node `yaml:",inline"`
}

// UnmarshalYAML also takes the short form: a context alone.
func (b *composeBuild) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&b.Context)
	}
	type plain composeBuild
	return n.Decode((*plain)(b))
}

// A composeUse is a secret that a build uses, by name, under another name or the same.
type composeUse struct{ Source, Target string }

func (u *composeUse) UnmarshalYAML(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode {
		return n.Decode(&u.Source)
	}
	type plain struct {
		Source string `yaml:"source"`
		Target string `yaml:"target"`
	}
	var p plain
	err := n.Decode(&p)
	u.Source, u.Target = p.Source, p.Target
	return err
}

// A mapping is a map, or a list of KEY=VALUE; nil is a key without value.
type mapping map[string]*string

func (m *mapping) UnmarshalYAML(n *yaml.Node) error {
	*m = mapping{}
	if n.Kind == yaml.SequenceNode {
		var list []string
		if err := n.Decode(&list); err != nil {
			return err
		}
		for _, text := range list {
			k, v, ok := strings.Cut(text, "=")
			if !ok {
				if host, ip, colon := strings.Cut(text, ":"); colon { // extra_hosts
					k, v, ok = host, ip, true
				}
			}
			(*m)[k] = nil
			if ok {
				(*m)[k] = &v
			}
		}
		return nil
	}
	var table map[string]any
	if err := n.Decode(&table); err != nil {
		return err
	}
	for k, v := range table {
		if v == nil {
			(*m)[k] = nil
			continue
		}
		text := fmt.Sprint(v)
		(*m)[k] = &text
	}
	return nil
}

// readCompose reads the builds of a compose file. It gives nil without error for YAML that is no compose file.
func readCompose(text []byte, lookup func(string) (string, bool)) (*Config, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, err
	}
	if len(root.Content) == 0 || root.Content[0].Kind != yaml.MappingNode {
		return nil, nil
	}
	if err := interpolate(&root, lookup, map[*yaml.Node]bool{}); err != nil {
		return nil, err
	}
	var f composeFile
	if err := root.Decode(&f); err != nil {
		return nil, err
	}
	if f.Services == nil {
		return nil, nil
	}
	c, all := &Config{}, &Group{Name: "default"}
	for _, name := range sortedKeys(f.Services) {
		s := f.Services[name]
		if s.Build == nil {
			continue
		}
		t, err := f.target(strings.ReplaceAll(name, ".", "_"), s, lookup)
		if err != nil {
			return nil, fmt.Errorf("service %s: %w", name, err)
		}
		c.Targets = append(c.Targets, t)
		all.Targets = append(all.Targets, t.Name)
	}
	c.Groups = []*Group{all}
	return c, nil
}

func (f *composeFile) target(name string, s composeService, lookup func(string) (string, bool)) (*Target, error) {
	b := s.Build
	for key := range b.Others {
		if !strings.HasPrefix(key, "x-") && key != "isolation" {
			return nil, fmt.Errorf("build.%s is not supported", key)
		}
	}
	t := &Target{Name: name, Tags: b.Tags, Platforms: b.Platforms, Entitlements: b.Entitlements, Labels: b.Labels, Args: map[string]*string{}}
	for _, p := range []struct {
		to   **string
		from string
	}{{&t.Context, b.Context}, {&t.Dockerfile, b.Dockerfile}, {&t.DockerfileInline, b.DockerfileInline}, {&t.Target, b.Target}, {&t.Network, b.Network}} {
		if p.from != "" {
			*p.to = &p.from
		}
	}
	for k, v := range b.Args {
		if v == nil {
			if text, ok := lookup(k); ok {
				v = &text
			}
		}
		t.Args[k] = v
	}
	t.ExtraHosts = b.ExtraHosts
	for k, v := range b.AdditionalContexts {
		place := value(v)
		if used, ok := strings.CutPrefix(place, "service:"); ok {
			place = "target:" + strings.ReplaceAll(used, ".", "_")
		}
		t.merge(&Target{Contexts: map[string]string{k: place}})
	}
	for id, path := range b.SSH {
		o := object{"id": id}
		if value(path) != "" {
			o["paths"] = value(path)
		}
		t.SSH = append(t.SSH, o)
	}
	slices.SortFunc(t.SSH, func(a, b object) int { return strings.Compare(a["id"], b["id"]) })
	for _, u := range b.Secrets {
		def, ok := f.Secrets[u.Source]
		if !ok {
			return nil, fmt.Errorf("undefined secret %s", u.Source)
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
	if b.ShmSize != nil {
		size := fmt.Sprint(b.ShmSize)
		t.ShmSize = &size
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
		switch v := b.Ulimits[k].(type) {
		case map[string]any:
			t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%v:%v", k, v["soft"], v["hard"]))
		default:
			t.Ulimits = append(t.Ulimits, fmt.Sprintf("%s=%v", k, v))
		}
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
	for kind, v := range map[string]any{"provenance": b.Provenance, "sbom": b.SBOM} {
		if v == nil {
			continue
		}
		text := fmt.Sprint(v)
		if on, err := strconv.ParseBool(text); err == nil {
			text = "disabled=" + strconv.FormatBool(!on)
		}
		more, err := attestObjects("type=" + kind + "," + text)
		if err != nil {
			return nil, err
		}
		t.Attest = append(t.Attest, more...)
	}
	slices.SortFunc(t.Attest, func(a, b object) int { return strings.Compare(a["type"], b["type"]) })
	if err := t.extend(b.Bake); err != nil {
		return nil, fmt.Errorf("x-bake: %w", err)
	}
	if len(t.Tags) == 0 && s.Image != "" {
		t.Tags = []string{s.Image}
	}
	return t, nil
}

// extend adds what x-bake says, in the words of bake files.
func (t *Target) extend(more map[string]any) error {
	if len(more) == 0 {
		return nil
	}
	fields := t.fields()
	for _, key := range sortedKeys(more) {
		read, ok := fields[key]
		if key == "secret" || key == "attest" || ok {
			v, err := fromYAML(more[key])
			if err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			if key != "context" && key != "dockerfile" && isText(more[key]) && wantsList(key) {
				if v, err = fromYAML([]any{more[key]}); err != nil {
					return err
				}
			}
			if err := read(v); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			continue
		}
		return fmt.Errorf("unknown key %s", key)
	}
	return nil
}

func isText(v any) bool { _, ok := v.(string); return ok }

func wantsList(key string) bool {
	switch key {
	case "tags", "cache-from", "cache-to", "secret", "ssh", "platforms", "output", "no-cache-filter", "attest", "entitlements", "annotations", "ulimits":
		return true
	}
	return false
}

// interpolate puts values of the environment into all texts of a compose file.
func interpolate(n *yaml.Node, lookup func(string) (string, bool), seen map[*yaml.Node]bool) error {
	if n == nil || seen[n] {
		return nil
	}
	seen[n] = true
	if n.Kind == yaml.ScalarNode && strings.Contains(n.Value, "$") {
		text, err := substitute(n.Value, lookup)
		if err != nil {
			return err
		}
		if n.Value = text; n.Style == 0 { // a bare ${PORT} may become a number
			n.Tag = ""
		}
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			continue // keys stay
		}
		if err := interpolate(c, lookup, seen); err != nil {
			return err
		}
	}
	return interpolate(n.Alias, lookup, seen)
}

// substitute replaces $NAME, ${NAME} and its forms with :-, -, :?, ?, :+ and +; $$ is a dollar.
func substitute(text string, lookup func(string) (string, bool)) (string, error) {
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		switch {
		case strings.HasPrefix(rest, "$"):
			out.WriteByte('$')
			text = rest[1:]
		case strings.HasPrefix(rest, "{"):
			end := closing(rest)
			if end < 0 {
				return "", fmt.Errorf("invalid interpolation format: %q", "$"+rest)
			}
			v, err := substituted(rest[1:end], lookup)
			if err != nil {
				return "", err
			}
			out.WriteString(v)
			text = rest[end+1:]
		default:
			n := nameLength(rest)
			if n == 0 {
				return "", fmt.Errorf("invalid interpolation format: %q", "$"+rest)
			}
			v, _ := lookup(rest[:n])
			out.WriteString(v)
			text = rest[n:]
		}
	}
}

// closing finds the brace that ends text's first one.
func closing(text string) int {
	depth := 0
	for i, c := range text {
		switch c {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i
			}
		}
	}
	return -1
}

func nameLength(text string) int {
	for i, c := range text {
		if !(c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || i > 0 && '0' <= c && c <= '9') {
			return i
		}
	}
	return len(text)
}

func substituted(inside string, lookup func(string) (string, bool)) (string, error) {
	n := nameLength(inside)
	name, rest := inside[:n], inside[n:]
	if n == 0 {
		return "", fmt.Errorf("invalid interpolation format: %q", "${"+inside+"}")
	}
	v, set := lookup(name)
	op, filled := rest, set
	if strings.HasPrefix(op, ":") {
		op, filled = op[1:], set && v != ""
	}
	if op == "" {
		if rest != "" {
			return "", fmt.Errorf("invalid interpolation format: %q", "${"+inside+"}")
		}
		return v, nil
	}
	word, err := substitute(op[1:], lookup)
	if err != nil {
		return "", err
	}
	switch {
	case op[0] == '-' && !filled, op[0] == '+' && filled:
		return word, nil
	case op[0] == '-':
		return v, nil
	case op[0] == '+':
		return "", nil
	case op[0] == '?' && !filled:
		return "", fmt.Errorf("required variable %s is missing a value: %s", name, word)
	case op[0] == '?':
		return v, nil
	}
	return "", fmt.Errorf("invalid interpolation format: %q", "${"+inside+"}")
}

// withDotEnv is the environment with what compose's .env says beneath it.
func withDotEnv(lookup func(string) (string, bool)) (func(string) (string, bool), error) {
	text, err := os.ReadFile(".env")
	if errors.Is(err, os.ErrNotExist) {
		return lookup, nil
	}
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		k, v, ok := strings.Cut(strings.TrimPrefix(line, "export "), "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		v = strings.TrimSpace(v)
		switch {
		case len(v) > 1 && (v[0] == '"' || v[0] == '\'') && v[len(v)-1] == v[0]:
			v = v[1 : len(v)-1]
		default:
			v, _, _ = strings.Cut(v, " #")
		}
		values[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return func(name string) (string, bool) {
		if v, ok := lookup(name); ok {
			return v, true
		}
		v, ok := values[name]
		return v, ok
	}, nil
}
