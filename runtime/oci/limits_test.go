package oci_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-spec/specs-go/features"

	"berth/kernel/cgroup"
)

// limit reads a limit's file: by its v1 name, or where the machine is pure v2 by the other.
func limit(t *testing.T, path, controller, v1, v2 string) string {
	t.Helper()
	layout, err := cgroup.Detect()
	must(t, err)
	cg, err := cgroup.Open(layout, path)
	must(t, err)
	file := v1
	if layout.Mode == cgroup.V2 {
		controller, file = "", v2
	}
	text, err := os.ReadFile(filepath.Join(cg.Paths()[controller], file))
	must(t, err)
	return strings.TrimSpace(string(text))
}

func TestLimitsAndTheirUpdate(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	memory, pids := int64(64<<20), int64(77)
	var path string
	bundle := r.bundle(both(shell("sleep 1000"), func(s *specs.Spec) {
		s.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &memory}
		s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &pids}
		path = s.Linux.CgroupsPath
	}))
	r.must("run", "--detach", "--bundle", bundle, id)
	check := func(memory, pids string) {
		t.Helper()
		if got := limit(t, path, "memory", "memory.limit_in_bytes", "memory.max"); got != memory {
			t.Errorf("memory %s, want %s", got, memory)
		}
		if got := limit(t, path, "pids", "pids.max", "pids.max"); got != pids {
			t.Errorf("pids %s, want %s", got, pids)
		}
	}
	check("67108864", "77")
	r.must("update", id, "--memory", "32M", "--pids-limit", "20")
	check("33554432", "20")
	r.must("update", "--cpu-share", "512", id) // what is not named stays
	check("33554432", "20")
	r.must("update", "--pids-limit", "0", id)
	check("33554432", "1")
	r.must("update", "--pids-limit", "20", id)
	if o := r.with(`{"memory":{"limit":16777216},"pids":{"limit":-1}}`, "update", "-r", "-", id); o.code != 0 {
		t.Errorf("update from standard input: %+v", o)
	}
	check("16777216", "max")
	r.fails("invalid value for memory", "update", "--memory", "lots", id)
	r.fails("Intel RDT", "update", "--l3-cache-schema", "x", id)
	r.fails("expected an object", "update", "-r", "/etc/hostname", id)
	r.must("kill", id, "KILL")
	r.await(id, "stopped")
	r.fails("container not running", "update", "--memory", "32M", id)
}

func TestEventsAndPs(t *testing.T) {
	r := newRuntime(t)
	id := r.id()
	r.must("run", "--detach", "--bundle", r.bundle(shell("sleep 1000")), id)
	var e struct {
		Type, ID string
		Data     struct {
			CPU    struct{ Usage struct{ Total uint64 } }
			Memory struct{ Usage struct{ Usage, Limit uint64 } }
			Pids   struct{ Current uint64 }
		}
	}
	if err := json.Unmarshal([]byte(r.must("events", "--stats", id)), &e); err != nil {
		t.Fatal(err)
	}
	if e.Type != "stats" || e.ID != id || e.Data.Pids.Current == 0 || e.Data.Memory.Usage.Usage == 0 {
		t.Errorf("events: %+v", e)
	}
	r.fails("duration interval must be greater than 0", "events", "--interval", "0s", id)
	pid := r.state(id).PID
	if out := r.must("ps", "--format", "json", id); out != fmt.Sprintf("[%d]\n", pid) {
		t.Errorf("ps: %q, pid %d", out, pid)
	}
	if out := r.must("ps", id); !strings.Contains(out, "PID") || !strings.Contains(out, "sleep 1000") || strings.Count(out, "\n") != 2 {
		t.Errorf("ps: %q", out)
	}
	// The stream ends with the container.
	cmd := r.command("events", "--interval", "10ms", id)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	if err := json.NewDecoder(out).Decode(&e); err != nil || e.Type != "stats" {
		t.Errorf("events: %+v, %v", e, err)
	}
	r.must("kill", id, "KILL")
	if err := cmd.Wait(); err != nil {
		t.Errorf("events: %v", err)
	}
	r.fails("is not running", "events", "--stats", id)
}

func TestFeaturesAndSpec(t *testing.T) {
	r := newRuntime(t)
	var f features.Features
	if err := json.Unmarshal([]byte(r.must("features")), &f); err != nil {
		t.Fatal(err)
	}
	if f.OCIVersionMax != specs.Version || len(f.Hooks) != 6 || len(f.MountOptions) < 20 || len(f.Linux.Namespaces) != 8 ||
		len(f.Linux.Seccomp.Archs) < 3 || len(f.Linux.Capabilities) < 30 || !*f.Linux.NetDevices.Enabled {
		t.Errorf("features: %+v", f)
	}
	dir := t.TempDir()
	r.must("spec", "--bundle", dir)
	r.fails("File config.json exists. Remove it first", "spec", "--bundle", dir)
	var s specs.Spec
	text, err := os.ReadFile(filepath.Join(dir, "config.json"))
	must(t, err)
	must(t, json.Unmarshal(text, &s))
	if s.Version != specs.Version || s.Linux.Seccomp != nil || !s.Root.Readonly || !s.Process.NoNewPrivileges || len(s.Process.Capabilities.Bounding) != 3 || !s.Process.Terminal || len(s.Linux.MaskedPaths) == 0 {
		t.Errorf("spec: %s", text)
	}
}
