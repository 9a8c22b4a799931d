package tty

import (
	"os"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Size is a terminal's size in characters.
type Size struct{ Rows, Cols uint16 }

// SetSize sets the size of a terminal, from either end; the foreground processes of the terminal get SIGWINCH if it changed.
func SetSize(fd int, s Size) error {
	err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	return fault.Wrap(fault.Internal, err, "resize the terminal")
}

// ConsoleFile wraps a master for reading and writing through Go's poller. It takes the descriptor over.
func ConsoleFile(master int) (*os.File, error) {
	if err := unix.SetNonblock(master, true); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make a terminal non-blocking")
	}
	return os.NewFile(uintptr(master), "console"), nil
}
