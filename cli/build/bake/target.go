package bake

import (
	"encoding/json"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/buildkit/client/llb"

	"berth/cli/build/request"
)

// A Target is one build, as far as files say something about it: nil is unsaid. Its JSON form is that of `bake --print`.
type Target struct {
	Name        string   `json:"-"`
	Description string   `json:"description,omitempty"`
	Inherits    []string `json:"inherits,omitempty"`

	Annotations      []string           `json:"annotations,omitempty"`
	Attest           []object           `json:"attest,omitempty"`
	Context          *string            `json:"context,omitempty"`
	Contexts         map[string]string  `json:"contexts,omitempty"`
	Dockerfile       *string            `json:"dockerfile,omitempty"`
	DockerfileInline *string            `json:"dockerfile-inline,omitempty"`
	Args             map[string]*string `json:"args,omitempty"`
	Labels           map[string]*string `json:"labels,omitempty"`
	Tags             []string           `json:"tags,omitempty"`
	CacheFrom        []object           `json:"cache-from,omitempty"`
	CacheTo          []object           `json:"cache-to,omitempty"`
	Target           *string            `json:"target,omitempty"`
	Secrets          []object           `json:"secret,omitempty"`
	SSH              []object           `json:"ssh,omitempty"`
	Platforms        []string           `json:"platforms,omitempty"`
	Outputs          []object           `json:"output,omitempty"`
	Pull             *bool              `json:"pull,omitempty"`
	NoCache          *bool              `json:"no-cache,omitempty"`
	Network          *string            `json:"network,omitempty"`
	NoCacheFilter    []string           `json:"no-cache-filter,omitempty"`
	ShmSize          *string            `json:"shm-size,omitempty"`
	Ulimits          []string           `json:"ulimits,omitempty"`
	Resources        map[string]string  `json:"resources,omitempty"`
	Call             *string            `json:"call,omitempty"`
	Entitlements     []string           `json:"entitlements,omitempty"`
	ExtraHosts       map[string]*string `json:"extra-hosts,omitempty"`

	files  []string             // that were read for it, and that the command line does not name
	state  *llb.State           // its context, where it is no place of its own
	states map[string]llb.State // those of Contexts
	auth   []request.Secret     // for the repository that its file came from
}

// A Group is several targets and groups by one name.
type Group struct {
	Name        string   `json:"-"`
	Description string   `json:"description,omitempty"`
	Targets     []string `json:"targets"`
}

// A Config is what files say.
type Config struct {
	Targets   []*Target
	Groups    []*Group
	Variables []Variable
}

// MarshalJSON writes what can be read again: in a file, ${ and %{ begin templates.
func (t *Target) MarshalJSON() ([]byte, error) {
	type plain Target
	c := plain(*t)
	escape := func(s string) string { return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(s) }
	table := func(m map[string]*string) map[string]*string {
		out := maps.Clone(m)
		for k, v := range out {
			if v != nil {
				text := escape(*v)
				out[k] = &text
			}
		}
		return out
	}
	c.Args, c.Labels, c.ExtraHosts = table(c.Args), table(c.Labels), table(c.ExtraHosts)
	c.Annotations = slices.Clone(c.Annotations)
	for i, a := range c.Annotations {
		c.Annotations[i] = escape(a)
	}
	if c.DockerfileInline != nil {
		text := escape(*c.DockerfileInline)
		c.DockerfileInline = &text
	}
	return json.Marshal(c)
}

// merge lets o say more about t: single values and most lists take the place of what was said, maps and some lists grow.
func (t *Target) merge(o *Target) {
	if o.Description != "" {
		t.Description = o.Description
	}
	for _, p := range []struct{ to, from **string }{
		{&t.Context, &o.Context}, {&t.Dockerfile, &o.Dockerfile}, {&t.DockerfileInline, &o.DockerfileInline}, {&t.Target, &o.Target},
		{&t.Network, &o.Network}, {&t.ShmSize, &o.ShmSize}, {&t.Call, &o.Call},
	} {
		if *p.from != nil {
			*p.to = *p.from
		}
	}
	if o.Pull != nil {
		t.Pull = o.Pull
	}
	if o.NoCache != nil {
		t.NoCache = o.NoCache
	}
	if o.Tags != nil {
		t.Tags = o.Tags
	}
	if o.Platforms != nil {
		t.Platforms = o.Platforms
	}
	if o.CacheTo != nil {
		t.CacheTo = o.CacheTo
	}
	if o.Outputs != nil {
		t.Outputs = o.Outputs
	}
	t.Args, t.Labels, t.ExtraHosts = grow(t.Args, o.Args), grow(t.Labels, o.Labels), grow(t.ExtraHosts, o.ExtraHosts)
	for k, v := range o.Contexts {
		if t.Contexts == nil {
			t.Contexts = map[string]string{}
		}
		t.Contexts[k] = v
	}
	for k, v := range o.Resources {
		if t.Resources == nil {
			t.Resources = map[string]string{}
		}
		t.Resources[k] = v
	}
	for _, p := range []struct{ to, from *[]string }{
		{&t.Annotations, &o.Annotations}, {&t.NoCacheFilter, &o.NoCacheFilter}, {&t.Ulimits, &o.Ulimits}, {&t.Entitlements, &o.Entitlements}, {&t.Inherits, &o.Inherits},
	} {
		*p.to = append(slices.Clone(*p.to), *p.from...)
	}
	t.Attest = joinBy(t.Attest, o.Attest, "type")
	t.Secrets = joinBy(t.Secrets, o.Secrets, "id")
	t.SSH = joinBy(t.SSH, o.SSH, "id")
	t.CacheFrom = append(slices.Clone(t.CacheFrom), o.CacheFrom...)
	t.files = append(slices.Clone(t.files), o.files...)
}

