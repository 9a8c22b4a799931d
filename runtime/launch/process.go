package launch

import (
	"encoding/binary"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/capability"
	"berth/kernel/probe"
	"berth/kernel/seccomp"
)

// machine gives the UTS namespace its names.
func (c *compiler) machine() error {
	k := &c.kid
	if c.s.Hostname != "" {
		if c.private&unix.CLONE_NEWUTS == 0 && !c.joined(specs.UTSNamespace) {
			return fault.New(fault.Invalid, "unable to set hostname without a private UTS namespace")
		}
		k.call("set the hostname", unix.SYS_SETHOSTNAME, Str(c.s.Hostname), Int(len(c.s.Hostname)))
	}
	if c.s.Domainname != "" {
		if c.private&unix.CLONE_NEWUTS == 0 && !c.joined(specs.UTSNamespace) {
			return fault.New(fault.Invalid, "unable to set domainname without a private UTS namespace")
		}
		k.call("set the domainname", unix.SYS_SETDOMAINNAME, Str(c.s.Domainname), Int(len(c.s.Domainname)))
	}
	return nil
}

// settle and become are what holds for any process in the container, its first or an exec'd one. The
// order is the kernel's: what needs privilege comes before its loss, and the filter comes last, since
// it may forbid everything before it. settle is the part that still has all privilege.
func (c *compiler) settle() error {
	p := c.s.Process
	if err := c.scheduling(p); err != nil {
		return err
	}
	if err := c.limits(p); err != nil {
		return err
	}
	c.stdio(p)
	if c.o.NewKeyring {
		c.kid.call("join a session keyring", unix.SYS_KEYCTL, Int(unix.KEYCTL_JOIN_SESSION_KEYRING), Int(0)).
			expect(unix.ENOSYS, 0).expect(unix.EPERM, 0).expect(unix.EDQUOT, 0)
	}
	return c.workingDirectory(p)
}

// become changes to the container's user and shuts the door.
func (c *compiler) become() error {
	p, k := c.s.Process, &c.kid
	filter, err := c.filter()
	if err != nil {
		return err
	}
	c.limitFiles(p)
	if !p.NoNewPrivileges {
		// Without no_new_privs only CAP_SYS_ADMIN may install a filter, so before it is lost.
		c.install(filter)
	}
	c.drop()
	if err := c.identity(p); err != nil {
		return err
	}
	if p.NoNewPrivileges {
		k.call("set no_new_privs", unix.SYS_PRCTL, Int(unix.PR_SET_NO_NEW_PRIVS), Int(1), Int(0), Int(0), Int(0))
	}
	if c.o.HookGates.BeforeExec {
		c.barrier(syncExec, "wait for the hooks")
	}
	if p.NoNewPrivileges {
		c.install(filter)
	}
	return nil
}

// stdio moves the streams into place and marks everything above for closing at execve.
func (c *compiler) stdio(p *specs.Process) {
	k, what := &c.kid, "set up the standard streams"
	for i, s := range []Slot{SlotIn, SlotOut, SlotErr} {
		if c.tty != NoSlot {
			s = c.tty
		} else if c.p.Owner != int(p.User.UID) {
			// Nobody in the user namespace may: the streams belong to the launcher, who has no id in there.
			c.prep.call(what, unix.SYS_FCHOWN, Of(SlotOwnIn+Slot(i)), Int(c.p.Owner), Int(^uint32(0))).expect(unix.EBADF, 0).expect(unix.EINVAL, 0).expect(unix.EPERM, 0)
		} else if p.User.UID != 0 {
			// Programs reopen /dev/stdout by name, for which they must own it.
			k.call(what, unix.SYS_FCHOWN, Of(SlotOwnIn+Slot(i)), Int(p.User.UID), Int(^uint32(0))).expect(unix.EBADF, 0).expect(unix.EINVAL, 0).expect(unix.EPERM, 0)
		}
		k.call(what, unix.SYS_DUP3, Of(s), Int(i), Int(0)).expect(unix.EINVAL, 0) // EINVAL: already there
	}
	first := 3 + c.o.PreserveFDs
	what = "keep the launcher's descriptors from the program"
	if c.o.Facts.Has(probe.CloseRangeExec) {
		k.call(what, unix.SYS_CLOSE_RANGE, Int(first), Int(^uint32(0)), Int(unix.CLOSE_RANGE_CLOEXEC))
		return
	}
	for _, s := range []Slot{SlotSync, SlotHighIn, SlotHighOut, SlotHighErr} {
		k.call(what, unix.SYS_FCNTL, Of(s), Int(unix.F_SETFD), Int(unix.FD_CLOEXEC)).expect(unix.EBADF, 0)
	}
}

