package cgroup

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

func TestFormerly(t *testing.T) {
	for _, c := range []struct{ file, value, text, want string }{
		{"memory.max", "2000", "1000\n", "1000"},
		{"cpu.max", "max", "5000 20000\n", "5000 20000"},
		{"cpuset.cpus", "0", "\n", "\n"},
		{"cpuset.cpus", "0", "0-3\n", "0-3"},
		{"memory.oom_control", "1", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "0"},
		{"io.max", "8:0 rbps=5", "8:16 rbps=1 wbps=max riops=max wiops=max\n8:0 rbps=7 wbps=max riops=9 wiops=max\n", "8:0 rbps=7 wbps=max riops=9 wiops=max"},
		{"io.max", "8:0 rbps=5", "", "8:0 rbps=max wbps=max riops=max wiops=max"},
		{"blkio.throttle.read_bps_device", "7:0 5", "7:0 1048576\n", "7:0 1048576"},
		{"blkio.throttle.read_bps_device", "7:0 5", "7:00 1048576\n", "7:0 0"},
		{"blkio.bfq.weight_device", "7:0 5", "", "7:0 default"},
		{"blkio.bfq.weight", "300", "100\n", "100"},
		{"io.bfq.weight", "300", "default 100\n8:0 200\n", "default 100"},
		{"io.bfq.weight", "8:0 300", "default 100\n8:0 200\n", "8:0 200"},
		{"io.weight", "8:0 300", "default 100\n", "8:0 default"},
	} {
		if got, ok := formerly(c.file, c.value, c.text); !ok || got != c.want {
			t.Errorf("%s of %q: %q, want %q", c.file, c.text, got, c.want)
		}
	}
	if _, ok := formerly("devices.allow", "a", "x"); ok {
		t.Error("device rules are written back")
	}
}

// What was changed in several controllers of v2 can be taken back, and a refusal in the last of them takes the others back.
func TestChangeV2(t *testing.T) {
	files := map[string]string{
		"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma",
		"memory.max":         "1000\n", "memory.current": "500\n", "memory.swap.max": "0\n", "cpu.max": "5000 20000\n", "cpu.weight": "100\n",
		"io.max": "", "io.weight": "default 100\n", "pids.max": "max\n", "cpuset.cpus": "\n",
	}
	r := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(2000)), Swap: ptr(int64(3000))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(7000)), Period: ptr(uint64(30000)), Cpus: "0"},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(9))},
		BlockIO: &specs.LinuxBlockIO{
			Weight: ptr(uint16(1000)), WeightDevice: []specs.LinuxWeightDevice{weightOf(8, 0, 0)},
			ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{rateOf(8, 0, 77)}, ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{rateOf(8, 16, 0)},
		},
	}
	g := fakeV2(t, files)
	s, err := g.PlanUpdate(r)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, step := range s.Steps {
		if step.Op == Write {
			name, value := step.File, step.Value
			if step.Or != "" {
				name, value = step.File+"|"+step.Or, step.Value+"|"+step.OrValue
			}
			got = append(got, name+"="+value)
		}
	}
	want := []string{
		"memory.swap.max=1000", "memory.max=2000", "cpu.weight=100", "cpu.max=7000 30000", "cpuset.cpus=0", "pids.max=9", "io.bfq.weight|io.weight=1000|default 10000",
		"io.bfq.weight|io.weight=8:0 default|", "io.max=8:0 rbps=77", "io.max=8:16 wiops=max",
	}
	if !slices.Equal(got, want) {
		t.Errorf("writes\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	undo, err := g.Change(r)
	if err != nil {
		t.Fatal(err)
	}
	if got := trimmed(g.V2Dir() + "/memory.max"); got != "2000" {
		t.Errorf("memory.max is %q", got)
	}
	if err := undo(); err != nil {
		t.Fatal(err)
	}
	expect := func(when string) {
		t.Helper()
		for file, want := range map[string]string{"memory.max": "1000", "cpu.max": "5000 20000", "io.weight": "default 100", "pids.max": "max"} {
			// A plain file keeps what a shorter write does not cover.
			if got := trimmed(g.V2Dir() + "/" + file); !strings.Contains(got, want) {
				t.Errorf("%s: %s is %q, want %q", when, file, got, want)
			}
		}
	}
	expect("undone")

	g = fakeV2(t, files)
	if err := os.Remove(g.V2Dir() + "/io.max"); err != nil {
		t.Fatal(err)
	}
	if _, err := g.Change(r); !fault.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "io.max") {
		t.Errorf("%v", err)
	}
	expect("refused")
}