// grow adds what is not null.
func grow(m, more map[string]*string) map[string]*string {
	for k, v := range more {
		if v == nil {
			continue
		}
		if m == nil {
			m = map[string]*string{}
		}
		m[k] = v
	}
	return m
}

// joinBy joins lists of objects: one with a key that is there takes its place.
func joinBy(list, more []object, key string) []object {
	list = slices.Clone(list)
	for _, o := range more {
		i := slices.IndexFunc(list, func(have object) bool { return have[key] == o[key] })
		if i < 0 {
			list = append(list, o)
			continue
		}
		list[i] = o
	}
	return list
}

// tidy takes double entries out and adds what follows from others.
func (t *Target) tidy() {
	if t.Network != nil && *t.Network == "host" {
		t.Entitlements = append(t.Entitlements, "network.host")
	}
	for _, list := range []*[]string{&t.Annotations, &t.Tags, &t.Platforms, &t.NoCacheFilter, &t.Ulimits, &t.Entitlements} {
		*list = unique(*list, func(s string) string { return s })
	}
	for _, list := range []*[]object{&t.CacheFrom, &t.CacheTo, &t.Outputs} {
		*list = unique(*list, func(o object) string { return o.String() })
	}
	maps.DeleteFunc(t.Contexts, func(_, place string) bool { return place == "" })
	if len(t.Contexts) == 0 {
		t.Contexts = nil
	}
}

func unique[T any](list []T, key func(T) string) []T {
	seen := map[string]bool{}
	var out []T
	for _, v := range list {
		if k := key(v); !seen[k] {
			seen[k] = true
			out = append(out, v)
		}
	}
	return out
}

// Resolve picks targets by name, group or pattern, with what they inherit and what overrides say, and those that they use as contexts. The group
// "default" has what was asked for.
func (c *Config) Resolve(names, overrides []string) (map[string]*Target, map[string]*Group, error) {
	var wanted []string
	for _, n := range names {
		matches, err := c.match(strings.ReplaceAll(n, ".", "_"))
		if err != nil {
			return nil, nil, err
		}
		wanted = append(wanted, matches...)
	}
	wanted = unique(wanted, func(s string) string { return s })
	changes, err := c.overrides(overrides)
	if err != nil {
		return nil, nil, err
	}
	targets, groups := map[string]*Target{}, map[string]*Group{}
	for _, n := range wanted {
		members, inside := c.members(n, map[string]bool{})
		for _, m := range members {
			if err := c.add(m, targets, changes, nil); err != nil {
				return nil, nil, err
			}
		}
		for _, g := range inside {
			groups[g] = c.group(g)
		}
	}
	all := &Group{Name: "default"}
	if g, ok := groups["default"]; ok {
		all = &Group{Name: g.Name, Description: g.Description, Targets: slices.Clone(g.Targets)}
	}
	for _, n := range wanted {
		if n != "default" || c.group("default") == nil {
			all.Targets = append(all.Targets, n)
		}
	}
	slices.Sort(all.Targets)
	all.Targets = slices.Compact(all.Targets)
	groups["default"] = all
	return targets, groups, nil
}

func (c *Config) group(name string) *Group {
	for _, g := range c.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}

func (c *Config) target(name string) *Target {
	for _, t := range c.Targets {
		if t.Name == name {
			return t
		}
	}
	return nil
}

