package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// expectOutput runs a shell script in a container and looks for lines in what it prints.
func expectOutput(t *testing.T, l *Launcher, s *specs.Spec, o Options, script string, want ...string) string {
	t.Helper()
	s.Process.Args = []string{"sh", "-c", script}
	res, err := run(t, l, s, o)
	must(t, err)
	for _, w := range want {
		if !strings.Contains("\n"+res.out, "\n"+w+"\n") {
			t.Errorf("no line %q in:\n%s", w, res.out)
		}
	}
	return res.out
}

func TestNamespacesDiffer(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		out := expectOutput(t, l, plainSpec(root), o, "for n in pid net uts ipc mnt cgroup; do readlink /proc/self/ns/$n; done")
		for _, n := range []string{"pid", "net", "uts", "ipc", "mnt", "cgroup"} {
			host, err := os.Readlink("/proc/self/ns/" + n)
			must(t, err)
			if !strings.Contains(out, n+":[") || strings.Contains(out, host) {
				t.Errorf("%s is not the container's own: host %s, container\n%s", n, host, out)
			}
		}
	})
}

func TestLoopbackIsUp(t *testing.T) {
	root := busyboxRoot(t)
	_ = os.Symlink("busybox", filepath.Join(root, "bin/ping"))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		expectOutput(t, l, plainSpec(root), o, "ping -c 1 -W 2 127.0.0.1 >/dev/null && echo up", "up")
	})
}

func TestProcessAttributes(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		umask, adj := uint32(0o027), 321
		s.Process.User = specs.User{UID: 1000, GID: 1001, AdditionalGids: []uint32{7, 8}, Umask: &umask}
		s.Process.Cwd = "/made/for/it"
		s.Process.NoNewPrivileges = true
		s.Process.OOMScoreAdj = &adj
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		s.Linux.Sysctl = map[string]string{"kernel.shmmax": "4096", "net/ipv4/ip_forward": "1"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_KILL", "CAP_NET_RAW"}, Permitted: []string{"CAP_KILL"},
			Inheritable: []string{"CAP_KILL"}, Effective: []string{"CAP_KILL"}, Ambient: []string{"CAP_KILL"}}
		expectOutput(t, l, s, o, `id -u; id -g; id -G; umask; pwd; cat /proc/self/oom_score_adj; ulimit -n; ulimit -H -n
			cat /proc/sys/kernel/shmmax /proc/sys/net/ipv4/ip_forward; grep -E '^(Cap|NoNewPrivs)' /proc/self/status | tr '\t' ' '`,
			"1000", "1001", "1001 7 8", "0027", "/made/for/it", "321", "100", "200", "4096", "1",
			"CapInh: 0000000000000020", "CapEff: 0000000000000020", "CapBnd: 0000000000002020", "CapAmb: 0000000000000020", "NoNewPrivs: 1")
	})
}

func TestStreamsBelongToTheUser(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		s.Process.User = specs.User{UID: 1000, GID: 1000}
		s.Process.Capabilities = nil
		expectOutput(t, l, s, o, "echo reopened >/dev/stdout", "reopened")
		var st unix.Stat_t
		must(t, unix.Stat("/dev/null", &st))
		if st.Uid != 0 {
			t.Error("the host's /dev/null changed its owner")
		}
	})
}

func TestSeccomp(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		for _, nnp := range []bool{false, true} {
			s := plainSpec(root)
			s.Process.NoNewPrivileges = nnp
			enosys := uint(unix.ENOSYS)
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow,
				Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &enosys}}}
			expectOutput(t, l, s, o, "mkdir /tmp/x 2>&1; grep Seccomp: /proc/self/status | tr '\\t' ' '",
				"mkdir: can't create directory '/tmp/x': Function not implemented", "Seccomp: 2")
		}
	})
}

func TestSeccompListener(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root, "true")
		s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, ListenerPath: "/nowhere",
			Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		p, err := Compile(s, o)
		must(t, err)
		streams := quiet(t)
		proc, err := l.Start(p, streams)
		must(t, err)
		defer wait(t, proc)
		if proc.Listener < 0 {
			t.Fatal("no listener")
		}
		defer unix.Close(proc.Listener)
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", proc.Listener))
		must(t, err)
		if name != "anon_inode:seccomp notify" {
			t.Errorf("the listener is %s", name)
		}
	})
}

func TestTimeNamespace(t *testing.T) {
	root := busyboxRoot(t)
	if !probe.Host().Has(probe.TimeNamespace) {
		t.Skip("needs time namespaces (Linux 5.6)")
	}
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "time"})
		s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1000000}}
		out := expectOutput(t, l, s, o, "cat /proc/uptime")
		var up float64
		_, err := fmt.Sscan(out, &up)
		must(t, err)
		if up < 1000000 {
			t.Errorf("uptime %v, want above the offset", up)
		}
	})
}

