package exec

import (
	"context"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/solver/pb"
	"golang.org/x/sys/unix"

	"berth/build/snapshot"
	"berth/build/solver"
	"berth/kernel/idmap"
	"berth/kernel/overlay"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// remapped gives all steps one mapping, and counts who has not given it back.
type remapped struct {
	pair idmap.Pair
	held int
}

func (m *remapped) Take(string) (*idmap.Pair, func(), error) {
	m.held++
	p := m.pair
	return &p, func() { m.held-- }, nil
}

// inUserNS gives a room whose steps live in user namespaces of their own.
func inUserNS(t *testing.T, change ...func(*Config)) *room {
	t.Helper()
	if why := overlay.CanMap(probe.Host()); why != "" {
		t.Skip("needs id-mapped layers: " + why)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(t.TempDir(), &st); err == nil && st.Type == unix.TMPFS_MAGIC && !probe.Host().Has(probe.OverlayAppend) {
		t.Skip("needs id-mapped tmpfs, where temporary files are (Linux 6.3)")
	}
	ids := idmap.Map{{Inside: 0, Outside: 720000, Size: 65536}}
	m := &remapped{pair: idmap.Pair{Users: ids, Groups: ids}}
	r := newRoom(t, append([]func(*Config){func(c *Config) { c.UserNS = m }}, change...)...)
	t.Cleanup(func() {
		if m.held != 0 {
			t.Errorf("%d mappings are still held", m.held)
		}
	})
	return r
}

// mappedWays runs a test on this kernel and as on one that takes layers by paths (5.19 to 6.14).
func mappedWays(t *testing.T, f func(t *testing.T, r *room)) {
	t.Run("as it is", func(t *testing.T) { f(t, inUserNS(t)) })
	t.Run("older", func(t *testing.T) {
		f(t, inUserNS(t, func(c *Config) { c.Facts = probe.Host().Without(probe.MoveDetached, probe.OverlayFD) }))
	})
}

// A step's ids are others on the host, and it owns what it sees: its files, those that were there, its working directory, /dev and the files of
// the network.
func TestUserNamespace(t *testing.T) {
	mappedWays(t, func(t *testing.T, r *room) {
		op := shell(`cat /proc/self/uid_map; id -u; stat -c %u:%g /bin /etc/hosts /etc/resolv.conf /dev /dev/null /sys /proc/self/status .
			echo x >/dev/null; mount -t tmpfs t /tmp 2>&1 | grep -c denied; ls /sys/class/net`)
		op.Meta.Cwd = "/made/here"
		o := r.run(op).ok(t)
		want := []string{"0 720000 65536", "0", "0:0", "0:0", "0:0", "0:0", "0:0", "65534:65534", "0:0", "0:0", "1", "lo"}
		lines := strings.Split(strings.TrimSpace(o.out), "\n")
		for i := range lines {
			lines[i] = strings.Join(strings.Fields(lines[i]), " ")
		}
		// Who mounts a sysfs owns it since Linux 6.something or not: either will do.
		for _, sys := range []string{"65534:65534", "0:0"} {
			want[7] = sys
			if strings.Join(lines, "|") == strings.Join(want, "|") {
				return
			}
		}
		t.Errorf("%q, want %q\n%s", lines, want, o.err)
	})
}

// What a step leaves has the ids that it has inside, whoever made it and however, and its layer is the one that a step in the engine's user
// namespace makes.
func TestUserNamespaceLayer(t *testing.T) {
	const script = `cd /srv && touch -d @1 root && mkdir dir && ln -s dir link && chown 1000:1001 dir && chown -h 5:6 link && cp busy suid && chown 7:8 suid && chmod 4755 suid
		rm /gone /old/deep && rmdir /old && mkdir /old && echo changed >>/owned && mv /held/a /held/b &&
		touch -d @1 /srv/busy /srv/suid /srv/root /srv/dir /owned /held/b && touch -h -d @1 link && touch -d @1 /old`
	layerOf := func(t *testing.T, r *room) (*snapshot.Snapshot, []string) {
		base := r.make(r.base, func(root string) error {
			for _, d := range []string{"srv", "old", "held", "dev", "proc", "sys"} {
				if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
					return err
				}
			}
			for _, f := range []string{"gone", "old/deep", "owned", "held/a", "srv/busy"} {
				if err := os.WriteFile(filepath.Join(root, f), []byte("x"), 0o644); err != nil {
					return err
				}
			}
			if err := os.Chown(filepath.Join(root, "held"), 1000, 1000); err != nil {
				return err
			}
			if err := os.Chown(filepath.Join(root, "owned"), 1000, 1001); err != nil {
				return err
			}
			for _, d := range []string{"srv", "old", "held"} { // the times of directories that a step only changes something in are the base's
				if err := os.Chtimes(filepath.Join(root, d), time.Unix(7, 0), time.Unix(7, 0)); err != nil {
					return err
				}
			}
			return nil
		})
		t.Cleanup(base.Release)
		out := r.run(shell(script), base).ok(t).outputs[0]
		var seen []string
		must(t, out.View(context.Background(), func(root *tree.Dir) error {
			for _, name := range []string{"srv/root", "srv/dir", "srv/link", "srv/suid", "old", "owned", "held/b"} {
				var st unix.Stat_t
				if err := unix.Lstat(root.Path()+"/"+name, &st); err != nil {
					return err
				}
				seen = append(seen, strings.Join([]string{name, os.FileMode(st.Mode & 0o7777).String(), fmt.Sprint(st.Uid), fmt.Sprint(st.Gid)}, " "))
			}
			return nil
		}))
		return out, seen
	}
	plain := newRoom(t)
	want, wantSeen := layerOf(t, plain)
	mappedWays(t, func(t *testing.T, r *room) {
		got, seen := layerOf(t, r)
		if a, b := strings.Join(seen, "\n"), strings.Join(wantSeen, "\n"); a != b {
			t.Errorf("owners:\n%s\nwant\n%s", a, b)
		}
		if a, b := got.Chain()[len(got.Chain())-1], want.Chain()[len(want.Chain())-1]; a != b {
			t.Errorf("the layer is %s, outside of a user namespace %s", a, b)
		}
	})
}

// What is mounted in a step has the owners that it has elsewhere, and what the step makes there has its own.
func TestUserNamespaceMounts(t *testing.T) {
	m, g := client(t)
	for _, facts := range []probe.Features{probe.Host(), probe.Host().Without(probe.MoveDetached, probe.OverlayFD)} {
		r := inUserNS(t, func(c *Config) { c.Sessions, c.Facts = m, facts })
		owned := func(root, name string) error {
			if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
				return err
			}
			return os.Chown(filepath.Join(root, name), 1000, 1001)
		}
		one := r.make(nil, func(root string) error { return owned(root, "a") })
		defer one.Release()
		two := r.make(one, func(root string) error { return owned(root, "b") })
		defer two.Release()
		filled := cacheMount("filled", 0)
		filled.Dest, filled.Input = "/filled", 1
		op := shell(`stat -c %n:%u:%g /one/a /one-file /two/a /two/b /new /filled/a /run/secrets/key /agent /tmpfs; id -u; touch /cache/made /filled/made /new/made /tmpfs/made && cat /run/secrets/key >/dev/null && test -S /agent`,
			&pb.Mount{Input: 1, Dest: "/one", Output: int64(pb.SkipOutput), Readonly: true},
			&pb.Mount{Input: 1, Dest: "/one-file", Selector: "a", Output: int64(pb.SkipOutput), Readonly: true},
			&pb.Mount{Input: 2, Dest: "/two", Output: int64(pb.SkipOutput), Readonly: true},
			&pb.Mount{Input: 2, Dest: "/new", Output: 1}, cacheMount("cache", 0), filled,
			&pb.Mount{Input: int64(pb.Empty), Dest: "/tmpfs", Output: int64(pb.SkipOutput), MountType: pb.MountType_TMPFS},
			secretMount("key", &pb.SecretOpt{Mode: 0o400, Uid: 7, Gid: 8}),
			&pb.Mount{Input: int64(pb.Empty), Dest: "/agent", Output: int64(pb.SkipOutput), MountType: pb.MountType_SSH, SSHOpt: &pb.SSHOpt{Mode: 0o600, Uid: 9, Gid: 10}},
		)
		o := r.runWith(context.Background(), op, &solver.Run{Sessions: g, Manager: m}, r.base, one, two).ok(t)
		const want = "/one/a:1000:1001\n/one-file:1000:1001\n/two/a:1000:1001\n/two/b:1000:1001\n/new:0:0\n/filled/a:1000:1001\n/run/secrets/key:7:8\n/agent:9:10\n/tmpfs:0:0\n0\n"
		if o.out != want {
			t.Errorf("%s, want %s", o.out, want)
		}
		// On the disk all is as it was seen.
		for _, name := range []string{"cache/made", "filled/made"} {
			id, file, _ := strings.Cut(name, "/")
			for _, d := range r.caches.list() {
				if !strings.HasPrefix(d.Key, id) {
					continue
				}
				var st unix.Stat_t
				must(t, unix.Stat(filepath.Join(r.cfg.Root, d.id, "fs", file), &st))
				if st.Uid != 0 || st.Gid != 0 {
					t.Errorf("%s belongs to %d:%d", name, st.Uid, st.Gid)
				}
			}
		}
		// What belongs to nobody in there cannot be given to a step.
		o = r.runWith(context.Background(), shell("true", secretMount("key", &pb.SecretOpt{Uid: 70000})), &solver.Run{Sessions: g, Manager: m})
		if o.failure == nil || !strings.Contains(o.failure.Error(), "user 70000 has no id") {
			t.Errorf("%v", o.failure)
		}
	}
}