// match gives the names that a pattern means; a plain name means itself.
func (c *Config) match(pattern string) ([]string, error) {
	if !strings.ContainsAny(pattern, "*?[]") {
		return []string{pattern}, nil
	}
	var names []string
	for _, g := range c.Groups {
		if ok, err := path.Match(pattern, g.Name); err == nil && ok {
			names = append(names, g.Name)
		}
	}
	for _, t := range c.Targets {
		if ok, err := path.Match(pattern, t.Name); err == nil && ok {
			names = append(names, t.Name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("could not find any target matching '%s'", pattern)
	}
	return names, nil
}

// members gives the targets below a name, and the groups on the way.
func (c *Config) members(name string, seen map[string]bool) (targets, groups []string) {
	g := c.group(name)
	if g == nil {
		return []string{name}, nil
	}
	if seen[name] {
		return nil, nil
	}
	seen[name] = true
	groups = []string{name}
	for _, n := range g.Targets {
		t, inside := c.members(n, seen)
		targets, groups = append(targets, t...), append(groups, inside...)
	}
	return targets, groups
}

// add puts a target, and those that its contexts name, into targets. way are the targets that led here.
func (c *Config) add(name string, targets map[string]*Target, changes map[string][]change, way []string) error {
	if slices.Contains(way, name) {
		return fmt.Errorf("infinite loop from %s to %s", way[len(way)-1], name)
	}
	if targets[name] != nil {
		return nil
	}
	t, err := c.joined(name, changes, nil)
	if err != nil {
		return err
	}
	dot, file := ".", "Dockerfile"
	if t.Context == nil {
		t.Context = &dot
	}
	if t.Dockerfile == nil || *t.Dockerfile == "" {
		t.Dockerfile = &file
	}
	t.Inherits = nil
	for _, place := range t.Contexts {
		if used, ok := strings.CutPrefix(place, "target:"); ok {
			if err := c.add(used, targets, changes, append(slices.Clone(way), name)); err != nil {
				return err
			}
		}
	}
	targets[name] = t
	return nil
}

// joined gives a target with what it inherits.
func (c *Config) joined(name string, changes map[string][]change, way []string) (*Target, error) {
	if slices.Contains(way, name) {
		return &Target{}, nil // what inherits itself gains nothing
	}
	t := c.target(name)
	if t == nil {
		return nil, fmt.Errorf("failed to find target %s", name)
	}
	out := &Target{Name: name}
	for _, parent := range t.Inherits {
		p, err := c.joined(parent, changes, append(slices.Clone(way), name))
		if err != nil {
			return nil, err
		}
		out.merge(p)
	}
	out.merge(t)
	for _, ch := range changes[name] {
		if err := ch.apply(out); err != nil {
			return nil, err
		}
	}
	out.tidy()
	return out, nil
}

// Spec is the request that a target makes.
func (t *Target) Spec() (*request.Spec, error) {
	s := &request.Spec{
		Context: value(t.Context), Dockerfile: value(t.Dockerfile), DockerfileInline: value(t.DockerfileInline), Target: value(t.Target),
		Contexts: map[string]string{}, Args: plain(t.Args), Labels: plain(t.Labels), Tags: t.Tags, Platforms: t.Platforms, Annotations: t.Annotations,
		NoCacheFilter: t.NoCacheFilter, Ulimits: t.Ulimits, Allow: t.Entitlements, Network: value(t.Network),
		Pull: t.Pull != nil && *t.Pull, NoCache: t.NoCache != nil && *t.NoCache,
		ContextState: t.state, ContextStates: t.states,
	}
	if t.state == nil && s.Context != "-" && !strings.Contains(s.Context, "://") && s.Dockerfile != "" && s.Dockerfile != "-" && !path.IsAbs(s.Dockerfile) && !strings.Contains(s.Dockerfile, "://") && isLocal(s.Context) {
		s.Dockerfile = path.Join(s.Context, s.Dockerfile) // in a bake file it is relative to the context
	}
	for name, ip := range t.ExtraHosts {
		s.ExtraHosts = append(s.ExtraHosts, name+"="+value(ip))
	}
	slices.Sort(s.ExtraHosts)
	for k, v := range t.Resources {
		s.Resources = append(s.Resources, k+"="+v)
	}
	slices.Sort(s.Resources)
	if t.ShmSize != nil {
		n, err := units.RAMInBytes(*t.ShmSize)
		if err != nil {
			return nil, fmt.Errorf("invalid value %s for membytes key shm-size: %w", *t.ShmSize, err)
		}
		s.ShmSize = n
	}
	var err error
	parse := func(read func() error) {
		if err == nil {
			err = read()
		}
	}
	parse(func() (e error) { s.Attests, e = request.ParseAttests(texts(t.Attest), "", ""); return })
	parse(func() (e error) { s.CacheFrom, e = request.ParseCaches(texts(t.CacheFrom)); return })
	parse(func() (e error) { s.CacheTo, e = request.ParseCaches(texts(t.CacheTo)); return })
	parse(func() (e error) { s.Secrets, e = request.ParseSecrets(texts(t.Secrets)); return })
	s.Secrets = append(s.Secrets, t.auth...)
	parse(func() (e error) { s.Outputs, e = request.ParseOutputs(texts(t.Outputs)); return })
	parse(func() (e error) { s.Call, e = request.ParseCall(value(t.Call)); return })
	parse(func() (e error) {
		var pairs []string
		for name, place := range t.Contexts {
			if _, ok := t.states[name]; !ok {
				pairs = append(pairs, name+"="+place)
			}
		}
		s.Contexts, e = request.ParseContexts(pairs)
		return
	})
	for _, o := range t.SSH {
		s.SSH = append(s.SSH, request.ParseSSH([]string{o.ssh()})...)
	}
	return s, err
}

// isLocal reports whether a place is a path of this machine.
func isLocal(place string) bool {
	return !strings.HasPrefix(place, "git@") && !strings.HasPrefix(place, "github.com/") && !strings.Contains(place, "://")
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func plain(m map[string]*string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		if v != nil {
			out[k] = *v
		}
	}
	return out
}

func parseBool(key, v string) (*bool, error) {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return nil, fmt.Errorf("invalid value %s for boolean key %s", v, key)
	}
	return &on, nil
}
