package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Launcher makes processes out of Programs. It may be used by several goroutines at once.
type Launcher struct {
	covered chan func() // runs on threads that live in the empty mount namespace
}

// Stdio is what becomes of the standard streams: descriptors for 0, 1 and 2, or, when the Program
// makes a terminal, its first size (0×0 keeps the kernel's default).
type Stdio struct {
	In, Out, Err int
	Rows, Cols   uint16
}

// Hooks are called on the launching side while the child waits at the points that
// Options.HookGates asked for. An error ends the child, and Start returns it.
type Hooks struct {
	BeforePivot func(pid int) error // namespaces and mounts exist, the root is not entered yet
	BeforeExec  func(pid int) error // everything is done but execve
}

// Process is a child that has reached execve, or waits at its gate.
type Process struct {
	PID      int
	PidFD    int // pidfd_open(2) descriptor, the caller's to close
	Console  int // the pty master, the caller's to close; -1 without a terminal
	Listener int // the seccomp listener, the caller's to close; -1 without one
	gate     int // the launcher's end of the sync socket while the child waits, else -1
	image    *image
	prog     *Program
}

// Error says which step of a launch failed.
type Error struct {
	Step  string // what the step was for
	Call  string // the system call, as Program prints it
	Errno unix.Errno
	Exec  bool   // it was the user's program that could not be executed
	Arg0  string // what was to be executed
}

// Error gives "doing what: reason (call)". The call is left out for exec failures, which are the
// user's matter.
func (e *Error) Error() string {
	if e.Exec {
		return fmt.Sprintf("exec %q: %v", e.Arg0, e.Errno)
	}
	return fmt.Sprintf("%s: %v (%s)", e.Step, e.Errno, e.Call)
}

// Unwrap gives the errno, for errors.Is.
func (e *Error) Unwrap() error { return e.Errno }

// NewLauncher makes a Launcher. With covered it keeps threads in a mount namespace of their own that
// holds nothing but an empty read-only root, for Programs compiled with Options.Covered.
func NewLauncher(covered bool) (*Launcher, error) {
	l := &Launcher{}
	if !covered {
		return l, nil
	}
	l.covered = make(chan func())
	ready := make(chan error)
	for range runtime.NumCPU() {
		go coveredThread(l.covered, ready)
		if err := <-ready; err != nil {
			close(l.covered)
			return nil, fmt.Errorf("prepare a thread with an empty mount namespace: %w", err)
		}
	}
	return l, nil
}

// Close ends the Launcher's threads. Processes are not touched.
func (l *Launcher) Close() {
	if l.covered != nil {
		close(l.covered)
	}
}

// Start runs p without hooks. See StartHooked.
func (l *Launcher) Start(p *Program, io Stdio) (*Process, error) {
	return l.StartHooked(p, io, Hooks{})
}

// StartHooked runs p until its process has called execve, or waits at its gate. The descriptors in
// io stay the caller's. When it fails nothing is left: no process, no descriptor, no mount; the
// error is an *Error where a step failed.
func (l *Launcher) StartHooked(p *Program, io Stdio, hooks Hooks) (*Process, error) {
	im, err := load(p)
	if err != nil {
		return nil, err
	}
	s := &start{p: p, im: im, io: io, hooks: hooks, gate: -1, childEnd: -1, ownPidNS: -1}
	proc, err := s.run(l)
	s.closeSlots(err != nil)
	if err != nil || proc.gate < 0 {
		im.close()
	}
	if err != nil {
		return nil, err
	}
	return proc, nil
}

// start is one launch under way.
type start struct {
	p        *Program
	im       *image
	io       Stdio
	hooks    Hooks
	gate     int // our end of the sync socket
	childEnd int
	pid      int
	pidfd    int32

	ownPidNS int // the launcher's own pid namespace, to return to, or -1
}

