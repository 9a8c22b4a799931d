package oci

import (
	"bytes"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/capability"
	"berth/runtime/launch"
)

// inContainer starts hooks in the container's namespaces. While the container's root is not entered
// yet (createContainer), that still shows the host's files, so that a hook's path means what it means
// to us. Later (startContainer) it is the container's root, and the hook runs as the container's user
// with what privileges the container's program will have.
func inContainer(s *specs.Spec, pid int, asUser bool) starter {
	return func(h *specs.Hook, in, out, errs int) (int, error) {
		p := &specs.Process{Args: hookArgs(h), Env: h.Env, Cwd: "/"}
		p.Args[0] = h.Path // what is executed; launch knows no other argv[0]
		around := *s
		linux := *s.Linux
		linux.Seccomp = nil
		around.Linux, around.Process = &linux, p
		if asUser && s.Process != nil {
			p.User, p.Capabilities, p.NoNewPrivileges = s.Process.User, s.Process.Capabilities, s.Process.NoNewPrivileges
			p.ApparmorProfile, p.SelinuxLabel = s.Process.ApparmorProfile, s.Process.SelinuxLabel
		} else {
			all := allCapabilities()
			p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
		}
		return startInside(&around, p, pid, launch.Stdio{In: in, Out: out, Err: errs})
	}
}

// startInside starts a process in a container's namespaces, and in its cgroup no more than we are.
func startInside(s *specs.Spec, p *specs.Process, pid int, io launch.Stdio) (int, error) {
	program, err := launch.CompileExec(p, s, launch.Target{PID: pid}, launch.Options{})
	if err != nil {
		return 0, err
	}
	l, err := launch.NewLauncher(false)
	if err != nil {
		return 0, err
	}
	proc, err := l.Start(program, io)
	if err != nil {
		return 0, describe(err)
	}
	unix.Close(proc.PidFD)
	return proc.PID, nil
}

// allCapabilities names every capability that the kernel has.
func allCapabilities() []string {
	var known []string
	for _, name := range [...]string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID", "CAP_SETUID",
		"CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
		"CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD",
		"CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
		"CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	} {
		if _, ok := capability.Number(name); ok {
			known = append(known, name)
		}
	}
	return known
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
