//go:build !windows

package daemon

import (
	"os"
	"path/filepath"
	"syscall"

	"berth/base/fault"
)

// Become puts a program in the place of this process: signals, the terminal and whoever waits for the exit code then have to do with that
// program alone. It returns only when that failed.
func Become(path string, args []string) error {
	err := syscall.Exec(path, append([]string{filepath.Base(path)}, args...), os.Environ())
	return fault.Wrap(fault.Internal, err, "run %s", path)
}
