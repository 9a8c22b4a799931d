package oci_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func add(mounts ...specs.Mount) func(*specs.Spec) {
	return func(s *specs.Spec) { s.Mounts = append(s.Mounts, mounts...) }
}

// What a link of the image leads to is made inside the root, also as a directory.
func TestTargetsBehindDanglingLinks(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(both(shell("touch /there/x; ls -d /real/*; ls /real/dir; cat /real/hosts"), add(
		specs.Mount{Destination: "/link", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/there", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/hosts", Type: "bind", Source: "/proc/version", Options: []string{"bind"}})))
	for link, target := range map[string]string{"link": "../../real/link", "there": "/real/dir", "hosts": "/real/hosts"} {
		must(t, os.Symlink(target, bundle+"/rootfs/"+link))
	}
	version, err := os.ReadFile("/proc/version")
	must(t, err)
	if o := r.do("run", "--bundle", bundle, r.id()); o.out != "/real/dir\n/real/hosts\n/real/link\nx\n"+string(version) {
		t.Errorf("%+v", o)
	}
}

// A target may be named as the host sees it.
func TestTargetsThatNameTheRoot(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(nil)
	s := r.read(bundle)
	shell("grep -c ' /inside tmpfs ' /proc/mounts")(s)
	add(specs.Mount{Destination: bundle + "/rootfs/inside", Type: "tmpfs", Source: "tmpfs"})(s)
	r.write(bundle, s)
	if out := r.must("run", "--bundle", bundle, r.id()); out != "1\n" {
		t.Errorf("%q", out)
	}
}

// proc and sysfs go where they say or nowhere (CVE-2019-19921). The words are runc's.
func TestProcBehindALink(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(nil)
	must(t, os.Remove(bundle+"/rootfs/proc"))
	must(t, os.Symlink("/tmp", bundle+"/rootfs/proc"))
	r.fails("must be mounted on ordinary directory", "run", "--bundle", bundle, r.id())
}

// Without a mount namespace of its own a container leaves its mounts in ours, until it is deleted.
func TestHostMountNamespace(t *testing.T) {
	const inside = "BERTH_TEST_HOST_MOUNTS"
	if os.Getenv(inside) == "" {
		if os.Geteuid() != 0 {
			t.Skip("needs root: a mount namespace of its own")
		}
		if exec.Command("unshare", "-m", "--propagation", "private", "true").Run() != nil {
			t.Skip("needs unshare --propagation: package util-linux")
		}
		cmd := exec.Command("unshare", "-m", "--propagation", "private", os.Args[0], "-test.run", "^TestHostMountNamespace$")
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	r := newRuntime(t)
	bundle := r.bundle(both(shell("echo /*; echo x > /dev/null && sleep 1000"), func(s *specs.Spec) {
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
		for i, n := range s.Linux.Namespaces {
			if n.Type == specs.MountNamespace {
				s.Linux.Namespaces = append(s.Linux.Namespaces[:i], s.Linux.Namespaces[i+1:]...)
				break
			}
		}
	}))
	root := bundle + "/rootfs"
	must(t, unix.Mount(root, root, "", unix.MS_BIND, "")) // what is there already stays
	t.Cleanup(func() { _ = unix.Unmount(root, unix.MNT_DETACH) })
	mounts := func() int {
		text, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		return strings.Count(string(text), " "+root)
	}
	before := mounts()
	id := r.id()
	r.must("run", "--detach", "--bundle", bundle, id)
	if n := mounts(); n < before+5 {
		t.Errorf("%d mounts below the root", n)
	}
	if out := r.must("exec", id, "/bin/sh", "-c", "echo /*"); !strings.HasPrefix(out, "/bin /dev /etc /home /proc") {
		t.Errorf("exec sees %s", out)
	}
	r.must("delete", "--force", id)
	if n := mounts(); n != before {
		t.Errorf("%d mounts are left, want %d", n, before)
	}
	// A failure leaves nothing either.
	s := r.read(bundle)
	s.Process.Args = []string{"/not/there"}
	r.write(bundle, s)
	r.fails("no such file", "run", "--bundle", bundle, r.id())
	if n := mounts(); n != before {
		t.Errorf("%d mounts are left of a failure, want %d", n, before)
	}
}

// What Go's runtime and our caller did to us is not the container's to bear.
func TestLimitsAndCPUsAreNotInherited(t *testing.T) {
	r := newRuntime(t)
	if exec.Command("taskset", "-c", "0", "true").Run() != nil {
		t.Skip("needs taskset: package util-linux")
	}
	all, err := exec.Command("taskset", "ffffffffffffffff", "nproc").Output() // we, too, may be held to some
	must(t, err)
	id := r.id()
	script := "ulimit -S -n; nproc"
	bundle := r.bundle(shell(script + "; sleep 1000"))
	cmd := exec.Command("/bin/sh", "-c", fmt.Sprintf(
		"ulimit -S -n 321; taskset -c 0 %[1]s run --detach --bundle %[2]s %[3]s; taskset -c 0 %[1]s exec %[3]s /bin/sh -c '%[4]s'", r.bin+" --root "+r.root, bundle, id, script))
	file := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(file)
	must(t, err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	must(t, cmd.Run())
	want := "321\n" + string(all)
	eventually(t, "the container's output", func() bool {
		text, err := os.ReadFile(file)
		must(t, err)
		return string(text) == want+want
	})
}

// A process may enter on certain CPUs, and stay there.
func TestExecAffinity(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("sleep 1000")), id)
	description := filepath.Join(t.TempDir(), "process.json")
	for _, c := range []struct{ affinity, want string }{
		{`{"initial":"0"}`, "0"}, {`{"initial":"0","final":"0"}`, "0"}, {`{"final":"0-0"}`, "0"},
	} {
		writeText(t, description, `{"args":["/bin/grep","Cpus_allowed_list","/proc/self/status"],"env":[],"cwd":"/","user":{},"execCPUAffinity":`+c.affinity+`}`)
		if out := r.must("exec", "--process", description, id); strings.TrimSpace(strings.TrimPrefix(out, "Cpus_allowed_list:")) != c.want {
			t.Errorf("%s: %q, want %s", c.affinity, out, c.want)
		}
	}
	writeText(t, description, `{"args":["/bin/true"],"env":[],"cwd":"/","user":{},"execCPUAffinity":{"initial":"1-0"}}`)
	r.fails("is not a list such as 0-3,7", "exec", "--process", description, id)
}

