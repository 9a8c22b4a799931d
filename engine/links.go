package engine

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/engine/mergedroot"
	"berth/runtime/launch"
)

// What is to be mounted on a path, or is to be the working directory, is made where it is missing. A launch makes directories only, and goes by the links that
// lead somewhere: when it finds nothing behind one, the engine follows the links of the image as they are written, and the launch makes what
// they lead to. So few starts need it that all others are spared the look.

// dangles says whether a launch failed at a path that may be such a link.
func dangles(err error) bool {
	var l *launch.Error
	return errors.As(err, &l) && l.Errno == unix.ENOENT && !l.Exec
}

// followLinks puts what they lead to in the place of mount targets and of a working directory that lead nowhere yet. It gives false when there are none.
func (p *startPlan) followLinks() bool {
	root, err := mergedroot.Open(p.layer.Upper, p.layer.Lower)
	if err != nil {
		return false // the launch's failure is what is told
	}
	defer root.Close()
	s := *p.Spec
	s.Mounts = slices.Clone(s.Mounts)
	changed := false
	follow := func(name string, before []specs.Mount) string {
		name = path.Clean("/" + name)
		if _, err := root.Stat(name); err == nil || covered(name, before) {
			return name
		}
		to, err := root.Follow(name)
		if err != nil || to == name {
			return name
		}
		changed = true
		return to
	}
	for i := range s.Mounts {
		s.Mounts[i].Destination = follow(s.Mounts[i].Destination, s.Mounts[:i])
	}
	if s.Process != nil && strings.HasPrefix(s.Process.Cwd, "/") {
		process := *s.Process
		process.Cwd = follow(process.Cwd, s.Mounts)
		s.Process = &process
	}
	if changed {
		p.Spec = &s
	}
	return changed
}

// covered says whether a path lies in one of the mounts, where the image's links do not count.
func covered(name string, mounts []specs.Mount) bool {
	return slices.ContainsFunc(mounts, func(m specs.Mount) bool {
		return strings.HasPrefix(name, strings.TrimSuffix(path.Clean("/"+m.Destination), "/")+"/")
	})
}
