package image

import (
	"encoding/json"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
)

// ApplyChanges applies Dockerfile instructions, as docker import --change and docker commit --change take them, to a
// copy of a configuration: CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR.
// Each element may hold several lines. Errors are Invalid.
func ApplyChanges(base RunConfig, changes []string) (RunConfig, error) {
	e := &editor{c: base.clone()}
	for _, text := range changes {
		for _, line := range changeLines(text) {
			if err := e.apply(line); err != nil {
				return RunConfig{}, err
			}
		}
	}
	return e.c, nil
}

// changeLines splits a text into instructions: lines joined by a backslash at their end, without comments and empty ones.
func changeLines(text string) (lines []string) {
	var joined strings.Builder
	for l := range strings.SplitSeq(text, "\n") {
		l = strings.TrimSuffix(l, "\r")
		if t := strings.TrimSpace(l); strings.HasPrefix(t, "#") || t == "" && joined.Len() == 0 {
			continue
		}
		if rest, ok := strings.CutSuffix(strings.TrimRight(l, " \t"), `\`); ok {
			joined.WriteString(rest)
			continue
		}
		joined.WriteString(l)
		lines = append(lines, strings.TrimSpace(joined.String()))
		joined.Reset()
	}
	if joined.Len() > 0 {
		lines = append(lines, strings.TrimSpace(joined.String()))
	}
	return lines
}

// editor applies instructions one by one.
type editor struct {
	c      RunConfig
	cmdSet bool // by these changes: ENTRYPOINT drops only an inherited CMD
}

func (e *editor) apply(line string) error {
	word, _, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
	rest := strings.TrimSpace(line[len(word):])
	name := strings.ToLower(word)
	verbs := map[string]func(string) error{
		"cmd": e.cmd, "entrypoint": e.entrypoint, "env": e.env, "expose": e.expose, "healthcheck": e.healthcheck, "label": e.label,
		"onbuild": e.onbuild, "stopsignal": e.stopsignal, "user": e.user, "volume": e.volume, "workdir": e.workdir,
	}
	f := verbs[name]
	if f == nil {
		return fault.New(fault.Invalid, "%s is not a valid change command", name)
	}
	if rest == "" && name != "cmd" && name != "entrypoint" {
		return fault.New(fault.Invalid, "%s requires at least one argument", strings.ToUpper(name))
	}
	return f(rest)
}

func (e *editor) cmd(rest string) error {
	e.c.Cmd = e.command(rest)
	e.c.ArgsEscaped = false
	e.cmdSet = true
	return nil
}

func (e *editor) entrypoint(rest string) error {
	e.c.Entrypoint = e.command(rest)
	if !e.cmdSet {
		e.c.Cmd = nil
	}
	return nil
}

// command reads a command in JSON, or as a line for the shell.
func (e *editor) command(rest string) []string {
	if list, ok := jsonList(rest); ok {
		return list
	}
	if rest == "" {
		return nil
	}
	return append(e.shell(), rest)
}

func (e *editor) shell() []string {
	if len(e.c.Shell) > 0 {
		return slices.Clone(e.c.Shell)
	}
	return []string{"/bin/sh", "-c"}
}

// jsonList reads ["a","b"]; anything else is not JSON form.
func jsonList(s string) ([]string, bool) {
	if !strings.HasPrefix(s, "[") {
		return nil, false
	}
	var list []string
	if err := json.Unmarshal([]byte(s), &list); err != nil || list == nil {
		return nil, false
	}
	return list, true
}

func (e *editor) env(rest string) error {
	pairs, err := e.pairs("ENV", rest)
	if err != nil {
		return err
	}
	for _, p := range pairs {
		e.setEnv(p[0], p[1])
	}
	return nil
}

func (e *editor) setEnv(key, value string) {
	entry := key + "=" + value
	for i, old := range e.c.Env {
		if k, _, _ := strings.Cut(old, "="); k == key {
			e.c.Env[i] = entry
			return
		}
	}
	e.c.Env = append(e.c.Env, entry)
}

func (e *editor) label(rest string) error {
	pairs, err := e.pairs("LABEL", rest)
	if err != nil {
		return err
	}
	if e.c.Labels == nil {
		e.c.Labels = map[string]string{}
	}
	for _, p := range pairs {
		e.c.Labels[p[0]] = p[1]
	}
	return nil
}

// pairs reads key=value words, or the old form "key value with spaces". Variables mean what they were before the line.
func (e *editor) pairs(instruction, rest string) ([][2]string, error) {
	words, err := splitWords(rest)
	if err != nil {
		return nil, fault.In(err, "%s", instruction)
	}
	if key, _, ok := strings.Cut(words[0], "="); !ok || key == "" {
		key, value, ok := strings.Cut(rest, " ")
		if !ok || strings.Contains(key, "=") {
			return nil, fault.New(fault.Invalid, "%s must have two arguments", instruction)
		}
		words = []string{key + "=" + strings.TrimSpace(value)}
	}
	var pairs [][2]string
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return nil, fault.New(fault.Invalid, "Syntax error - can't find = in %q. Must be of the form: name=value", w)
		}
		if key, err = e.expand(key); err != nil {
			return nil, err
		}
		if value, err = e.expand(value); err != nil {
			return nil, err
		}
		if key == "" {
			return nil, fault.New(fault.Invalid, "%s names can not be blank", instruction)
		}
		pairs = append(pairs, [2]string{key, value})
	}
	return pairs, nil
}

// expanded splits a line into words and expands each.
func (e *editor) expanded(instruction, rest string) ([]string, error) {
	words, err := splitWords(rest)
	if err != nil {
		return nil, fault.In(err, "%s", instruction)
	}
	for i := range words {
		if words[i], err = e.expand(words[i]); err != nil {
			return nil, fault.In(err, "%s", instruction)
		}
	}
	return words, nil
}

func (e *editor) expose(rest string) error {
	words, err := e.expanded("EXPOSE", rest)
	if err != nil {
		return err
	}
	for _, w := range words {
		ports, err := portRange(w)
		if err != nil {
			return err
		}
		if e.c.ExposedPorts == nil {
			e.c.ExposedPorts = map[string]struct{}{}
		}
		for _, p := range ports {
			e.c.ExposedPorts[p] = struct{}{}
		}
	}
	return nil
}

// portRange reads "80", "80/udp" and "8000-8010/tcp". A host's port in front ("80:80") is refused: an image has none.
func portRange(s string) (ports []string, err error) {
	numbers, proto, ok := strings.Cut(s, "/")
	if !ok {
		proto = "tcp"
	}
	proto = strings.ToLower(proto)
	bad := fault.New(fault.Invalid, "invalid containerPort: %s", s)
	if proto != "tcp" && proto != "udp" && proto != "sctp" {
		return nil, fault.New(fault.Invalid, "invalid proto: %s", proto)
	}
	first, last, isRange := strings.Cut(numbers, "-")
	if !isRange {
		last = first
	}
	from, err1 := strconv.ParseUint(first, 10, 16)
	to, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil || to < from {
		return nil, bad
	}
	for p := from; p <= to; p++ {
		ports = append(ports, strconv.FormatUint(p, 10)+"/"+proto)
	}
	return ports, nil
}

func (e *editor) volume(rest string) error {
	list, ok := jsonList(rest)
	if !ok {
		var err error
		if list, err = e.expanded("VOLUME", rest); err != nil {
			return err
		}
	}
	if e.c.Volumes == nil {
		e.c.Volumes = map[string]struct{}{}
	}
	for _, v := range list {
		if v = strings.TrimSpace(v); v == "" {
			return fault.New(fault.Invalid, "VOLUME specified can not be an empty string")
		}
		e.c.Volumes[v] = struct{}{}
	}
	return nil
}

func (e *editor) workdir(rest string) (err error) {
	if rest, err = e.expand(rest); err != nil {
		return err
	}
	if !path.IsAbs(rest) {
		rest = path.Join("/", e.c.WorkingDir, rest)
	}
	e.c.WorkingDir = path.Clean(rest)
	return nil
}

func (e *editor) user(rest string) (err error) {
	e.c.User, err = e.expand(rest)
	return err
}

func (e *editor) stopsignal(rest string) (err error) {
	e.c.StopSignal, err = e.expand(rest)
	return err
}

func (e *editor) onbuild(rest string) error {
	word, _, _ := strings.Cut(rest, " ")
	switch strings.ToUpper(word) {
	case "ONBUILD":
		return fault.New(fault.Invalid, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
	case "MAINTAINER", "FROM":
		return fault.New(fault.Invalid, "%s isn't allowed as an ONBUILD trigger", strings.ToUpper(word))
	}
	e.c.OnBuild = append(e.c.OnBuild, rest)
	return nil
}

func (e *editor) healthcheck(rest string) error {
	h := &Healthcheck{}
	for strings.HasPrefix(rest, "--") {
		word, more, _ := strings.Cut(rest, " ")
		rest = strings.TrimSpace(more)
		if err := h.option(word); err != nil {
			return err
		}
	}
	typ, args, _ := strings.Cut(rest, " ")
	args = strings.TrimSpace(args)
	switch strings.ToUpper(typ) {
	case "NONE":
		if args != "" {
			return fault.New(fault.Invalid, "HEALTHCHECK NONE takes no arguments")
		}
		h = &Healthcheck{Test: []string{"NONE"}}
	case "CMD":
		if args == "" {
			return fault.New(fault.Invalid, "missing command after HEALTHCHECK CMD")
		}
		if list, ok := jsonList(args); ok {
			h.Test = append([]string{"CMD"}, list...)
		} else {
			h.Test = []string{"CMD-SHELL", args}
		}
	default:
		return fault.New(fault.Invalid, "unknown type %q in HEALTHCHECK (try CMD)", typ)
	}
	e.c.Healthcheck = h
	return nil
}

// option reads one --name=value of HEALTHCHECK.
func (h *Healthcheck) option(word string) error {
	name, value, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
	durations := map[string]*time.Duration{"interval": &h.Interval, "timeout": &h.Timeout, "start-period": &h.StartPeriod, "start-interval": &h.StartInterval}
	if d := durations[name]; d != nil {
		v, err := time.ParseDuration(value)
		if err != nil || v < 0 || v > 0 && v < time.Millisecond {
			return fault.New(fault.Invalid, "HEALTHCHECK: %q is no duration of at least 1ms", word)
		}
		*d = v
		return nil
	}
	if name != "retries" {
		return fault.New(fault.Invalid, "unknown flag: --%s", name)
	}
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return fault.New(fault.Invalid, "--retries must be at least 0 (not %s)", value)
	}
	h.Retries = n
	return nil
}
