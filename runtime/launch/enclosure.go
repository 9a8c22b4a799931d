package launch

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// An Enclosure is a pid namespace around those of containers (Options.Enclosure). Whatever runs in it the kernel kills when it is closed, and when the
// process that made it ends, in whatever way: also what has changed its user or executed a set-user-ID program, which is free of a
// death signal.
//
// The namespace's first process does nothing but wait for the end of a socket, of which the launcher has the other end. When the launcher is gone it
// ends, and all that is numbered in its namespace with it (pid_namespaces(7)): so is what lives in namespaces below.
type Enclosure struct {
	proc *Process
	ns   int
}

// NewEnclosure makes one.
func (l *Launcher) NewEnclosure() (*Enclosure, error) {
	proc, err := l.Start(enclosureProgram(), Stdio{In: -1, Out: -1, Err: -1})
	if err != nil {
		return nil, fmt.Errorf("make a pid namespace around others: %w", err)
	}
	e := &Enclosure{proc: proc, ns: -1}
	if e.ns, err = unix.Open("/proc/"+strconv.Itoa(proc.PID)+"/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		_ = e.Close()
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

// FD is the descriptor for Options.Enclosure. It stays the enclosure's.
func (e *Enclosure) FD() int { return e.ns }

// Ended tells that somebody has killed the first process: nothing can be started in the enclosure any more.
func (e *Enclosure) Ended() bool {
	ended, err := process.Ended(e.proc.PidFD, 0)
	return ended || err != nil
}

// Close ends all that is in the enclosure. It returns when all of it was waited for by its parents.
func (e *Enclosure) Close() error {
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
