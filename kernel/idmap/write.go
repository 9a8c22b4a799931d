package idmap

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// WriteByHelpers gives a process that was just born into a new user namespace its mapping, which can be written once,
// through the set-uid programs newuidmap and newgidmap: they let an ordinary user map the subordinate ids that it owns.
func WriteByHelpers(pid int, p Pair) error {
	if err := p.Check(); err != nil {
		return err
	}
	for _, h := range [...]struct {
		name string
		m    Map
	}{{"newuidmap", p.Users}, {"newgidmap", p.Groups}} {
		if err := run(h.name, append([]string{strconv.Itoa(pid)}, strings.Fields(h.m.Proc())...)); err != nil {
			return err
		}
	}
	return nil
}

func run(name string, args []string) error {
	path := ""
	for _, dir := range [...]string{"/usr/bin/", "/bin/", "/usr/local/bin/", "/usr/sbin/"} {
		if unix.Access(dir+name, unix.X_OK) == nil {
			path = dir + name
			break
		}
	}
	if path == "" {
		return fault.New(fault.NotImplemented, "%s is not installed: apt-get install uidmap", name)
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "run %s", name)
	}
	defer r.Close()
	p, err := os.StartProcess(path, append([]string{name}, args...), &os.ProcAttr{Files: []*os.File{nil, w, w}})
	w.Close()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "run %s", name)
	}
	said := make([]byte, 512)
	n, _ := r.Read(said)
	st, err := p.Wait()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "run %s", name)
	}
	if !st.Success() {
		return fault.New(fault.Forbidden, "%s: %s", name, strings.TrimSpace(string(said[:n])))
	}
	return nil
}

// Namespace gives a descriptor of a new user namespace that has the mapping and no process in it, for
// mount.IDMap; tests of file systems ask for it. The kernel makes a namespace only around a process, so one is made and ended before it
// runs anything.
func Namespace(p Pair) (int, error) { return namespace(p, 0, "user") }

// NetNamespace gives a descriptor of a new network namespace with no process in it, which belongs to a new user
// namespace that has the mapping (ioctl_ns(2), NS_GET_USERNS).
func NetNamespace(p Pair) (int, error) { return namespace(p, syscall.CLONE_NEWNET, "net") }

func namespace(p Pair, more uintptr, kind string) (int, error) {
	if err := p.Check(); err != nil {
		return -1, err
	}
	// The child is traced and so stops at its execve, before the first instruction of any program. The
	// tracer is a thread: it must be the one that ends it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	proc, err := os.StartProcess("/proc/self/exe", []string{"idmap"}, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{
			Cloneflags:                 syscall.CLONE_NEWUSER | more,
			UidMappings:                p.Users.sys(),
			GidMappings:                p.Groups.sys(),
			GidMappingsEnableSetgroups: true,
			Ptrace:                     true,
			Pdeathsig:                  syscall.SIGKILL,
		},
	})
	if err != nil {
		return -1, fault.Wrap(fault.Internal, err, "make a user namespace for %s", p.Key())
	}
	defer func() {
		_ = proc.Kill()
		_, _ = proc.Wait()
	}()
	fd, err := unix.Open("/proc/"+strconv.Itoa(proc.Pid)+"/ns/"+kind, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return fd, fault.Wrap(fault.Internal, err, "make a user namespace for %s", p.Key())
}

func (m Map) sys() []syscall.SysProcIDMap {
	list := make([]syscall.SysProcIDMap, len(m))
	for i, r := range m {
		list[i] = syscall.SysProcIDMap{ContainerID: int(r.Inside), HostID: int(r.Outside), Size: int(r.Size)}
	}
	return list
}
