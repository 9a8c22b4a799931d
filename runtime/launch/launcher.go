package launch

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// Launcher makes processes out of Programs. It may be used by several goroutines at once.
type Launcher struct {
	// High, when it is above 0, is the number from which on descriptors belong to the launching process
	// alone. The kernel copies all others for each child, and closes the copies at its execve; who holds
	// thousands keeps them there. Set it before the first Start, and only where the kernel has
	// probe.CloseRangeUnshare.
	High int

	covered chan func() // runs on threads that live in the empty mount namespace
	viewing sync.Once   // makes views
	views   chan func() // runs on threads that see proc and sysfs alone; nil before the first need, and where there are none
	nets    *nets       // nil: clone3 makes each network namespace
	around  around      // of what Enclosed was asked for
	tables  sync.Pool   // of *[]byte
}

// Stdio is what becomes of the standard streams: descriptors for 0, 1 and 2, or, when the Program
// makes a terminal, its first size (0×0 keeps the kernel's default).
type Stdio struct {
	In, Out, Err int
	Rows, Cols   uint16
	// Within are pidfds of the processes by whose numbers the Program opens namespaces and files (Target, paths below /proc/PID). A number
	// may be another's by then: unless all of these are still there once everything is open, the start fails with ErrEnded.
	Within []int
}

// ErrEnded is the error of a start whose Program names a process that has ended.
var ErrEnded = fault.New(fault.Gone, "the container is not running")

// Hooks are called on the launching side while the child waits at the points that
// Options.HookGates asked for. An error ends the child, and Start returns it.
type Hooks struct {
	BeforePivot func(pid int) error // namespaces and mounts exist, the root is not entered yet
	BeforeExec  func(pid int) error // everything is done but execve
	// Listener is handed the seccomp listener as soon as there is one, before the child makes another
	// call: each may be one that waits for the agent behind the listener. The descriptor stays Start's.
	Listener func(pid, fd int) error
}

// Process is a child that has reached execve, or waits at its gate.
type Process struct {
	PID      int
	PidFD    int // pidfd_open(2) descriptor, the caller's to close
	Console  int // the pty master, the caller's to close; -1 without a terminal
	Listener int // the seccomp listener, the caller's to close; -1 without one

	gate int      // the launcher's end of the sync socket while the child waits, else -1
	prog *Program // while it waits
}

// Waits tells whether the process is at its gate. Until Release has returned its Program is in use.
func (p *Process) Waits() bool { return p.gate >= 0 }

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
	if profile, ok := strings.CutPrefix(e.Step, applyProfile); ok { // runc's words, which people search for
		return fmt.Sprintf("unable to apply apparmor profile: apparmor failed to apply profile %s: %v", profile, e.Errno)
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
		coveredThread(l.covered, ready)
		if err := <-ready; err != nil {
			close(l.covered)
			return nil, fmt.Errorf("prepare a thread with an empty mount namespace: %w", err)
		}
	}
	return l, nil
}

// Close ends what is enclosed, and the Launcher's threads; other processes are not touched. It returns when what was enclosed has been waited for, and
// says if that cannot be.
func (l *Launcher) Close() error {
	err := l.around.close()
	if l.covered != nil {
		close(l.covered)
	}
	l.viewing.Do(func() {}) // from now on none are made
	if l.views != nil {
		close(l.views)
	}
	if l.nets != nil {
		close(l.nets.want)
	}
	return err
}

// Start runs p without hooks. See StartHooked.
func (l *Launcher) Start(p *Program, io Stdio) (*Process, error) {
	return l.StartHooked(p, io, Hooks{})
}

// StartHooked runs p until its process has called execve, or waits at its gate. The descriptors in
// io stay the caller's. When it fails nothing is left: no process, no descriptor, no mount; the
// error is an *Error where a step failed.
func (l *Launcher) StartHooked(p *Program, io Stdio, hooks Hooks) (*Process, error) {
	s := &start{p: p, io: io, hooks: hooks, sync: [2]int{-1, -1}, ownPidNS: -1, program: -1, pidfd: -1, net: net{ns: -1, sysfs: -1}}
	s.high = l.High
	if l.nets != nil && p.wantsNet() {
		s.nets = l.nets
		defer s.nets.used()
		if m, ok := s.nets.take(); ok {
			s.net = m
		}
	}
	s.slots = make([]int, len(p.Slots))
	for i := range s.slots {
		s.slots[i] = -1
	}
	proc, err := s.run(l)
	s.close(err != nil)
	if err != nil {
		return nil, err
	}
	return proc, nil
}

