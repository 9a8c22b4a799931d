package oci_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// CVE-2019-5736: a container whose program is /proc/self/exe, by itself or as an interpreter, got hold
// of the runtime's binary on the host and overwrote it.
func TestTheRuntimesBinaryIsOutOfReach(t *testing.T) {
	r := newRuntime(t)
	before, err := os.ReadFile(r.bin)
	if err != nil {
		t.Fatal(err)
	}
	// The attacker waits beside it and looks through /proc for the runtime in whatever runs.
	attack := `
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
	for p in /proc/[0-9]*; do
		exe=$(readlink $p/exe)
		case "$exe" in *berth-oci*) echo "found $exe"; (echo evil > $p/exe) 2>/dev/null ;; esac
	done
done
true`
	for name, run := range map[string]func(id string) outcome{
		"exec of /proc/self/exe": func(id string) outcome { return r.do("exec", id, "/proc/self/exe", "--version") },
		"exec of /proc/1/exe":    func(id string) outcome { return r.do("exec", id, "/script") },
	} {
		id := r.id()
		bundle := r.bundle(shell("sleep 1000"))
		writeText(t, bundle+"/rootfs/script", "#!/proc/self/exe\n")
		if err := os.Chmod(bundle+"/rootfs/script", 0o755); err != nil {
			t.Fatal(err)
		}
		r.must("run", "--detach", "--bundle", bundle, id)
		watcher := r.command("exec", id, "/bin/sh", "-c", attack)
		var seen bytes.Buffer
		watcher.Stdout = &seen
		if err := watcher.Start(); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if o := run(id); strings.Contains(o.out, "berth-oci version") {
				t.Errorf("%s: the runtime runs inside the container", name)
			}
		}
		_ = watcher.Wait()
		if strings.Contains(seen.String(), "found") {
			t.Errorf("%s: %s", name, seen.String())
		}
	}
	for _, args := range [][]string{{"/proc/self/exe", "--version"}, {"/script"}} {
		bundle := r.bundle(func(s *specs.Spec) { s.Process.Args = args })
		writeText(t, bundle+"/rootfs/script", "#!/proc/self/exe --version\n")
		if err := os.Chmod(bundle+"/rootfs/script", 0o755); err != nil {
			t.Fatal(err)
		}
		if o := r.do("run", "--bundle", bundle, r.id()); strings.Contains(o.out, "version") {
			t.Errorf("%v: the runtime runs inside the container: %s", args, o.out)
		}
	}
	after, err := os.ReadFile(r.bin)
	if err != nil || !bytes.Equal(before, after) {
		t.Fatal("the runtime's binary was changed")
	}
}

// CVE-2024-21626: a descriptor of the runtime that was open on the host's files, and a working
// directory that went through it.
func TestNoDescriptorLeaks(t *testing.T) {
	r := newRuntime(t)
	// Something of the host's that is open without close-on-exec, as the callers of runtimes have it.
	host, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	list := "for f in /proc/self/fd/*; do echo ${f##*/}; done"
	id := r.id()
	bundle := r.bundle(shell(list + "; sleep 1000"))
	for name, args := range map[string][]string{
		"run":  {"run", "--bundle", r.bundle(shell(list)), r.id()},
		"exec": {"exec", id, "/bin/sh", "-c", list},
	} {
		if name == "exec" {
			r.must("run", "--detach", "--bundle", bundle, id)
		}
		cmd := r.command(args...)
		cmd.ExtraFiles = []*os.File{host, host, host}
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		// 3 is the shell's own, reading the directory.
		for _, fd := range strings.Fields(string(out)) {
			if fd != "0" && fd != "1" && fd != "2" && fd != "3" {
				t.Errorf("%s: descriptor %s is open inside", name, fd)
			}
		}
	}
	for fd := 3; fd < 30; fd++ {
		cwd := "/proc/self/fd/" + string(rune('0'+fd/10)) + string(rune('0'+fd%10))
		if fd < 10 {
			cwd = "/proc/self/fd/" + string(rune('0'+fd))
		}
		o := r.do("run", "--bundle", r.bundle(both(shell("pwd; ls -d etc/shadow ../../../../etc/shadow"), func(s *specs.Spec) { s.Process.Cwd = cwd })), r.id())
		if o.code == 0 || strings.Contains(o.out, "shadow\n") {
			t.Errorf("cwd %s: exit %d, %s", cwd, o.code, o.out)
		}
		if o := r.do("exec", "--cwd", cwd, id, "pwd"); o.code == 0 {
			t.Errorf("exec --cwd %s: %s", cwd, o.out)
		}
	}
}

