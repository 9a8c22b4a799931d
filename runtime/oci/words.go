package oci

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"berth/kernel/mount"
	"berth/kernel/probe"
	"berth/runtime/launch"
)

// describe puts a launch's failure into runc's words where callers look for them: docker makes exit
// status 127 of "executable file not found" and "no such file or directory", and 126 of "permission
// denied". root is where the container's files are seen: a program that is there and yet "not found"
// lacks its interpreter.
func describe(err error, root string) error {
	var e *launch.Error
	// Looking for the program before the gate counts as executing it.
	if !errors.As(err, &e) || !e.Exec && !strings.HasPrefix(e.Step, "exec ") {
		return err
	}
	name := e.Arg0
	switch {
	case e.Errno == unix.ENOENT && !strings.Contains(name, "/"):
		return &reworded{fmt.Sprintf("exec: %q: executable file not found in $PATH", name), e, false}
	case e.Errno == unix.ENOENT && existsIn(root, name):
		return &reworded{fmt.Sprintf("exec %s: no such file or directory", name), e, true}
	case e.Errno == unix.ENOENT:
		return &reworded{fmt.Sprintf("exec: %q: stat %s: no such file or directory", name, name), e, false}
	case e.Errno == unix.ENOEXEC:
		return &reworded{fmt.Sprintf("exec %s: exec format error", name), e, true}
	}
	return &reworded{fmt.Sprintf("exec: %q: %v", name, e.Errno), e, false}
}

// existsIn reports whether a container has a file of that name.
func existsIn(root, name string) bool {
	dir, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	fd, err := mount.OpenInRoot(probe.Host(), dir, name, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	unix.Close(fd)
	return true
}

// reworded is an error in other words, with its cause kept.
type reworded struct {
	text  string
	cause error
	whole bool // it is all that is to be said: a program that is there cannot be executed
}

func (r *reworded) Error() string { return r.text }
func (r *reworded) Unwrap() error { return r.cause }