// start is one launch under way.
type start struct {
	p       *Program
	io      Stdio
	hooks   Hooks
	slots   []int
	sync    [2]int // socket to the child: our end, the child's
	program int    // the child's program
	birth   []byte // the table that executes it
	pid     int
	pidfd   int32
	born    int32 // the child's number as its midwife sees it; 0: there is none, or no midwife
	midwife int   // a process that has ended or is about to, and is to be waited for; 0: none
	high    int   // Launcher.High
	nets    *nets
	net     net // a network namespace made before, or none

	ownPidNS int // the launcher's own pid namespace, to return to, or -1
}

func (s *start) run(l *Launcher) (*Process, error) {
	s.fillStdio()
	var err error
	if s.sync, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("make the socket to the container's first process: %w", err)
	}
	s.slots[SlotSync] = s.sync[1]
	if i, err := prepare(s.p.Prepare, s.slots); err != nil {
		return nil, s.stepError(&s.p.Prepare[i], err)
	}
	if err := s.stillThere(); err != nil {
		return nil, err
	}
	if err := s.terminalSize(); err != nil {
		return nil, err
	}
	if s.program, err = l.program(s); err != nil {
		return nil, err
	}
	if s.p.Clone.PidNS != NoSlot {
		if s.ownPidNS, err = unix.Open("/proc/self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return nil, fmt.Errorf("open the launcher's own pid namespace: %w", err)
		}
	}
	if err := l.on(s.p, s.clone); err != nil {
		return nil, err
	}
	if s.pid == 0 { // it is known by its descriptor only
		var err error
		if s.pid, err = pidOf(int(s.pidfd)); err != nil {
			_ = unix.PidfdSendSignal(int(s.pidfd), unix.SIGKILL, nil, 0)
			_, _ = process.WaitBlocking(int(s.pidfd))
			closeFD(int(s.pidfd))
			return nil, err
		}
	}
	proc := &Process{PID: s.pid, PidFD: int(s.pidfd), Console: -1, Listener: -1, gate: -1}
	if s.p.Terminal {
		proc.Console = s.slots[SlotConsole]
	}
	if err := s.serve(proc); err != nil {
		_ = unix.PidfdSendSignal(int(s.pidfd), unix.SIGKILL, nil, 0)
		reap(s.pid)
		closeFD(int(s.pidfd))
		closeFD(proc.Listener)
		return nil, err
	}
	return proc, nil
}

// program writes the child's program.
func (l *Launcher) program(s *start) (int, error) {
	mem, _ := l.tables.Get().(*[]byte)
	if mem == nil {
		mem = new([]byte)
	}
	*mem = layout(*mem, s.p.Child, s.slots, s.sync[1], tableAddr)
	fd, err := program(*mem)
	l.tables.Put(mem)
	return fd, err
}

// fillStdio puts the streams into their slots, and notes those whose owner should become the
// container's user: never a device that others use, such as the host's /dev/null.
func (s *start) fillStdio() {
	for i, fd := range [...]int{s.io.In, s.io.Out, s.io.Err} {
		s.slots[SlotIn+Slot(i)] = fd
		if fd > 2 {
			s.slots[SlotHighIn+Slot(i)] = fd
		}
		var st unix.Stat_t
		if s.p.Owner == 0 || unix.Fstat(fd, &st) != nil || st.Uid == uint32(s.p.Owner) {
			continue
		}
		if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFSOCK || isTerminal(st) {
			s.slots[SlotOwnIn+Slot(i)] = fd
		}
	}
}

// isTerminal tells a pty slave (majors 136 to 143, Documentation/admin-guide/devices.txt).
func isTerminal(st unix.Stat_t) bool {
	major := unix.Major(st.Rdev)
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && major >= 136 && major <= 143
}

// stillThere makes sure that what was opened by the numbers of processes is theirs: a number has no other owner as long as its process can be sent
// a signal, be it a zombie.
func (s *start) stillThere() error {
	for _, fd := range s.io.Within {
		if err := unix.PidfdSendSignal(fd, 0, nil, 0); err == unix.ESRCH {
			return ErrEnded
		}
	}
	return nil
}

func (s *start) terminalSize() error {
	if !s.p.Terminal || s.io.Rows == 0 && s.io.Cols == 0 {
		return nil
	}
	ws := &unix.Winsize{Row: s.io.Rows, Col: s.io.Cols}
	if err := unix.IoctlSetWinsize(s.slots[SlotConsole], unix.TIOCSWINSZ, ws); err != nil {
		return fmt.Errorf("set the terminal's size to %d×%d: %w", s.io.Rows, s.io.Cols, err)
	}
	return nil
}