// drop closes what Prepare opened, before the child becomes somebody whom the container's other
// processes may trace: with the host's /proc or root in hand they would be out (CVE-2024-21626). A child
// that will wait closes its own as well, which others go by execve.
func (c *compiler) drop() {
	for i := range c.prep.steps {
		if out := c.prep.steps[i].Out; out != NoSlot && out != SlotConsole {
			c.kid.call("drop the host's descriptors", unix.SYS_CLOSE, Of(out))
		}
	}
	if !c.o.Gate && c.o.GateFifo == "" {
		return
	}
	var own []Slot
	for i := range c.kid.steps {
		if st := &c.kid.steps[i]; st.Out != NoSlot && opensFD(st.Nr) && !slices.Contains(own, st.Out) {
			own = append(own, st.Out)
		}
	}
	for _, s := range own {
		// EBADF: the step was skipped, or it is closed already.
		c.kid.call("wait without descriptors", unix.SYS_CLOSE, Of(s)).expect(unix.EBADF, 0)
	}
}

// opensFD says that a call's result is a descriptor of the child's own.
func opensFD(nr int) bool {
	switch nr {
	case unix.SYS_OPENAT, unix.SYS_OPENAT2, unix.SYS_OPEN_TREE, unix.SYS_FSOPEN, unix.SYS_FSMOUNT, unix.SYS_SOCKET:
		return true
	}
	return false
}

// workingDirectory enters the cwd. The lookup cannot leave the root and follows no magic link, so that a
// descriptor of the launcher cannot become the way out (CVE-2024-21626).
func (c *compiler) workingDirectory(p *specs.Process) error {
	if !strings.HasPrefix(p.Cwd, "/") {
		return fault.New(fault.Invalid, "process.cwd: Cwd must be an absolute path, not %q", p.Cwd)
	}
	what := "chdir to cwd (\"" + p.Cwd + "\") set in config.json"
	how := openHow(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, unix.RESOLVE_IN_ROOT|unix.RESOLVE_NO_MAGICLINKS)
	root := c.kid.open("slash", what, unix.SYS_OPENAT, atCwd, Str("/"), Int(unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC), Int(0))
	cwd := c.kid.open("cwd", what, unix.SYS_OPENAT2, Of(root), Str(relative(p.Cwd)), how, Int(sizeofOpenHow))
	if c.enters { // a container's first process gets its directory made, a later one has to know its way
		c.kid.call(what, unix.SYS_FCHDIR, Of(cwd))
		return nil
	}
	var there mark
	c.kid.onOK(&there)
	c.kid.steps[len(c.kid.steps)-1].expect(unix.ENOENT, 0)
	parent, parts := root, strings.Split(relative(p.Cwd), "/")
	for i, name := range parts {
		c.kid.call(what, unix.SYS_MKDIRAT, Of(parent), Str(name), Int(0o755)).expect(unix.EEXIST, 0)
		if i < len(parts)-1 {
			parent = c.kid.open("made", what, unix.SYS_OPENAT2, Of(root), Str(strings.Join(parts[:i+1], "/")), how, Int(sizeofOpenHow))
		}
	}
	c.kid.call(what, unix.SYS_OPENAT2, Of(root), Str(relative(p.Cwd)), how, Int(sizeofOpenHow)).Out = cwd
	c.kid.here(&there)
	c.kid.call(what, unix.SYS_FCHDIR, Of(cwd))
	return nil
}

// identity changes the user and leaves it the capabilities of the spec.
func (c *compiler) identity(p *specs.Process) error {
	k, what := &c.kid, "change to the container's user"
	sets, err := capabilitySets(p.Capabilities)
	if err != nil {
		return err
	}
	for n := 0; n <= capability.Last(); n++ {
		if sets.bounding&(1<<n) == 0 {
			k.call("drop capabilities", unix.SYS_PRCTL, Int(unix.PR_CAPBSET_DROP), Int(n), Int(0), Int(0), Int(0))
		}
	}
	k.call(what, unix.SYS_PRCTL, Int(unix.PR_SET_KEEPCAPS), Int(1), Int(0), Int(0), Int(0))
	c.groups(p, what)
	gid, uid := p.User.GID, p.User.UID
	k.call(what, unix.SYS_SETRESGID, Int(gid), Int(gid), Int(gid))
	k.call(what, unix.SYS_SETRESUID, Int(uid), Int(uid), Int(uid))
	if p.User.Umask != nil {
		k.call("set the umask", unix.SYS_UMASK, Int(*p.User.Umask))
	} else {
		k.call("set the umask", unix.SYS_UMASK, Int(0o022))
	}
	k.call("set capabilities", unix.SYS_CAPSET, Bytes(capHeader()), capData(sets))
	for n := 0; n <= capability.Last(); n++ {
		if sets.ambient&(1<<n) != 0 {
			k.call("raise ambient capabilities", unix.SYS_PRCTL, Int(unix.PR_CAP_AMBIENT), Int(unix.PR_CAP_AMBIENT_RAISE), Int(n), Int(0), Int(0))
		}
	}
	return nil
}

