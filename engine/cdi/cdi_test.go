package cdi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/engine/container"
)

const crane = `{
  "cdiVersion": "0.6.0",
  "kind": "harbour.example/crane",
  "devices": [
    {"name": "north", "containerEdits": {"env": ["CRANE=north"], "deviceNodes": [{"path": "/dev/hook", "hostPath": "/dev/null", "permissions": "r"}]}},
    {"name": "south", "containerEdits": {"env": ["CRANE=south"], "mounts": [{"hostPath": "/etc", "containerPath": "/south", "options": ["ro", "bind"]}]}},
    {"name": "old", "containerEdits": {"hooks": [{"hookName": "createContainer", "path": "/bin/true"}]}}
  ],
  "containerEdits": {"env": ["HARBOUR=yes"]}
}`

const gpus = `cdiVersion: "0.5.0"
kind: nvidia.com/gpu
devices:
  - {name: all, containerEdits: {env: [GPU=all]}}
  - {name: "0", containerEdits: {env: [ZERO=yes]}}
  - {name: "1", containerEdits: {env: [ONE=yes]}}
`

func open(t *testing.T, files map[string]string) *Devices {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return New([]string{filepath.Join(dir, "missing"), dir})
}

func spec() *specs.Spec {
	return &specs.Spec{Process: &specs.Process{}, Linux: &specs.Linux{Resources: &specs.LinuxResources{}}}
}

func TestList(t *testing.T) {
	d := open(t, map[string]string{"crane.json": crane, "gpu.yaml": gpus, "bad.json": "{", "ignored.txt": crane})
	names, problems := d.List()
	want := "harbour.example/crane=north harbour.example/crane=old harbour.example/crane=south nvidia.com/gpu=0 nvidia.com/gpu=1 nvidia.com/gpu=all"
	if got := strings.Join(names, " "); got != want {
		t.Errorf("%s", got)
	}
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "bad.json") {
		t.Errorf("%v", problems)
	}
	if names, problems := New(nil).List(); names != nil || problems != nil {
		t.Errorf("%v %v", names, problems)
	}
}

// What is written after the engine's start counts.
func TestNewFilesCount(t *testing.T) {
	d := open(t, nil)
	request := []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"harbour.example/crane=south"}}}
	if err := d.Inject(spec(), request); err == nil || err.Error() != "CDI device injection failed: unresolvable CDI devices harbour.example/crane=south" {
		t.Fatalf("%v", err)
	}
	if err := os.WriteFile(filepath.Join(d.Dirs()[1], "crane.json"), []byte(crane), 0o644); err != nil {
		t.Fatal(err)
	}
	s := spec()
	if err := d.Inject(s, request); err != nil {
		t.Fatal(err)
	}
	if len(s.Mounts) != 1 || s.Mounts[0].Destination != "/south" || !slices.Equal(s.Process.Env, []string{"HARBOUR=yes", "CRANE=south"}) {
		t.Errorf("%+v %v", s.Mounts, s.Process.Env)
	}
}

func TestNode(t *testing.T) {
	if _, err := os.Stat("/dev/null"); err != nil {
		t.Skip("needs /dev/null")
	}
	d := open(t, map[string]string{"crane.json": crane})
	s := spec()
	if err := d.Inject(s, []container.DeviceRequest{{Driver: "cdi", DeviceIDs: []string{"harbour.example/crane=north"}}}); err != nil {
		t.Fatal(err)
	}
	if n := s.Linux.Devices; len(n) != 1 || n[0].Path != "/dev/hook" || n[0].Major != 1 || n[0].Minor != 3 {
		t.Errorf("%+v", n)
	}
	if r := s.Linux.Resources.Devices; len(r) != 1 || r[0].Access != "r" || *r[0].Minor != 3 || !r[0].Allow {
		t.Errorf("%+v", r)
	}
}

