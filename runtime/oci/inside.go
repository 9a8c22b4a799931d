package oci

import (
	"bytes"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/seccomp"
	"berth/runtime/launch"
	"berth/runtime/spec"
)

// inContainer starts hooks in the container's namespaces. Before its root is entered they still show the
// host's files, so that a hook's path means what it means to us, and the hook has our privileges and
// begins in the directory that will be the root. Once it is entered the hook runs as the container's own
// program will, in its environment unless the hook has one.
//
// filter, if any, is the seccomp filter that the hook is under.
func inContainer(s *specs.Spec, rec *record, pid int, entered bool, filter *seccomp.Filter) starter {
	return func(h *specs.Hook, in, out, errs int) (int, error) {
		p := &specs.Process{Args: hookArgs(h), Env: h.Env, Cwd: "/"}
		around := *s
		linux := *s.Linux
		linux.Seccomp = nil
		around.Linux, around.Process = &linux, p
		if entered {
			own := s.Process
			p.User, p.Capabilities, p.NoNewPrivileges = own.User, own.Capabilities, own.NoNewPrivileges
			p.ApparmorProfile, p.SelinuxLabel = own.ApparmorProfile, own.SelinuxLabel
			if p.Env == nil {
				p.Env = completeEnv(own.Env, own.User.UID, "/proc/"+strconv.Itoa(pid)+"/root", nil)
			}
		} else {
			p.Cwd = rec.Rootfs
			all := spec.AllCapabilities()
			p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		}
		return startInside(&around, p, h.Path, pid, filter, launch.Stdio{In: in, Out: out, Err: errs})
	}
}

// startInside starts a program in a container's namespaces, with p.Args as its arguments.
func startInside(s *specs.Spec, p *specs.Process, path string, pid int, filter *seccomp.Filter, io launch.Stdio) (int, error) {
	name := p.Args[0]
	p.Args[0] = path
	program, err := launch.CompileExec(p, s, launch.Target{PID: pid}, launch.Options{Seccomp: filter, OpenFiles: openFiles(), Unprivileged: unix.Geteuid() != 0, InUserNS: inUserNamespace()})
	if err != nil {
		return 0, err
	}
	rename(program, name)
	l, err := launch.NewLauncher(false)
	if err != nil {
		return 0, err
	}
	proc, err := l.Start(program, io)
	if err != nil {
		return 0, describe(err, "/proc/"+strconv.Itoa(pid)+"/root")
	}
	unix.Close(proc.PidFD)
	return proc.PID, nil
}

// rename gives the program that will be executed another name for itself (argv[0]) than its path. A
// launch program is a plain value: the name is the first string of execve's second argument.
func rename(p *launch.Program, name string) {
	for i := range p.Child {
		if st := &p.Child[i]; st.Nr == unix.SYS_EXECVE {
			st.Args[1].D.Ptrs[0].To = append([]byte(name), 0)
		}
	}
}

// pidInside gives a process's number in the innermost pid namespace it is in, which is how the
// container sees it.
func pidInside(pid int) int {
	data, err := readFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return pid
	}
	for line := range bytes.SplitSeq(data, []byte{'\n'}) {
		if rest, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			words := bytes.Fields(rest)
			if len(words) > 0 {
				if n, err := strconv.Atoi(string(words[len(words)-1])); err == nil {
					return n
				}
			}
		}
	}
	return pid
}

// openPIDFD opens a process for as long as it is the one that was started then.
func (c *container) openPIDFD() (int, error) {
	fd, err := unix.PidfdOpen(c.rec.PID, 0)
	if err != nil {
		return -1, errNotRunning
	}
	if !c.alive() { // the number was reused before we opened it
		unix.Close(fd)
		return -1, errNotRunning
	}
	return fd, nil
}
