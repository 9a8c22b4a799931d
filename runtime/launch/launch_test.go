package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPlainContainer(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		res, err := run(t, l, plainSpec(root, "sh", "-c", `
			echo pid $$; hostname; id -u; pwd
			ls /proc/self/fd | wc -l
			mount | grep -c .
			cat /proc/kcore | wc -c
			touch /proc/sys/kernel/hostname 2>&1 || echo sys is read-only
			ls /dev
			grep -E "CapEff|CapBnd|NoNewPrivs|Seccomp:" /proc/self/status
			exit 7`), o)
		must(t, err)
		if res.status.ExitStatus() != 7 {
			t.Errorf("exit status %d, want 7", res.status.ExitStatus())
		}
		for _, want := range []string{"pid 1\nbox\n0\n/\n", "sys is read-only", "CapEff:\t00000000a80425fb", "CapBnd:\t00000000a80425fb"} {
			if !strings.Contains(res.out, want) {
				t.Errorf("output lacks %q:\n%s", want, res.out)
			}
		}
	})
}

func TestMountTableHoldsOnlyItsOwn(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		res, err := run(t, l, plainSpec(root, "cat", "/proc/self/mountinfo"), o)
		must(t, err)
		lines := strings.Split(strings.TrimSpace(res.out), "\n")
		if len(lines) > 25 || strings.Contains(res.out, "shared:") {
			t.Errorf("the container sees mounts that are not its own:\n%s", res.out)
		}
	})
}

func TestTerminal(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "sh", "-c", "tty; echo hello >/dev/console; ls -l /dev/console /dev/ptmx /dev/pts; test -t 0 && echo yes; echo x >/dev/tty")
		s.Process.Terminal = true
		res, err := run(t, l, s, o)
		must(t, err)
		for _, want := range []string{"/dev/pts/0\n", "hello\n", "yes\n", "x\n"} {
			if !strings.Contains(res.out, want) {
				t.Errorf("output lacks %q:\n%s", want, res.out)
			}
		}
	})
}

func TestUserNamespace(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "sh", "-c", "id -u; cat /proc/self/uid_map; echo ok >/dev/null && echo null works; ls -ln /dev/null; hostname; readlink /proc/1/ns/user")
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
		s.Linux.GIDMappings = s.Linux.UIDMappings
		must(t, os.Chmod(filepath.Dir(root), 0o755))
		must(t, os.Chmod(filepath.Dir(filepath.Dir(root)), 0o755))
		res, err := run(t, l, s, o)
		must(t, err)
		for _, want := range []string{"0\n", "100000", "null works", "box"} {
			if !strings.Contains(res.out, want) {
				t.Errorf("output lacks %q:\n%s", want, res.out)
			}
		}
		s.Process.Terminal, s.Process.Args = true, []string{"sh", "-c", "tty; ls -ln /dev/pts /dev/console"}
		res, err = run(t, l, s, o)
		must(t, err)
		if !strings.Contains(res.out, "/dev/pts/0\n") {
			t.Errorf("no terminal: %s", res.out)
		}
	})
}

func TestExecErrors(t *testing.T) {
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "bin/data"), []byte("x"), 0o644))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for _, c := range []struct {
			arg   string
			errno unix.Errno
		}{
			{"nowhere", unix.ENOENT}, {"/bin/nowhere", unix.ENOENT}, {"data", unix.EACCES}, {"/bin/data", unix.EACCES}, {"/bin", unix.EACCES},
		} {
			_, err := run(t, l, plainSpec(root, c.arg), o)
			var e *Error
			if !errors.As(err, &e) || !e.Exec || e.Errno != c.errno || e.Arg0 != c.arg {
				t.Errorf("%s: %v, want an exec error %v", c.arg, err, c.errno)
			}
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("children are left behind: %v", err)
		}
	})
}

func TestStepErrorSaysWhat(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "true")
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/x", Type: "nosuchfs", Source: "x"})
		_, err := run(t, l, s, o)
		if err == nil || !strings.HasPrefix(err.Error(), "mount nosuchfs on /x: no such device (mount(") {
			t.Errorf("got %v", err)
		}
		s.Mounts[len(s.Mounts)-1] = specs.Mount{Destination: "/x", Type: "bind", Source: "/no/such/path"}
		_, err = run(t, l, s, o)
		if err == nil || !strings.HasPrefix(err.Error(), "bind /no/such/path on /x: no such file or directory (open_tree(") {
			t.Errorf("got %v", err)
		}
	})
}