func TestRequests(t *testing.T) {
	d := open(t, map[string]string{"crane.json": crane, "gpu.yaml": gpus})
	gpu := [][]string{{"gpu"}}
	for _, c := range []struct {
		name string
		r    container.DeviceRequest
		env  string // or the error
	}{
		{"--gpus all", container.DeviceRequest{Count: -1, Capabilities: gpu}, "GPU=all"},
		{"--gpus 2", container.DeviceRequest{Count: 2, Capabilities: gpu}, "ZERO=yes ONE=yes"},
		{"--gpus 3", container.DeviceRequest{Count: 3, Capabilities: gpu}, "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=2"},
		{"a hostile number", container.DeviceRequest{Count: 1 << 40, Capabilities: gpu}, "CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=2, nvidia.com/gpu=3, nvidia.com/gpu=4, nvidia.com/gpu=5, nvidia.com/gpu=6"},
		{"--gpus device=1", container.DeviceRequest{DeviceIDs: []string{"1"}, Capabilities: gpu}, "ONE=yes"},
		{"a qualified name", container.DeviceRequest{DeviceIDs: []string{"nvidia.com/gpu=0"}, Capabilities: gpu}, "ZERO=yes"},
		{"with capabilities", container.DeviceRequest{Count: -1, Capabilities: [][]string{{"gpu", "compute", "utility"}}}, "GPU=all"},
		{"of the driver", container.DeviceRequest{Driver: "nvidia", Count: 1}, "ZERO=yes"},
		{"another maker", container.DeviceRequest{Driver: "amd", Count: 1}, `could not select device driver "amd" with capabilities: []`},
		{"no driver", container.DeviceRequest{Driver: "whale", Capabilities: gpu}, `could not select device driver "whale" with capabilities: [[gpu]]`},
		{"nothing that is served", container.DeviceRequest{Capabilities: [][]string{{"tpu"}}}, `could not select device driver "" with capabilities: [[tpu]]`},
		{"an option", container.DeviceRequest{Driver: "nvidia", Options: map[string]string{"b": "", "a": ""}}, `could not select device driver "nvidia": the option "a" is not one of CDI's`},
		{"both", container.DeviceRequest{Driver: "nvidia", Count: 1, DeviceIDs: []string{"0"}}, "cannot set both Count and DeviceIDs on device request"},
		{"counted names", container.DeviceRequest{Driver: "cdi", Count: 1}, "unexpected count in CDI device request"},
		{"names with options", container.DeviceRequest{Driver: "cdi", Options: map[string]string{"x": ""}}, "unexpected options in CDI device request"},
		{"no name", container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"crane"}}, `CDI device injection failed: unqualified device "crane", missing vendor`},
		{"a hook", container.DeviceRequest{Driver: "cdi", DeviceIDs: []string{"harbour.example/crane=old"}}, "HARBOUR=yes beyond hooks (createContainer)"},
	} {
		s := spec()
		err := d.Inject(s, []container.DeviceRequest{c.r})
		got := strings.Join(s.Process.Env, " ")
		if b := Beyond(s); b != "" {
			got += " beyond " + b
		}
		if err != nil {
			if got = err.Error(); !fault.Is(err, fault.Invalid) && !fault.Is(err, fault.NotImplemented) {
				t.Errorf("%s: %v", c.name, fault.KindOf(err))
			}
		}
		if got != c.env {
			t.Errorf("%s: %s\nwant %s", c.name, got, c.env)
		}
	}
	if err := New(nil).Inject(spec(), []container.DeviceRequest{{Driver: "cdi"}}); err == nil || err.Error() != `could not select device driver "cdi" with capabilities: []` {
		t.Errorf("%v", err)
	}
}

// Specifications come from tools of others: none may break the engine.
func FuzzSpecification(f *testing.F) {
	f.Add([]byte(crane))
	f.Add([]byte(gpus))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "x.yaml"), b, 0o644); err != nil {
			t.Fatal(err)
		}
		d := New([]string{dir})
		names, _ := d.List()
		_ = d.Inject(spec(), []container.DeviceRequest{{Driver: "cdi", DeviceIDs: names}}) // an error is in order
	})
}
