package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/probe"
)

// A mapped container sees its image's own owners, whatever its mapping, and leaves nothing with the host's ids behind; also on
// kernels that take layers by path only, and whether its user namespace is its own or that of its network.
func TestMappedRoot(t *testing.T) {
	if why := overlay.CanMap(probe.Host()); why != "" {
		t.Skip("needs id-mapped overlay layers: " + why)
	}
	root := busyboxRoot(t)
	must(t, os.WriteFile(filepath.Join(root, "etc/seven"), []byte("7"), 0o600))
	must(t, os.Chown(filepath.Join(root, "etc/seven"), 7, 8))
	must(t, os.Chmod(filepath.Join(root, "bin/busybox"), 0o4755))
	ids := idmap.Map{{Inside: 0, Outside: 500000, Size: 65536}}
	for name, facts := range map[string]probe.Features{
		"by descriptor": probe.Host(), "in place": probe.Host().Without(probe.OverlayFD), "classic": probe.Host().Without(probe.OverlayAppend),
	} {
		for _, owner := range []bool{false, true} {
			t.Run(name+map[bool]string{false: "", true: ", with its network"}[owner], func(t *testing.T) {
				box := t.TempDir()
				l, err := NewLauncher(true)
				must(t, err)
				defer l.Close()
				v := &Overlay{Lower: []string{root}, Upper: filepath.Join(box, "fs"), Work: filepath.Join(box, "work"), Mapped: true}
				must(t, os.Mkdir(v.Upper, 0o755))
				must(t, os.Mkdir(v.Work, 0o755))
				s, o := plainSpec(""), Options{Covered: true, Facts: facts, Overlay: v, OwnerNS: owner}
				s.Root = &specs.Root{}
				user := specs.LinuxNamespace{Type: "user"}
				if owner {
					ns, err := NetNamespace(idmap.Pair{Users: ids, Groups: ids}, "")
					must(t, err)
					defer unix.Close(ns)
					user.Path = "/proc/" + itoa(os.Getpid()) + "/fd/" + itoa(ns)
					dropNamespace(s, "network")
					s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "network", Path: user.Path})
				}
				s.Linux.Namespaces = append(s.Linux.Namespaces, user)
				s.Linux.UIDMappings, s.Linux.GIDMappings = ids.Spec(), ids.Spec()
				script := `id -u; stat -c %u:%g / /etc /etc/seven /dev/null /dev/tty; cat /etc/seven; echo more >>/etc/seven; touch /made; mkdir /tmp/dir
					rm -r /root && mkdir /root && echo x >/dev/null && echo written; cat /proc/self/uid_map; ls /sys/class/net; readlink /proc/self/ns/user >/dev/null`
				expectOutput(t, l, s, o, script, "0\n0:0\n0:0\n7:8\n0:0\n0:0\n7written\n         0     500000      65536\nlo")
				for path, want := range map[string]uint32{"fs": 0, "fs/made": 0, "fs/etc/seven": 7, "fs/root": 0, "fs/tmp/dir": 0} {
					var st unix.Stat_t
					must(t, unix.Lstat(filepath.Join(box, path), &st))
					if st.Uid != want {
						t.Errorf("%s is stored as %d's, want %d", path, st.Uid, want)
					}
				}
				var mark [1]byte
				if _, err := unix.Lgetxattr(filepath.Join(box, "fs/root"), "trusted.overlay.opaque", mark[:]); err != nil || mark[0] != 'y' {
					t.Errorf("a directory made anew is not opaque: %v", err)
				}
				s.Process.User = specs.User{UID: 1000, GID: 1000}
				expectOutput(t, l, s, o, "echo said >/dev/stdout; id -u", "said\n1000")
			})
		}
	}
}