func weightOf(major, minor int64, weight uint16) specs.LinuxWeightDevice {
	d := specs.LinuxWeightDevice{Weight: &weight}
	d.Major, d.Minor = major, minor
	return d
}

func rateOf(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
	d := specs.LinuxThrottleDevice{Rate: rate}
	d.Major, d.Minor = major, minor
	return d
}

// The kernel itself: limits of a disk appear, change, and are gone after an undo.
func TestRealChange(t *testing.T) {
	l, path := real(t)
	h := l.Find("blkio")
	if h == nil || h.V2 {
		t.Skip("needs the blkio controller of cgroup v1")
	}
	if _, err := os.Stat("/sys/block/loop0"); err != nil {
		t.Skip("needs the block device loop0")
	}
	c := apply(t, l, path, nil)
	io := func(rate uint64) *specs.LinuxResources {
		return &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{ThrottleReadBpsDevice: []specs.LinuxThrottleDevice{rateOf(7, 0, rate)}}}
	}
	file := c.Dir("blkio") + "/blkio.throttle.read_bps_device"
	undoFirst, err := c.Change(io(1 << 20))
	if err != nil {
		t.Fatal(err)
	}
	undoSecond, err := c.Change(io(2 << 20))
	if err != nil || trimmed(file) != "7:0 2097152" {
		t.Fatalf("%v, %q", err, trimmed(file))
	}
	if err := undoSecond(); err != nil || trimmed(file) != "7:0 1048576" {
		t.Errorf("%v, %q", err, trimmed(file))
	}
	if err := undoFirst(); err != nil || trimmed(file) != "" {
		t.Errorf("%v, %q", err, trimmed(file))
	}
	if _, err := c.Change(io(3 << 20)); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(io(0)); err != nil || trimmed(file) != "" {
		t.Errorf("lifted: %v, %q", err, trimmed(file))
	}
}

func TestRealRealtime(t *testing.T) {
	l, path := real(t)
	h := l.Find("cpu")
	if h == nil || h.V2 || !exists(h.Dir+"/cpu.rt_runtime_us") {
		if err := l.Realtime(path, 1000000, 1000); !fault.Is(err, fault.NotImplemented) {
			t.Errorf("%v", err)
		}
		t.Skip("needs cgroup v1 and a kernel with RT_GROUP_SCHED")
	}
	if err := l.Realtime(path+"-parent", 500000, 1000); err != nil {
		t.Fatal(err)
	}
	dir := h.Place(l.Mode, path+"-parent")
	t.Cleanup(func() { os.Remove(dir) })
	if got := trimmed(dir+"/cpu.rt_runtime_us") + " " + trimmed(dir+"/cpu.rt_period_us"); got != "1000 500000" {
		t.Error(got)
	}
	if err := l.Realtime(path+"-parent", 0, 2000); err != nil || trimmed(dir+"/cpu.rt_runtime_us") != "2000" {
		t.Errorf("%v, %s", err, trimmed(dir+"/cpu.rt_runtime_us"))
	}
	if err := l.Realtime(path+"-parent", 1000, 5000); !fault.Is(err, fault.Invalid) {
		t.Errorf("more than all: %v", err)
	}
}