func (s *start) run(l *Launcher) (*Process, error) {
	s.fillStdio()
	if s.p.Clone.Waits {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("make the socket to the container's first process: %w", err)
		}
		s.gate, s.childEnd = pair[0], pair[1]
		s.im.set(SlotSyncUp, pair[0])
		s.im.set(SlotSync, pair[1])
	}
	if i, err := s.im.prepare(); err != nil {
		return nil, s.stepError(i, err)
	}
	if s.p.Clone.PidNS != NoSlot {
		fd, err := unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("open the launcher's own pid namespace: %w", err)
		}
		defer unix.Close(fd)
		s.ownPidNS = fd
	}
	if err := s.terminalSize(); err != nil {
		return nil, err
	}
	if err := l.on(s.p, s.clone); err != nil {
		return nil, err
	}
	console := -1
	if s.p.Terminal {
		console = s.im.get(SlotConsole)
	}
	proc := &Process{PID: s.pid, PidFD: int(s.pidfd), Console: console, Listener: -1, gate: -1, image: s.im, prog: s.p}
	if !s.p.Clone.Waits {
		return proc, s.vforked()
	}
	return proc, s.forked(proc)
}

// fillStdio puts the streams into their slots, and notes those whose owner should become the
// container's user: never a device that others use, such as the host's /dev/null.
func (s *start) fillStdio() {
	for i, fd := range []int{s.io.In, s.io.Out, s.io.Err} {
		s.im.set(SlotIn+Slot(i), fd)
		var st unix.Stat_t
		if s.p.Owner == 0 || unix.Fstat(fd, &st) != nil || st.Uid == uint32(s.p.Owner) {
			continue
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFSOCK || isTerminal(st) {
			s.im.set(SlotOwnIn+Slot(i), fd)
		}
	}
}

// isTerminal tells a pty slave (majors 136 to 143, Documentation/admin-guide/devices.txt).
func isTerminal(st unix.Stat_t) bool {
	major := unix.Major(st.Rdev)
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && major >= 136 && major <= 143
}

func (s *start) terminalSize() error {
	if !s.p.Terminal || s.io.Rows == 0 && s.io.Cols == 0 {
		return nil
	}
	ws := &unix.Winsize{Row: s.io.Rows, Col: s.io.Cols}
	if err := unix.IoctlSetWinsize(s.im.get(SlotConsole), unix.TIOCSWINSZ, ws); err != nil {
		return fmt.Errorf("set the terminal's size to %d×%d: %w", s.io.Rows, s.io.Cols, err)
	}
	return nil
}

// clone makes the child. It runs on the thread that the Program asks for.
func (s *start) clone() error {
	c := &s.p.Clone
	args := &cloneArgs{
		flags:      c.Flags | unix.CLONE_PIDFD | unix.CLONE_CLEAR_SIGHAND,
		pidfd:      uint64(uintptr(unsafe.Pointer(&s.pidfd))),
		exitSignal: uint64(unix.SIGCHLD),
	}
	if c.Flags&unix.CLONE_INTO_CGROUP != 0 {
		args.cgroup = uint64(s.im.get(c.Cgroup))
	}
	if c.PidNS != NoSlot {
		leave, err := enterPidNS(s.im.get(c.PidNS), s.ownPidNS)
		if err != nil {
			return err
		}
		defer leave()
	}
	run := cloneRun
	if !c.Waits {
		args.flags |= unix.CLONE_VM | unix.CLONE_VFORK
		run = cloneBlocking
	}
	pid, errno := run(unsafe.Pointer(args), unsafe.Sizeof(*args), s.im.header())
	runtime.KeepAlive(s)
	if errno != 0 {
		return &Error{Step: "create the container's first process", Call: "clone3(" + cloneFlags(c.Flags) + ")", Errno: unix.Errno(errno)}
	}
	s.pid = int(pid)
	return nil
}

// vforked is called when the child has left our memory: it runs the program, or it has failed.
func (s *start) vforked() error {
	i, errno, failed := s.im.failure()
	if !failed {
		return nil
	}
	s.reap()
	return s.stepError(s.im.prepared+i, errno)
}

// The child's messages on the sync socket, one byte each; the launcher answers with the same byte.
// A gate (Ready) is answered by Process.Release.
const (
	syncMaps     = 'm'
	syncPivot    = 'p'
	syncExec     = 'e'
	syncReady    = 'r'
	syncListener = 'n'
)

// forked serves a child that waits, until it is at its gate or has called execve.
func (s *start) forked(proc *Process) error {
	// From here on the image is the child's too: its slots must not change.
	_ = unix.Close(s.childEnd)
	s.childEnd = -1
	buf := make([]byte, 1)
	for {
		n, err := unix.Read(s.gate, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return s.vforked() // end of file: execve closed it, or the child is gone
		}
		if buf[0] == syncReady {
			proc.gate, s.gate = s.gate, -1
			return nil
		}
		if err := s.answer(buf[0], proc); err != nil {
			_ = unix.Kill(s.pid, unix.SIGKILL)
			s.reap()
			return err
		}
		if _, err := unix.Write(s.gate, buf); err != nil {
			return s.vforked()
		}
	}
}

func (s *start) answer(b byte, proc *Process) error {
	switch b {
	case syncListener:
		fd, _, errno := unix.Syscall(unix.SYS_PIDFD_GETFD, uintptr(s.pidfd), uintptr(s.im.get(s.p.Listener)), 0)
		if errno != 0 {
			return fmt.Errorf("fetch the seccomp listener from the container: %w", errno)
		}
		proc.Listener = int(fd)
	case syncMaps:
		return writeMaps(s.pid, s.p.Clone.Maps)
	case syncPivot:
		if s.hooks.BeforePivot != nil {
			return s.hooks.BeforePivot(s.pid)
		}
	case syncExec:
		if s.hooks.BeforeExec != nil {
			return s.hooks.BeforeExec(s.pid)
		}
	}
	return nil
}

// writeMaps gives the child its identity: setgroups must be denied before gid_map where the writer
// lacks CAP_SETGID (user_namespaces(7)).
func writeMaps(pid int, m *Maps) error {
	dir := "/proc/" + strconv.Itoa(pid)
	write := func(file, text string) error {
		if err := os.WriteFile(dir+"/"+file, []byte(text), 0); err != nil {
			return fmt.Errorf("map the container's users (%q): %w", text, err)
		}
		return nil
	}
	if m.DenySetgroups {
		if err := write("setgroups", "deny"); err != nil {
			return err
		}
	}
	return errors.Join(write("uid_map", m.UID), write("gid_map", m.GID))
}

func (s *start) reap() {
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(s.pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	_ = unix.Close(int(s.pidfd))
}

// closeSlots closes what Prepare opened. Detached mounts are taken down by their last close.
func (s *start) closeSlots(failed bool) {
	for i := range s.p.Prepare {
		out := s.p.Prepare[i].Out
		if out == NoSlot || out == SlotConsole && !failed {
			continue
		}
		closeFD(s.im.get(out))
	}
	closeFD(s.childEnd)
	closeFD(s.gate)
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// stepError describes a failed step; the index counts Prepare's steps first.
func (s *start) stepError(i int, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w", s.im.steps[i].What, err)
	}
	st := &s.im.steps[i]
	return &Error{Step: st.What, Call: s.p.call(st), Errno: errno, Exec: st.isExec(), Arg0: s.p.Args0}
}

// isExec tells the steps that try the user's program.
func (st *Step) isExec() bool { return st.Nr == unix.SYS_EXECVE || st.Nr == OpFail }

// Release lets a child that waits at its gate go on to execve, and returns when it has, or with the
// *Error that kept it from it. A child whose gate is a fifo is released by whoever opens the fifo.
func (p *Process) Release() error {
	if p.gate < 0 {
		return errors.New("the process is not waiting at a gate")
	}
	defer func() {
		_ = unix.Close(p.gate)
		p.gate = -1
		p.image.close()
	}()
	if _, err := unix.Write(p.gate, []byte{syncReady}); err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	buf := make([]byte, 1)
	for {
		if _, err := unix.Read(p.gate, buf); err != unix.EINTR {
			break
		}
	}
	i, errno, failed := p.image.failure()
	if !failed {
		return nil
	}
	st := &p.prog.Child[i]
	return &Error{Step: st.What, Call: p.prog.call(st), Errno: errno, Exec: st.isExec(), Arg0: p.prog.Args0}
}
