package oci

import (
	"fmt"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
	"berth/kernel/relay"
	"berth/runtime/launch"
)

// foreground is us standing by a process until its end: signals that we get go to it, and if it has a
// terminal, ours is connected to it. It is one loop on one thread.
type foreground struct {
	t       *tool
	signals int // descriptor that yields a byte for each signal
	proc    *launch.Process
	own     *terminal // nil unless the process has a terminal
	status  process.Exit
	done    bool // the process has ended, with that status
	input   bool // our terminal is still read from
	ready   *readiness
}

// newForeground begins to collect signals: those that come before there is a process wait for it.
func newForeground(t *tool, subreaper bool) (*foreground, error) {
	fd, err := relay.Catch()
	if err != nil {
		return nil, err
	}
	if subreaper {
		if err := process.SetSubreaper(true); err != nil {
			t.log.Warn(err.Error())
		}
	}
	return &foreground{t: t, signals: fd}, nil
}

// attach takes on the process and, if it has a terminal, connects ours to it.
func (fg *foreground) attach(p *launch.Process) error {
	fg.proc = p
	if p.Console < 0 {
		return nil
	}
	own, err := ownTerminal()
	if err != nil {
		return err
	}
	own.resize(p.Console)
	if err := plainNewlines(p.Console); err != nil {
		return err
	}
	if err := own.raw(); err != nil {
		return err
	}
	fg.own, fg.input = own, true
	return nil
}

// attachChild takes on a child that is no container's process.
func (fg *foreground) attachChild(pid int) error {
	fd, err := process.Open(pid)
	if err != nil {
		return err
	}
	return fg.attach(&launch.Process{PID: pid, PidFD: fd, Console: -1, Listener: -1})
}

// wait passes on signals and bytes until the process has ended and its terminal has no more output,
// and gives the exit status as shells count it.
func (fg *foreground) wait() (int, error) {
	output := fg.own != nil
	for !fg.done || output {
		fds := [...]unix.PollFd{
			{Fd: int32(fg.signals), Events: unix.POLLIN},
			{Fd: int32(fg.proc.PidFD), Events: unix.POLLIN},
			{Fd: -1, Events: unix.POLLIN},
			{Fd: -1, Events: unix.POLLIN},
			{Fd: -1, Events: unix.POLLIN},
		}
		if fg.ready != nil {
			fds[4].Fd = int32(fg.ready.sock)
		}
		if fg.done {
			fds[1].Fd = -1
		}
		if output {
			fds[2].Fd = int32(fg.proc.Console)
		}
		if fg.input {
			fds[3].Fd = 0
		}
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return 1, fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents != 0 {
			fg.forward()
		}
		if fds[1].Revents != 0 {
			if err := fg.reap(); err != nil {
				return 1, err
			}
		}
		if fds[2].Revents != 0 {
			output = pass(1, fg.proc.Console) // false: the last process has closed the terminal
		}
		if fds[3].Revents != 0 && fg.input {
			fg.input = pass(fg.proc.Console, 0)
		}
		if fds[4].Revents != 0 {
			fg.hear()
		}
	}
	return fg.status.Status(), nil
}

// hear passes on what the container says of being ready, once.
func (fg *foreground) hear() {
	done, err := fg.ready.hear(fg.proc.PID)
	if err != nil {
		fg.t.log.Warn(err.Error())
	}
	if done || err != nil {
		fg.ready.close()
		fg.ready = nil
	}
}

// forward passes signals on to the process.
func (fg *foreground) forward() {
	buf := make([]byte, 128)
	n, err := unix.Read(fg.signals, buf)
	if err != nil {
		return
	}
	for _, sig := range buf[:n] {
		switch s := unix.Signal(sig); {
		case s == unix.SIGCHLD:
			_ = fg.reap()
		case s == unix.SIGWINCH && fg.own != nil:
			fg.own.resize(fg.proc.Console)
		case s == unix.SIGPIPE: // ours: whoever read our output is gone
		case fg.done:
		default:
			fg.t.log.Debug("forward signal", "signal", process.SignalName(int(sig)))
			if err := process.Signal(fg.proc.PidFD, int(sig)); err != nil && !fault.Is(err, fault.NotFound) {
				fg.t.log.Error(err.Error())
			}
		}
	}
}

// reap collects our children that have ended: the process, and orphans that fell to us.
func (fg *foreground) reap() error {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		switch {
		case err == unix.EINTR:
		case err == unix.ECHILD && fg.done, pid == 0 && err == nil:
			return nil
		case err != nil:
			return fmt.Errorf("wait for process %d: %w", fg.proc.PID, err)
		case pid == fg.proc.PID:
			fg.status, fg.done = process.FromWaitStatus(ws), true
		}
	}
}

// pass copies what is there to read, and reports whether more may come.
func pass(to, from int) bool {
	buf := make([]byte, 32<<10)
	n, err := unix.Read(from, buf)
	if err == unix.EINTR || err == unix.EAGAIN {
		return true
	}
	if n <= 0 || err != nil { // EIO from a terminal: nobody has its other side open
		return false
	}
	for b := buf[:n]; len(b) > 0; {
		w, err := unix.Write(to, b)
		switch err {
		case nil:
			b = b[w:]
		case unix.EINTR:
		case unix.EAGAIN:
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(to), Events: unix.POLLOUT}}, -1)
		default:
			return false
		}
	}
	return true
}

// close gives the terminal back.
func (fg *foreground) close() {
	fg.ready.close()
	if fg.own != nil {
		fg.own.restore()
	}
}