// Other users, set-user-ID programs and capabilities of files work as they do elsewhere; the host's network can be shared, which the step does not rule.
func TestUserNamespaceRights(t *testing.T) {
	r := inUserNS(t)
	op := shell("id -u; id -g; touch /tmp/mine && stat -c %u:%g /tmp/mine /made; pwd; echo x >/etc/x; su 2>&1 | head -1")
	base := r.make(r.base, func(root string) error { return os.Chmod(filepath.Join(root, "tmp"), 0o1777) })
	defer base.Release()
	op.Meta.User, op.Meta.Cwd = "web", "/made"
	o := r.run(op, base)
	if !strings.HasPrefix(o.out, "1000\n1001\n1000:1001\n1000:1001\n/made\n") || !strings.Contains(o.err, "ermission denied") {
		t.Errorf("%q, %q, %v", o.out, o.err, o.failure)
	}
	// Capabilities that a step gives to a file are the file's for others, too.
	text := ownProgram(t)
	helper := r.make(r.base, func(root string) error { return os.WriteFile(filepath.Join(root, "helper"), text, 0o755) })
	defer helper.Release()
	// A set-user-ID program makes its caller a user of the step's, in the next step as in the one that made it.
	suid := shell("/helper -test.run=TestTellUser -test.v | grep user: && stat -c %u:%g:%a /helper; echo x >/dev/null")
	suid.Meta.User = "web"
	suid.Meta.Env = append(suid.Meta.Env, "BERTH_TEST_FILE=/helper")
	made := r.run(shell("chown 33:34 /helper && chmod 6755 /helper"), helper).ok(t).outputs[0]
	if o := r.run(suid, made).ok(t); !strings.Contains(o.out, "user: 33, 34\n33:34:6755\n") {
		t.Errorf("%q", o.out)
	}
	op = shell("exec /helper -test.run=TestGiveCapability")
	op.Meta.Env = append(op.Meta.Env, "BERTH_TEST_FILE=/bin/busybox")
	capable := r.run(op, helper).ok(t).outputs[0]
	must(t, capable.View(context.Background(), func(root *tree.Dir) error {
		v, _, err := root.Xattr("bin/busybox", "security.capability")
		if string(v) != string(netBind) {
			t.Errorf("the file has %x, want %x", v, netBind)
		}
		return err
	}))
	op = shell("exec /helper -test.v -test.run=TestHasCapability")
	op.Meta.Env = append(op.Meta.Env, "BERTH_TEST_FILE=/bin/busybox")
	r.run(op, capable).ok(t)

	op = shell("readlink /proc/self/ns/net; ls -d /sys/class/net; ip link add dummy0 type dummy 2>&1 | grep -c -i permitted; echo x >/sys/kernel/mm/ksm/run")
	op.Network = pb.NetMode_HOST
	own, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if o := r.run(op); !strings.HasPrefix(o.out, own+"\n/sys/class/net\n1\n") || o.failure == nil {
		t.Errorf("%q, %q, %v", o.out, o.err, o.failure)
	}
	// Without confinement there is more, but only of what is the step's own, and of devices what is everybody's.
	op = shell("grep CapEff /proc/self/status; mount -t tmpfs t /tmp && echo mounted; ls /dev | grep -c -e loop -e kmsg; mknod /x b 7 0 2>&1 | grep -c permitted")
	op.Security = pb.SecurityMode_INSECURE
	if o := r.run(op); !strings.Contains(o.out, "mounted\n0\n1\n") || strings.Contains(o.out, "00000000a80425fb") {
		t.Errorf("%q, %q, %v", o.out, o.err, o.failure)
	}
}

