package bake

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// An Access is what builds of a file may touch beside the working directory: a bake file may come from anywhere, and names paths of this machine.
type Access struct {
	network, insecure, localDelete, devices bool
	read, write                             []string // directories; "*" is everything
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
		case "ssh", "image", "image.push", "image.load":
		default:
			return nil, fmt.Errorf("unknown entitlement key %q", key)
		}
	}
	return a, nil
}

// Grant allows what texts say, as they are named by Missing.
func (a *Access) Grant(texts []string) error {
	more, err := ParseAccess(texts)
	if err != nil {
		return err
	}
	a.network, a.insecure, a.localDelete, a.devices = a.network || more.network, a.insecure || more.insecure, a.localDelete || more.localDelete, a.devices || more.devices
	a.read, a.write = append(a.read, more.read...), append(a.write, more.write...)
	return nil
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

// reads are the paths of this machine that a target reads.
func (t *Target) reads() []string {
	var paths []string
	add := func(place string) {
		if place != "" && place != "-" && isLocal(place) && !strings.HasPrefix(place, "target:") {
			paths = append(paths, place)
		}
	}
	add(value(t.Context))
	if file := value(t.Dockerfile); file != "" && t.DockerfileInline == nil && isLocal(value(t.Context)) && isLocal(file) && file != "-" {
		if !filepath.IsAbs(file) {
			file = filepath.Join(value(t.Context), file)
		}
		add(file)
	}
	for _, place := range t.Contexts {
		layout, ok := strings.CutPrefix(place, "oci-layout://")
		if ok {
			place, _, _ = strings.Cut(layout, "@")
		}
		add(place)
	}
	for _, s := range t.Secrets {
		add(s["src"])
	}
	for _, s := range t.SSH {
		for p := range strings.SplitSeq(s["paths"], ",") {
			add(p)
		}
	}
	for _, c := range t.CacheFrom {
		if c["type"] == "local" {
			add(c["src"])
		}
	}
	slices.Sort(paths)
	return paths
}

// writes are the paths of this machine that a target writes.
func (t *Target) writes() []string {
	var paths []string
	for _, o := range t.Outputs {
		if o["dest"] != "" && o["dest"] != "-" {
			paths = append(paths, o["dest"])
		}
	}
	for _, c := range t.CacheTo {
		if c["type"] == "local" && c["dest"] != "" {
			paths = append(paths, c["dest"])
		}
	}
	return paths
}

// inside reports whether a path is below one of dirs once all links are followed, and else gives what would have to be allowed.
func inside(path string, dirs []string) (string, bool) {
	if slices.Contains(dirs, "*") {
		return "", true
	}
	real := resolved(path)
	for _, d := range dirs {
		if rel, err := filepath.Rel(resolved(d), real); err == nil && (rel == "." || filepath.IsLocal(rel)) {
			return "", true
		}
	}
	return real, false
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
