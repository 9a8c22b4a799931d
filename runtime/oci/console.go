package oci

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// sendFD sends a descriptor and a name for it to whoever listens on a unix socket (unix(7),
// SCM_RIGHTS): runc's protocol for handing out terminals.
func sendFD(path, name string, fd int) error {
	sock, err := dial(path)
	if err != nil {
		return err
	}
	defer unix.Close(sock)
	if err := unix.Sendmsg(sock, []byte(name), unix.UnixRights(fd), nil, 0); err != nil {
		return fmt.Errorf("send a descriptor to %s: %w", path, err)
	}
	return nil
}

// dial connects to a unix stream socket. Addresses hold 107 bytes: a longer path is reached through a
// descriptor of its directory.
func dial(path string) (int, error) {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	name := path
	if len(path) > 107 {
		file, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			unix.Close(sock)
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		defer unix.Close(file)
		name = fmt.Sprintf("/proc/self/fd/%d", file)
	}
	if err := unix.Connect(sock, &unix.SockaddrUnix{Name: name}); err != nil {
		unix.Close(sock)
		return -1, fault.Wrap(fault.Unavailable, err, "dial unix %s: connect", path)
	}
	return sock, nil
}

// terminal is our own terminal while it passes everything on to the container's.
type terminal struct {
	fd    int
	saved unix.Termios
}

// ownTerminal finds the terminal we were started from: any of the streams, or the controlling one.
func ownTerminal() (*terminal, error) {
	for _, fd := range [...]int{2, 1, 0} {
		if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
			return &terminal{fd, *t}, nil
		}
	}
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: "/dev/tty", Err: err}
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("ask /dev/tty for its settings: %w", err)
	}
	return &terminal{fd, *t}, nil
}

// raw makes the terminal pass on every byte that is typed as it is: the container's own terminal does
// the rest. What it shows still gets its carriage returns here, see plainNewlines.
func (t *terminal) raw() error {
	r := t.saved
	r.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	r.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	r.Cflag = r.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8
	r.Cc[unix.VMIN], r.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(t.fd, unix.TCSETS, &r); err != nil {
		return fmt.Errorf("set the terminal to raw mode: %w", err)
	}
	return nil
}

// restore puts the terminal back as it was.
func (t *terminal) restore() { _ = unix.IoctlSetTermios(t.fd, unix.TCSETS, &t.saved) }

// resize gives the container's terminal the size of ours.
func (t *terminal) resize(master int) {
	if ws, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ); err == nil {
		_ = unix.IoctlSetWinsize(master, unix.TIOCSWINSZ, ws)
	}
}

// plainNewlines makes the container's terminal send a newline without a carriage return: ours adds one,
// and where our output is no terminal but a file, none belongs there. (runc does the same.)
func plainNewlines(master int) error {
	t, err := unix.IoctlGetTermios(master, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("ask the container's terminal for its settings: %w", err)
	}
	t.Oflag &^= unix.ONLCR
	if err := unix.IoctlSetTermios(master, unix.TCSETS, t); err != nil {
		return fmt.Errorf("change the container's terminal: %w", err)
	}
	return nil
}
