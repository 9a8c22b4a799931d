package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// The tests in this file attack. Each is a known way out of a container, kept so that it stays closed.

// TestOwnExecutableIsOutOfReach: CVE-2019-5736. Told to execute /proc/self/exe, the launcher must not
// offer its own file.
func TestOwnExecutableIsOutOfReach(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "/proc/self/exe")
		res, err := run(t, l, s, o)
		if err == nil && res.status.ExitStatus() != 127 {
			t.Errorf("executing /proc/self/exe gave status %d and %q", res.status.ExitStatus(), res.out)
		}
		o.Gate = true
		p, err := Compile(plainSpec(root, "true"), o)
		must(t, err)
		streams := quiet(t)
		proc, err := l.Start(p, streams)
		must(t, err)
		exe, err := os.Readlink("/proc/" + itoa(proc.PID) + "/exe")
		must(t, err)
		if !strings.HasPrefix(exe, "/memfd:") {
			t.Errorf("before execve the child's executable is %s", exe)
		}
		must(t, proc.Release())
		wait(t, proc)
	})
}

// TestNoDescriptorLeaks: CVE-2024-21626. Neither the program's descriptors nor its working directory
// lead out, whatever the launcher had open.
func TestNoDescriptorLeaks(t *testing.T) {
	root := busyboxRoot(t)
	// A descriptor without close-on-exec, as a careless caller would leave it.
	leak, err := os.Open("/")
	must(t, err)
	defer leak.Close()
	clearCloseOnExec(t, int(leak.Fd()))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		expectOutput(t, l, plainSpec(root), o, "echo /proc/self/fd/*", "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3")
		for n := 3; n < 40; n++ {
			s := plainSpec(root)
			s.Process.Cwd = "/proc/self/fd/" + itoa(n)
			s.Process.Args = []string{"pwd"}
			if res, err := run(t, l, s, o); err == nil {
				t.Fatalf("cwd %s is accepted: %s", s.Process.Cwd, res.out)
			}
		}
	})
}

// TestMountTargetsStayInside: links in the image must not lead a mount out of the root.
func TestMountTargetsStayInside(t *testing.T) {
	outside, source := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(source, "mark"), nil, 0o644))
	root := busyboxRoot(t)
	up := strings.Repeat("../", 20)
	must(t, os.Symlink(outside, filepath.Join(root, "absolute")))
	must(t, os.Symlink(up+outside, filepath.Join(root, "relative")))
	must(t, os.Symlink("/proc/1/root/tmp", filepath.Join(root, "magic")))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for _, dest := range []string{"/absolute", "/relative", "/absolute/deep", up + outside} {
			s := plainSpec(root)
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "bind", Source: source, Options: []string{"bind"}})
			s.Process.Args = []string{"ls", filepath.Clean("/" + dest)}
			_, _ = run(t, l, s, o) // whether it finds a place inside is its own matter
			entries, err := os.ReadDir(outside)
			must(t, err)
			if len(entries) != 0 {
				t.Fatalf("%s: the host got %v", dest, entries)
			}
		}
		s := plainSpec(root, "true")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/magic/x", Type: "tmpfs", Source: "tmpfs"})
		if _, err := run(t, l, s, o); err == nil {
			t.Error("a mount through /proc/1/root is accepted")
		}
	})
}

// TestProcIsProc: CVE-2019-16884, CVE-2019-19921, CVE-2025-52881. Nothing may stand in for proc.
func TestProcIsProc(t *testing.T) {
	fake := t.TempDir()
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		root := busyboxRoot(t)
		for _, m := range []specs.Mount{
			{Destination: "/proc", Type: "bind", Source: fake, Options: []string{"bind"}},
			{Destination: "/proc/self/attr", Type: "tmpfs", Source: "tmpfs"},
			{Destination: "/proc/sys/net", Type: "bind", Source: fake, Options: []string{"bind"}},
			{Destination: "/x/../proc/sys", Type: "bind", Source: fake, Options: []string{"bind"}},
		} {
			s := plainSpec(root, "true")
			s.Mounts = append(s.Mounts, m)
			if _, err := run(t, l, s, o); err == nil {
				t.Errorf("a mount of %s on %s is accepted", m.Type, m.Destination)
			}
		}
		must(t, os.Remove(filepath.Join(root, "proc")))
		must(t, os.Symlink("tmp", filepath.Join(root, "proc")))
		if _, err := run(t, l, plainSpec(root, "true"), o); err == nil {
			t.Error("a link in place of /proc is followed")
		}
	})
}

// TestMasksCannotBeLed: CVE-2025-31133. What masks is the kernel's null device, even where the image
// brings a /dev of its own.
func TestMasksCannotBeLed(t *testing.T) {
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "dev/null"), []byte("planted"), 0o666))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		expectOutput(t, l, s, o, "stat -c %t:%T /proc/interrupts; cat /proc/interrupts; ls /sys/firmware", "1:3")
	})
}

// TestOldRootIsGone: after the start no path leads to the host's root, not even for CAP_SYS_ADMIN.
func TestOldRootIsGone(t *testing.T) {
	root := busyboxRoot(t)
	mark := filepath.Join(t.TempDir(), "host-only")
	must(t, os.WriteFile(mark, nil, 0o644))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		caps := append([]string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}, dockerCaps...)
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
		must(t, os.MkdirAll(filepath.Join(root, "jail"), 0o755))
		for _, name := range []string{"chroot", "nsenter", "umount"} {
			_ = os.Symlink("busybox", filepath.Join(root, "bin", name))
		}
		script := `for p in ` + strings.Repeat("../", 12) + mark[1:] + ` /proc/1/root` + mark + ` /proc/self/cwd/..` + mark + `; do test -e $p && echo ESCAPED $p; done
			nsenter -t 1 -m test -e ` + mark + ` && echo ESCAPED by nsenter
			umount -l / 2>/dev/null; nsenter -t 1 -m test -e ` + mark + ` 2>/dev/null && echo ESCAPED by umount
			echo done`
		if out := expectOutput(t, l, s, o, script); strings.Contains(out, "ESCAPED") {
			t.Error(out)
		}
	})
}
