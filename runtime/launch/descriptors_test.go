package launch

import (
	"os"
	"strconv"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// TestHighDescriptorsStay: what the launcher keeps above High never reaches a child, not even one that
// waits on the way and though it is to be inherited, and stays open in the launcher.
func TestHighDescriptorsStay(t *testing.T) {
	root := busyboxRoot(t)
	if why := probe.Host().Why(probe.CloseRangeUnshare); why != "" {
		t.Skip("needs a sound CLOSE_RANGE_UNSHARE: " + why)
	}
	const high = 200
	for _, user := range []bool{false, true} { // a child that shares the launcher's memory, and one that is forked
		l := &Launcher{High: high}
		s := plainSpec(root, "true")
		if user {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
			s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 65536}}
			s.Linux.GIDMappings = s.Linux.UIDMappings
		}
		p, err := Compile(s, Options{Gate: true, Facts: probe.Host()})
		must(t, err)
		null, err := os.Open("/dev/null")
		must(t, err)
		defer null.Close()
		_, _, errno := unix.Syscall(unix.SYS_DUP3, null.Fd(), high+1, 0)
		if errno != 0 {
			t.Fatal(errno)
		}
		proc, err := l.Start(p, quiet(t))
		must(t, err)
		fds, err := os.ReadDir("/proc/" + strconv.Itoa(proc.PID) + "/fd")
		must(t, err)
		for _, fd := range fds {
			if n, _ := strconv.Atoi(fd.Name()); n >= high {
				t.Errorf("user namespace %v: the child has the launcher's descriptor %d", user, n)
			}
		}
		must(t, proc.Release())
		if status := wait(t, proc); status.ExitStatus() != 0 {
			t.Errorf("user namespace %v: exit status %d", user, status.ExitStatus())
		}
		if err := unix.Close(high + 1); err != nil {
			t.Errorf("user namespace %v: the launcher's own descriptor: %v", user, err)
		}
	}
}

// TestFewOpenFiles: a program may have fewer descriptors than its launcher has open, of which the child begins with a copy.
func TestFewOpenFiles(t *testing.T) {
	root := busyboxRoot(t)
	for range 40 {
		null, err := os.Open("/dev/null")
		must(t, err)
		defer null.Close()
	}
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for _, n := range []uint64{3, 20} {
			s := plainSpec(root)
			s.Process.Cwd = "/made/for/it"
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: n, Hard: n}}
			expectOutput(t, l, s, o, "ulimit -n; pwd", strconv.FormatUint(n, 10), "/made/for/it")
		}
	})
}
