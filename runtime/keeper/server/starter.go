package server

import "syscall"

// Starter makes processes; the binary plugs in the launcher. It is called by several goroutines at
// once, never by the loop.
type Starter interface {
	// Start runs an encoded launch program. The descriptors in io stay the caller's. A failed step is
	// a *StartError.
	Start(program []byte, io Stdio) (*Process, error)
}

// Stdio is what becomes of the standard streams: descriptors, or -1 each and a size where the
// program makes a terminal.
type Stdio struct {
	In, Out, Err int
	Rows, Cols   uint16
	Within       []int // pidfds of processes that must be there when the program has opened what it opens by their numbers
}

// Process is a process that runs, or waits at its gate. The descriptors are the receiver's.
type Process struct {
	PID, PidFD int
	Console    int          // the terminal's master, -1: none
	Release    func() error // opens the gate; called only when Launch.Gate was asked for
}

// StartError says which step of a launch failed and how.
type StartError struct {
	Text       string
	Step, Call string
	Errno      syscall.Errno
	Exec       bool   // execve of the user's program failed
	Arg0       string // that program
}

// Error gives the whole text.
func (e *StartError) Error() string { return e.Text }
