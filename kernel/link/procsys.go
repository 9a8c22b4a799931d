package link

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Settings writes settings of many network namespaces.
//
// What one namespace has below /proc/sys/net is cached under the same names as what the others have, and the kernel goes
// through all of them to find the right one: with a thousand containers, opening one file took a millisecond. So this is
// a mount of /proc that nobody else has, and another after every few uses, whose cache goes with it.
type Settings struct {
	mu   sync.Mutex
	proc *os.File // the mount; nil: none yet
	uses int
	none bool // no such mount can be made here: the usual one serves
}

// usesOfProc bounds how many namespaces are in one mount's cache.
const usesOfProc = 64

// Write writes settings, in the order of their names and values, in the namespace of the calling thread. NotFound: this
// kernel has none of the name; those before it are written.
func (s *Settings) Write(pairs ...[2]string) error {
	proc := s.take()
	if proc != nil {
		defer proc.Close()
	}
	for _, p := range pairs {
		if proc == nil {
			if err := WriteSysctl(p[0], p[1]); err != nil {
				return err
			}
			continue
		}
		if err := writeAt(int(proc.Fd()), p[0], p[1]); err != nil {
			return fault.Wrap(sysctlKind(err), err, "set %s to %s", p[0], p[1])
		}
	}
	return nil
}

// Close gives the mount up.
func (s *Settings) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return nil
	}
	err := s.proc.Close()
	s.proc = nil
	return err
}

// take gives a descriptor of the mount, which the caller closes; nil where there is none.
func (s *Settings) take() *os.File {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.none {
		return nil
	}
	if s.proc == nil || s.uses >= usesOfProc {
		f, err := mountProc()
		if err != nil {
			s.none = s.proc == nil // as in a container, whose /proc is partly covered
			return nil
		}
		if s.proc != nil {
			s.proc.Close()
		}
		s.proc, s.uses = f, 0
	}
	s.uses++
	fd, err := unix.FcntlInt(s.proc.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return os.NewFile(uintptr(fd), "proc")
}

// mountProc makes a mount of /proc that is nowhere in the file system.
func mountProc() (*os.File, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return nil, err
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "proc"), nil
}

func writeAt(dir int, key, value string) error {
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	fd, err := unix.Openat(dir, "sys/"+key, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
