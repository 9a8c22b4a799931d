package launch

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// TestMountsAreMadeInOrder: what mountinfo lists has the order of the spec.
func TestMountsAreMadeInOrder(t *testing.T) {
	root, host := busyboxRoot(t), t.TempDir()
	l, err := NewLauncher(false)
	must(t, err)
	defer l.Close()
	s := plainSpec(root)
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	s.Mounts = append(s.Mounts,
		specs.Mount{Destination: "/a", Type: "bind", Source: host, Options: []string{"rbind"}},
		specs.Mount{Destination: "/b", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/c", Type: "bind", Source: host, Options: []string{"bind", "shared"}},
		specs.Mount{Destination: "/d", Type: "tmpfs", Source: "tmpfs", Options: []string{"mode=700"}})
	if out := expectOutput(t, l, s, Options{Facts: probe.Host()}, `cut -d' ' -f5 /proc/self/mountinfo | grep '^/[abcd]$'`); out != "/a\n/b\n/c\n/d\n" {
		t.Errorf("the order is %q", out)
	}
}

// TestBindOfWhatAnEarlierMountMade: a source below the root is what it is by then, and links in it stay inside.
func TestBindOfWhatAnEarlierMountMade(t *testing.T) {
	root, host := busyboxRoot(t), t.TempDir()
	must(t, os.MkdirAll(filepath.Join(host, "deep"), 0o755))
	must(t, os.WriteFile(filepath.Join(host, "deep/file"), []byte("seen\n"), 0o644))
	must(t, os.Symlink("/etc", filepath.Join(root, "link")))
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	must(t, os.Chmod(filepath.Dir(filepath.Dir(root)), 0o755))
	must(t, os.Chmod(host, 0o700))
	for _, userns := range []bool{false, true} {
		launchers(t, func(t *testing.T, l *Launcher, o Options) {
			s := plainSpec(root)
			if userns {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
				s.Linux.UIDMappings = []specs.LinuxIDMapping{{HostID: 0, Size: 65536}}
				s.Linux.GIDMappings = s.Linux.UIDMappings
			}
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/one", Type: "bind", Source: host, Options: []string{"rbind"}},
				specs.Mount{Destination: "/two", Type: "bind", Source: root + "/one/deep", Options: []string{"rbind", "ro"}},
				specs.Mount{Destination: "/three", Type: "bind", Source: root + "/one/deep/file", Options: []string{"bind"}},
				specs.Mount{Destination: "/four", Type: "bind", Source: root + "/link", Options: []string{"bind"}},
				specs.Mount{Destination: "/five", Type: "bind", Source: root + "/two/../one", Options: []string{"rbind"}})
			expectOutput(t, l, s, o, "cat /two/file /three; touch /two/x 2>&1; cat /four/passwd | wc -l; cat /five/deep/file",
				"seen", "seen", "touch: /two/x: Read-only file system", "2", "seen")
		})
	}
}

// TestTheTargetOfALinkIsMadeInside: a file's bind makes the file that a link of the image names.
func TestTheTargetOfALinkIsMadeInside(t *testing.T) {
	root := busyboxRoot(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("bound\n"), 0o644))
	must(t, os.Symlink("/tmp/berth-test-made", filepath.Join(root, "link")))
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		s.Mounts = append(s.Mounts, specs.Mount{Destination: "/link", Type: "bind", Source: file, Options: []string{"bind"}})
		expectOutput(t, l, s, o, "cat /link /tmp/berth-test-made; test -L /link && echo link", "bound", "bound", "link")
	})
	if _, err := os.Lstat("/tmp/berth-test-made"); err == nil {
		t.Error("the link was followed on the host")
		os.Remove("/tmp/berth-test-made")
	}
}