// Ambient capabilities that the kernel would refuse are told of.
func TestAmbientCapabilitiesThatCannotBe(t *testing.T) {
	r := newRuntime(t)
	o := r.do("run", "--bundle", r.bundle(both(shell("grep CapAmb /proc/self/status"), func(s *specs.Spec) {
		s.Process.Capabilities.Inheritable = []string{"CAP_KILL"}
		s.Process.Capabilities.Ambient = []string{"CAP_KILL", "CAP_CHOWN"}
	})), r.id())
	if o.code != 0 || o.out != "CapAmb:\t0000000000000020\n" || !strings.Contains(o.err, "can't raise ambient capability CAP_CHOWN: operation not permitted") {
		t.Errorf("%+v", o)
	}
}

// A container that waits to be started ends when it is told to, though the first process of a pid namespace
// is deaf to what it has no handler for.
func TestACreatedContainerCanBeEnded(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("create", "--bundle", r.bundle(nil), id)
	r.must("kill", id, "USR1")
	r.must("kill", id, "0")
	if s := r.state(id); s.Status != "created" {
		t.Errorf("after SIGUSR1 it is %s", s.Status)
	}
	r.must("kill", id, "TERM")
	r.await(id, "stopped")
}

// Podman and Docker without root start us as root of a user namespace of theirs. There we can make neither
// device nodes nor device rules, and the container needs no user namespace of its own.
func TestInsideAUserNamespace(t *testing.T) {
	r := newRuntime(t)
	inside := []string{"-Urm", "--propagation", "private"}
	if exec.Command("unshare", append(inside, "true")...).Run() != nil {
		t.Skip("needs unshare --map-root-user: package util-linux")
	}
	id := r.id()
	bundle := r.bundle(both(shell("sleep 1000"), func(s *specs.Spec) {
		for i := range s.Mounts {
			if s.Mounts[i].Type == "devpts" {
				s.Mounts[i].Options = []string{"newinstance", "ptmxmode=0666"}
			}
		}
	}))
	tool := r.bin + " --root " + r.root
	script := fmt.Sprintf("%[1]s run --detach --bundle %[2]s %[3]s </dev/null >/dev/null && %[1]s exec %[3]s /bin/sh -c 'id -u; head -c 3 /dev/zero | wc -c; stat -c %%t:%%T /dev/full'; %[1]s delete --force %[3]s", tool, bundle, id)
	out, err := exec.Command("unshare", append(inside, "sh", "-c", script)...).CombinedOutput()
	if err != nil || string(out) != "0\n3\n1:7\n" {
		t.Errorf("%v: %s", err, out)
	}
}

// While a container waits to be started its process holds nothing but its streams, the fifo and the way to
// report a failure.
func TestACreatedContainerHoldsNoDescriptors(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("create", "--bundle", r.bundle(add(specs.Mount{Destination: "/new/file", Type: "bind", Source: "/proc/version", Options: []string{"bind"}})), id)
	dir := fmt.Sprintf("/proc/%d/fd/", r.state(id).PID)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		target, err := os.Readlink(dir + e.Name())
		must(t, err)
		if e.Name() > "2" && !strings.HasSuffix(target, "/exec.fifo") && !strings.HasPrefix(target, "socket:") {
			t.Errorf("descriptor %s is %s", e.Name(), target)
		}
	}
}

// The mode that a tmpfs takes over is one of its options, so that a remount keeps it.
func TestTmpfsTellsItsMode(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(both(shell("stat -c %a /a /b; grep -c ' /a tmpfs .*mode=710' /proc/mounts; grep -c ' /b tmpfs .*mode=' /proc/mounts"), add(
		specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"}, specs.Mount{Destination: "/b", Type: "tmpfs", Source: "tmpfs"})))
	must(t, os.Mkdir(bundle+"/rootfs/a", 0o710))
	must(t, os.Chmod(bundle+"/rootfs/a", 0o710))
	if o := r.do("run", "--bundle", bundle, r.id()); o.out != "710\n1777\n1\n0\n" {
		t.Errorf("%+v", o)
	}
}

// Who may override permissions by a capability may so at create already.
func TestExecutableByCapability(t *testing.T) {
	r := newRuntime(t)
	bundle := r.bundle(func(s *specs.Spec) {
		s.Process.Args, s.Process.User = []string{"/bin/busybox", "true"}, specs.User{UID: 1000, GID: 1000}
		caps := []string{"CAP_DAC_OVERRIDE"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps, Inheritable: caps, Ambient: caps}
	})
	must(t, os.Chmod(bundle+"/rootfs/bin/busybox", 0o744))
	s := r.read(bundle)
	with := s.Process.Capabilities
	s.Process.Capabilities = nil
	r.write(bundle, s)
	r.fails("permission denied", "create", "--bundle", bundle, r.id())
	s.Process.Capabilities = with
	r.write(bundle, s)
	id := r.id()
	r.must("create", "--bundle", bundle, id)
	r.must("start", id)
}
