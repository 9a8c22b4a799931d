package launch

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/probe"
)

// hostProgram is a program outside of every container that says so.
func hostProgram(t *testing.T) string {
	t.Helper()
	bin, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox: install the package busybox-static")
	}
	data, err := os.ReadFile(bin)
	must(t, err)
	path := filepath.Join(t.TempDir(), "echo")
	must(t, os.WriteFile(path, data, 0o755))
	return path
}

// TestTheProgramIsNotReachedThroughADescriptor: CVE-2024-21626, the third attack. execve follows
// /proc/self/fd/N, so that an image whose entrypoint names a descriptor of the launcher would run a
// program of the host, and write to it afterwards through /proc/self/exe. Whether the launch waits, and for
// what, decides which descriptors are still open then.
func TestTheProgramIsNotReachedThroughADescriptor(t *testing.T) {
	root, outside := busyboxRoot(t), hostProgram(t)
	must(t, os.Mkdir(filepath.Join(root, "fallback"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "fallback/echo"), []byte("#!/bin/sh\n"), 0o755))
	attempt := func(t *testing.T, l *Launcher, o Options, fd int, end func(*Process)) {
		// The fallback is found before the gate, and the other one behind it.
		s := plainSpec(root, "echo", "escaped")
		s.Process.Env = []string{"PATH=/proc/self/fd/" + itoa(fd) + "/" + strings.Repeat("../", 20) + filepath.Dir(outside)[1:] + ":/fallback"}
		p, err := Compile(s, o)
		must(t, err)
		var out [2]int
		must(t, unix.Pipe2(out[:], unix.O_CLOEXEC))
		defer unix.Close(out[0])
		proc, err := l.Start(p, Stdio{In: out[1], Out: out[1], Err: out[1]})
		unix.Close(out[1])
		if err != nil {
			return // found no such program before its gate
		}
		end(proc)
		wait(t, proc)
		b := make([]byte, 100)
		if n, _ := unix.Read(out[0], b); strings.Contains(string(b[:max(n, 0)]), "escaped") {
			t.Errorf("descriptor %d leads to the host's files", fd)
		}
	}
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for fd := 3; fd < 60; fd++ {
			attempt(t, l, o, fd, func(*Process) {})
			gated := o
			gated.Gate = true
			attempt(t, l, gated, fd, func(p *Process) { _ = p.Release() })
			fifo := o
			fifo.GateFifo = filepath.Join(t.TempDir(), "exec.fifo")
			must(t, unix.Mkfifo(fifo.GateFifo, 0o600))
			attempt(t, l, fifo, fd, func(p *Process) {
				openGate(t, fifo.GateFifo)
				_ = p.Release() // it is through; this closes our end
			})
		}
	})
}

// openGate writes into the fifo as the start command does.
func openGate(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	must(t, err)
	defer f.Close()
	_, err = f.Write([]byte{'0'})
	must(t, err)
}