// An image's links must not decide where the host's files are mounted, or what becomes /proc.
func TestLinksInTheImageStayInside(t *testing.T) {
	r := newRuntime(t)
	outside := t.TempDir()
	for name, c := range map[string]struct {
		prepare func(rootfs string)
		change  func(*specs.Spec)
		script  string
		want    string // in the output; "" means that a failure is right, too
	}{
		"absolute link as target": {
			func(root string) { must(t, os.Symlink(outside, root+"/target")) },
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/target", Type: "tmpfs", Source: "tmpfs"})
			},
			"touch /target/x; ls -d " + outside + "/x", outside + "/x",
		},
		"dot dot as target": {
			func(root string) { must(t, os.Symlink("../../../../../../../"+outside, root+"/target")) },
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/target/deep/er", Type: "tmpfs", Source: "tmpfs"})
			},
			"ls -d " + outside + "/deep/er", outside + "/deep/er",
		},
		"/proc is a link": {
			func(root string) { must(t, os.Remove(root+"/proc")); must(t, os.Symlink("/tmp", root+"/proc")) },
			nil, "cat /proc/self/attr/current /proc/sys/kernel/hostname", "",
		},
		"mount through a link into /proc": {
			func(root string) { must(t, os.Symlink("/proc/self", root+"/inner")) },
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/inner/attr", Type: "tmpfs", Source: "tmpfs"})
			},
			"grep -c '/attr ' /proc/self/mountinfo", "0",
		},
		"mount through a link onto a sysctl": {
			func(root string) { must(t, os.Symlink("/proc/sys/kernel", root+"/k")) },
			func(s *specs.Spec) {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: "/k/core_pattern", Type: "bind", Source: outside + "/file", Options: []string{"bind"}})
			},
			"grep -c core_pattern /proc/self/mountinfo", "0",
		},
		// CVE-2025-31133: a masked path was hidden by the container's own /dev/null, which may be a link.
		"/dev/null is a link": {
			func(root string) {
				must(t, os.MkdirAll(root+"/dev", 0o755))
				must(t, os.Symlink("/proc/sys/kernel/core_pattern", root+"/dev/null"))
			},
			func(s *specs.Spec) {
				for i := range s.Mounts {
					if s.Mounts[i].Destination == "/dev" {
						s.Mounts = append(s.Mounts[:i], s.Mounts[i+1:]...)
						break
					}
				}
				s.Mounts = append(s.Mounts[:0:0], s.Mounts[0])
			},
			"cat /proc/keys | wc -c; echo x > /proc/keys; cat /proc/sys/kernel/core_pattern", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, os.WriteFile(outside+"/file", nil, 0o644))
			bundle := r.bundle(both(shell(c.script), orNothing(c.change)))
			c.prepare(bundle + "/rootfs")
			before, _ := os.ReadFile("/proc/sys/kernel/core_pattern")
			o := r.do("run", "--bundle", bundle, r.id())
			entries, _ := os.ReadDir(outside)
			if len(entries) != 1 {
				t.Errorf("the host's directory has %v", entries)
			}
			if c.want != "" && o.code == 0 && !strings.Contains(o.out, c.want) {
				t.Errorf("exit %d, %q, %q", o.code, o.out, o.err)
			}
			if after, _ := os.ReadFile("/proc/sys/kernel/core_pattern"); !bytes.Equal(before, after) {
				t.Errorf("core_pattern was changed to %q", after)
			}
			if c.want == "" && o.code == 0 && strings.Contains(o.out, strings.TrimSpace(hostname(t))) {
				t.Errorf("the host is seen: %q", o.out)
			}
			t.Logf("exit %d, %s%s", o.code, o.out, o.err)
		})
	}
}

func orNothing(change func(*specs.Spec)) func(*specs.Spec) {
	if change == nil {
		return func(*specs.Spec) {}
	}
	return change
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func hostname(t *testing.T) string {
	t.Helper()
	name, err := os.Hostname()
	must(t, err)
	return name
}

// The state directory's fifo and files are the runtime's; a container has no way to them.
func TestTheStateDirectoryIsPrivate(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("create", "--bundle", r.bundle(nil), id)
	for _, f := range []string{"state.json", "config.json"} {
		st, err := os.Stat(filepath.Join(r.root, id, f))
		if err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f, st.Mode(), err)
		}
	}
	if _, err := exec.LookPath("setpriv"); err != nil {
		t.Skip("needs setpriv: package util-linux")
	}
	out, err := exec.Command("setpriv", "--reuid", "65534", "--clear-groups", "cat", filepath.Join(r.root, id, "config.json")).CombinedOutput()
	if err == nil {
		t.Errorf("another user reads the configuration: %s", out)
	}
}
