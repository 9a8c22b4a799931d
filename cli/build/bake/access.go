package bake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"berth/cli/build/request"
)

// An Access is what builds of a file may touch beside the working directory: a bake file may come from anywhere, and names paths of this machine.
type Access struct {
	network, insecure, localDelete, devices, ssh bool
	read, write                                  []string // directories; "*" is everything
}

// ParseAccess reads --allow texts. What is below the working directory is always allowed.
func ParseAccess(texts []string) (*Access, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	a := &Access{read: []string{wd}, write: []string{wd}}
	for _, text := range texts {
		key, v, _ := strings.Cut(text, "=")
		switch key {
		case "network.host":
			a.network = true
		case "security.insecure":
			a.insecure = true
		case "buildx.local.delete":
			a.localDelete = true
		case "device":
			a.devices = true
		case "fs.read":
			a.read = append(a.read, v)
		case "fs.write":
			a.write = append(a.write, v)
		case "fs":
			a.read, a.write = append(a.read, v), append(a.write, v)
		case "ssh":
			a.ssh = true
		case "image", "image.push", "image.load":
		default:
			return nil, fmt.Errorf("unknown entitlement key %q", key)
		}
	}
	return a, nil
}

// Missing gives what targets want and is not allowed, as --allow texts.
func (a *Access) Missing(targets map[string]*Target) []string {
	var missing []string
	want := func(ok bool, text string) {
		if !ok && !slices.Contains(missing, text) {
			missing = append(missing, text)
		}
	}
	for _, name := range sortedKeys(targets) {
		t := targets[name]
		for _, e := range t.Entitlements {
			key, _, _ := strings.Cut(e, "=")
			switch key {
			case "network.host":
				want(a.network, key)
			case "security.insecure":
				want(a.insecure, key)
			case "device":
				want(a.devices, e)
			case "buildx.local.delete":
				want(a.localDelete, key)
			}
		}
		for _, s := range t.agents() {
			want(a.ssh || len(s.Paths) > 0, "ssh") // without paths it is the agent of whoever runs us
		}
		for _, path := range t.reads() {
			dir, ok := inside(path, a.read)
			want(ok, "fs.read="+dir)
		}
		for _, path := range t.writes() {
			dir, ok := inside(path, a.write)
			want(ok, "fs.write="+dir)
		}
	}
	return missing
}

// agents are the agents and keys that a target wants.
func (t *Target) agents() (all []request.SSH) {
	for _, o := range t.SSH {
		all = append(all, request.ParseSSH([]string{o.ssh()})...)
	}
	return all
}

// reads are the paths of this machine that a target reads.
func (t *Target) reads() []string {
	paths := slices.Clone(t.files)
	add := func(place string) {
		if place != "" && place != "-" && isLocal(place) && !strings.HasPrefix(place, "target:") {
			paths = append(paths, place)
		}
	}
	local := t.state == nil && isLocal(value(t.Context)) && !request.IsRemote(value(t.Context))
	if local {
		add(value(t.Context))
	}
	if file := value(t.Dockerfile); file != "" && t.DockerfileInline == nil && isLocal(file) && file != "-" {
		switch {
		case filepath.IsAbs(file): // of this machine, wherever the context is
			add(file)
		case local:
			add(filepath.Join(value(t.Context), file))
		}
	}
	for name, place := range t.Contexts {
		if _, ok := t.states[name]; ok || request.IsRemote(place) {
			continue
		}
		layout, ok := strings.CutPrefix(place, "oci-layout://")
		if ok {
			place, _, _ = strings.Cut(layout, "@")
		}
		add(place)
	}
	file := func(path string) {
		if path != "" {
			paths = append(paths, path)
		}
	}
	// What the texts mean is what counts: keys are written in any case, and a secret without a source is a file called as its id. Texts
	// that mean nothing are refused later.
	secrets, _ := request.ParseSecrets(texts(t.Secrets))
	for _, s := range secrets {
		file(s.Path)
		if _, env := os.LookupEnv(s.ID); s.Path == "" && s.Env == "" && !env {
			file(s.ID)
		}
	}
	for _, s := range t.agents() {
		for _, p := range s.Paths {
			file(p)
		}
	}
	caches, _ := request.ParseCaches(texts(t.CacheFrom))
	for _, c := range caches {
		if c.Type == "local" {
			file(c.Attrs["src"])
		}
	}
	slices.Sort(paths)
	return paths
}

// writes are the paths of this machine that a target writes.
func (t *Target) writes() []string {
	var paths []string
	outputs, _ := request.ParseOutputs(texts(t.Outputs))
	for _, o := range outputs {
		if o.Dest != "" && o.Dest != "-" {
			paths = append(paths, o.Dest)
		}
	}
	caches, _ := request.ParseCaches(texts(t.CacheTo))
	for _, c := range caches {
		if c.Type == "local" && c.Attrs["dest"] != "" {
			paths = append(paths, c.Attrs["dest"])
		}
	}
	return paths
}

// inside reports whether a path is below one of dirs once all links are followed, and else gives what would have to be allowed.
func inside(path string, dirs []string) (string, bool) {
	if slices.Contains(dirs, "*") {
		return "", true
	}
	// A ".." behind a link leads elsewhere for the kernel than for who goes by the text alone, and some of the paths are opened as they are.
	for _, real := range []string{resolved(path), followed(path)} {
		if !slices.ContainsFunc(dirs, func(d string) bool {
			rel, err := filepath.Rel(resolved(d), real)
			return err == nil && (rel == "." || filepath.IsLocal(rel))
		}) {
			return real, false
		}
	}
	return "", true
}

// followed is where the kernel finds a path: as resolved, but each ".." is the parent of where the links before it lead.
func followed(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if !filepath.IsAbs(path) {
		path = wd + "/" + path
	}
	parts := strings.Split(path, "/")
	for n := len(parts); n > 1; n-- {
		if real, err := filepath.EvalSymlinks(strings.Join(parts[:n], "/")); err == nil {
			return filepath.Join(append([]string{real}, parts[n:]...)...)
		}
	}
	return path
}

// resolved is a path without links, as far as it exists.
func resolved(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return path
	}
	rest := ""
	for at := abs; ; at = filepath.Dir(at) {
		if real, err := filepath.EvalSymlinks(at); err == nil {
			return filepath.Join(real, rest)
		}
		if filepath.Dir(at) == at {
			return abs
		}
		rest = filepath.Join(filepath.Base(at), rest)
	}
}