// TestOldKernelsProtectWhatIsBound: before Linux 5.12 a bind's attributes are set after it is attached, and what cannot be set so
// must not be left out in silence.
func TestOldKernelsProtectWhatIsBound(t *testing.T) {
	root, host := busyboxRoot(t), t.TempDir()
	file := filepath.Join(host, "file")
	must(t, os.WriteFile(file, []byte("the host's\n"), 0o666))
	must(t, os.Symlink("../tmp/there", filepath.Join(root, "etc/link")))
	must(t, os.WriteFile(filepath.Join(root, "tmp/there"), nil, 0o666))
	old := probe.AssumeVersion(5, 10)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Facts = old
		s := plainSpec(root)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc/file", Type: "bind", Source: file, Options: []string{"rbind", "ro"}},
			specs.Mount{Destination: "/etc/link", Type: "bind", Source: file, Options: []string{"rbind", "ro", "nosuid"}},
			specs.Mount{Destination: "/srv", Type: "bind", Source: host, Options: []string{"rbind", "ro", "rslave"}},
			specs.Mount{Destination: "/open", Type: "bind", Source: file, Options: []string{"rbind"}})
		expectOutput(t, l, s, o, "for f in /etc/file /etc/link /srv/file /srv/new; do (echo evil >$f) 2>&1; done; echo ours >>/open; cat /etc/file",
			"sh: can't create /etc/file: Read-only file system", "sh: can't create /etc/link: Read-only file system",
			"sh: can't create /srv/file: Read-only file system", "sh: can't create /srv/new: Read-only file system", "ours")
	})
	for _, m := range []specs.Mount{
		{Destination: "/x", Type: "bind", Source: host, Options: []string{"rbind", "rro"}},
		{Destination: "/x", Type: "bind", Source: host, Options: []string{"rbind", "rnosuid"}},
		{Destination: "/x", Type: "bind", Source: host, Options: []string{"bind", "idmap"}},
		{Destination: "/x", Type: "bind", Source: host, Options: []string{"bind"}, UIDMappings: []specs.LinuxIDMapping{{HostID: 1, Size: 1}}},
	} {
		s := plainSpec(root, "true")
		s.Mounts = append(s.Mounts, m)
		if _, err := Compile(s, Options{Facts: old}); !fault.Is(err, fault.NotImplemented) {
			t.Errorf("%v: %v", m.Options, err)
		}
	}
}

// TestOldKernelsProtectCgroups: each hierarchy's directory is a mount of its own, which a read-only mount around it does not protect.
func TestOldKernelsProtectCgroups(t *testing.T) {
	for _, version := range []int{10, 12} {
		s := plainSpec("/root", "true")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"ro", "nosuid"}})
		o := Options{Facts: probe.AssumeVersion(5, version), Cgroup: cgroup.Attach{V1Procs: []string{"/sys/fs/cgroup/memory/box/tasks", "/sys/fs/cgroup/pids/box/tasks"}}}
		p, err := Compile(s, o)
		must(t, err)
		for _, h := range []string{"memory", "pids"} {
			before := "mount_setattr($cgroup:" + h + ", \"\", AT_EMPTY_PATH, {set=RDONLY|NOSUID"
			after := "fchdir($cgroup:" + h + ")\nmount(NULL, \".\", NULL, RDONLY|NOSUID|REMOUNT|BIND, NULL)"
			if text := p.String(); strings.Contains(text, before) != (version == 12) || strings.Contains(text, after) != (version == 10) {
				t.Errorf("5.%d: %s is not protected:\n%s", version, h, text)
			}
		}
	}
}

// TestTheConsoleStaysInside: CVE-2025-52565. The terminal is shown as /dev/console; where the image's own /dev is used, a link
// in its place must neither get the mount nor have a file made at its end.
func TestTheConsoleStaysInside(t *testing.T) {
	outside := t.TempDir()
	before, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	must(t, err)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for _, link := range []string{outside + "/new", strings.Repeat("../", 20) + outside[1:] + "/new", "/proc/1/root" + outside + "/new", "/proc/sys/kernel/core_pattern"} {
			root := busyboxRoot(t)
			must(t, os.Symlink(link, filepath.Join(root, "dev/console")))
			s := plainSpec(root)
			s.Mounts = slices.DeleteFunc(s.Mounts, func(m specs.Mount) bool { return m.Destination == "/dev" })
			s.Process.Terminal, s.Process.Args = true, []string{"sh", "-c", "echo evil >/proc/sys/kernel/core_pattern; echo ran"}
			res, err := run(t, l, s, o) // it may fail, or find a place inside
			if entries, rerr := os.ReadDir(outside); rerr != nil || len(entries) != 0 {
				t.Fatalf("%s: the host got %v (%v)", link, entries, rerr)
			}
			if now, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); strings.HasPrefix(string(now), "evil") {
				must(t, os.WriteFile("/proc/sys/kernel/core_pattern", before, 0))
				t.Fatalf("%s: the host's core_pattern was written: %s %v", link, res.out, err)
			}
		}
	})
}
