package launch

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/probe"
	"berth/kernel/seccomp"
)

// Options are what a launch needs to know beside the OCI spec.
type Options struct {
	Overlay     *Overlay        // the root is this overlay; nil: spec.Root.Path
	Cgroup      cgroup.Attach   // where the process is born; zero value: the launcher's own cgroup
	Covered     bool            // clone from the launcher's empty mount namespace; no pivot_root
	NoPivot     bool            // enter the root by moving its mount over "/" (initramfs hosts)
	Gate        bool            // stop before execve until Process.Release
	GateFifo    string          // stop before execve until somebody writes a byte into this fifo
	HookGates   HookGates       // points at which the child waits for StartHooked's hooks
	Bundle      string          // absolute directory that relative paths of the spec start from
	Seccomp     *seccomp.Filter // compiled beforehand; nil: compiled from spec.Linux.Seccomp
	PreserveFDs int             // descriptors 3 to 3+n-1 stay open in the program
	NewKeyring  bool            // give the process a session keyring of its own (keyrings(7))
	// Unprivileged says that the launcher has no rights but those that joining a user namespace of its user gives.
	Unprivileged bool
	// OwnerNS says that the path of the user namespace is that of a namespace which it owns, such as a network's.
	OwnerNS  bool
	InUserNS bool           // the launcher is root of a user namespace only: it can make no device nodes
	Facts    probe.Features // what the kernel can do

	// RootFD and Trees are mounts that the caller has made, as descriptors: of the root, in place of Overlay and
	// spec.Root.Path, and of binds by their index in spec.Mounts, in place of their sources. They need not be
	// attached anywhere, stay the caller's, and show what is in them after the container's end until he closes
	// them. A Program that names them can only be started by who has them open. 0: none.
	RootFD int
	Trees  map[int]int
	// RootMapped says of the mount RootFD what Overlay.Mapped says of layers: its files are shown through the mapping of the container's user
	// namespace.
	RootMapped bool
	// Enclosure is a pid namespace, as a descriptor (Launcher.Enclosed), in which the process's own is made: it dies with the launcher's process, in
	// whatever way that ends. The Program can only be started by who has it open. 0: the launcher's.
	Enclosure int

	// OpenFiles is the limit of open files where the spec sets none; nil: the launcher's, whose soft limit
	// Go has raised.
	OpenFiles *unix.Rlimit
	// KernelViews are the mount points of proc and sysfs on the host, which NoPivot hides.
	KernelViews []string
	// IsFile says whether a bind's source is something else than a directory; nil asks the host.
	IsFile func(path string) bool
	// DirMode gives the mode of a directory of the root as it is before anything is mounted, and whether it
	// is there: a tmpfs without a mode takes it as an option. nil: the child sees for itself.
	DirMode func(path string) (mode uint32, ok bool)
	// MountFlags gives the MS_* flags of the mount that a path is on, which a remount on kernels before
	// 5.12 has to repeat; nil asks the host.
	MountFlags func(path string) uintptr
}

// HookGates says which of StartHooked's hooks the child waits for.
type HookGates struct{ BeforePivot, BeforeExec bool }

// Overlay is a root made of layers (Documentation/filesystems/overlayfs.rst).
type Overlay struct {
	Lower       []string // topmost first
	Upper, Work string   // empty: a read-only overlay
	UserXattr   bool     // keep overlay's marks in user.* attributes (rootless)
	Mapped      bool     // the layers hold the ids of the container's user namespace: they are shown through its mapping
}

