// Command berth-keeper is the one small process that is the parent of all containers of an engine:
// it launches them, holds their standard streams and terminals, writes their logs and remembers how
// they ended. The engine starts it and tells it what to do over EXEC-ROOT/keeper.sock; it survives
// the engine. See packages runtime/keeper and runtime/keeper/server.
//
//	berth-keeper --exec-root DIR [--cgroup-procs FILE]… [--oom-score-adj N]
package main

import (
	"errors"
	"os"
	"runtime"
	"sync"

	"berth/kernel/probe"
	"berth/runtime/foreign"
	"berth/runtime/keeper/server"
	"berth/runtime/launch"
)

// version is set by the build (-X main.version=…).
var version = "dev"

// The loop must run on the process's main thread: an upgrade calls execve from it. Only what is
// locked before main.main starts is sure to be there.
func init() { runtime.LockOSThread() }

func main() { os.Exit(server.Main(os.Args, version, newStarter)) }

// starter lets the server launch without knowing launch programs.
type starter struct {
	l        *launch.Launcher
	decoders *sync.Pool // of *launch.Decoder
}

func newStarter() (server.Starter, error) {
	l, err := launch.NewLauncher(true)
	if err != nil {
		// Without CAP_SYS_ADMIN there is no empty mount namespace; programs that want one will say so.
		os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n")
		l, err = launch.NewLauncher(false)
	}
	if err == nil {
		if probe.Host().Has(probe.CloseRangeUnshare) {
			l.High = server.HighFD
		}
		if err := l.KeepNets(); err != nil { // launches make their own
			os.Stderr.WriteString("berth-keeper: " + err.Error() + "\n")
		}
	}
	return starter{l, &sync.Pool{New: func() any { return new(launch.Decoder) }}}, err
}

// Start runs an encoded program.
func (s starter) Start(program []byte, io server.Stdio) (*server.Process, error) {
	if foreign.Is(program) {
		return startForeign(program, io)
	}
	d := s.decoders.Get().(*launch.Decoder)
	p, err := d.Decode(program)
	if err != nil {
		return nil, err
	}
	proc, err := s.l.Start(p, launch.Stdio{In: io.In, Out: io.Out, Err: io.Err, Rows: io.Rows, Cols: io.Cols, Within: io.Within})
	if proc == nil || !proc.Waits() { // else the program is needed until it is released
		s.decoders.Put(d)
	}
	if err != nil {
		return nil, translate(err)
	}
	out := &server.Process{PID: proc.PID, PidFD: proc.PidFD, Console: proc.Console}
	out.Release = func() error { return translate(proc.Release()) }
	return out, nil
}

// startForeign has another runtime make a process.
func startForeign(program []byte, io server.Stdio) (*server.Process, error) {
	p, err := foreign.Decode(program)
	if err != nil {
		return nil, err
	}
	proc, err := foreign.Start(p, foreign.Stdio{In: io.In, Out: io.Out, Err: io.Err, Rows: io.Rows, Cols: io.Cols})
	if err != nil {
		return nil, err
	}
	return &server.Process{PID: proc.PID, PidFD: proc.PidFD, Console: proc.Console}, nil
}

func translate(err error) error {
	var e *launch.Error
	if !errors.As(err, &e) {
		return err
	}
	return &server.StartError{Text: e.Error(), Step: e.Step, Call: e.Call, Errno: e.Errno, Exec: e.Exec, Arg0: e.Arg0}
}