// groups sets the supplementary groups. In a user namespace that denies it there are none to keep.
func (c *compiler) groups(p *specs.Process, what string) {
	b := make([]byte, 4*len(p.User.AdditionalGids))
	for i, g := range p.User.AdditionalGids {
		binary.LittleEndian.PutUint32(b[4*i:], g)
	}
	st := c.kid.call(what, unix.SYS_SETGROUPS, Int(len(p.User.AdditionalGids)), Bytes(b))
	if len(b) == 0 && c.bindNodes() {
		st.expect(unix.EPERM, 0)
	}
}

type capSets struct{ bounding, effective, permitted, inheritable, ambient uint64 }

func capabilitySets(caps *specs.LinuxCapabilities) (capSets, error) {
	if caps == nil {
		return capSets{}, nil
	}
	var s capSets
	for _, f := range []struct {
		field string
		names []string
		mask  *uint64
	}{
		{"bounding", caps.Bounding, &s.bounding}, {"effective", caps.Effective, &s.effective}, {"permitted", caps.Permitted, &s.permitted},
		{"inheritable", caps.Inheritable, &s.inheritable}, {"ambient", caps.Ambient, &s.ambient},
	} {
		// Names this kernel does not know are ignored, as the runtime spec wants it.
		*f.mask, _ = capability.Mask(f.names)
	}
	// What is not permitted cannot be ambient (capabilities(7)).
	s.ambient &= s.permitted & s.inheritable
	return s, nil
}

// capHeader is struct __user_cap_header_struct, version 3, for the calling thread.
func capHeader() []byte {
	b := make([]byte, 8)
	binary.LittleEndian.PutUint32(b, unix.LINUX_CAPABILITY_VERSION_3)
	return b
}

func capData(s capSets) Arg {
	b := make([]byte, 24)
	put := func(off int, v uint64) {
		binary.LittleEndian.PutUint32(b[off:], uint32(v))
		binary.LittleEndian.PutUint32(b[off+12:], uint32(v>>32))
	}
	put(0, s.effective)
	put(4, s.permitted)
	put(8, s.inheritable)
	return Bytes(b)
}

// filter is the compiled seccomp profile, or nil.
func (c *compiler) filter() (*seccomp.Filter, error) {
	if c.o.Seccomp != nil {
		return c.o.Seccomp, nil
	}
	if c.s.Linux.Seccomp == nil {
		return nil, nil
	}
	f, err := seccomp.Compile(c.s.Linux.Seccomp)
	if f != nil && f.Notify {
		c.p.Clone.Waits = true
	}
	return f, fault.In(err, "linux.seccomp")
}

// install loads the filter. Signals are let through before, since the filter may forbid it.
func (c *compiler) install(f *seccomp.Filter) {
	c.unblockSignals()
	if f == nil || len(f.Code) == 0 {
		return
	}
	prog := Bytes(make([]byte, 16))
	prog.D.Ptrs = []Ptr{{Off: 8, To: f.Code}}
	binary.LittleEndian.PutUint16(prog.D.Bytes, uint16(len(f.Code)/8))
	st := c.kid.call("install the seccomp filter", unix.SYS_SECCOMP, Int(unix.SECCOMP_SET_MODE_FILTER), Int(f.Flags), prog)
	if f.Notify {
		// The descriptor exists in the child only and goes at execve: the launcher fetches a copy.
		st.Out = c.p.newSlot("seccomp-listener")
		c.p.Listener = st.Out
		c.kid.call("hand over the seccomp listener", unix.SYS_WRITE, Of(SlotSync), Bytes([]byte{syncListener}), Int(1))
		c.kid.call("hand over the seccomp listener", unix.SYS_WRITE, Of(SlotSync), Arg{Kind: ArgSlotAddress, N: uint64(st.Out)}, Int(8))
		c.kid.call("hand over the seccomp listener", unix.SYS_READ, Of(SlotSync), Bytes(make([]byte, 8)), Int(1)).Positive = true
	}
}

