package tty

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Pair is a pseudo-terminal.
type Pair struct {
	Master   int
	Terminal int    // opened with O_NOCTTY: whoever wants it as controlling terminal asks for it
	Name     string // its path where devpts is mounted on /dev/pts
}

// Open makes a pair in this mount namespace's devpts.
func Open() (Pair, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Pair{}, fault.Wrap(fault.Internal, err, "open /dev/ptmx")
	}
	return finish(master)
}

func finish(master int) (Pair, error) {
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(master)
		return Pair{}, fault.Wrap(fault.Internal, err, "unlock a pseudo-terminal")
	}
	n, err := Number(master)
	if err != nil {
		unix.Close(master)
		return Pair{}, err
	}
	terminal, err := Peer(master)
	if err != nil {
		unix.Close(master)
		return Pair{}, err
	}
	return Pair{master, terminal, "/dev/pts/" + strconv.Itoa(n)}, nil
}

// Close closes both ends that are still open (not negative).
func (p *Pair) Close() error {
	var first error
	for _, fd := range [...]*int{&p.Master, &p.Terminal} {
		if *fd >= 0 {
			if err := unix.Close(*fd); err != nil && first == nil {
				first = err
			}
			*fd = -1
		}
	}
	return first
}

// Number is the terminal's number in its devpts: 3 for /dev/pts/3.
func Number(master int) (int, error) {
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	return n, fault.Wrap(fault.Internal, err, "ask for a pseudo-terminal's number")
}

// Peer opens the terminal of a master without a path, so that no mount can stand in between (Linux 4.13).
func Peer(master int) (int, error) {
	fd, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(master), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if e != 0 {
		return -1, fault.Wrap(fault.Internal, e, "open the terminal of a pseudo-terminal")
	}
	return int(fd), nil
}

// Size is a terminal's size in characters.
type Size struct{ Rows, Cols uint16 }

// GetSize reads the size of a terminal, from either end. errors.Is(err, unix.ENOTTY): it is none.
func GetSize(fd int) (Size, error) {
	w, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	if err != nil {
		return Size{}, fault.Wrap(fault.Invalid, err, "ask for the terminal's size")
	}
	return Size{w.Row, w.Col}, nil
}

// SetSize sets it; the foreground processes of the terminal get SIGWINCH if it changed.
func SetSize(fd int, s Size) error {
	err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: s.Rows, Col: s.Cols})
	return fault.Wrap(fault.Internal, err, "resize the terminal")
}

// IsTerminal reports whether fd is a terminal.
func IsTerminal(fd int) bool {
	_, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	return err == nil
}

// State is a terminal's settings, to be put back.
type State struct{ termios unix.Termios }

// MakeRaw makes a terminal raw, as cfmakeraw(3) does, and gives the settings from before.
func MakeRaw(fd int) (*State, error) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "make the terminal raw")
	}
	old := &State{*t}
	t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	t.Oflag &^= unix.OPOST
	t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	t.Cflag &^= unix.CSIZE | unix.PARENB
	t.Cflag |= unix.CS8
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make the terminal raw")
	}
	return old, nil
}

// Restore puts settings back. A nil state changes nothing.
func Restore(fd int, s *State) error {
	if s == nil {
		return nil
	}
	return fault.Wrap(fault.Internal, unix.IoctlSetTermios(fd, unix.TCSETS, &s.termios), "restore the terminal")
}

// SendMaster passes a master's descriptor over a connected unix socket, with the name, as the OCI
// runtime's --console-socket wants it.
func SendMaster(socket, master int, name string) error {
	if name == "" {
		name = "/dev/ptmx"
	}
	err := unix.Sendmsg(socket, []byte(name), unix.UnixRights(master), nil, unix.MSG_NOSIGNAL)
	return fault.Wrap(fault.Internal, err, "send the terminal to the console socket")
}

// ConsoleFile wraps a master for reading and writing through Go's poller. It takes the descriptor over.
func ConsoleFile(master int) (*os.File, error) {
	if err := unix.SetNonblock(master, true); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "make a terminal non-blocking")
	}
	return os.NewFile(uintptr(master), "console"), nil
}
