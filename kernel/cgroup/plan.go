package cgroup

import (
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// Setup is what it takes to make one container's cgroup: steps in the kernel's order. It is a plain
// value that prints; nothing has happened before Apply.
type Setup struct {
	Path   string // as asked for
	Layout Layout
	Steps  []Step
	// Lenient lets Apply go without the hierarchies in which this process may not make directories, as
	// rootless containers do. A limit that would have gone there is still an error.
	Lenient bool
	// Shared lets Apply use a directory that has processes already: systemd has made it around the
	// container's first.
	Shared bool
}

// Op is the kind of a step.
type Op uint8

// The kinds of steps.
const (
	Mkdir   Op = iota // make Dir and its missing parents; Dir is the container's own
	Enable            // v2: have the Controllers in Dir, enabled from Base downwards
	Inherit           // v1 cpuset: give every directory from Base to Dir the CPUs and memory nodes of its parent
	Write             // write Value to Dir/File
	Devices           // v2: attach the device program to Dir
)

// Step is one thing Apply does.
type Step struct {
	Op    Op
	Dir   string
	Base  string // Enable, Inherit: the mount point, where to begin
	File  string // Write
	Or    string // Write: the file to use where File does not exist; kernels have used both names
	Value string // Write
	// OrValue is what Or takes, when it has another scale; "" is Value.
	OrValue string
	Field   string // the part of the specification that asks for it, for errors

	Controllers []string       // Enable
	Program     *DeviceProgram // Devices

	Optional bool // Write: a missing file is no failure, since the value says what holds without it
	Retry    bool // Write: refused (EINVAL) before a later value is written, so try again after the others
}

// Plan computes the cgroup for a container. path is OCI's cgroupsPath: absolute below each mount point,
// or relative to this process's own cgroup (see Hierarchy.Place). Resources that this layout cannot
// express are an error naming the field; what is unset is not touched. Device rules are always planned:
// everything is denied except the default devices and what r.Devices allows.
func Plan(l Layout, path string, r *specs.LinuxResources) (Setup, error) {
	s := Setup{Path: path, Layout: l}
	if l.Mode == None {
		return s, fault.New(fault.NotImplemented, "no cgroup hierarchy is mounted: mount cgroup2 on /sys/fs/cgroup")
	}
	if strings.IndexByte(path, 0) >= 0 {
		return s, fault.New(fault.Invalid, "cgroup path %q has a zero byte", path)
	}
	if r == nil {
		r = &specs.LinuxResources{}
	}
	if err := validate(r); err != nil {
		return s, err
	}
	b := builder{l: l, path: path, steps: make([]Step, 0, 48)}
	for i := range l.Hierarchies {
		h := &l.Hierarchies[i]
		dir := h.Place(l.Mode, path)
		if dir == h.Dir {
			return s, fault.New(fault.Invalid, "cgroup path %q is the root of a hierarchy: a container needs a cgroup of its own", path)
		}
		b.steps = append(b.steps, Step{Op: Mkdir, Dir: dir})
		if h.V2 && len(h.Controllers) > 0 {
			b.steps = append(b.steps, Step{Op: Enable, Dir: dir, Base: h.Dir, Controllers: h.Controllers})
		}
		if !h.V2 && h.Has("cpuset") {
			b.steps = append(b.steps, Step{Op: Inherit, Dir: dir, Base: h.Dir})
		}
	}
	b.devices(r.Devices)
	b.resources(r)
	s.Steps = b.steps
	return s, b.err
}

// Attach says how a process will get into the cgroup, before it is made: for planning a launch.
func (s Setup) Attach() Attach {
	c := Cgroup{layout: s.Layout, path: s.Path, dirs: make([]string, len(s.Layout.Hierarchies))}
	for i := range s.Layout.Hierarchies {
		c.dirs[i] = s.Layout.Hierarchies[i].Place(s.Layout.Mode, s.Path)
	}
	return c.Attach()
}

// String prints the steps, one a line.
func (s Setup) String() string {
	var b strings.Builder
	b.WriteString("cgroup " + s.Path + " (" + s.Layout.Mode.String() + ")\n")
	for i := range s.Steps {
		s.Steps[i].print(&b)
	}
	return b.String()
}

func (s *Step) print(b *strings.Builder) {
	switch s.Op {
	case Mkdir:
		b.WriteString("mkdir " + s.Dir + "\n")
	case Enable:
		b.WriteString("enable " + s.Dir + " from " + s.Base + ":")
		for _, c := range s.Controllers {
			b.WriteString(" +" + c)
		}
		b.WriteString("\n")
	case Inherit:
		b.WriteString("inherit " + s.Dir + " from " + s.Base + ": cpuset.cpus cpuset.mems\n")
	case Write:
		b.WriteString("write " + s.Dir + "/" + s.File)
		if s.Or != "" {
			b.WriteString(" (or " + s.Or + ")")
		}
		b.WriteString(" = " + s.Value)
		if s.OrValue != "" {
			b.WriteString(" (or " + s.OrValue + ")")
		}
		if s.Optional {
			b.WriteString(" (if there)")
		}
		b.WriteString("\n")
	case Devices:
		b.WriteString("devices " + s.Dir + "\n")
		b.WriteString(indent(s.Program.String()))
	}
}

func indent(s string) string {
	if s == "" {
		return ""
	}
	return "    " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n    ") + "\n"
}

// builder collects steps. Its first error ends the plan.
type builder struct {
	l     Layout
	path  string
	steps []Step
	now   *observed // Update: what holds at the moment; nil when the cgroup is made anew
	err   error
}

// observed is what an update must know of the present to order its writes.
type observed struct {
	memoryLimit int64  // bytes; -1 is none
	memoryUsage int64  // bytes
	cpuMax      string // v2: "QUOTA PERIOD"
	devices     []byte // v1: devices.list
}

// dir gives the directory that has the controller. Without the controller it sets the error, naming the
// field that asked.
func (b *builder) dir(controller, field string) (string, bool) {
	if b.err != nil {
		return "", false
	}
	h := b.l.Find(controller)
	if h == nil {
		b.fail(fault.NotImplemented, "%s: this machine's cgroups (%s) have no %s controller: enable it in the kernel's configuration or command line, or leave the limit out",
			field, b.l.Mode, controller)
		return "", false
	}
	return h.Place(b.l.Mode, b.path), true
}

func (b *builder) write(dir, file, value, field string) *Step {
	b.steps = append(b.steps, Step{Op: Write, Dir: dir, File: file, Value: value, Field: field})
	return &b.steps[len(b.steps)-1]
}

func (b *builder) fail(kind fault.Kind, format string, args ...any) {
	if b.err == nil {
		b.err = fault.New(kind, format, args...)
	}
}

// v2 reports whether the controller is governed by v2 here, which decides how its limits are written.
func (b *builder) v2(controller string) bool {
	if b.l.Mode != Hybrid {
		return b.l.Mode == V2
	}
	h := b.l.Find(controller)
	return h != nil && h.V2
}