func TestBindMounts(t *testing.T) {
	root := busyboxRoot(t)
	host := t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "file"), []byte("from the host"), 0o644))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "sh", "-c", "cat /data/file /etc/one; touch /data/new; touch /ro/x 2>&1; true")
		s.Mounts = append(s.Mounts,
			specs.Mount{Destination: "/data", Type: "bind", Source: host, Options: []string{"rbind", "rprivate"}},
			specs.Mount{Destination: "/etc/one", Type: "bind", Source: host + "/file", Options: []string{"bind"}},
			specs.Mount{Destination: "/ro", Type: "bind", Source: host, Options: []string{"rbind", "ro"}})
		res, err := run(t, l, s, o)
		must(t, err)
		if !strings.HasPrefix(res.out, "from the hostfrom the host") || !strings.Contains(res.out, "Read-only file system") {
			t.Errorf("output: %s", res.out)
		}
		if _, err := os.Stat(filepath.Join(host, "new")); err != nil {
			t.Error(err)
		}
	})
}

func TestOverlayRoot(t *testing.T) {
	root := busyboxRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		upper, work := filepath.Join(dir, t.Name(), "upper"), filepath.Join(dir, t.Name(), "work")
		must(t, os.MkdirAll(upper, 0o755))
		must(t, os.MkdirAll(work, 0o755))
		o.Overlay = &Overlay{Lower: []string{root}, Upper: upper, Work: work}
		s := plainSpec("", "sh", "-c", "echo new >/written; mount | grep ' / '")
		s.Root = &specs.Root{}
		res, err := run(t, l, s, o)
		must(t, err)
		if !strings.Contains(res.out, "type overlay (rw") {
			t.Errorf("root is no overlay: %s", res.out)
		}
		if b, err := os.ReadFile(filepath.Join(upper, "written")); err != nil || string(b) != "new\n" {
			t.Errorf("upper has %q, %v", b, err)
		}
		s.Root.Readonly = true
		s.Process.Args = []string{"touch", "/again"}
		res, err = run(t, l, s, o)
		must(t, err)
		if !strings.Contains(res.out, "Read-only file system") {
			t.Errorf("root is writable: %s", res.out)
		}
	})
}

func TestGateAndExec(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Gate = true
		s := plainSpec(root, "sleep", "100")
		p, err := Compile(s, o)
		must(t, err)
		streams := quiet(t)
		proc, err := l.Start(p, streams)
		must(t, err)
		defer func() { _ = unix.Kill(proc.PID, unix.SIGKILL); wait(t, proc) }()
		exe, _ := os.Readlink("/proc/" + itoa(proc.PID) + "/exe")
		if strings.HasSuffix(exe, "busybox") {
			t.Errorf("runs before the gate opened: %s", exe)
		}
		must(t, proc.Release())
		exe, _ = os.Readlink("/proc/" + itoa(proc.PID) + "/exe")
		if !strings.HasSuffix(exe, "busybox") {
			t.Errorf("does not run after the gate opened: %s", exe)
		}
		o.Gate = false
		lost := *s.Process
		lost.Args, lost.Cwd = []string{"true"}, "/no/such/directory"
		lp, err := CompileExec(&lost, s, Target{PID: proc.PID}, o)
		must(t, err)
		if _, err := runProgram(t, l, lp); !errors.Is(err, unix.ENOENT) {
			t.Errorf("a process in a directory that is not there: %v", err)
		}
		for _, terminal := range []bool{false, true} {
			ex := *s.Process
			ex.Args, ex.Terminal, ex.Cwd = []string{"sh", "-c", "hostname; pwd; cat /proc/1/comm; ls /proc | grep -c '^[0-9]'; tty"}, terminal, "/tmp"
			ep, err := CompileExec(&ex, s, Target{PID: proc.PID}, o)
			must(t, err)
			ep, err = decode(ep.Encode())
			must(t, err)
			res, err := runProgram(t, l, ep)
			must(t, err)
			if !strings.HasPrefix(res.out, "box\n/tmp\nsleep\n") {
				t.Errorf("terminal=%v: %q", terminal, res.out)
			}
			if terminal && !strings.Contains(res.out, "/dev/pts/0") {
				t.Errorf("no terminal: %q", res.out)
			}
		}
	})
}
