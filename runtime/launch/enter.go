package launch

import (
	"path/filepath"
	"strconv"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Target is a running container, by its first process. Who starts the Program makes sure that the number is still that process's
// (Stdio.Within).
type Target struct {
	PID int
	// Namespaces are the kinds to enter; nil means those of the spec.
	Namespaces []specs.LinuxNamespaceType
}

// CompileExec turns a process description into the Program that starts it inside a running container: s
// is the container's spec, with which the new process shares its filter, mappings and namespaces.
// Terminals are made in the container's own devpts.
func CompileExec(proc *specs.Process, s *specs.Spec, t Target, o Options) (*Program, error) {
	if proc == nil {
		return nil, fault.New(fault.Invalid, "process: nothing to execute")
	}
	s2 := *s
	s2.Process, s2.Hostname, s2.Domainname, s2.Mounts = proc, "", "", nil
	if s2.Linux == nil {
		s2.Linux = &specs.Linux{}
	}
	o.Covered = false
	c := newCompiler(&s2, o)
	c.enters = true
	c.hostProc = c.prep.open("host-proc", "open the host's /proc", unix.SYS_OPENAT, atCwd, Str("/proc"), Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
	c.p.Clone.Waits = o.Gate || o.GateFifo != "" || o.HookGates.BeforeExec
	c.p.Clone.GateStops = o.Gate
	for _, phase := range []func() error{
		func() error { return c.enterNamespaces(t) }, c.prepareCgroups, func() error { return c.prepareExecTerminal(t) },
		c.begin, c.chroot, c.terminal, c.settle, c.become, c.exec,
	} {
		if err := phase(); err != nil {
			return nil, err
		}
	}
	return c.finish(), nil
}

// enterNamespaces joins every namespace in which the container differs from its launcher. The files of
// /proc/PID/ns are opened before anything else: they pin the namespaces.
func (c *compiler) enterNamespaces(t Target) error {
	kinds := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range c.s.Linux.Namespaces {
		kinds[ns.Type] = true
	}
	if t.Namespaces != nil {
		clear(kinds)
		for _, k := range t.Namespaces {
			kinds[k] = true
		}
	}
	for _, n := range nsFlags {
		if !kinds[n.kind] {
			continue
		}
		path := filepath.Join("/proc", strconv.Itoa(t.PID), "ns", n.file)
		fd := c.prep.open(n.file+"ns", "open the container's "+string(n.kind)+" namespace", unix.SYS_OPENAT, atCwd, Str(path), Int(unix.O_RDONLY|unix.O_CLOEXEC), Int(0))
		switch {
		case n.kind != specs.PIDNamespace:
		case c.o.Unprivileged && kinds[specs.UserNamespace]:
			c.again = true // it is entered from the user namespace, by a child of who joins it
		default:
			c.p.Clone.PidNS = fd
			continue
		}
		c.joins = append(c.joins, join{n.kind, n.flag, fd})
	}
	c.prepareChroot(t)
	return nil
}

// prepareChroot opens the root of a container that shares its mount namespace with others: it is not the
// namespace's.
func (c *compiler) prepareChroot(t Target) {
	for _, ns := range c.s.Linux.Namespaces {
		if ns.Type == specs.MountNamespace && ns.Path == "" {
			return
		}
	}
	c.root = c.prep.open("container-root", "open the container's root", unix.SYS_OPENAT, atCwd, Str(filepath.Join("/proc", strconv.Itoa(t.PID), "root")),
		Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
}

// chroot enters the root that prepareChroot opened.
func (c *compiler) chroot() error {
	if c.root == NoSlot {
		return nil
	}
	what := "enter the root filesystem"
	c.kid.call(what, unix.SYS_FCHDIR, Of(c.root))
	c.kid.call(what, unix.SYS_CHROOT, Str("."))
	return nil
}

// prepareExecTerminal opens a new terminal in the container's devpts. The path is the container's to
// tamper with, so no link is followed, and what is found must answer as a terminal does.
func (c *compiler) prepareExecTerminal(t Target) error {
	if !c.s.Process.Terminal {
		return nil
	}
	p, what := &c.prep, "make a terminal in the container"
	c.p.Terminal = true
	root := p.open("container-root", what, unix.SYS_OPENAT, atCwd, Str(filepath.Join("/proc", strconv.Itoa(t.PID), "root")),
		Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
	p.call(what, unix.SYS_OPENAT2, Of(root), Str("dev/pts/ptmx"),
		openHow(unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_SYMLINKS|unix.RESOLVE_NO_MAGICLINKS), Int(sizeofOpenHow)).Out = SlotConsole
	c.openSlave(what)
	return nil
}

// CompileInside turns a process description into the Program that starts it as root of somebody's user
// namespace, with the host's files in a mount namespace of its own. Of the description only Args and Env count. A
// launcher without privileges, who may enter the namespace, goes on as one who has them in there.
func CompileInside(userNS string, proc *specs.Process, o Options) (*Program, error) {
	c := newCompiler(&specs.Spec{Process: proc, Linux: &specs.Linux{}}, o)
	c.enters = true
	fd := c.prep.open("userns", "open the user namespace "+userNS, unix.SYS_OPENAT, atCwd, Str(userNS), Int(unix.O_RDONLY|unix.O_CLOEXEC), Int(0))
	c.joins = append(c.joins, join{specs.UserNamespace, unix.CLONE_NEWUSER, fd})
	c.join(c.joins)
	c.kid.call("become root of the user namespace", unix.SYS_SETRESGID, Int(0), Int(0), Int(0))
	c.kid.call("become root of the user namespace", unix.SYS_SETRESUID, Int(0), Int(0), Int(0))
	c.kid.call("make a mount namespace", unix.SYS_UNSHARE, Int(unix.CLONE_NEWNS))
	c.stdio(proc)
	c.unblockSignals()
	c.drop()
	if err := c.exec(); err != nil {
		return nil, err
	}
	return c.finish(), nil
}