// A user namespace made for nobody has its maps, and nothing is left of who made it.
func TestEmptyNamespace(t *testing.T) {
	if os.Getuid() != 0 || !probe.Host().Has(probe.UserNamespace) {
		t.Skip("needs root and user namespaces: " + probe.Host().Why(probe.UserNamespace))
	}
	before := countFDs(t)
	ids := idmap.Map{{Inside: 0, Outside: 500000, Size: 10}}
	for range 20 {
		fd, err := NetNamespace(idmap.Pair{Users: ids, Groups: ids}, "")
		must(t, err)
		owner, err := unix.IoctlRetInt(fd, unix.NS_GET_USERNS)
		must(t, err)
		again, err := NetNamespace(idmap.Pair{}, "/proc/self/fd/"+itoa(owner))
		must(t, err)
		same, err := unix.IoctlRetInt(again, unix.NS_GET_USERNS)
		must(t, err)
		var x, y unix.Stat_t
		must(t, errors.Join(unix.Fstat(owner, &x), unix.Fstat(same, &y)))
		if x.Ino != y.Ino {
			t.Error("a network namespace belongs to another user namespace than it was made in")
		}
		for _, fd := range []int{fd, owner, again, same} {
			unix.Close(fd)
		}
	}
	if now := countFDs(t); now != before {
		t.Errorf("%d descriptors are open, before it were %d", now, before)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		t.Errorf("children are left behind: %v", err)
	}
	if _, err := NetNamespace(idmap.Pair{}, "/proc/self/ns/user"); !errors.Is(err, unix.EINVAL) { // that we are in already
		t.Errorf("in our own: %v", err)
	}
	if _, err := NetNamespace(idmap.Pair{}, ""); err == nil || !strings.Contains(err.Error(), "at least one range") {
		t.Errorf("no maps: %v", err)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(all)
}

// Nothing of what a mapped container was born among is left for it, not even with CAP_SYS_ADMIN in its user namespace; and
// the kernel gives a further user namespace in it no proc without masks, since none is to be seen.
func TestMappedSeesItsOwnMountsOnly(t *testing.T) {
	if why := overlay.CanMap(probe.Host()); why != "" {
		t.Skip("needs id-mapped overlay layers: " + why)
	}
	root := busyboxRoot(t)
	for _, name := range []string{"nsenter", "umount", "unshare", "chroot"} {
		_ = os.Symlink("busybox", filepath.Join(root, "bin", name))
	}
	mark := filepath.Join(t.TempDir(), "host-only")
	must(t, os.WriteFile(mark, nil, 0o644))
	ids := idmap.Map{{Inside: 0, Outside: 500000, Size: 65536}}
	for _, covered := range []bool{true, false} {
		t.Run(map[bool]string{true: "views", false: "host"}[covered], func(t *testing.T) {
			l, err := NewLauncher(covered)
			must(t, err)
			defer l.Close()
			box := t.TempDir()
			v := &Overlay{Lower: []string{root}, Upper: filepath.Join(box, "fs"), Work: filepath.Join(box, "work"), Mapped: true}
			must(t, errors.Join(os.Mkdir(v.Upper, 0o755), os.Mkdir(v.Work, 0o755)))
			s := plainSpec("")
			s.Root = &specs.Root{}
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: "user"})
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids.Spec(), ids.Spec()
			caps := append([]string{"CAP_SYS_ADMIN", "CAP_SYS_PTRACE"}, dockerCaps...)
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps}
			script := `cut -d ' ' -f 5 /proc/self/mountinfo | grep -vE '^/($|dev|proc|sys)'; grep -c ' / ' /proc/mounts
				for p in ` + strings.Repeat("../", 12) + mark[1:] + ` /proc/1/root` + mark + ` /proc/self/cwd/..` + mark + `; do test -e $p && echo ESCAPED $p; done
				unshare -U -r -m -p -f true && echo may unshare
				unshare -U -r -m -p -f mount -t proc proc /tmp 2>/dev/null && echo ESCAPED by a proc without masks
				nsenter -t 1 -m test -e ` + mark + ` && echo ESCAPED by nsenter
				umount -l / 2>/dev/null; nsenter -t 1 -m test -e ` + mark + ` 2>/dev/null && echo ESCAPED by umount
				nsenter -t 1 -m test -d /proc/1/ns 2>/dev/null && nsenter -t 1 -m grep -q berth /proc/1/mounts && echo ESCAPED to where it was born
				echo done`
			if out := expectOutput(t, l, s, Options{Covered: covered, Facts: probe.Host(), Overlay: v}, script, "1\nmay unshare\ndone"); strings.Contains(out, "ESCAPED") || strings.HasPrefix(out, "/") {
				t.Error(out)
			}
		})
	}
}