// TestTmpfsModes: without a mode of its own a tmpfs has that of what it covers.
func TestTmpfsModes(t *testing.T) {
	root := busyboxRoot(t)
	for dir, mode := range map[string]os.FileMode{"private": 0o700, "all": 0o777 | os.ModeSticky} {
		must(t, os.Mkdir(filepath.Join(root, dir), 0o755))
		must(t, os.Chmod(filepath.Join(root, dir), mode))
	}
	launchers(t, func(t *testing.T, l *Launcher, o Options) {
		s := plainSpec(root)
		for dest, options := range map[string][]string{
			"/private": {"nosuid", "size=64k"}, "/all": {"ro", "sync"}, "/new/dir": nil, "/given": {"mode=711"}, "/copied": {"tmpcopyup"},
		} {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: dest, Type: "tmpfs", Source: "mine", Options: options})
		}
		expectOutput(t, l, s, o, "stat -c %a /private /all /new/dir /given /copied; grep -c '^mine /' /proc/mounts; grep -o '/all tmpfs ro,sync' /proc/mounts; grep -o '/private tmpfs rw,nosuid.*size=64k' /proc/mounts; touch /all/x 2>&1",
			"700", "1777", "1777", "711", "1777", "5", "/all tmpfs ro,sync", "/private tmpfs rw,nosuid,relatime,size=64k", "touch: /all/x: Read-only file system")
	})
}

// TestReadOnlyTmpfsIsFilledFirst: /dev gets its devices, and mounts get their places, before the flag.
func TestReadOnlyTmpfsIsFilledFirst(t *testing.T) {
	root, host := busyboxRoot(t), t.TempDir()
	for _, old := range []bool{false, true} {
		launchers(t, func(t *testing.T, l *Launcher, o Options) {
			if old {
				o.Facts = probe.AssumeVersion(5, 10)
			}
			s := plainSpec(root)
			s.Process.Cwd = "/tmp"
			for i := range s.Mounts {
				if s.Mounts[i].Destination == "/dev" {
					s.Mounts[i].Options = append(s.Mounts[i].Options, "ro")
				}
			}
			s.Mounts = append(s.Mounts,
				specs.Mount{Destination: "/run", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "mode=755"}},
				specs.Mount{Destination: "/run/data", Type: "bind", Source: host, Options: []string{"bind"}},
				specs.Mount{Destination: "/opt", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro"}},
				specs.Mount{Destination: "/opt/sub", Type: "tmpfs", Source: "tmpfs"})
			expectOutput(t, l, s, o, "pwd; echo x > /dev/null && touch /dev/shm/x /run/data/x /opt/sub/x && touch /dev/x /run/x /opt/x 2>&1",
				"/tmp", "touch: /dev/x: Read-only file system", "touch: /run/x: Read-only file system", "touch: /opt/x: Read-only file system")
		})
	}
}

// ownMounts gives the calling goroutine, and what is launched from it, a mount namespace of its own.
func ownMounts(t *testing.T) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	must(t, unix.Unshare(unix.CLONE_FS|unix.CLONE_NEWNS))
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
}

// TestWithoutPivot: the root is moved over the old one, whose proc and sysfs are out of reach.
func TestWithoutPivot(t *testing.T) {
	root := busyboxRoot(t)
	l, err := NewLauncher(false)
	must(t, err)
	defer l.Close()
	s := plainSpec(root)
	all := []string{"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	o := Options{Facts: probe.Host(), NoPivot: true, KernelViews: []string{"/sys", "/proc", "/not/there"}}
	expectOutput(t, l, s, o, "ls /; cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/proc$'; cut -d' ' -f5 /proc/self/mountinfo | grep -c '^/sys$'",
		"bin", "dev", "etc", "proc", "root", "sys", "tmp", "1", "1")
}

// TestSharedMountNamespace: a container in the launcher's mount namespace, or in one it joins, has its
// root and mounts all the same. They stay.
func TestSharedMountNamespace(t *testing.T) {
	root := busyboxRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownMounts(t)
		l, err := NewLauncher(false)
		must(t, err)
		defer l.Close()
		own, err := os.Readlink("/proc/thread-self/ns/mnt")
		must(t, err)
		for _, path := range []string{"", "/proc/thread-self/ns/mnt"} {
			s := plainSpec(root)
			dropNamespace(s, "mount")
			if path != "" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "mount", Path: path})
			}
			s.Root.Readonly = true
			expectOutput(t, l, s, Options{Facts: probe.Host()}, "readlink /proc/self/ns/mnt; echo /*; echo x > /dev/null; cat /proc/keys; touch /x 2>&1",
				own, "/bin /dev /etc /proc /root /sys /tmp", "touch: /x: Read-only file system")
			if _, err := os.Stat(filepath.Join(root, "proc/version")); err != nil {
				t.Errorf("the mounts are not where others see them: %v", err)
			}
			must(t, unix.Unmount(root, unix.MNT_DETACH))
			if list, err := os.ReadFile("/proc/thread-self/mountinfo"); err != nil || strings.Contains(string(list), root) {
				t.Errorf("more than one mount was left: %v\n%s", err, list)
			}
		}
	}()
	<-done
}

