package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// What a plain installation consists of, below PREFIX.
var installed = []string{
	"bin/berth", "bin/berth-compose", "bin/berth-init", "bin/berth-keeper", "bin/berth-oci", "bin/berthd",
	"lib/systemd/system/berth-containers.service", "lib/systemd/system/berth-keeper.service", "lib/systemd/system/berth.service", "lib/systemd/system/berth.socket",
	"lib/systemd/user/berth.service",
	"share/bash-completion/completions/berth",
	"share/doc/berth/CHANGELOG.md", "share/doc/berth/LICENSE", "share/doc/berth/README.md",
	"share/fish/vendor_completions.d/berth.fish",
	"share/zsh/site-functions/_berth",
}

// berth is the program as built once for all tests of this package.
var berth = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "berth-install-test-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "berth"), "berth/cmd/berth")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	return os.ReadFile(filepath.Join(dir, "berth"))
})

// builds makes a directory of programs as make build does: the real berth, since completion comes from
// it, and stand-ins for the rest.
func builds(t *testing.T) string {
	t.Helper()
	program, err := berth()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "berth"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"berthd", "berth-compose", "berth-init", "berth-keeper", "berth-oci"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func script(t *testing.T, name string, env ...string) string {
	t.Helper()
	cmd := exec.Command("./" + name)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// below lists the files and links under root.
func below(t *testing.T, root string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(root, p)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func TestInstallAndUninstall(t *testing.T) {
	bin, dest, config := builds(t), t.TempDir(), t.TempDir()
	env := []string{"BIN=" + bin, "DESTDIR=" + dest, "PREFIX=/opt/berth", "DOCKER_CONFIG=" + config}
	script(t, "install.sh", env...)
	got := below(t, filepath.Join(dest, "opt/berth"))
	if !slices.Equal(got, installed) {
		t.Errorf("installed %q,\nwant %q", got, installed)
	}
	for unit, want := range map[string]string{
		"berth.service":        "ExecStart=/opt/berth/bin/berthd -H fd://",
		"berth-keeper.service": "ExecStart=/opt/berth/bin/berth-keeper --exec-root /run/berth",
	} {
		text, err := os.ReadFile(filepath.Join(dest, "opt/berth/lib/systemd/system", unit))
		if err != nil || !strings.Contains(string(text), want) || strings.Contains(string(text), "@") {
			t.Errorf("%s (%v) has no %q, or a placeholder is left:\n%s", unit, err, want, text)
		}
	}
	metas, _ := filepath.Glob(filepath.Join(config, "contexts/meta/*/meta.json"))
	if len(metas) != 1 {
		t.Fatalf("contexts registered: %q", metas)
	}
	if meta, _ := os.ReadFile(metas[0]); !strings.Contains(string(meta), "unix:///run/berth/berth.sock") {
		t.Errorf("the context leads elsewhere: %s", meta)
	}
	script(t, "install.sh", env...) // a second time is an upgrade
	script(t, "uninstall.sh", env...)
	if left := below(t, dest); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if left, _ := filepath.Glob(filepath.Join(config, "contexts/meta/*")); len(left) > 0 {
		t.Errorf("the context is still there: %q", left)
	}
}

func TestTheNameDocker(t *testing.T) {
	bin := builds(t)
	put := func(dest, path string) {
		if err := os.MkdirAll(filepath.Join(dest, filepath.Dir(path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dest, path), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name         string
		there        []string
		link, socket bool // what we may take
		says         string
	}{
		{"nothing is there", nil, true, true, "docker is berth"},
		{"docker's command line alone", []string{"/usr/bin/docker"}, false, true, "/usr/bin/docker stays"},
		{"another engine", []string{"/usr/bin/docker", "/usr/bin/dockerd"}, false, false, "another engine is installed (/usr/bin/dockerd)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dest := t.TempDir()
			for _, p := range c.there {
				put(dest, p)
			}
			env := []string{"BIN=" + bin, "DESTDIR=" + dest, "PREFIX=/usr/local", "DOCKER=1"}
			out := script(t, "install.sh", env...)
			if !strings.Contains(out, c.says) {
				t.Errorf("said:\n%s\nwant %q", out, c.says)
			}
			target, _ := os.Readlink(filepath.Join(dest, "usr/local/bin/docker"))
			if (target == "berth") != c.link {
				t.Errorf("docker leads to %q", target)
			}
			_, err := os.Stat(filepath.Join(dest, "usr/local/lib/tmpfiles.d/berth-docker.conf"))
			if (err == nil) != c.socket {
				t.Errorf("the socket's link: %v", err)
			}
			script(t, "uninstall.sh", env...)
			if left := below(t, dest); len(left) != len(c.there) {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// Docker's plugin for builds is ours where there is none, and nobody else's is touched.
func TestThePlugin(t *testing.T) {
	bin := builds(t)
	const plugins = "usr/libexec/docker/cli-plugins"
	for _, c := range []struct {
		name, there, env string
		linked           bool
	}{
		{"nothing is there", "", "BUILDX=1", true},
		{"Debian's", plugins + "/docker-buildx", "BUILDX=1", false},
		{"somebody's own", "usr/local/lib/docker/cli-plugins/docker-buildx", "BUILDX=1", false},
		{"a packager's tree", "", "BUILDX=", false},
		{"not wanted", "", "BUILDX=0", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			dest, kept := t.TempDir(), 0
			if c.there != "" {
				kept = 1
				if err := os.MkdirAll(filepath.Join(dest, filepath.Dir(c.there)), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(filepath.Join(dest, c.there), nil, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			env := []string{"BIN=" + bin, "DESTDIR=" + dest, "PREFIX=/usr/local", c.env}
			for range 2 { // the second time is an upgrade
				script(t, "install.sh", env...)
			}
			target, _ := os.Readlink(filepath.Join(dest, plugins, "docker-buildx"))
			if (target == "/usr/local/bin/berth") != c.linked {
				t.Errorf("the plugin leads to %q", target)
			}
			script(t, "uninstall.sh", env...)
			if left := below(t, dest); len(left) != kept {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

func TestUnitsAreValid(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze: it reads the units as systemd does")
	}
	dest := t.TempDir()
	script(t, "install.sh", "BIN="+builds(t), "DESTDIR="+dest, "PREFIX=/usr")
	if err := os.MkdirAll(filepath.Join(dest, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"kill", "sh"} { // verify looks for what is executed
		if err := os.WriteFile(filepath.Join(dest, "bin", program), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, unit := range []string{"berth.socket", "berth.service", "berth-keeper.service", "berth-containers.service"} {
		cmd := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", "--root="+dest, unit)
		out, err := cmd.CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
	cmd := exec.Command(analyze, "verify", "--user", "--man=no", "--recursive-errors=no", filepath.Join(dest, "usr/lib/systemd/user/berth.service"))
	cmd.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if text := strings.ReplaceAll(string(out), "Command /usr/bin/berthd is not executable: No such file or directory", ""); err != nil && strings.Contains(text, "Unknown") {
		t.Errorf("the user's unit: %v\n%s", err, out)
	}
}

// Who asks for help wants nothing installed.
func TestArgumentsAreRefused(t *testing.T) {
	for _, script := range []string{"./install.sh", "./uninstall.sh"} {
		dest := t.TempDir()
		cmd := exec.Command("sh", script, "--help")
		cmd.Env = append(os.Environ(), "DESTDIR="+dest)
		out, err := cmd.CombinedOutput()
		var status *exec.ExitError
		if !errors.As(err, &status) || status.ExitCode() != 2 || !strings.Contains(string(out), strings.TrimPrefix(script, "./")+": ") {
			t.Errorf("%s --help: %v, %s", script, err, out)
		}
		if there, _ := os.ReadDir(dest); len(there) > 0 {
			t.Errorf("%s --help put %v there", script, there)
		}
	}
}
