package oci

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// extras are the descriptors from 3 upwards that the process gets: the sockets of systemd's socket
// activation (sd_listen_fds(3)), of which its environment is told, and then those of --preserve-fds.
type extras struct{ sockets, more int }

// extraFiles counts them, and checks that they are open.
func extraFiles(n int) (extras, error) {
	e := extras{more: max(n, 0)}
	if pid, err := strconv.Atoi(os.Getenv("LISTEN_PID")); err == nil && pid == unix.Getpid() {
		e.sockets, _ = strconv.Atoi(os.Getenv("LISTEN_FDS"))
		e.sockets = max(e.sockets, 0)
	}
	for i := range e.more {
		if !inherited(3 + e.sockets + i) {
			return e, fmt.Errorf("unable to stat preserved-fd %d (of %d): %w", i, e.more, unix.EBADF)
		}
	}
	return e, nil
}

// inherited reports whether a descriptor was handed to this process. What Go opens itself, even before
// main, is closed at execve.
func inherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// all is how many they are.
func (e extras) all() int { return e.sockets + e.more }

// tell adds what a program looks for that is started on demand.
func (e extras) tell(env []string) []string {
	if e.sockets == 0 {
		return env
	}
	return append(env[:len(env):len(env)], "LISTEN_FDS="+strconv.Itoa(e.sockets), "LISTEN_PID=1")
}

// keepOthers keeps our caller's other descriptors from what we start. Programs would not get them anyway;
// a container that waits to be started would hold them open as long as it waits.
func (e extras) keepOthers() {
	_ = unix.CloseRange(uint(3+e.all()), ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) // Linux 5.11; without it they stay
}
