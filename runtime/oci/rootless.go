package oci

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/capability"
	"berth/kernel/process"
	"berth/runtime/launch"
)

// An ordinary user may not clone mounts or make devices, but he is root of every user namespace that he
// makes. So for him create and run go through an inner berth-oci, which runs in a user namespace with
// the container's ids and a mount namespace of its own; there it does what it does for root, and the
// container's user namespace is made inside that one, mapping every id to itself.
//
//	outer (user)             clone3(NEWUSER, NEWNS)    inner (the same command line)
//	writes the inner's id maps, or has                 waits on its gate
//	  newuidmap(1) and newgidmap(1) write them
//	closes the gate ──────────────────────────────────▶ becomes root of its namespace, goes on
//	waits, forwards signals ◀────────────────────────── exits with the container's status

// A user namespace that the container joins is one that the inner berth-oci joins, and there is nothing to
// be mapped: it is started as its root at once.

// innerVariable tells an inner berth-oci the descriptor of its gate, or that it has joined.
const innerVariable = "_BERTH_OCI_GATE"

const joinedWord = "joined"

// throughUserNamespace runs the command in a user namespace if that is the only way; done is false when
// the caller should go on itself.
func (b *birth) throughUserNamespace() (done bool, code int, err error) {
	if gate := os.Getenv(innerVariable); gate != "" {
		return false, 0, b.becomeInner(gate)
	}
	if unix.Geteuid() == 0 {
		return false, 0, nil
	}
	s := b.cfg.Spec
	switch n := namespaceOf(s, specs.UserNamespace); {
	case n != nil && n.Path != "":
		code, err = b.t.runJoined(n.Path)
		return true, code, err
	case n == nil:
		return true, 1, fault.New(fault.Forbidden, "rootless container requires user namespaces: add {\"type\": \"user\"} to linux.namespaces, and mappings (berth-oci spec --rootless)")
	}
	code, err = b.t.runInner(s.Linux)
	return true, code, err
}

// becomeInner waits for the id maps and takes on the namespace's root user. The container's ids are then
// our own.
func (b *birth) becomeInner(gate string) error {
	l := b.cfg.Spec.Linux
	if gate == joinedWord {
		l.UIDMappings, l.GIDMappings = nil, nil
		l.Namespaces = slices.DeleteFunc(l.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
		return os.Unsetenv(innerVariable)
	}
	fd, err := strconv.Atoi(gate)
	if err != nil {
		return fault.New(fault.Invalid, "%s is no descriptor: %q", innerVariable, gate)
	}
	if err := os.Unsetenv(innerVariable); err != nil {
		return err
	}
	buf := make([]byte, 1)
	for {
		n, err := unix.Read(fd, buf)
		if err == unix.EINTR {
			continue
		}
		if n != 1 || err != nil {
			return errors.New("the process that was to map our ids is gone")
		}
		break
	}
	unix.Close(fd)
	if err := errors.Join(syscall.Setresgid(0, 0, 0), syscall.Setresuid(0, 0, 0)); err != nil {
		return fmt.Errorf("become root of the user namespace: %w", err)
	}
	if err := process.SetDumpable(true); err != nil { // or our own files in /proc would not be ours
		return err
	}
	l.UIDMappings, l.GIDMappings = toSelf(l.UIDMappings), toSelf(l.GIDMappings)
	return nil
}

// toSelf maps the same ids, each to itself.
func toSelf(ms []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	out := make([]specs.LinuxIDMapping, len(ms))
	for i, m := range ms {
		out[i] = specs.LinuxIDMapping{ContainerID: m.ContainerID, HostID: m.ContainerID, Size: m.Size}
	}
	return out
}

// runInner starts the inner process and stays until its end.
func (t *tool) runInner(l *specs.Linux) (int, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	defer write.Close()
	var caps []uintptr
	for n := 0; n <= capability.Last(); n++ {
		caps = append(caps, uintptr(n)) // kept through execve, although no id is mapped yet
	}
	// The inner one gets our descriptors as they are; the gate is the first above them.
	gate := 3
	files := []uintptr{0, 1, 2}
	for inherited(gate) {
		files = append(files, uintptr(gate))
		gate++
	}
	files = append(files, read.Fd())
	pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{
		Env: append(os.Environ(), innerVariable+"="+strconv.Itoa(gate)), Files: files,
		Sys: &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS, AmbientCaps: caps},
	})
	read.Close()
	if err != nil {
		return 1, fmt.Errorf("make a user namespace: %w", err)
	}
	if err := mapIDs(pid, l); err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = reap(pid)
		return 1, err
	}
	if _, err := write.Write([]byte{'g'}); err != nil {
		return 1, err
	}
	return t.standBy(pid)
}

