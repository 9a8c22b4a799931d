package server

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// reap looks for ended children: known processes, whose pidfd tells of them too, and orphans, which
// come from containers in the host's pid namespace (elsewhere they fall to the container's pid 1).
//
// A launch under way has children of its own that look like orphans and are waited for by the
// launcher. So while launches are under way an unknown child is left alone; if it is still there
// after a while, new launches wait until none is under way.
func (s *Server) reap() {
	for {
		pid := endedChild()
		p := s.byPID[pid]
		switch {
		case pid == 0:
			s.suspect, s.reapDue = 0, false
			return
		case p != nil:
			p.ended()
			if !p.reaped {
				return
			}
		case s.inflight == 0:
			var ws unix.WaitStatus
			if got, _ := unix.Wait4(pid, &ws, unix.WNOHANG|unix.WALL, nil); got != pid {
				return
			}
			s.orphans++
		default:
			s.reapDue = s.reapDue || s.suspect == pid
			if s.suspect != pid {
				s.suspect = pid
				s.times.after(200*time.Millisecond, func() { s.reap(); s.nextLaunch() })
			}
			return
		}
	}
}

// endedChild gives a child that can be waited for and leaves it so; 0 when there is none.
func endedChild() int {
	var info unix.Siginfo
	err := retry(func() error {
		return unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil)
	})
	if err != nil || info.Signo == 0 {
		return 0
	}
	return int(sigchld(&info).pid)
}

// sigchldInfo is a siginfo_t of SIGCHLD on 64-bit machines (sigaction(2)).
type sigchldInfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
}

func sigchld(info *unix.Siginfo) *sigchldInfo { return (*sigchldInfo)(unsafe.Pointer(info)) }

// waitStatus puts a siginfo into the words of wait(2).
func waitStatus(info *unix.Siginfo) uint32 {
	const exited, dumped = 1, 3 // CLD_EXITED, CLD_DUMPED
	switch c := sigchld(info); c.code {
	case exited:
		return uint32(c.status&0xff) << 8
	case dumped:
		return uint32(c.status&0x7f) | 0x80
	default:
		return uint32(c.status & 0x7f)
	}
}
