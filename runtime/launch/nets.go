package launch

import (
	"bytes"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// nets keeps a few network namespaces ready while containers start in quick succession, each with the
// sysfs that shows it. Making them is the longest single piece of a start, 0.4 ms, and for a new sysfs the
// kernel goes through those of all running containers, twice.
//
//	launch ends ─▶ maker makes what lacks ─▶ the next launch clones from within ─▶ its child mounts the
//	                                                                             sysfs that is there
//
// A namespace takes some settings from the host's when it is made (net.ipv4.conf, tcp_rmem). So none is
// older than freshNet when it is used, and one that nobody has used by then is given up. A container in a
// user namespace gets its own from clone3, which must belong to that.
type nets struct {
	own   int // the launcher's namespace
	ready chan net
	want  chan struct{}
}

// net is a namespace and a detached mount of its sysfs.
type net struct {
	ns, sysfs int
	made      time.Time
}

const (
	readyNets = 2
	freshNet  = 2 * time.Second
)

// KeepNets has the Launcher make network namespaces before they are wanted. Call it before the first
// Start. It needs CAP_SYS_ADMIN where the Launcher runs.
func (l *Launcher) KeepNets() error {
	own, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	l.nets = &nets{own: own, ready: make(chan net, readyNets), want: make(chan struct{}, 1)}
	process.Aside(l.nets.maker)
	return nil
}

// maker makes namespaces for launches that follow another within freshNet. After a failure its thread may be in any namespace.
func (n *nets) maker() {
	var last time.Time
	idle := time.NewTimer(freshNet)
	for {
		select {
		case _, more := <-n.want:
			if !more {
				n.drain()
				closeFD(n.own)
				return
			}
			now := time.Now()
			for now.Sub(last) < freshNet && len(n.ready) < cap(n.ready) {
				made, err := n.make()
				if err != nil {
					break // launches go on without
				}
				n.ready <- made
			}
			last = now
			idle.Reset(freshNet)
		case <-idle.C:
			n.drain()
		}
	}
}

func (n *nets) make() (net, error) {
	m := net{ns: -1, sysfs: -1, made: time.Now()}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return m, err
	}
	defer unix.Setns(n.own, unix.CLONE_NEWNET)
	var err error
	if m.ns, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return m, err
	}
	if m.sysfs, err = readOnlySysfs(); err != nil {
		closeFD(m.ns)
	}
	return m, err
}

// readOnlySysfs mounts the calling thread's sysfs nowhere.
func readOnlySysfs() (int, error) {
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetFlag(fs, "ro"); err != nil {
		return -1, err
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, err
	}
	return unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC)
}

func (n *nets) drain() {
	for {
		select {
		case m := <-n.ready:
			m.close()
		default:
			return
		}
	}
}

func (m *net) close() {
	closeFD(m.ns)
	closeFD(m.sysfs)
}

// take gives a fresh namespace, if there is one.
func (n *nets) take() (net, bool) {
	for {
		select {
		case m := <-n.ready:
			if time.Since(m.made) < freshNet {
				return m, true
			}
			m.close()
		default:
			return net{}, false
		}
	}
}

// used tells the maker that a launch which wanted a namespace is over.
func (n *nets) used() {
	select {
	case n.want <- struct{}{}:
	default:
	}
}

// wantsNet says whether a namespace that was made before will do: the container's user namespace is ours,
// and its sysfs is read-only as ours is, since that is a property of the one both would share.
func (p *Program) wantsNet() bool {
	if p.Clone.Flags&(unix.CLONE_NEWNET|unix.CLONE_NEWUSER) != unix.CLONE_NEWNET {
		return false
	}
	for i := range p.Child {
		a := &p.Child[i].Args
		if p.Child[i].Nr != unix.SYS_MOUNT || a[2].D == nil || !bytes.Equal(a[2].D.Bytes, []byte("sysfs\x00")) {
			continue
		}
		if a[3].N&unix.MS_RDONLY == 0 || a[4].D != nil {
			return false
		}
	}
	return true
}

// enter puts the calling thread, and so the child it clones, into a namespace; leave undoes it as that of
// enterPidNS does.
func (n *nets) enter(ns int) (leave func(), err error) {
	if err := unix.Setns(ns, unix.CLONE_NEWNET); err != nil {
		return nil, err
	}
	return func() {
		if err := unix.Setns(n.own, unix.CLONE_NEWNET); err != nil {
			runtime.LockOSThread()
		}
	}, nil
}