// runJoined starts the inner process as root of a user namespace that is there, and stays until its end.
func (t *tool) runJoined(path string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	preserved := 0
	for inherited(3 + preserved) {
		preserved++
	}
	p := &specs.Process{Args: append([]string{self}, os.Args[1:]...), Env: append(os.Environ(), innerVariable+"="+joinedWord)}
	program, err := launch.CompileInside(path, p, launch.Options{PreserveFDs: preserved})
	if err != nil {
		return 1, err
	}
	rename(program, os.Args[0])
	l, err := launch.NewLauncher(false)
	if err != nil {
		return 1, err
	}
	proc, err := l.Start(program, launch.Stdio{In: 0, Out: 1, Err: 2})
	if err != nil {
		return 1, err
	}
	unix.Close(proc.PidFD)
	return t.standBy(proc.PID)
}

// standBy forwards signals to a child until its end.
func (t *tool) standBy(pid int) (int, error) {
	fg, err := newForeground(t, false)
	if err != nil {
		return 1, err
	}
	if err := fg.attachChild(pid); err != nil {
		return 1, err
	}
	return fg.wait()
}

// mapIDs gives the process of a new user namespace its ids. One's own id anybody may map; for more,
// the setuid helpers of the package uidmap know what /etc/subuid allows.
func mapIDs(pid int, l *specs.Linux) error {
	own := func(ms []specs.LinuxIDMapping, id int) bool {
		return len(ms) == 1 && ms[0].Size == 1 && ms[0].HostID == uint32(id)
	}
	if own(l.UIDMappings, unix.Geteuid()) && own(l.GIDMappings, unix.Getegid()) {
		dir := "/proc/" + strconv.Itoa(pid) + "/"
		return errors.Join(
			os.WriteFile(dir+"setgroups", []byte("deny"), 0), // else the kernel takes no gid_map from users
			os.WriteFile(dir+"uid_map", []byte(mapLine(l.UIDMappings[0])), 0),
			os.WriteFile(dir+"gid_map", []byte(mapLine(l.GIDMappings[0])), 0))
	}
	if err := mapByHelper("newuidmap", pid, l.UIDMappings); err != nil {
		return err
	}
	return mapByHelper("newgidmap", pid, l.GIDMappings)
}

func mapLine(m specs.LinuxIDMapping) string {
	return fmt.Sprintf("%d %d %d\n", m.ContainerID, m.HostID, m.Size)
}

func mapByHelper(helper string, pid int, ms []specs.LinuxIDMapping) error {
	path, err := exec.LookPath(helper)
	if err != nil {
		return fault.New(fault.Unavailable, "mapping more than one's own id needs %s: install the package uidmap", helper)
	}
	args := []string{strconv.Itoa(pid)}
	for _, m := range ms {
		args = append(args, strconv.Itoa(int(m.ContainerID)), strconv.Itoa(int(m.HostID)), strconv.Itoa(int(m.Size)))
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		return fault.New(fault.Forbidden, "%s: %v: %s", helper, err, out)
	}
	return nil
}
