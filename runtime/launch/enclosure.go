package launch

import (
	"fmt"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// An enclosure is a pid namespace around those of containers (Options.Enclosure). Whatever runs in it the kernel kills when it is closed, and when the
// process that made it ends, in whatever way: also what has changed its user or executed a set-user-ID program, which is free of a
// death signal (PR_SET_PDEATHSIG).
//
// The namespace's first process does nothing but wait for the end of a socket, of which the launcher has the other end. When the launcher is gone it
// ends, and all that is numbered in its namespace with it (pid_namespaces(7)): so is what lives in namespaces below.
type enclosure struct {
	proc *Process
	ns   int
}

// around is a Launcher's enclosure.
type around struct {
	mu     sync.Mutex // guards what follows
	now    *enclosure // nil before the first need
	closed bool
}

// Enclosed gives the Launcher's enclosure, in which what is started dies with the Launcher, as a descriptor for Options.Enclosure that is the
// caller's to close. It is made with the first call, and anew where somebody has killed its first process, and with that all that was in it.
func (l *Launcher) Enclosed() (fd int, err error) {
	a := &l.around
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return -1, errClosed
	}
	if a.now != nil && a.now.ended() {
		go a.now.close()
		a.now = nil
	}
	if a.now == nil {
		if a.now, err = l.newEnclosure(); err != nil {
			return -1, err
		}
	}
	return unix.FcntlInt(uintptr(a.now.ns), unix.F_DUPFD_CLOEXEC, 3)
}

var errClosed = fault.New(fault.Unavailable, "the launcher is closed")

// close ends what is enclosed. Whoever started it waits for it meanwhile.
func (a *around) close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	e := a.now
	a.now, a.closed = nil, true
	if e == nil {
		return nil
	}
	return e.close()
}

func (l *Launcher) newEnclosure() (*enclosure, error) {
	proc, err := l.Start(enclosureProgram(), Stdio{In: -1, Out: -1, Err: -1})
	if err != nil {
		return nil, fmt.Errorf("make a pid namespace around others: %w", err)
	}
	e := &enclosure{proc: proc, ns: -1}
	if e.ns, err = unix.Open("/proc/"+strconv.Itoa(proc.PID)+"/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		_ = e.close()
		return nil, fmt.Errorf("open the pid namespace around others: %w", err)
	}
	return e, nil
}

// enclosureProgram is the whole life of an enclosure's first process.
func enclosureProgram() *Program {
	p := &Program{
		Slots: append([]string(nil), fixedNames...), Listener: NoSlot,
		Clone: Clone{Flags: unix.CLONE_NEWPID, Cgroup: NoSlot, PidNS: NoSlot, Waits: true, GateStops: true},
	}
	const what = "wait for the launcher's end"
	k := section{p: p}
	k.call(what, unix.SYS_SETSID).expect(unix.EPERM, 0) // what a terminal sends is not for it
	k.call(what, unix.SYS_PRCTL, Int(unix.PR_SET_NAME), Str("berth-enclosure"), Int(0), Int(0), Int(0))
	for fd := range 3 {
		k.call(what, unix.SYS_CLOSE, Int(fd)).expect(unix.EBADF, 0)
	}
	k.call(what, unix.SYS_WRITE, Of(SlotSync), Bytes([]byte{syncReady}), Int(1))
	k.call(what, unix.SYS_READ, Of(SlotSync), Bytes(make([]byte, 8)), Int(1))
	k.call(what, unix.SYS_EXIT_GROUP, Int(0))
	p.Child = k.steps
	return p
}

// ended tells that somebody has killed the first process: nothing can be started in the enclosure any more.
func (e *enclosure) ended() bool {
	ended, err := process.Ended(e.proc.PidFD, 0)
	return ended || err != nil
}

// close ends all that is in the enclosure. It returns when all of it was waited for by its parents.
func (e *enclosure) close() error {
	closeFD(e.proc.gate)
	e.proc.gate = -1
	_, err := process.WaitBlocking(e.proc.PidFD)
	closeFD(e.proc.PidFD)
	closeFD(e.ns)
	if err != nil {
		return os.NewSyscallError("waitid", err)
	}
	return nil
}