// TestRemountKeepsTheSourcesFlags: before 5.12 a bind's flags are set together.
func TestRemountKeepsTheSourcesFlags(t *testing.T) {
	root := busyboxRoot(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ownMounts(t)
		host := t.TempDir()
		must(t, unix.Mount("berth", host, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOATIME, ""))
		defer unix.Unmount(host, unix.MNT_DETACH)
		l, err := NewLauncher(false)
		must(t, err)
		defer l.Close()
		for _, c := range []struct {
			options []string
			want    string
		}{
			{[]string{"bind", "ro"}, "ro,nosuid,nodev,noatime"},
			{[]string{"bind", "suid", "noexec"}, "rw,nodev,noexec,noatime"},
			{[]string{"bind", "ro", "relatime"}, "ro,nosuid,nodev,relatime"},
			{[]string{"bind"}, "rw,nosuid,nodev,noatime"},
		} {
			for _, facts := range []probe.Features{probe.Host(), probe.AssumeVersion(5, 10)} {
				s := plainSpec(root)
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/data", Type: "bind", Source: host, Options: c.options})
				expectOutput(t, l, s, Options{Facts: facts}, "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6", c.want)
			}
		}
	}()
	<-done
}

// TestSourceOf says who clones a bind.
func TestSourceOf(t *testing.T) {
	var seen []bindSource
	for _, c := range []struct {
		source, options string
		change          func(*specs.Spec, *Options)
	}{
		{"/srv", "rbind", nil},
		{"/bundle/rootfs/x", "rbind", nil},
		{"/bundle/rootfs", "rbind", nil},
		{"/bundle/rootfs2/x", "rbind", nil},
		{"/srv", "rbind,rshared", nil},
		{"/srv", "rbind,rshared", func(s *specs.Spec, _ *Options) { s.Linux.RootfsPropagation = "rshared" }},
		{"/srv", "rbind", func(_ *specs.Spec, o *Options) { o.Covered = true }},
	} {
		s, o := plainSpec("/bundle/rootfs", "x"), Options{Facts: probe.AssumeVersion(6, 12), IsFile: func(string) bool { return false }}
		s.Mounts = []specs.Mount{{Destination: "/x", Type: "bind", Source: c.source, Options: strings.Split(c.options, ",")}}
		if c.change != nil {
			c.change(s, &o)
		}
		p, err := Compile(s, o)
		must(t, err)
		text := p.String()
		kind := byChild
		switch at := strings.Index(text, `"`+c.source+`", OPEN_TREE_CLONE`); {
		case strings.Contains(text, "$from:"):
			kind = inside
		case at >= 0 && at < strings.Index(text, "# clone"):
			kind = prepared
		}
		seen = append(seen, kind)
	}
	if want := []bindSource{byChild, inside, inside, byChild, byChild, prepared, prepared}; !slices.Equal(seen, want) {
		t.Errorf("%v, want %v", seen, want)
	}
}