// compiler is one compilation: a spec, what is known beside it, and the program as far as it is.
type compiler struct {
	s    *specs.Spec
	o    Options
	p    *Program
	prep section
	kid  section

	joins    []join          // namespaces entered by path
	private  uint64          // CLONE_NEW* flags of new namespaces
	enters   bool            // it is a process for a running container
	again    bool            // the child has to clone once more to be in the pid namespace that it joins
	root     Slot            // the root's mount
	proc     Slot            // the container's /proc as mounted by this program, or NoSlot
	hostProc Slot            // the host's /proc: for files of the process itself
	devpts   Slot            // the container's devpts, made by Prepare when there is a terminal
	tty      Slot            // the terminal's slave end
	trees    map[int]Slot    // spec.Mounts index → detached mount made by Prepare
	owners   map[int]Slot    // spec.Mounts index → user namespace of an id-mapped bind that the child clones
	maps     Slot            // a user namespace with the container's mapping, for mounts; or NoSlot
	devMade  bool            // Prepare makes /dev with its nodes
	null     Slot            // this program's own /dev/null, which masks files
	nulls    []Slot          // where /dev is not its own: a clone of the host's for each masked path
	nodes    map[string]Slot // device path → clone of the host's node, in a user namespace
	v1Procs  []Slot
	late     []Step // to be done once the root is entered
}

// Compile turns a spec into the Program that starts the container's first process. It touches
// nothing; what it cannot express is an error of kind Invalid that names the field.
func Compile(s *specs.Spec, o Options) (*Program, error) {
	if s.Process == nil {
		return nil, fault.New(fault.Invalid, "process: the spec describes no process")
	}
	if s.Linux == nil {
		s2 := *s
		s2.Linux, s = &specs.Linux{}, &s2
	}
	c := newCompiler(s, o)
	for _, phase := range []func() error{
		c.namespaces, c.prepareCgroups, c.prepareRoot, c.prepareMounts, c.prepareTerminal,
		c.begin, c.attachRoot, c.mounts, c.devices, c.sysctls, c.readonlyPaths, c.maskedPaths, c.enterRoot,
		c.machine, c.terminal, c.settle, c.rootAttributes, c.become, c.exec,
	} {
		if err := phase(); err != nil {
			return nil, err
		}
	}
	return c.finish(), nil
}

func newCompiler(s *specs.Spec, o Options) *compiler {
	if o.IsFile == nil {
		o.IsFile = isFile
	}
	if o.MountFlags == nil {
		o.MountFlags = mountFlags
	}
	p := &Program{Slots: append([]string(nil), fixedNames...), Listener: NoSlot, Clone: Clone{Cgroup: NoSlot, PidNS: NoSlot}}
	c := &compiler{s: s, o: o, p: p, proc: NoSlot, devpts: NoSlot, tty: NoSlot, hostProc: NoSlot, root: NoSlot, null: NoSlot, maps: NoSlot,
		trees: map[int]Slot{}, owners: map[int]Slot{}, nodes: map[string]Slot{}}
	c.prep.p, c.kid.p = p, p
	c.prep.steps, c.kid.steps = make([]Step, 0, 48), make([]Step, 0, 352)
	p.Owner = int(s.Process.User.UID)
	if uid, ok := hostID(s.Linux.UIDMappings, s.Process.User.UID); ok && c.launcherOwns() {
		p.Owner = int(uid)
	}
	if len(s.Process.Args) > 0 {
		p.Args0 = s.Process.Args[0]
	}
	return c
}

func (c *compiler) finish() *Program {
	c.p.Prepare, c.p.Child = c.prep.steps, c.kid.steps
	return c.p
}

func isFile(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && !fi.IsDir()
}

// abs makes a path of the spec absolute: relative ones start at the bundle.
func (c *compiler) abs(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(c.o.Bundle, path)
}

