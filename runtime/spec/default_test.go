package spec

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files anew")

// plain takes out of a configuration what depends on the machine.
func plain(s *specs.Spec) *specs.Spec {
	s.Linux.Seccomp = nil
	s.Linux.MaskedPaths = slices.DeleteFunc(s.Linux.MaskedPaths, func(p string) bool { return strings.HasPrefix(p, "/sys/devices/system/cpu/") })
	return s
}

func TestDefaultGolden(t *testing.T) {
	for name, o := range map[string]DefaultOptions{
		"default.json": {},
		"v1.json":      {Args: []string{"/bin/true"}, Terminal: true, Hostname: "box", ShmSize: 1 << 20, HostCgroupNamespace: true, Capabilities: []string{"CAP_KILL"}},
	} {
		got, err := json.MarshalIndent(plain(Default(o)), "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, append(got, '\n'))
	}
}

func TestDefaultSharesNothing(t *testing.T) {
	a, b := Default(DefaultOptions{}), Default(DefaultOptions{})
	WithPrivileged(a)
	a.Mounts[0].Options[0] = "changed"
	a.Process.Env[0] = "changed"
	if c := Default(DefaultOptions{}); !reflect.DeepEqual(b, c) {
		t.Error("changing one configuration changed another")
	}
}

func TestDefaultSeccompIsThere(t *testing.T) {
	if s := Default(DefaultOptions{}); !reflect.DeepEqual(s.Linux.Seccomp, ofLibrary(t, DefaultCapabilities())) {
		t.Error("not Docker's profile")
	}
	if s := Default(DefaultOptions{Unconfined: true}); s.Linux.Seccomp != nil {
		t.Error("a profile although unconfined")
	}
}

func TestPrivileged(t *testing.T) {
	s := Default(DefaultOptions{Privileged: true})
	if s.Linux.Seccomp != nil || s.Linux.MaskedPaths != nil || s.Linux.ReadonlyPaths != nil {
		t.Error("something is hidden or forbidden")
	}
	if !slices.Equal(s.Process.Capabilities.Bounding, AllCapabilities()) {
		t.Error(s.Process.Capabilities.Bounding)
	}
	for _, m := range s.Mounts {
		if slices.Contains(m.Options, "ro") {
			t.Error(m.Destination, "is read-only")
		}
	}
	if d := s.Linux.Resources.Devices; len(d) != 1 || !d[0].Allow {
		t.Error(d)
	}
}

func TestMaskedPathsKnowTheProcessors(t *testing.T) {
	masked := MaskedPaths()
	found, err := filepath.Glob("/sys/devices/system/cpu/cpu[0-9]*/thermal_throttle")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range found {
		if !slices.Contains(masked, p) {
			t.Error(p, "is not masked")
		}
	}
	for _, p := range masked {
		if strings.Contains(p, "thermal") {
			if _, err := os.Stat(p); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestCPUList(t *testing.T) {
	for text, want := range map[string]string{
		"0": "[0]", "0-3": "[0 1 2 3]", "0-1,4,6-7": "[0 1 4 6 7]", "": "[]", "x": "[]", "1,x": "[1]", "3-1": "[]",
		"-1": "[]", "0-99999999999999999999": "[]", "8190-9999999": "[8190 8191]",
	} {
		if got := fmt.Sprint(cpuList(text)); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func FuzzCPUList(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, text string) {
		for _, n := range cpuList(text) {
			if n < 0 || n >= maxCPUs {
				t.Fatal(n)
			}
		}
	})
}