func (c *compiler) unblockSignals() {
	c.kid.call("let signals through", unix.SYS_RT_SIGPROCMASK, Int(unix.SIG_SETMASK), Bytes(make([]byte, 8)), Int(0), Int(8))
}

// exec ends the program. A name without a slash is tried in each directory of PATH, as execvp does:
// what is missing is passed over, what may not be executed is remembered.
func (c *compiler) exec() error {
	p := c.s.Process
	if len(p.Args) == 0 || p.Args[0] == "" {
		return fault.New(fault.Invalid, "process.args: Args must not be empty")
	}
	k := &c.kid
	candidates := candidates(p.Args[0], p.Env)
	what := "exec " + p.Args[0]
	if c.o.Gate || c.o.GateFifo != "" {
		c.findExecutable(candidates, what)
		c.gate()
	}
	argv, envp := vector(p.Args), vector(p.Env)
	n := len(candidates)
	// Two rows of attempts: the second is for after a "permission denied".
	for i, path := range candidates {
		k.call(what, unix.SYS_EXECVE, Str(path), argv, envp).expect(unix.ENOENT, 0).expect(unix.ENOTDIR, 0).expect(unix.EACCES, n)
		if i == n-1 {
			k.call(what, OpFail, Int(int(unix.ENOENT)))
		}
	}
	for _, path := range candidates[1:] {
		k.call(what, unix.SYS_EXECVE, Str(path), argv, envp).expect(unix.ENOENT, 0).expect(unix.ENOTDIR, 0).expect(unix.EACCES, 0)
	}
	k.call(what, OpFail, Int(int(unix.EACCES)))
	return nil
}

// candidates are the paths at which a program may be. Without PATH in the environment there is none.
func candidates(arg0 string, env []string) []string {
	if strings.Contains(arg0, "/") {
		return []string{arg0}
	}
	path := ""
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			path = v
		}
	}
	var out []string
	for _, dir := range strings.Split(path, ":") {
		if dir == "" {
			dir = "."
		}
		out = append(out, dir+"/"+arg0)
	}
	return out
}

// findExecutable fails before the gate when there is nothing to execute behind it: "create" has to
// say so, not "start".
func (c *compiler) findExecutable(candidates []string, what string) {
	k, mode := &c.kid, unix.X_OK
	if p := c.s.Process; p.User.UID != 0 && p.Capabilities != nil && slices.Contains(p.Capabilities.Effective, "CAP_DAC_OVERRIDE") {
		mode = unix.F_OK // the question is put for a user without capabilities (access(2)), and execve has them
	}
	var found mark
	for _, path := range candidates {
		k.call(what, unix.SYS_FACCESSAT, atCwd, Str(path), Int(mode)).expect(unix.ENOENT, 0).expect(unix.ENOTDIR, 0)
		k.onOK(&found)
		if len(candidates) > 1 {
			k.steps[len(k.steps)-1].expect(unix.EACCES, 0)
		}
	}
	k.call(what, OpFail, Int(int(unix.ENOENT)))
	k.here(&found)
}

// gate is where the child waits to be started: for Process.Release on the sync socket, or for a byte in
// the fifo. The fifo is opened beforehand, for both directions so that this does not wait, and is the
// only thing of the host's that the child still has. A directory to open it in would be a way out: the
// program's path may go through /proc/self/fd (CVE-2024-21626).
func (c *compiler) gate() {
	k, what := &c.kid, "wait to be started"
	if c.o.GateFifo == "" {
		c.barrier(syncReady, what)
		return
	}
	fifo := c.prep.open("fifo", "open the start fifo "+c.o.GateFifo, unix.SYS_OPENAT, atCwd, Str(c.o.GateFifo), Int(unix.O_RDWR|unix.O_CLOEXEC), Int(0))
	if !c.o.Facts.Has(probe.CloseRangeExec) {
		k.call(what, unix.SYS_FCNTL, Of(fifo), Int(unix.F_SETFD), Int(unix.FD_CLOEXEC))
	}
	k.call(what, unix.SYS_WRITE, Of(SlotSync), Bytes([]byte{syncReady}), Int(1))
	k.call(what, unix.SYS_READ, Of(fifo), Bytes(make([]byte, 8)), Int(1)).Positive = true
}
