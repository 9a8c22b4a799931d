package runtimes

import (
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"berth/base/fault"
)

// Builtin is the name of the engine's own runtime.
const Builtin = "berth"

// dockers are Docker's names for what it uses by default. Without a runtime of that name they mean the built-in one, so that containers
// that were described for Docker run.
var dockers = []string{"runc", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"}

// Runtime is a program with runc's command line.
type Runtime struct {
	Name string
	Path string   // as configured: absolute, or a name on PATH
	Args []string // before every command
}

// Set is what one engine knows. The zero value, and nil, know the built-in runtime only.
type Set struct {
	mu    sync.RWMutex // guards all and deflt, which Become replaces
	all   []Runtime    // never changed in place
	deflt string

	features cache
}

// Become makes s know what o does, for a configuration that was read again. Containers that run keep what they were started with as long
// as the name is known.
func (s *Set) Become(o *Set) {
	all, deflt := o.read()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all, s.deflt = all, deflt
}

func (s *Set) read() (all []Runtime, deflt string) {
	if s == nil {
		return nil, ""
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all, s.deflt
}

// New checks runtimes and the default's name ("" is the built-in one).
func New(all []Runtime, deflt string) (*Set, error) {
	s := &Set{deflt: deflt}
	for _, r := range all {
		switch {
		case r.Name == "" || strings.ContainsAny(r.Name, " \t\n/\x00"):
			return nil, fault.New(fault.Invalid, "runtime %q: a name without spaces and slashes is needed", r.Name)
		case r.Name == Builtin:
			return nil, fault.New(fault.Invalid, "runtime name '%s' is reserved", Builtin)
		case r.Path == "":
			return nil, fault.New(fault.Invalid, "runtime %s: either a runtimeType or a path must be configured", r.Name)
		case strings.Contains(r.Path, "/") && !filepath.IsAbs(r.Path):
			return nil, fault.New(fault.Invalid, "runtime %s: the path %q must be absolute, or a name on PATH", r.Name, r.Path)
		case slices.ContainsFunc(s.all, func(o Runtime) bool { return o.Name == r.Name }):
			return nil, fault.New(fault.Invalid, "runtime %s is defined twice", r.Name)
		}
		s.all = append(s.all, r)
	}
	slices.SortFunc(s.all, func(a, b Runtime) int { return strings.Compare(a.Name, b.Name) })
	if _, err := s.Resolve(deflt); err != nil {
		return nil, fault.New(fault.Invalid, "specified default runtime '%s' does not exist", deflt)
	}
	return s, nil
}

// Default is the name of the runtime of containers that ask for none.
func (s *Set) Default() string {
	if _, deflt := s.read(); deflt != "" {
		return deflt
	}
	return Builtin
}

// All gives the runtimes beside the built-in one, by name.
func (s *Set) All() []Runtime {
	all, _ := s.read()
	return slices.Clone(all)
}

// Resolve finds a runtime; nil is the built-in one. "" is the built-in one, too: the default is given to a container when it is made.
func (s *Set) Resolve(name string) (*Runtime, error) {
	r, err := s.Find(name)
	if err == nil {
		return r, nil
	}
	if name == "" || name == Builtin || slices.Contains(dockers, name) {
		return nil, nil
	}
	return nil, err
}

// Find gives the runtime of the name that a container keeps, which is never the built-in one.
func (s *Set) Find(name string) (*Runtime, error) {
	all, _ := s.read()
	for i := range all {
		if all[i].Name == name {
			return &all[i], nil
		}
	}
	return nil, fault.New(fault.Invalid, "unknown or invalid runtime name: %s", name)
}

// Chosen gives the name that a new container's specification keeps: "" for the built-in runtime.
func (s *Set) Chosen(asked string) (string, error) {
	if asked == "" {
		asked = s.Default()
	}
	r, err := s.Resolve(asked)
	if err != nil || r == nil {
		return "", err
	}
	return r.Name, nil
}

// program gives the absolute path of the runtime's program.
func (r *Runtime) program() (string, error) {
	path, err := exec.LookPath(r.Path)
	if err != nil {
		return "", fault.New(fault.Invalid, "runtime %s: %s is not there, or cannot be executed: install it, or correct its path in the engine's configuration", r.Name, r.Path)
	}
	return filepath.Abs(path)
}
