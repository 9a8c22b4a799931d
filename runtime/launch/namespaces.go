package launch

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/probe"
)

// join is a namespace of somebody else that the child enters.
type join struct {
	kind specs.LinuxNamespaceType
	flag uint64
	fd   Slot
}

var nsFlags = []struct {
	kind specs.LinuxNamespaceType
	flag uint64
	file string
}{
	// The order of entering: the user namespace first, where it is what gives the right to the others (see
	// joinAround), the mount namespace last, since it takes away the paths.
	{specs.UserNamespace, unix.CLONE_NEWUSER, "user"},
	{specs.PIDNamespace, unix.CLONE_NEWPID, "pid"},
	{specs.NetworkNamespace, unix.CLONE_NEWNET, "net"},
	{specs.IPCNamespace, unix.CLONE_NEWIPC, "ipc"},
	{specs.UTSNamespace, unix.CLONE_NEWUTS, "uts"},
	{specs.CgroupNamespace, unix.CLONE_NEWCGROUP, "cgroup"},
	{specs.TimeNamespace, unix.CLONE_NEWTIME, "time"},
	{specs.MountNamespace, unix.CLONE_NEWNS, "mnt"},
}

// namespaces sorts the spec's namespaces into new ones, which clone3 makes, and ones to be joined.
func (c *compiler) namespaces() error {
	asked := map[specs.LinuxNamespaceType]string{}
	for _, ns := range c.s.Linux.Namespaces {
		if _, twice := asked[ns.Type]; twice {
			return fault.New(fault.Invalid, "linux.namespaces: %s is listed twice", ns.Type)
		}
		asked[ns.Type] = ns.Path
	}
	for _, n := range nsFlags {
		path, ok := asked[n.kind]
		delete(asked, n.kind)
		switch {
		case !ok:
		case path == "" && n.kind == specs.UserNamespace && c.mapped():
			// Its layers need a namespace with the mapping before there is a child: that one serves for both.
			if err := c.checkMaps(); err != nil {
				return err
			}
			c.joins = append(c.joins, join{n.kind, n.flag, c.mapping("make the container's user namespace")})
		case path == "":
			c.private |= n.flag
		default:
			if n.kind == specs.UserNamespace && c.o.OwnerNS {
				c.joins = append(c.joins, join{n.kind, n.flag, c.ownerOf(path)})
				continue
			}
			fd := c.prep.open(n.file+"ns", "open the "+string(n.kind)+" namespace "+path, unix.SYS_OPENAT, atCwd, Str(path),
				Int(unix.O_RDONLY|unix.O_CLOEXEC), Int(0))
			if n.kind == specs.PIDNamespace {
				c.p.Clone.PidNS = fd
				continue
			}
			c.joins = append(c.joins, join{n.kind, n.flag, fd})
		}
	}
	for kind := range asked {
		return fault.New(fault.Invalid, "linux.namespaces: unknown type %q", kind)
	}
	if c.o.Enclosure != 0 {
		if c.private&unix.CLONE_NEWPID == 0 {
			return fault.New(fault.Invalid, "linux.namespaces: what is enclosed has a pid namespace of its own")
		}
		if c.private&unix.CLONE_NEWUSER != 0 {
			return fault.New(fault.Invalid, "linux.namespaces: what is enclosed joins a user namespace, it makes none")
		}
		c.p.Clone.PidNS = c.given("enclosure", "take the pid namespace around the container's", c.o.Enclosure)
	}
	c.p.Clone.Flags |= c.private &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	if c.joined(specs.UserNamespace) {
		// New namespaces must belong to the user namespace, so they come after joining it. See rebirth.
		c.p.Clone.Flags = 0
	}
	c.p.Clone.Covered = c.o.Covered && c.mayCover()
	c.p.Clone.Views = c.o.Covered && c.mayView()
	if err := c.userMaps(); err != nil {
		return err
	}
	if err := c.timeOffsets(); err != nil {
		return err
	}
	c.p.Clone.Waits = c.p.Clone.Waits || c.o.Gate || c.o.GateFifo != "" || c.o.HookGates != HookGates{}
	c.p.Clone.GateStops = c.o.Gate
	c.hostProc = c.prep.open("host-proc", "open the host's /proc", unix.SYS_OPENAT, atCwd, Str("/proc"), Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
	return nil
}

// ownerOf opens the user namespace that owns the namespace at a path (ioctl_ns(2), Linux 4.9).
func (c *compiler) ownerOf(path string) Slot {
	what := "open the user namespace of " + path
	of := c.prep.open("owned", what, unix.SYS_OPENAT, atCwd, Str(path), Int(unix.O_RDONLY|unix.O_CLOEXEC), Int(0))
	return c.prep.open("userns", what, unix.SYS_IOCTL, Of(of), Int(unix.NS_GET_USERNS), Int(0))
}

// mayCover says whether the empty mount namespace will do. A user namespace may mount proc and sysfs
// only beside a fully visible one, hooks of the container look at the host's files, and propagation
// of the root needs a parent mount that takes part.
func (c *compiler) mayCover() bool {
	prop := c.s.Linux.RootfsPropagation
	return c.private&unix.CLONE_NEWNS != 0 && c.private&unix.CLONE_NEWUSER == 0 && !c.joined(specs.UserNamespace) &&
		!c.o.HookGates.BeforePivot && (prop == "" || strings.HasSuffix(prop, "private"))
}

// mayView says whether a mount namespace with proc and sysfs alone will do, which is what a user namespace needs to see to
// mount its own. It is taken away again with pivot_root: what is visible in there is not masked.
func (c *compiler) mayView() bool {
	prop := c.s.Linux.RootfsPropagation
	return c.private&unix.CLONE_NEWNS != 0 && c.mapped() && !c.o.NoPivot && !c.o.HookGates.BeforePivot && (prop == "" || strings.HasSuffix(prop, "private"))
}

func (c *compiler) joined(kind specs.LinuxNamespaceType) bool {
	for _, j := range c.joins {
		if j.kind == kind {
			return true
		}
	}
	return false
}

// join enters namespaces of others.
func (c *compiler) join(list []join) {
	for _, j := range list {
		c.kid.call("join the "+string(j.kind)+" namespace", unix.SYS_SETNS, Of(j.fd), Int(j.flag))
	}
}

// joinAround enters a user namespace together with others. Root of the host may enter all of them, also
// those that the user namespace does not own, and has to do so before it becomes somebody else in there. A
// user gets the right to enter the others only from the user namespace.
func (c *compiler) joinAround() {
	var user, rest []join
	for _, j := range c.joins {
		if j.kind == specs.UserNamespace {
			user = append(user, j)
		} else {
			rest = append(rest, j)
		}
	}
	if len(rest) == 0 || c.o.Unprivileged {
		c.join(user)
		c.join(rest)
		return
	}
	var unprivileged, done mark
	c.join(rest[:1])
	c.kid.onErr(&unprivileged, unix.EPERM)
	c.join(rest[1:])
	c.join(user)
	c.kid.onOK(&done)
	c.kid.here(&unprivileged)
	c.join(user)
	c.join(rest)
	c.kid.here(&done)
}

// loopback brings up "lo" of a new network namespace: 127.0.0.1 works in every container.
func (c *compiler) loopback() {
	if c.private&unix.CLONE_NEWNET == 0 {
		return
	}
	what := "bring up the loopback interface"
	s := c.kid.open("inet", what, unix.SYS_SOCKET, Int(unix.AF_INET), Int(unix.SOCK_DGRAM|unix.SOCK_CLOEXEC), Int(0))
	request := make([]byte, 40) // struct ifreq (netdevice(7))
	copy(request, "lo")
	binary.LittleEndian.PutUint16(request[unix.IFNAMSIZ:], unix.IFF_UP|unix.IFF_RUNNING)
	c.kid.call(what, unix.SYS_IOCTL, Of(s), Int(unix.SIOCSIFFLAGS), Bytes(request))
	c.kid.call(what, unix.SYS_CLOSE, Of(s))
}

// rebirth makes the spec's new namespaces inside a user namespace that was joined. A new pid namespace
// has its maker's child as first process, so the child clones once more, as a sibling of itself, shows
// the launcher who goes on, and is ended.
func (c *compiler) rebirth() {
	k, what := &c.kid, "make namespaces in the user namespace"
	flags := c.private &^ (unix.CLONE_NEWCGROUP | unix.CLONE_NEWTIME)
	if flags == 0 && !c.again {
		return
	}
	args := make([]byte, unsafe.Sizeof(cloneArgs{}))
	binary.LittleEndian.PutUint64(args, flags|unix.CLONE_PARENT)
	again := k.open("again", what, unix.SYS_CLONE3, Bytes(args), Int(len(args)))
	// Which of the two are we? 0 is a valid first argument here (SIG_BLOCK, of no signals), a pid is not.
	var child mark
	k.call(what, unix.SYS_RT_SIGPROCMASK, Of(again), Bytes(make([]byte, 8)), Int(0), Int(8)).expect(unix.EINVAL, 0)
	k.onOK(&child)
	// The number means something to us only, who may be in another pid namespace than the launcher: it
	// fetches a descriptor, and ends us.
	if c.again {
		// Without rights on the host it may not, unless we let it. Nobody in the container sees us: only our
		// child is in its pid namespace.
		k.call(what, unix.SYS_PRCTL, Int(unix.PR_SET_DUMPABLE), Int(1), Int(0), Int(0), Int(0))
	}
	fd := k.open("again-pidfd", what, unix.SYS_PIDFD_OPEN, Of(again), Int(0))
	k.call(what, unix.SYS_WRITE, Of(SlotSync), Bytes([]byte{syncAgain}), Int(1))
	k.call(what, unix.SYS_WRITE, Of(SlotSync), Arg{Kind: ArgSlotAddress, N: uint64(fd)}, Int(8))
	hangup := Bytes(make([]byte, 8)) // struct pollfd without events: only the launcher's end wakes it
	hangup.D.Fill = []Fill{{Off: 0, Slot: SlotSync}}
	k.call(what, unix.SYS_PPOLL, hangup, Int(1), Int(0), Int(0), Int(0))
	k.call(what, unix.SYS_EXIT_GROUP, Int(0))
	k.here(&child)
	k.call(what, unix.SYS_READ, Of(SlotSync), Bytes(make([]byte, 8)), Int(1)).Positive = true
}

// userMaps asks the launcher to write the new user namespace's maps while the child waits.
func (c *compiler) userMaps() error {
	if c.private&unix.CLONE_NEWUSER == 0 {
		if len(c.s.Linux.UIDMappings)+len(c.s.Linux.GIDMappings) > 0 && !c.joined(specs.UserNamespace) {
			return fault.New(fault.Invalid, "linux.uidMappings: mappings need a user namespace; add {\"type\": \"user\"} to linux.namespaces")
		}
		return nil
	}
	if err := c.checkMaps(); err != nil {
		return err
	}
	c.p.Clone.Maps = &Maps{UID: mapText(c.s.Linux.UIDMappings), GID: mapText(c.s.Linux.GIDMappings)}
	c.p.Clone.Waits = true
	return nil
}

func (c *compiler) checkMaps() error {
	if len(c.s.Linux.UIDMappings) == 0 || len(c.s.Linux.GIDMappings) == 0 {
		return fault.New(fault.Invalid, "linux.uidMappings: a new user namespace needs uid and gid mappings")
	}
	return nil
}

func mapText(ms []specs.LinuxIDMapping) string {
	var b strings.Builder
	for _, m := range ms {
		fmt.Fprintf(&b, "%d %d %d\n", m.ContainerID, m.HostID, m.Size)
	}
	return b.String()
}

// timeOffsets checks what enterTimeNS will do.
func (c *compiler) timeOffsets() error {
	if c.private&unix.CLONE_NEWTIME == 0 {
		if len(c.s.Linux.TimeOffsets) > 0 {
			return fault.New(fault.Invalid, "linux.timeOffsets: offsets need a time namespace; add {\"type\": \"time\"} to linux.namespaces")
		}
		return nil
	}
	if why := c.o.Facts.Why(probe.TimeNamespace); why != "" {
		return fault.New(fault.NotImplemented, "linux.namespaces: time: %s", why)
	}
	for clock := range c.s.Linux.TimeOffsets {
		if clock != "monotonic" && clock != "boottime" {
			return fault.New(fault.Invalid, "linux.timeOffsets: %q is no clock; use monotonic or boottime", clock)
		}
	}
	return nil
}

// enterTimeNS makes a new time namespace. unshare makes it for children; its offsets can be set until it has a
// member, and then the child enters it itself, for which it has to be the only thread of its memory
// (time_namespaces(7)). So it belongs to the container's user namespace.
func (c *compiler) enterTimeNS() {
	if c.private&unix.CLONE_NEWTIME == 0 {
		return
	}
	const what = "make a time namespace"
	c.kid.call(what, unix.SYS_UNSHARE, Int(unix.CLONE_NEWTIME))
	var lines []string
	for clock, off := range c.s.Linux.TimeOffsets {
		lines = append(lines, fmt.Sprintf("%s %d %d\n", clock, off.Secs, off.Nanosecs))
	}
	sort.Strings(lines)
	if len(lines) > 0 {
		c.writeOwn("self/timens_offsets", strings.Join(lines, ""), "set the time namespace's offsets")
	}
	ns := c.kid.open("timens", what, unix.SYS_OPENAT, Of(c.hostProc), Str("self/ns/time_for_children"), Int(unix.O_RDONLY|unix.O_CLOEXEC), Int(0))
	c.kid.call(what, unix.SYS_SETNS, Of(ns), Int(unix.CLONE_NEWTIME))
	c.kid.call(what, unix.SYS_CLOSE, Of(ns))
}
