package daemon

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"

	"berth/base/fault"
)

// Find gives the path of a program of this build (berthd): beside the running program, links
// resolved, else on PATH.
func Find(name string) (string, error) {
	if self, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(self); err == nil {
			self = real
		}
		beside := filepath.Join(filepath.Dir(self), name)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.New(fault.NotFound, "%s is neither beside berth nor on PATH: install Berth whole (make install)", name)
	}
	return path, nil
}

// Absent reports whether nobody listens on the default socket, so that a command can do without an
// engine instead of starting one.
func Absent() bool {
	conn, err := net.Dial("unix", Socket())
	if err != nil {
		return true
	}
	conn.Close()
	return false
}