// ownProgram is the program of this test, which steps can run as well.
func ownProgram(t *testing.T) []byte {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	f, err := elf.Open(self)
	must(t, err)
	defer f.Close()
	if f.Section(".interp") != nil {
		t.Skip("needs a static test program: CGO_ENABLED=0")
	}
	text, err := os.ReadFile(self)
	must(t, err)
	return text
}

// netBind is CAP_NET_BIND_SERVICE of a file, effective and permitted, as the disk has it (capabilities(7), struct vfs_cap_data).
var netBind = []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

// TestGiveCapability is a program for steps: it gives a file a capability.
func TestGiveCapability(t *testing.T) {
	if file := os.Getenv("BERTH_TEST_FILE"); file == "" {
		t.Skip("needs to be run by a step")
	} else if err := unix.Setxattr(file, "security.capability", netBind, 0); err != nil {
		t.Fatal(err)
	}
}

// TestTellUser is a program for steps: it says who it runs as.
func TestTellUser(t *testing.T) {
	if os.Getenv("BERTH_TEST_FILE") == "" {
		t.Skip("needs to be run by a step")
	}
	fmt.Printf("user: %d, %d\n", os.Geteuid(), os.Getegid())
}

// TestHasCapability is a program for steps: it looks at a file's capability.
func TestHasCapability(t *testing.T) {
	file := os.Getenv("BERTH_TEST_FILE")
	if file == "" {
		t.Skip("needs to be run by a step")
	}
	buf := make([]byte, 100)
	n, err := unix.Getxattr(file, "security.capability", buf)
	if err != nil || string(buf[:n]) != string(netBind) {
		t.Errorf("%x, %v", buf[:max(n, 0)], err)
	}
}

// A container of a frontend takes further processes, a terminal too, and shows its files with the owners that they have inside.
func TestUserNamespaceContainer(t *testing.T) {
	r := inUserNS(t)
	c := r.container()
	var out lockedBuffer
	_, err := c.Start(context.Background(), Process{Args: []string{"sleep", "1000"}, Env: []string{"PATH=/bin"}})
	must(t, err)
	for _, tty := range []bool{false, true} {
		p, err := c.Start(context.Background(), Process{Args: []string{"sh", "-c", "touch /file && chown 1000:1000 /file; cat /proc/self/uid_map"}, Env: []string{"PATH=/bin"}, Tty: tty, Stdout: &out})
		must(t, err)
		must(t, p.Wait())
	}
	if strings.Count(out.String(), "720000") != 2 {
		t.Errorf("%q", out.String())
	}
	must(t, c.View(context.Background(), 0, func(root *tree.Dir) error {
		st, err := root.Stat("file")
		if uid, gid := c.Owner(st.UID, st.GID); uid != 1000 || gid != 1000 || st.UID != 721000 {
			t.Errorf("owner %d:%d, of %d on the host", uid, gid, st.UID)
		}
		return err
	}))
}
