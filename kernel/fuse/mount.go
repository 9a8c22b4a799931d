package fuse

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/mount"
)

// handshakePatience bounds the wait for the kernel's first message, which is sent as the mount is made.
const handshakePatience = 10 * time.Second

// Mount mounts a file system with the features at path, an existing directory, and gives the connection, on which nothing
// is served yet: whoever looks into the mount waits. source is what mountinfo shows. The mount ignores set-user-id and devices
// when it is looked into directly; an overlay that uses it as a layer has its own rules. Needs CAP_SYS_ADMIN.
// NotImplemented: the kernel has no FUSE, or cannot send requests again (before Linux 6.9).
func Mount(path, source string, have Features) (*os.File, error) {
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.Wrap(fault.NotImplemented, err, "open /dev/fuse")
	}
	detached, err := create(fd, source)
	if err != nil {
		unix.Close(fd)
		return nil, fault.In(err, "mount fuse at %s", path)
	}
	// Only now: a connection without a mount looks broken to the poller, for ever.
	f := os.NewFile(uintptr(fd), "/dev/fuse")
	if err = handshake(f, have); err == nil {
		err = declinePoll(f, detached)
	}
	if err != nil {
		mount.Drop(detached)
	} else {
		err = mount.Attach(detached, path)
	}
	if err != nil {
		f.Close()
		return nil, fault.In(err, "mount fuse at %s", path)
	}
	return f, nil
}

// create makes the file system as a detached mount.
func create(fd int, source string) (detached int, err error) {
	fs, err := mount.OpenFS("fuse")
	if err != nil {
		return -1, err
	}
	defer fs.Close()
	for _, o := range [][2]string{
		{"source", source}, {"subtype", "berth"}, {"fd", fmt.Sprint(fd)}, {"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"},
	} {
		if err := fs.Set(o[0], o[1]); err != nil {
			return -1, err
		}
	}
	// The kernel checks permissions by mode and owner; without allow_other only root could come near.
	for _, o := range []string{"default_permissions", "allow_other", "ro"} {
		if err := fs.Flag(o); err != nil {
			return -1, err
		}
	}
	return fs.Mount(unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV)
}

// handshake answers INIT.
func handshake(f *os.File, have Features) error {
	buf := make([]byte, requestMax)
	if err := f.SetReadDeadline(time.Now().Add(handshakePatience)); err != nil {
		return err
	}
	defer f.SetReadDeadline(time.Time{})
	for {
		n, err := f.Read(buf)
		if err != nil {
			return fault.Wrap(fault.Unavailable, err, "wait for the kernel's first message")
		}
		r, err := parse(buf[:n])
		if err != nil || r.op != opInit {
			return fault.New(fault.Internal, "the kernel's first message is no INIT")
		}
		in, err := parseInit(r.body)
		if err != nil || in.major < protocolMajor {
			answer(f, r.unique, unix.EPROTO, nil)
			return fault.New(fault.NotImplemented, "FUSE protocol %d is not spoken here", in.major)
		}
		if in.major > protocolMajor { // it asks again with ours
			answer(f, r.unique, 0, appendInit(make([]byte, outHeaderSize), initIn{minor: protocolMinor}, 0))
			continue
		}
		if in.flags&initHasResend == 0 {
			answer(f, r.unique, unix.EPROTO, nil)
			return fault.New(fault.NotImplemented, "the kernel cannot send requests again (FUSE_HAS_RESEND, Linux 6.9)")
		}
		return answer(f, r.unique, 0, appendInit(make([]byte, outHeaderSize), in, wanted(in.flags, have)))
	}
}

// pollProbe is a file that exists only until the mount is attached.
const (
	pollProbe          = ".poll"
	pollProbeNode Node = 1 << 62
)

// declinePoll brings the kernel to ask POLL once, and refuses it for ever. Otherwise it would ask when this process adds a file
// of the mount to the epoll set of Go's runtime, which os.Open does: the set is locked until we answer, and the runtime
// cannot wake whoever would.
func declinePoll(f *os.File, detached int) error {
	polled := make(chan error, 1)
	go func() {
		fd, err := unix.Openat(detached, pollProbe, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			unix.Close(fd)
		}
		polled <- err
		f.SetReadDeadline(time.Unix(1, 0))
	}()
	buf := make([]byte, requestMax)
	f.SetReadDeadline(time.Now().Add(handshakePatience))
	defer f.SetReadDeadline(time.Time{})
	refused := false
	for {
		n, err := f.Read(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fault.Wrap(fault.Internal, err, "serve the kernel's first requests")
		}
		r, err := parse(buf[:n])
		if err != nil {
			return fault.Wrap(fault.Internal, err, "read the kernel's first requests")
		}
		refused = refused || r.op == opPoll
		answerProbe(f, r)
	}
	select {
	case err := <-polled:
		if err != nil || !refused {
			return fault.Wrap(fault.Internal, err, "the kernel did not ask for POLL")
		}
		return nil
	default:
		return fault.New(fault.Unavailable, "the kernel's first requests took too long")
	}
}

// answerProbe shows a file system that has nothing but the probe.
func answerProbe(f *os.File, r request) {
	dir, file := Attr{Mode: unix.S_IFDIR | 0o755, Nlink: 2}, Attr{Mode: unix.S_IFREG | 0o444, Nlink: 1}
	b := make([]byte, outHeaderSize)
	switch r.op {
	case opForget, opBatchForget, opInterrupt:
	case opLookup: // to be asked again: nothing of it stays in the kernel's memory
		answer(f, r.unique, 0, appendEntryFor(b, pollProbeNode, &file, 0))
	case opGetattr:
		a := &dir
		if r.node == pollProbeNode {
			a = &file
		}
		b = order.AppendUint64(b, 0)
		b = order.AppendUint64(b, 0)
		answer(f, r.unique, 0, appendAttr(b, r.node, a))
	case opAccess, opRelease:
		answer(f, r.unique, 0, b)
	default:
		answer(f, r.unique, unix.ENOSYS, nil)
	}
}

// wanted chooses from what the kernel offers.
func wanted(offered uint64, have Features) uint64 {
	want := uint64(initAsyncRead | initDoReaddirplus | initReaddirAuto | initParallelDir | initAbortError | initMaxPages |
		initCacheSymlinks | initExplicitInval | initExt | initHasResend | initAllowIDMap)
	if have.ACL { // the kernel then asks for the lists of every file it checks
		want |= initPosixACL
	}
	return offered & want
}

// answer sends an answer. b has room for the header in front; nil is an answer without a body. A request that is gone is fine.
func answer(f *os.File, unique uint64, e unix.Errno, b []byte) error {
	if b == nil {
		b = make([]byte, outHeaderSize)
	}
	order.PutUint32(b, uint32(len(b)))
	order.PutUint32(b[4:], uint32(-int32(e)))
	order.PutUint64(b[8:], unique)
	_, err := f.Write(b)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}