func TestJoinNamespaces(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		pause := plainSpec(root, "sleep", "100")
		p, err := Compile(pause, o)
		must(t, err)
		streams := quiet(t)
		proc, err := l.Start(p, streams)
		must(t, err)
		defer func() { _ = unix.Kill(proc.PID, unix.SIGKILL); wait(t, proc) }()
		ns := func(n string) string { return fmt.Sprintf("/proc/%d/ns/%s", proc.PID, n) }
		s := plainSpec(root)
		s.Hostname = ""
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid", Path: ns("pid")}, {Type: "network", Path: ns("net")},
			{Type: "ipc", Path: ns("ipc")}, {Type: "uts", Path: ns("uts")}}
		want, err := os.Readlink(ns("net"))
		must(t, err)
		expectOutput(t, l, s, o, "cat /proc/1/comm; hostname; readlink /proc/self/ns/net", "sleep", "box", want)
		// The launcher itself must be back in its own pid namespace.
		expectOutput(t, l, plainSpec(root), o, "echo $$", "1")
	})
}

// TestJoinUserNamespace starts a second container in the user namespace of a first, with pid and mount
// namespaces of its own, as the containers of a pod are.
func TestJoinUserNamespace(t *testing.T) {
	root := busyboxRoot(t)
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(root)), 0o755))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		ids := []specs.LinuxIDMapping{{HostID: 100000, Size: 65536}}
		pause := plainSpec(root, "sleep", "100")
		pause.Linux.Namespaces = append(pause.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
		pause.Linux.UIDMappings, pause.Linux.GIDMappings = ids, ids
		p, err := Compile(pause, o)
		must(t, err)
		streams := quiet(t)
		proc, err := l.Start(p, streams)
		must(t, err)
		defer func() { _ = unix.Kill(proc.PID, unix.SIGKILL); wait(t, proc) }()
		ns := func(n string) string { return fmt.Sprintf("/proc/%d/ns/%s", proc.PID, n) }
		s := plainSpec(root)
		s.Hostname = ""
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: "mount"}, {Type: "pid"}, {Type: "user", Path: ns("user")}, {Type: "network", Path: ns("net")}, {Type: "ipc", Path: ns("ipc")}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		want, err := os.Readlink(ns("user"))
		must(t, err)
		expectOutput(t, l, s, o, "echo $$; id -u; readlink /proc/self/ns/user; mount | grep -c ' /proc '", "1", "0", want)
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil {
			t.Errorf("no child is left: %v", err)
		}
		// In the pid namespace of the first its number is another than here.
		s.Linux.Namespaces[1].Path = ns("pid")
		s.Process.Args = []string{"sleep", "77"}
		p, err = Compile(s, o)
		must(t, err)
		second, err := l.Start(p, streams)
		must(t, err)
		comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", second.PID))
		if err != nil || string(comm) != "sleep\x0077\x00" {
			t.Errorf("process %d is %q, %v", second.PID, comm, err)
		}
		must(t, unix.PidfdSendSignal(second.PidFD, unix.SIGKILL, nil, 0))
		wait(t, second)
	})
}

func TestHooks(t *testing.T) {
	root := busyboxRoot(t)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.HookGates = HookGates{BeforePivot: true, BeforeExec: true}
		p, err := Compile(plainSpec(root, "true"), o)
		must(t, err)
		streams := quiet(t)
		var seen []string
		look := func(name string) func(int) error {
			return func(pid int) error {
				mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
				// The host's devtmpfs is there until the old root is left.
				seen = append(seen, fmt.Sprintf("%s pivoted=%v", name, !strings.Contains(string(mounts), " devtmpfs ")))
				return err
			}
		}
		proc, err := l.StartHooked(p, streams, Hooks{BeforePivot: look("pivot"), BeforeExec: look("exec")})
		must(t, err)
		if ws := wait(t, proc); ws.ExitStatus() != 0 {
			t.Errorf("status %v", ws)
		}
		if got := strings.Join(seen, ", "); got != "pivot pivoted=false, exec pivoted=true" {
			t.Errorf("hooks saw %s", got)
		}
		boom := errors.New("boom")
		_, err = l.StartHooked(p, streams, Hooks{BeforePivot: func(int) error { return boom }})
		if !errors.Is(err, boom) {
			t.Errorf("got %v", err)
		}
		if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("children are left behind: %v", err)
		}
	})
}

