// Command berth-init is the first process of a container that was started with --init. It runs one program, passes signals on to it,
// reaps whatever is orphaned, and ends as the program ended. It is bound into the container at /sbin/docker-init and speaks the part
// of tini's command line that Docker uses:
//
//	docker-init [--version] -- PROGRAM [ARGUMENT...]
//
// With the single word --hold it only waits for the end of its input; the engine uses that on hosts where systemd makes cgroups.
//
// The program gets a process group of its own and, where there is one, the terminal; so a signal from the keyboard reaches it and not
// this process. berth-init reads no file and keeps no descriptor but the three standard ones.
//
// Go's runtime interrupts its own threads with SIGURG, which cannot be told from one that was sent: SIGURG alone is not passed on.
package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes of a program that could not be started, as shells have them.
const (
	exitNotFound  = 127
	exitCannotRun = 126
	exitUsage     = 1
)

func main() {
	args := os.Args[1:]
	if len(args) == 1 && args[0] == "--version" {
		fmt.Println("berth-init, an init for containers")
		return
	}
	if len(args) == 1 && args[0] == "--hold" { // on the host: keeps a scope of systemd's alive until its input ends
		io.Copy(io.Discard, os.Stdin)
		return
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprintln(os.Stderr, "usage: docker-init -- PROGRAM [ARGUMENT...]")
		os.Exit(exitUsage)
	}
	os.Exit(run(args))
}

// run starts the program and lives until it ends. It gives the exit code.
func run(args []string) int {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals) // before the program: nothing sent to a container that has just started is lost
	pid, code, err := start(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "docker-init: %s: %v\n", args[0], err)
		return code
	}
	for s := range signals {
		sig, ok := s.(syscall.Signal)
		switch {
		case !ok, sig == unix.SIGPIPE, sig == unix.SIGURG: // our own: a failed write, the runtime's preemption
		case sig == unix.SIGCHLD:
			if code, ended := reap(pid); ended {
				return code
			}
		case sig == unix.SIGTTIN, sig == unix.SIGTTOU: // we are in the terminal's background
		default:
			unix.Kill(pid, sig) // gone already: the next SIGCHLD tells
		}
	}
	return exitUsage
}

// start runs the program in a group of its own, with the terminal if stdin is one.
func start(args []string) (pid, code int, err error) {
	path, err := exec.LookPath(args[0])
	if err != nil && !errors.Is(err, exec.ErrDot) {
		return 0, startCode(err), err
	}
	_, terr := unix.IoctlGetTermios(0, unix.TCGETS)
	attr := &os.ProcAttr{Env: os.Environ(), Files: []*os.File{os.Stdin, os.Stdout, os.Stderr}, Sys: &syscall.SysProcAttr{Setpgid: true, Foreground: terr == nil, Ctty: 0}}
	p, err := os.StartProcess(path, args, attr)
	if err != nil {
		return 0, startCode(err), err
	}
	pid = p.Pid
	p.Release() // reap waits for everybody
	return pid, 0, nil
}

func startCode(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return exitNotFound
	}
	return exitCannotRun
}

// reap takes every process that has ended. It tells whether the program was among them, and its code.
func reap(program int) (code int, ended bool) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return code, ended
		}
		if pid != program || status.Stopped() || status.Continued() {
			continue
		}
		ended, code = true, status.ExitStatus()
		if status.Signaled() {
			code = 128 + int(status.Signal())
		}
	}
}
