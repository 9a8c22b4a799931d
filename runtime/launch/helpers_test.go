package launch

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// busyboxRoot is a root filesystem with nothing but a static busybox and its names.
func busyboxRoot(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	root := filepath.Join(t.TempDir(), "rootfs")
	for _, dir := range []string{"bin", "proc", "sys", "dev", "etc", "tmp", "root"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	data, err := os.ReadFile(bin)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), data, 0o755))
	for _, name := range []string{"sh", "cat", "ls", "true", "false", "id", "mount", "hostname", "stat", "cut", "tty", "sleep", "readlink", "touch", "grep", "wc", "echo", "test", "mkdir", "sysctl", "dd", "ulimit", "env", "pwd", "nc"} {
		must(t, os.Symlink("busybox", filepath.Join(root, "bin", name)))
	}
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n"), 0o644))
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var dockerCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE"}

// plainSpec is a container as Docker would ask for it, without its filter.
func plainSpec(root string, args ...string) *specs.Spec {
	caps := dockerCaps
	return &specs.Spec{
		Version:  "1.2.0",
		Root:     &specs.Root{Path: root},
		Hostname: "box",
		Process: &specs.Process{
			Args: args, Env: []string{"PATH=/usr/bin:/bin", "HOME=/root"}, Cwd: "/",
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		},
		Linux: &specs.Linux{
			Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}, {Type: "network"}, {Type: "cgroup"}},
			MaskedPaths: []string{"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
				"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// result is what a program left behind.
type result struct {
	out    string
	status unix.WaitStatus
}

// run compiles a spec, starts it and waits for its end; what it wrote on stdout and stderr is collected.
func run(t testing.TB, l *Launcher, s *specs.Spec, o Options) (result, error) {
	t.Helper()
	p, err := Compile(s, o)
	if err != nil {
		return result{}, err
	}
	// Every test run also proves that the encoded form says the same.
	p2, err := decode(p.Encode())
	must(t, err)
	if p2.String() != p.String() {
		t.Fatalf("decoded program differs:\n%s\nwant\n%s", p2, p)
	}
	return runProgram(t, l, p2)
}

func runProgram(t testing.TB, l *Launcher, p *Program) (result, error) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	null, err := os.Open("/dev/null")
	must(t, err)
	defer null.Close()
	proc, err := l.Start(p, Stdio{In: int(null.Fd()), Out: int(w.Fd()), Err: int(w.Fd())})
	w.Close()
	if err != nil {
		return result{}, err
	}
	var out bytes.Buffer
	if proc.Console >= 0 {
		buf := make([]byte, 4096)
		for {
			n, err := unix.Read(proc.Console, buf)
			if n > 0 {
				out.Write(buf[:n])
			}
			if err != nil && err != unix.EINTR || n == 0 && err == nil {
				break // EIO: the last user of the other end is gone
			}
		}
		_ = unix.Close(proc.Console)
	}
	_, err = io.Copy(&out, r)
	must(t, err)
	res := result{status: wait(t, proc)}
	res.out = strings.ReplaceAll(out.String(), "\r\n", "\n")
	return res, nil
}

func wait(t testing.TB, proc *Process) unix.WaitStatus {
	t.Helper()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(proc.PID, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		must(t, err)
		break
	}
	_ = unix.Close(proc.PidFD)
	return ws
}

// launchers are the two ways of entering a root, the second as the keeper uses it.
func launchers(t *testing.T, f func(t *testing.T, l *Launcher, o Options)) {
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	for _, covered := range []bool{false, true} {
		name := "pivot"
		if covered {
			name = "covered"
		}
		t.Run(name, func(t *testing.T) {
			l, err := NewLauncher(covered)
			must(t, err)
			defer l.Close()
			if covered && probe.Host().Has(probe.CloseRangeUnshare) {
				l.High = 256
			}
			f(t, l, Options{Covered: covered, Facts: probe.Host()})
		})
	}
}

func itoa(n int) string { return strconv.Itoa(n) }

func clearCloseOnExec(t *testing.T, fd int) {
	t.Helper()
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0)
	must(t, err)
}

// quiet are streams for a program whose output nobody wants.
func quiet(t testing.TB) Stdio {
	t.Helper()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	must(t, err)
	t.Cleanup(func() { null.Close() })
	fd := int(null.Fd())
	return Stdio{In: fd, Out: fd, Err: fd}
}

// decode reads one program.
func decode(b []byte) (*Program, error) { return new(Decoder).Decode(b) }