// The child's messages on the sync socket: one byte at a barrier, which the launcher answers with the
// same byte (syncReady is answered by Process.Release), or the sixteen bytes of a failure. The end of
// the messages means that execve has closed the child's end.
const (
	syncMaps     = 'm'
	syncPivot    = 'p'
	syncExec     = 'e'
	syncReady    = 'r'
	syncListener = 'n'
	syncAgain    = 'c'

	failureSize = 16
)

// serve answers the child until it is at its gate or has called execve.
func (s *start) serve(proc *Process) error {
	if s.high > 0 && s.p.Clone.Maps != nil {
		s.awaitParting()
	}
	// With our copy of the child's end open we would never see it close.
	closeFD(s.sync[1])
	s.sync[1] = -1
	for {
		message, err := receive(s.sync[0])
		switch {
		case err != nil:
			return fmt.Errorf("hear from the container's first process: %w", err)
		case len(message) == 0:
			return s.birthFailure()
		case len(message) == failureSize:
			return s.failure(message)
		case message[0] == syncReady:
			proc.gate, proc.prog, s.sync[0] = s.sync[0], s.p, -1
			return nil
		}
		if err := s.answer(message[0], proc); err != nil {
			return err
		}
		if _, err := unix.Write(s.sync[0], message); err != nil && err != unix.EPIPE {
			return fmt.Errorf("answer the container's first process: %w", err)
		}
	}
}

// awaitParting waits until a child that does not hold our thread has descriptors of its own, so that ours
// may be closed: its first message comes after that, or it has ended.
func (s *start) awaitParting() {
	fds := []unix.PollFd{{Fd: int32(s.sync[0]), Events: unix.POLLIN}, {Fd: s.pidfd, Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return
		}
	}
}

// failure finds the step that a message tells of.
func (s *start) failure(message []byte) error {
	i, errno := failureOf(message)
	if i < 0 || i >= len(s.p.Child) {
		return fmt.Errorf("start the container: step %d of %d failed: %w", i, len(s.p.Child), errno)
	}
	return s.stepError(&s.p.Child[i], errno)
}

// birthFailure is the error of a child that could not execute its program at all.
func (s *start) birthFailure() error {
	i, errno := failureOf(s.birth[offFailed:])
	if i < 0 {
		return nil
	}
	return fmt.Errorf("execute the launch program (call %d of the birth): %w", i, errno)
}

// receive reads one message; none at the end.
func receive(fd int) ([]byte, error) {
	buf := make([]byte, failureSize)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECONNRESET { // the child ended with an answer unread
			return nil, nil
		}
		return buf[:max(n, 0)], err
	}
}

func (s *start) answer(message byte, proc *Process) error {
	switch message {
	case syncListener:
		return s.fetchListener(proc)
	case syncAgain:
		return s.changeling(proc)
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

func reap(pid int) {
	for {
		if _, err := unix.Wait4(pid, nil, 0, nil); err != unix.EINTR {
			return
		}
	}
}

// close closes what the launch has opened. Detached mounts are taken down by their last close.
func (s *start) close(failed bool) {
	if s.midwife != 0 {
		reap(s.midwife)
	}
	for i := range s.p.Prepare {
		out := s.p.Prepare[i].Out
		if out != NoSlot && (out != SlotConsole || failed) {
			closeFD(s.slots[out])
			s.slots[out] = -1
		}
	}
	if s.birth != nil {
		_ = unix.Munmap(s.birth)
	}
	for _, fd := range []int{s.sync[0], s.sync[1], s.program, s.ownPidNS} {
		closeFD(fd)
	}
	s.net.close()
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}

// stepError describes a failed step.
func (s *start) stepError(st *Step, err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w", st.What, err)
	}
	return &Error{Step: st.What, Call: s.p.call(st), Errno: errno, Exec: st.isExec(), Arg0: s.p.Args0}
}

// isExec tells the steps that try the user's program.
func (st *Step) isExec() bool { return st.Nr == unix.SYS_EXECVE || st.Nr == OpFail }

// Release lets a child that waits at its gate go on to execve, and returns when it has, or with the
// *Error that kept it from it. A child whose gate is a fifo is released by whoever writes into the fifo.
func (p *Process) Release() error {
	if p.gate < 0 {
		return errors.New("the process is not waiting at a gate")
	}
	gate := p.gate
	p.gate = -1
	defer unix.Close(gate)
	if _, err := unix.Write(gate, []byte{syncReady}); err != nil {
		return fmt.Errorf("open the gate: %w", err)
	}
	message, err := receive(gate)
	if err != nil {
		return fmt.Errorf("hear from the container's first process: %w", err)
	}
	if len(message) != failureSize {
		return nil
	}
	s := start{p: p.prog}
	return s.failure(message)
}
