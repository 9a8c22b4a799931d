package apparmor

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/base/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

// machine makes a root with AppArmor's files.
func machine(t *testing.T, files map[string]string) host {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return host{root, filepath.Join(root, "apparmor_parser")}
}

func TestGoldenProfiles(t *testing.T) {
	for name, p := range map[string]Profile{
		"debian.profile": machine(t, map[string]string{"etc/apparmor.d/tunables/global": "", "etc/apparmor.d/abstractions/base": ""}).profile(DefaultProfile),
		"bare.profile":   machine(t, map[string]string{"proc/self/attr/current": "/usr/sbin/some engine (enforce)\n"}).profile("berth-test"),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, []byte(p.Text()), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if p.Text() != string(want) {
			t.Errorf("%s differs (go test -update writes it anew):\n%s", path, p.Text())
		}
	}
}

func TestEnabled(t *testing.T) {
	if machine(t, nil).enabled() || machine(t, map[string]string{"sys/module/apparmor/parameters/enabled": "N\n"}).enabled() {
		t.Error("AppArmor where there is none")
	}
	if !machine(t, map[string]string{"sys/module/apparmor/parameters/enabled": "Y\n"}).enabled() {
		t.Error("no AppArmor")
	}
}

const profiles = "sys/kernel/security/apparmor/profiles"

func TestLoaded(t *testing.T) {
	h := machine(t, map[string]string{profiles: "docker-default (enforce)\ndocker (complain)\nodd (name) (kill)\n/usr/bin/man (enforce)\n"})
	for name, want := range map[string]string{"docker-default": "enforce", "docker": "complain", "odd (name)": "kill", "odd": "", "docker-def": "", "": ""} {
		if mode, err := h.loaded(name); mode != want || err != nil {
			t.Errorf("%q: %q %v, want %q", name, mode, err, want)
		}
	}
	if _, err := machine(t, nil).loaded("x"); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "securityfs") {
		t.Error(err)
	}
}

func TestEnsure(t *testing.T) {
	ctx := context.Background()
	h := machine(t, map[string]string{profiles: "other (enforce)\n"})
	if err := h.ensure(ctx, DefaultProfile); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "install the package apparmor") {
		t.Errorf("without a parser: %v", err)
	}
	got := filepath.Join(h.root, "got")
	h = machine(t, map[string]string{profiles: "other (enforce)\n", "apparmor_parser": "#!/bin/sh\necho \"$@\" >" + got + "\ncat >>" + got + "\n"})
	if err := os.MkdirAll(filepath.Dir(got), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := h.ensure(ctx, DefaultProfile); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(got)
	if err != nil || string(b) != "-K -r\n"+h.profile(DefaultProfile).Text() {
		t.Errorf("%v\n%s", err, b)
	}
	h = machine(t, map[string]string{profiles: "docker-default (enforce)\n", "apparmor_parser": "#!/bin/sh\nexit 1\n"})
	if err := h.ensure(ctx, DefaultProfile); err != nil {
		t.Errorf("loaded again: %v", err)
	}
	if err := h.ensure(ctx, "evil {"); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	h = machine(t, map[string]string{profiles: "", "apparmor_parser": "#!/bin/sh\necho syntax error >&2; exit 1\n"})
	if err := h.ensure(ctx, DefaultProfile); err == nil || !strings.Contains(err.Error(), "syntax error") {
		t.Error(err)
	}
}

func TestCurrent(t *testing.T) {
	for text, want := range map[string]string{
		"unconfined\n": Unconfined, "docker-default (enforce)\n": "docker-default", "a b (complain)": "a b", "": Unconfined,
	} {
		if got := machine(t, map[string]string{"proc/self/attr/apparmor/current": text}).current(); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
	if got := machine(t, nil).current(); got != Unconfined {
		t.Error(got)
	}
}

func TestExecAttr(t *testing.T) {
	if p, v := ExecAttr(DefaultProfile); p != "/proc/self/attr/apparmor/exec" || v != "exec docker-default" {
		t.Error(p, v)
	}
	for _, none := range []string{"", Unconfined} {
		if p, v := ExecAttr(none); p != "" || v != "" {
			t.Error(p, v)
		}
	}
	for _, bad := range []string{"", "a\nb", "a\x00", strings.Repeat("x", 5000)} {
		if CheckName(bad) == nil {
			t.Errorf("%q is a name", bad)
		}
	}
}

func TestQuote(t *testing.T) {
	for name, want := range map[string]string{
		"runc": "runc", "/usr/bin/x": `"/usr/bin/x"`, "a b": `"a b"`, "a*": `a\*`, `"`: `"\""`, "snap.docker.dockerd": "snap.docker.dockerd",
	} {
		if got := quote(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// On a machine with AppArmor the profile is loaded for real, under a name of its own.
func TestLoadForReal(t *testing.T) {
	if !Enabled() {
		t.Skip("needs AppArmor: the kernel runs without it")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: loading AppArmor profiles")
	}
	name := "berth-test-" + filepath.Base(t.TempDir())
	p := here().profile(name)
	err := Ensure(context.Background(), name)
	if fault.Is(err, fault.Unavailable) {
		t.Skip("needs apparmor_parser: ", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, p.Text())
	}
	t.Cleanup(func() {
		if err := os.WriteFile("/sys/kernel/security/apparmor/.remove", []byte(name), 0); err != nil {
			t.Error(err)
		}
	})
	if mode, err := here().loaded(name); mode != "enforce" || err != nil {
		t.Error(mode, err)
	}
}
