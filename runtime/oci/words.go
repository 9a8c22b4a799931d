package oci

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"berth/runtime/launch"
)

// describe puts a launch's failure into runc's words where callers look for them: docker makes exit
// status 127 of "executable file not found" and "no such file or directory", and 126 of "permission
// denied".
func describe(err error) error {
	var e *launch.Error
	if !errors.As(err, &e) || !e.Exec {
		return err
	}
	name := e.Arg0
	switch {
	case e.Errno == unix.ENOENT && !strings.Contains(name, "/"):
		return &reworded{fmt.Sprintf("exec: %q: executable file not found in $PATH", name), e}
	case e.Errno == unix.ENOENT:
		return &reworded{fmt.Sprintf("exec: %q: stat %s: no such file or directory", name, name), e}
	case e.Errno == unix.ENOEXEC:
		return &reworded{fmt.Sprintf("exec %s: exec format error", name), e}
	}
	return &reworded{fmt.Sprintf("exec: %q: %v", name, e.Errno), e}
}

// reworded is an error in other words, with its cause kept.
type reworded struct {
	text  string
	cause error
}

func (r *reworded) Error() string { return r.text }
func (r *reworded) Unwrap() error { return r.cause }
