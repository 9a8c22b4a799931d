package oci

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A service manager that waits for a container to be ready (sd_notify(3)) gives us a socket in NOTIFY_SOCKET.
// The container gets one of its own in a directory that only holds that, and what it says of being
// ready goes on to the service manager, together with the number of the process that it should watch:
//
//	container ──READY=1──▶ ROOT/ID/notify/notify.sock ──READY=1, MAINPID=…──▶ $NOTIFY_SOCKET
//
// Nothing else is passed on: with the other messages a container could have descriptors kept or itself
// watched less.

const (
	readyVariable  = "NOTIFY_SOCKET"
	readyDir       = "/notify"      // below the container's directory
	readyFile      = "/notify.sock" // in there
	readyContainer = "/run/notify"  // where the container sees the directory
)

// offerReadiness puts the socket's directory into the configuration, if somebody wants to hear.
func (b *birth) offerReadiness() error {
	if os.Getenv(readyVariable) == "" {
		return nil
	}
	dir := b.c.dir + readyDir
	if err := unix.Mkdir(dir, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	s := b.cfg.Spec
	s.Mounts = append(s.Mounts, specs.Mount{Destination: readyContainer, Type: "bind", Source: dir, Options: []string{"bind", "nosuid", "noexec", "nodev", "ro"}})
	s.Process.Env = append(s.Process.Env[:len(s.Process.Env):len(s.Process.Env)], readyVariable+"="+readyContainer+readyFile)
	return nil
}

// readiness is the container's end of the socket; nil when nobody wants to hear.
type readiness struct {
	sock int
	host string
}

// listenReady opens the container's socket, before the program runs.
func (c *container) listenReady() (*readiness, error) {
	host := os.Getenv(readyVariable)
	if host == "" {
		return nil, nil
	}
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	// By way of a descriptor of its directory, since an address holds 107 bytes.
	dir, err := unix.Open(c.dir+readyDir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) { // created when nobody wanted to hear
		unix.Close(sock)
		return nil, nil
	}
	if err == nil {
		path := "/proc/self/fd/" + strconv.Itoa(dir) + readyFile
		err = errors.Join(unix.Bind(sock, &unix.SockaddrUnix{Name: path}), unix.Chmod(path, 0o777)) // any user of the container may be ready
		unix.Close(dir)
	}
	if err != nil {
		unix.Close(sock)
		return nil, fmt.Errorf("make the container's %s: %w", readyVariable, err)
	}
	return &readiness{sock, host}, nil
}

// await waits until the container is ready, or ended.
func (r *readiness) await(pid, pidfd int) error {
	if r == nil {
		return nil
	}
	defer r.close()
	for {
		fds := [...]unix.PollFd{{Fd: int32(r.sock), Events: unix.POLLIN}, {Fd: int32(pidfd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds[:], -1); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if fds[0].Revents != 0 {
			if done, err := r.hear(pid); done || err != nil {
				return err
			}
		} else if fds[1].Revents != 0 {
			return nil
		}
	}
}

// hear takes one message, and passes it on if it says that the container is ready.
func (r *readiness) hear(pid int) (done bool, err error) {
	buf := make([]byte, 4096)
	n, err := unix.Read(r.sock, buf)
	if err != nil {
		if err == unix.EINTR || err == unix.EAGAIN {
			err = nil
		}
		return false, err
	}
	for line := range bytes.SplitSeq(buf[:n], []byte{'\n'}) {
		if bytes.HasPrefix(line, []byte("READY=")) {
			return true, r.tell(line, pid)
		}
	}
	return false, nil
}

// tell passes the news on. The last message holds the writing end of a pipe, which the service manager
// closes when it has taken in those before (sd_notify_barrier(3)): it asks us who we are, so we must not
// be gone by then.
func (r *readiness) tell(ready []byte, pid int) error {
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(sock)
	to := &unix.SockaddrUnix{Name: r.host} // "@" in front: an abstract address
	for _, text := range []string{string(ready) + "\n", "MAINPID=" + strconv.Itoa(pid) + "\n"} {
		if err := unix.Sendto(sock, []byte(text), 0, to); err != nil {
			return fmt.Errorf("tell %s that the container is ready: %w", r.host, err)
		}
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	defer unix.Close(pipe[0])
	err = unix.Sendmsg(sock, []byte("BARRIER=1"), unix.UnixRights(pipe[1]), to, 0)
	unix.Close(pipe[1])
	if err != nil {
		return nil // it has heard the news, and knows no barriers
	}
	const patience = 30_000 // milliseconds
	for {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(pipe[0])}}, patience); err != unix.EINTR {
			return nil
		}
	}
}

func (r *readiness) close() {
	if r != nil && r.sock >= 0 {
		unix.Close(r.sock)
		r.sock = -1
	}
}
