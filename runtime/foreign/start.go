package foreign

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Stdio is what becomes of the standard streams: descriptors, or, where the program has a console, the terminal's first size.
type Stdio struct {
	In, Out, Err int
	Rows, Cols   uint16
}

// Process is a process that runs. The descriptors are the receiver's.
type Process struct {
	PID, PidFD int
	Console    int // the terminal's master, -1 without one
}

// Start runs a program. When it fails, its undo commands have run, and the error has the runtime's words.
func Start(p *Program, io Stdio) (_ *Process, err error) {
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	for _, leftover := range []string{p.PidFile, p.Log} {
		if leftover != "" {
			_ = unix.Unlink(leftover)
		}
	}
	defer func() {
		for _, file := range p.Remove {
			_ = unix.Unlink(file) // the bundle goes as a whole when the container has ended
		}
	}()
	r := &run{p: p, null: null, until: time.Now().Add(p.Patience), console: -1}
	if p.Console != "" {
		if r.listener, err = listen(p.Console); err != nil {
			return nil, err
		}
		defer r.listener.close()
		io.In, io.Out, io.Err = null, null, null
	}
	proc, err := r.make(io)
	if err != nil {
		closeFD(r.console)
		r.undo()
		return nil, err
	}
	return proc, nil
}

// run is one program under way.
type run struct {
	p        *Program
	null     int
	until    time.Time
	listener *listener
	console  int
}

func (r *run) make(io Stdio) (*Process, error) {
	if err := r.step(r.p.Steps[0], io, r.listener); err != nil {
		return nil, err
	}
	pid, err := readPid(r.p.PidFile)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "runtime %s: it has not said which process it made", r.p.Name)
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "runtime %s: process %d", r.p.Name, pid)
	}
	if r.console >= 0 && (io.Rows > 0 || io.Cols > 0) {
		_ = unix.IoctlSetWinsize(r.console, unix.TIOCSWINSZ, &unix.Winsize{Row: io.Rows, Col: io.Cols})
	}
	for _, c := range r.p.Steps[1:] {
		if err := r.step(c, Stdio{In: r.null, Out: r.null, Err: r.null}, nil); err != nil {
			_ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0)
			unix.Close(pidfd)
			return nil, err
		}
	}
	return &Process{PID: pid, PidFD: pidfd, Console: r.console}, nil
}

// step runs one command to its end. While it runs, a terminal may come.
func (r *run) step(c Command, io Stdio, terminal *listener) error {
	pid, err := syscall.ForkExec(c[0], c, &syscall.ProcAttr{
		Dir: r.p.Dir, Env: r.p.Env, Files: []uintptr{uintptr(io.In), uintptr(io.Out), uintptr(io.Err)},
		Sys: &syscall.SysProcAttr{Setpgid: true}, // what it leaves can be killed with it
	})
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "runtime %s: %s cannot be executed", r.p.Name, c[0])
	}
	status, err := r.wait(pid, terminal)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "runtime %s: %s", r.p.Name, verb(c))
	}
	switch {
	case status.Exited() && status.ExitStatus() == 0:
		if terminal != nil && r.console < 0 {
			return fault.New(fault.Internal, "runtime %s: %s has sent no terminal", r.p.Name, verb(c))
		}
		return nil
	case status.Signaled():
		return fault.New(fault.Internal, "runtime %s: %s was ended by signal %d%s", r.p.Name, verb(c), status.Signal(), r.said())
	}
	return fault.New(fault.Internal, "runtime %s: %s failed with exit code %d%s", r.p.Name, verb(c), status.ExitStatus(), r.said())
}

// verb finds the command's name among its words, for errors.
func verb(c Command) string {
	for _, w := range c[1:] {
		switch w {
		case "create", "start", "exec", "delete", "kill", "run":
			return w
		}
	}
	return c[0]
}

var errHangs = errors.New("it does not end, and was killed")

// wait reaps a command, or kills it and what it started when time is up.
func (r *run) wait(pid int, terminal *listener) (ws unix.WaitStatus, err error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ws, err
	}
	defer unix.Close(pidfd)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		if terminal != nil && r.console < 0 {
			fds = append(fds, unix.PollFd{Fd: int32(terminal.fd), Events: unix.POLLIN})
		}
		left := time.Until(r.until)
		n, perr := unix.Poll(fds, int(max(left.Milliseconds(), 0)))
		switch {
		case perr == unix.EINTR:
			continue
		case perr != nil || n == 0:
			_ = unix.Kill(-pid, unix.SIGKILL)
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = wait4(pid)
			if perr != nil {
				return ws, perr
			}
			return ws, errHangs
		}
		if len(fds) > 1 && fds[1].Revents != 0 {
			if r.console, err = terminal.receive(r.until); err != nil {
				_ = unix.Kill(-pid, unix.SIGKILL)
				_, _ = wait4(pid)
				return ws, err
			}
			continue
		}
		if fds[0].Revents != 0 {
			return wait4(pid)
		}
	}
}

func wait4(pid int) (ws unix.WaitStatus, err error) {
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			return ws, err
		}
	}
}

// undoPatience is how long each undo command may take, whatever time the steps have left.
const undoPatience = 5 * time.Second

func (r *run) undo() {
	log := r.p.Log
	r.p.Log = ""
	for _, c := range r.p.Undo {
		r.until = time.Now().Add(undoPatience)
		_ = r.step(c, Stdio{In: r.null, Out: r.null, Err: r.null}, nil) // the failure that led here is what is told
	}
	r.p.Log = log
}

// said gives what the runtime has last written into its log, ": …"; "" where it has said nothing.
func (r *run) said() string {
	if r.p.Log == "" {
		return ""
	}
	b, err := os.ReadFile(r.p.Log)
	if err != nil {
		return ""
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	for i := len(lines) - 1; i >= 0; i-- {
		if m := message(lines[i]); m != "" {
			return ": " + m
		}
	}
	return ""
}

// message finds "msg" in a line of JSON, or takes the line as it is. The keeper links no decoder of JSON for this.
func message(line []byte) string {
	const maxMessage = 2048
	text := strings.TrimSpace(string(line))
	if strings.HasPrefix(text, "{") {
		_, after, ok := strings.Cut(text, `"msg":`)
		if !ok {
			return ""
		}
		after = strings.TrimLeft(after, " ")
		quoted, err := strconv.QuotedPrefix(after)
		if err != nil {
			return ""
		}
		if text, err = strconv.Unquote(quoted); err != nil {
			return ""
		}
	}
	return text[:min(len(text), maxMessage)]
}

func readPid(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 {
		return 0, fault.New(fault.Internal, "%q in %s is no process id", strings.TrimSpace(string(b)), file)
	}
	return pid, nil
}

func closeFD(fd int) {
	if fd >= 0 {
		_ = unix.Close(fd)
	}
}