// prepareCgroups opens the cgroups that the child is born into. On v2 clone3 puts it there. On v1 the
// child writes 0 to each hierarchy's list itself: a write of another's pid takes a lock that costs a
// whole RCU grace period.
func (c *compiler) prepareCgroups() error {
	if dir := c.o.Cgroup.V2Dir; dir != "" {
		c.p.Clone.Cgroup = c.prep.open("cgroup", "open the container's cgroup "+dir, unix.SYS_OPENAT, atCwd, Str(dir),
			Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
		c.p.Clone.Flags |= unix.CLONE_INTO_CGROUP
	}
	for _, file := range c.o.Cgroup.V1Procs {
		c.v1Procs = append(c.v1Procs, c.prep.open("procs:"+controllerOf(file), "open the container's cgroup "+filepath.Dir(file),
			unix.SYS_OPENAT, atCwd, Str(file), Int(unix.O_WRONLY|unix.O_CLOEXEC), Int(0)))
	}
	return nil
}

// controllerOf names a v1 hierarchy by its mount point: /sys/fs/cgroup/memory/… is memory.
func controllerOf(file string) string {
	rest, _ := strings.CutPrefix(file, "/sys/fs/cgroup/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// begin is the child's first part: cgroups, identity in a new user namespace, other namespaces.
func (c *compiler) begin() error {
	k := &c.kid
	if err := c.firstAffinity(c.s.Process); err != nil {
		return err
	}
	// In a new user namespace the files of the child's own in /proc are its root's only as long as it may be
	// looked into. There is nobody in there yet who could, except where it joins another's pid namespace.
	owns := c.private&unix.CLONE_NEWUSER != 0 || c.o.Unprivileged
	if !owns {
		c.hide()
	}
	for _, procs := range c.v1Procs {
		k.call("join the container's cgroup", unix.SYS_WRITE, Of(procs), Str("0"), Int(1))
	}
	if err := c.own(c.s.Process); err != nil {
		return err
	}
	if c.o.Unprivileged {
		c.hide()
	}
	if c.joined(specs.UserNamespace) {
		c.joinAround()
		// Until it is root in there, the child owns nothing it is about to make.
		k.call("become root of the user namespace", unix.SYS_SETRESGID, Int(0), Int(0), Int(0))
		k.call("become root of the user namespace", unix.SYS_SETRESUID, Int(0), Int(0), Int(0))
		c.rebirth()
	} else {
		c.join(c.joins)
	}
	c.enterTimeNS()
	if owns && c.p.Clone.PidNS != NoSlot {
		c.hide()
	}
	c.loopback()
	if c.private&unix.CLONE_NEWCGROUP != 0 {
		// Not a clone flag: the namespace's root is the cgroup its maker is in, and at clone time
		// that is still the launcher's.
		k.call("make a cgroup namespace", unix.SYS_UNSHARE, Int(unix.CLONE_NEWCGROUP))
	}
	k.call("start a session", unix.SYS_SETSID).expect(unix.EPERM, 0)
	k.call("clear the umask", unix.SYS_UMASK, Int(0))
	return nil
}

// hide keeps others in a pid namespace that the child joins from looking into it: it holds the host's
// descriptors.
func (c *compiler) hide() {
	c.kid.call("hide from the container", unix.SYS_PRCTL, Int(unix.PR_SET_DUMPABLE), Int(0), Int(0), Int(0), Int(0))
}

// barrier stops the child until the launcher has answered.
func (c *compiler) barrier(message byte, what string) {
	c.kid.call(what, unix.SYS_WRITE, Of(SlotSync), Bytes([]byte{message}), Int(1))
	c.kid.call(what, unix.SYS_READ, Of(SlotSync), Bytes(make([]byte, 8)), Int(1)).Positive = true
}

// openHow is struct open_how of openat2(2).
func openHow(flags uint64, resolve uint64) Arg {
	b := make([]byte, 24)
	binary.LittleEndian.PutUint64(b, flags)
	binary.LittleEndian.PutUint64(b[16:], resolve)
	return Bytes(b)
}

const sizeofOpenHow = 24

// createHow opens a file inside the container's root and makes it where it is missing.
func createHow(mode uint64) Arg {
	how := openHow(unix.O_RDONLY|unix.O_CREAT|unix.O_NONBLOCK|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	binary.LittleEndian.PutUint64(how.D.Bytes[8:], mode)
	return how
}

// inRoot opens a path inside the container's root, whatever links the image put there: ".." and
// absolute links stay inside, and /proc's magic links are refused.
func (c *compiler) inRoot(name, what, path string, flags uint64) Slot {
	return c.kid.open(name, what, unix.SYS_OPENAT2, Of(c.root), Str(relative(path)),
		openHow(flags|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS), Int(sizeofOpenHow))
}

// relative is a container path as openat2 wants it below the root.
func relative(path string) string {
	path = strings.TrimPrefix(filepath.Clean("/"+path), "/")
	if path == "" {
		return "."
	}
	return path
}