func TestIDMappedBind(t *testing.T) {
	root := busyboxRoot(t)
	host := t.TempDir()
	must(t, os.WriteFile(filepath.Join(host, "file"), nil, 0o644))
	must(t, os.Chown(filepath.Join(host, "file"), 1234, 1234))
	if !probe.Host().Has(probe.IDMapMount) {
		t.Skip("needs id-mapped mounts (Linux 5.12)")
	}
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		ids := []specs.LinuxIDMapping{{ContainerID: 1234, HostID: 5678, Size: 1}}
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/mapped", Type: "bind", Source: host, Options: []string{"bind"}, UIDMappings: ids, GIDMappings: ids})
		s.Process.Args = []string{"stat", "-c", "%u:%g", "/mapped/file"}
		res, err := run(t, l, s, o)
		if errors.Is(err, unix.EINVAL) && onTmpfs(t, host) && !probe.Host().Has(probe.OverlayAppend) {
			t.Skip("needs id-mapped tmpfs, where temporary files are (Linux 6.3)")
		}
		must(t, err)
		if res.out != "5678:5678\n" {
			t.Errorf("the owner is seen as %s", res.out)
		}
	})
}

func TestTmpfsBeginsAsWhatItCovers(t *testing.T) {
	root := busyboxRoot(t)
	must(t, os.MkdirAll(filepath.Join(root, "var/lib/deep"), 0o750))
	must(t, os.WriteFile(filepath.Join(root, "var/lib/deep/file"), []byte("kept"), 0o640))
	must(t, os.Chown(filepath.Join(root, "var/lib/deep/file"), 33, 34))
	must(t, os.Symlink("deep/file", filepath.Join(root, "var/lib/link")))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/var/lib", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup", "nodev", "size=1m"}},
			specs.Mount{Destination: "/not/there", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		expectOutput(t, l, s, o, "stat -c '%a %u:%g' /var/lib/deep/file; stat -c %a /var/lib/deep; cat /var/lib/link; echo; touch /var/lib/new && grep -c ' /var/lib tmpfs' /proc/mounts; ls -d /not/there",
			"640 33:34", "750", "kept", "1", "/not/there")
		if _, err := os.Stat(filepath.Join(root, "var/lib/new")); err == nil {
			t.Error("the container wrote into the image")
		}
	})
}

// TestOldKernel forces the ways that kernels from 5.10 on know.
func TestOldKernel(t *testing.T) {
	root := busyboxRoot(t)
	host := t.TempDir()
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Facts = probe.AssumeVersion(5, 10)
		s := plainSpec(root)
		s.Root.Readonly = true
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/tmp", Type: "bind", Source: host, Options: []string{"rbind", "ro"}})
		expectOutput(t, l, s, o, "touch /tmp/x 2>&1; touch /x 2>&1; touch /proc/sys/kernel/hostname 2>&1; cat /proc/keys; ls /proc/self/fd",
			"touch: /tmp/x: Read-only file system", "touch: /x: Read-only file system", "touch: /proc/sys/kernel/hostname: Read-only file system")
	})
}

func onTmpfs(t *testing.T, dir string) bool {
	t.Helper()
	var st unix.Statfs_t
	must(t, unix.Statfs(dir, &st))
	return st.Type == unix.TMPFS_MAGIC
}

// TestManyLayersOnAnOldKernel: before 6.5 the layers have to fit into one string.
func TestManyLayersOnAnOldKernel(t *testing.T) {
	root := busyboxRoot(t)
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	defer unix.Unmount(dir, unix.MNT_DETACH)
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		o.Facts = probe.Host().Without(probe.OverlayAppend)
		o.Overlay = &Overlay{Upper: filepath.Join(dir, t.Name(), "upper"), Work: filepath.Join(dir, t.Name(), "work")}
		for _, d := range []string{o.Overlay.Upper, o.Overlay.Work} {
			must(t, os.MkdirAll(d, 0o755))
		}
		for n := range 60 {
			layer := filepath.Join(dir, "a layer with a long name, number "+itoa(n))
			must(t, os.MkdirAll(filepath.Join(layer, "layers"), 0o755))
			must(t, os.WriteFile(filepath.Join(layer, "layers", itoa(n)), nil, 0o644))
			o.Overlay.Lower = append(o.Overlay.Lower, layer)
		}
		o.Overlay.Lower = append(o.Overlay.Lower, root)
		s := plainSpec("")
		s.Root = &specs.Root{}
		expectOutput(t, l, s, o, "ls /layers | wc -l; echo written >/layers/new; cat /layers/new", "60", "written")
		if entries, err := os.ReadDir(filepath.Join(o.Overlay.Upper, "layers")); err != nil || len(entries) != 1 {
			t.Errorf("upper has %v, %v", entries, err)
		}
	})
}
