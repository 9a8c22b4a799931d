package container

import (
	"maps"
	"slices"
	"strings"

	"berth/base/fault"
)

// DefaultPath is the PATH of a container whose image sets none.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// ImageDefaults is the part of an image's configuration that completes a Spec.
type ImageDefaults struct {
	User         string
	Env          []string
	Entrypoint   []string
	Cmd          []string
	ArgsEscaped  bool
	WorkingDir   string
	Labels       map[string]string
	StopSignal   string
	ExposedPorts []string
	Volumes      map[string]struct{}
	Healthcheck  *Healthcheck
	OnBuild      []string
	Shell        []string
}

// WithImage gives the spec completed by the image's configuration, by Docker's rules. s is not changed.
func (s Spec) WithImage(d ImageDefaults) (Spec, error) {
	p := &s.Process
	if p.User == "" {
		p.User = d.User
	}
	if p.WorkingDir == "" {
		p.WorkingDir = d.WorkingDir
	}
	p.Env = mergeEnv(p.Env, d.Env)
	if len(p.Entrypoint) == 0 {
		if len(p.Cmd) == 0 {
			p.Cmd, p.ArgsEscaped = d.Cmd, d.ArgsEscaped
		}
		if p.Entrypoint == nil {
			p.Entrypoint = d.Entrypoint
		}
	}
	if len(p.Entrypoint) == 1 && p.Entrypoint[0] == "" { // --entrypoint "" asks for none
		p.Entrypoint = nil
	}
	if len(p.Entrypoint) == 0 && len(p.Cmd) == 0 {
		return s, fault.New(fault.Invalid, "no command specified")
	}

	s.Labels = union(d.Labels, s.Labels)
	s.Volumes = union(d.Volumes, s.Volumes)
	ports := slices.Concat(s.ExposedPorts, d.ExposedPorts)
	slices.Sort(ports)
	s.ExposedPorts = slices.Compact(ports)
	if s.StopSignal == "" {
		s.StopSignal = d.StopSignal
	}
	if len(s.Shell) == 0 {
		s.Shell = d.Shell
	}
	if len(s.OnBuild) == 0 {
		s.OnBuild = d.OnBuild
	}
	s.Healthcheck = s.Healthcheck.withImage(d.Healthcheck)
	return s, nil
}

// CommandLine joins entrypoint and command.
func (p Process) CommandLine() (path string, args []string) {
	all := slices.Concat(p.Entrypoint, p.Cmd)
	if len(all) == 0 {
		return "", nil
	}
	return all[0], all[1:]
}

// Environment gives the environment of the first process: Docker's defaults, then the spec's, which wins. HOME is added by who
// knows the user's home directory.
// links are variables that tell of other containers.
func (s *Spec) Environment(links []string) []string {
	return s.ExecEnvironment(s.Process.TTY, links)
}

// ExecEnvironment is that of a further process, which has a terminal or has none.
func (s *Spec) ExecEnvironment(tty bool, links []string) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + s.Hostname}
	if tty {
		env = append(env, "TERM=xterm")
	}
	return OverrideEnv(append(env, links...), s.Process.Env)
}

// OverrideEnv gives base with the entries of over replacing or following; an entry without "=" removes the name.
func OverrideEnv(base, over []string) []string {
	at := map[string]int{}
	env := make([]string, 0, len(base)+len(over))
	put := func(kv string) {
		name, _, set := strings.Cut(kv, "=")
		i, have := at[name]
		switch {
		case !set && have:
			env[i] = ""
			delete(at, name)
		case !set:
		case have:
			env[i] = kv
		default:
			at[name] = len(env)
			env = append(env, kv)
		}
	}
	for _, kv := range base {
		put(kv)
	}
	for _, kv := range over {
		put(kv)
	}
	return slices.DeleteFunc(env, func(kv string) bool { return kv == "" })
}

// LookupEnv gives the value of name in env.
func LookupEnv(env []string, name string) (string, bool) {
	for _, kv := range env {
		if n, v, ok := strings.Cut(kv, "="); ok && n == name {
			return v, true
		}
	}
	return "", false
}

// mergeEnv gives the client's entries, then those of the image that the client does not name.
func mergeEnv(client, image []string) []string {
	env := slices.Clone(client)
	for _, kv := range image {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(client, func(c string) bool { n, _, _ := strings.Cut(c, "="); return n == name }) {
			env = append(env, kv)
		}
	}
	return env
}

func (h *Healthcheck) withImage(d *Healthcheck) *Healthcheck {
	if h == nil || d == nil {
		if h == nil {
			return d
		}
		return h
	}
	m := *h
	if len(m.Test) == 0 {
		m.Test = d.Test
	}
	if m.Interval == 0 {
		m.Interval = d.Interval
	}
	if m.Timeout == 0 {
		m.Timeout = d.Timeout
	}
	if m.StartPeriod == 0 {
		m.StartPeriod = d.StartPeriod
	}
	if m.StartInterval == 0 {
		m.StartInterval = d.StartInterval
	}
	if m.Retries == 0 {
		m.Retries = d.Retries
	}
	return &m
}

func union[V any](low, high map[string]V) map[string]V {
	if len(low) == 0 {
		return high
	}
	m := maps.Clone(low)
	maps.Copy(m, high)
	return m
}
