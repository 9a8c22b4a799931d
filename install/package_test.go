package install

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// packages makes all packages of stand-in programs for version of channel, and gives the files by their endings.
func packages(t *testing.T, bin, version, channel string) map[string]string {
	t.Helper()
	nfpm, err := filepath.Abs("../.cache/bin/nfpm")
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("make", "-s", "-C", "..", ".cache/bin/nfpm").CombinedOutput(); err != nil {
		t.Skipf("needs nfpm, which its module could not be built for: %v\n%s", err, out)
	}
	dir := t.TempDir()
	cmd := exec.Command("package/build")
	cmd.Env = append(os.Environ(), "BIN="+bin, "OUT="+dir, "VERSION="+version, "CHANNEL="+channel, "NFPM="+nfpm, "SOURCE_DATE_EPOCH=1700000000")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	made := map[string]string{}
	for _, kind := range []string{"deb", "rpm", "tar.gz"} {
		found, _ := filepath.Glob(filepath.Join(dir, "*."+kind))
		if len(found) != 1 {
			t.Fatalf("%s: %q", kind, found)
		}
		made[kind] = found[0]
	}
	return made
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skip("needs " + name)
	}
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

func TestPackages(t *testing.T) {
	bin := builds(t)
	edge := packages(t, bin, "26.11.0-edge.7", "edge")
	stable := packages(t, bin, "26.11.0", "stable")
	for what, want := range map[string]string{
		filepath.Base(edge["deb"]): "berth_26.11.0~edge.7_amd64.deb", filepath.Base(edge["rpm"]): "berth-26.11.0-0.edge.7.x86_64.rpm",
		filepath.Base(edge["tar.gz"]): "berth-26.11.0-edge.7-linux-amd64.tar.gz", filepath.Base(stable["deb"]): "berth_26.11.0-stable_amd64.deb",
		filepath.Base(stable["rpm"]): "berth-26.11.0-1.stable.x86_64.rpm", filepath.Base(stable["tar.gz"]): "berth-26.11.0-stable-linux-amd64.tar.gz",
	} {
		if what != want {
			t.Errorf("%s, want %s", what, want)
		}
	}

	t.Run("deb", func(t *testing.T) {
		list := output(t, "dpkg-deb", "--contents", edge["deb"])
		for _, f := range installed {
			if f == "share/doc/berth/LICENSE" {
				f = "share/doc/berth/copyright" // Debian's name for it
			}
			if !strings.Contains(list, " ./usr/"+f+"\n") {
				t.Errorf("%s is not in the package", f)
			}
		}
		if unit := output(t, "sh", "-c", "dpkg-deb --fsys-tarfile "+edge["deb"]+" | tar -xO ./usr/lib/systemd/system/berth.service"); !strings.Contains(unit, "ExecStart=/usr/bin/berthd -H fd://") {
			t.Errorf("%s", unit)
		}
		// The next edge is an upgrade, the stable version of the same name too.
		for _, pair := range [][2]string{{"26.11.0~edge.7", "26.11.0~edge.8"}, {"26.11.0~edge.8", "26.11.0-stable"}, {"26.11.0-stable", "26.12.0~edge.1"}} {
			output(t, "dpkg", "--compare-versions", pair[0], "lt", pair[1])
		}
	})
	t.Run("rpm", func(t *testing.T) {
		list := output(t, "rpm", "-qpl", "--nosignature", edge["rpm"])
		for _, f := range installed {
			if f != "share/doc/berth/LICENSE" && !strings.Contains(list, "/usr/"+f+"\n") {
				t.Errorf("%s is not in the package", f)
			}
		}
		if scripts := output(t, "rpm", "-qp", "--scripts", "--nosignature", edge["rpm"]); !strings.Contains(scripts, "systemctl restart berth.service") || !strings.Contains(scripts, "preuninstall") {
			t.Errorf("%s", scripts)
		}
	})
	t.Run("tarball", func(t *testing.T) {
		dir := t.TempDir()
		output(t, "tar", "-C", dir, "--strip-components=1", "-xzf", edge["tar.gz"])
		root := t.TempDir()
		cmd := exec.Command(filepath.Join(dir, "install/install.sh"))
		cmd.Env = append(os.Environ(), "DESTDIR="+root, "HOME="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if got := len(below(t, root)); got != len(installed) {
			t.Errorf("%d files from the tarball, %d from a checkout", got, len(installed))
		}
	})
	t.Run("the same bytes again", func(t *testing.T) {
		again := packages(t, bin, "26.11.0-edge.7", "edge")
		for kind, first := range edge {
			a, _ := os.ReadFile(first)
			b, _ := os.ReadFile(again[kind])
			if !bytes.Equal(a, b) {
				t.Errorf("%s differs from one build to the next", kind)
			}
		}
	})
}

// TestScriptsOfPackages runs what dpkg and rpm run on a machine without systemd (a container's image, say): nothing of it may fail.
func TestScriptsOfPackages(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err == nil {
		t.Skip("needs a machine without systemd: the virtual machine's scenario package runs them for real")
	}
	for _, c := range [][]string{{"postinstall", "abort-upgrade"}, {"preremove", "upgrade", "2"}, {"preremove", "1"}, {"postremove", "upgrade"}, {"postinstall", "configure"}, {"postinstall", "1"}, {"preremove", "remove"}} {
		if out, err := exec.Command("package/"+c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%q: %v\n%s", c, err, out)
		}
	}
}

// TestRemovalKeepsWhatRuns runs the script of a removal against stand-ins: an engine that is stopped or does not answer is no reason to
// take containers for gone.
func TestRemovalKeepsWhatRuns(t *testing.T) {
	dir := t.TempDir()
	script, err := os.ReadFile("package/preremove")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"preremove": strings.ReplaceAll(string(script), "/run/systemd/system", dir),
		"systemctl": "echo systemctl \"$@\" >>$LOG\ncase $1 in is-active) [ -n \"$ENGINE\" ] ;; show) echo $KEEPER ;; esac\n",
		"timeout":   "shift 4\necho berth \"$@\" >>$LOG\n[ \"$ENGINE\" = answers ] || exit 124\n[ \"$*\" != 'container ls --quiet' ] || printf \"$IDS\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	parent := exec.Command("sh", "-c", "sleep 60 & echo; wait") // a keeper with one container
	begun, err := parent.StdoutPipe()
	if err == nil {
		err = parent.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("pkill", "-P", strconv.Itoa(parent.Process.Pid)).Run()
		_ = parent.Process.Kill()
		_ = parent.Wait()
	})
	_, _ = begun.Read(make([]byte, 1))
	keeper := strconv.Itoa(parent.Process.Pid)
	for _, c := range []struct {
		what, engine, ids, keeper string
		keeps, shutdown           bool
	}{
		{"the engine knows two", "answers", `a\nb\n`, "0", true, false},
		{"the engine knows none", "answers", "", keeper, false, true}, // children are execs that were just ended, for example
		{"the engine hangs over one", "hangs", "", keeper, true, false},
		{"the engine is stopped, one runs", "", "", keeper, true, false},
		{"nothing runs at all", "", "", "0", false, false},
	} {
		log := filepath.Join(dir, "log")
		_ = os.Remove(log)
		cmd := exec.Command("sh", filepath.Join(dir, "preremove"), "remove")
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "LOG="+log, "ENGINE="+c.engine, "IDS="+c.ids, "KEEPER="+c.keeper)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", c.what, err, out)
		}
		did, _ := os.ReadFile(log)
		if got := !strings.Contains(string(did), "berth.service berth-keeper.service"); got != c.keeps || strings.Contains(string(out), "go on running") != c.keeps {
			t.Errorf("%s: the keeper stays: %v\n%s%s", c.what, got, did, out)
		}
		if got := strings.Contains(string(did), "berth system shutdown\n"); got != c.shutdown {
			t.Errorf("%s: shut down: %v\n%s", c.what, got, did)
		}
	}
}
