package cgroup

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

var update = flag.Bool("update", false, "write the golden files anew")

func layoutV1() Layout {
	l := Layout{Mode: V1}
	for _, name := range []string{"cpu,cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "net_cls,net_prio", "hugetlb", "rdma", "name=systemd"} {
		l.Hierarchies = append(l.Hierarchies, Hierarchy{
			Dir:         conventional + "/" + strings.TrimPrefix(name, "name="),
			Controllers: strings.Split(name, ","),
			Own:         "/",
		})
	}
	return l
}

func layoutV2() Layout {
	return Layout{Mode: V2, Hierarchies: []Hierarchy{{
		V2: true, Dir: conventional, Own: "/system.slice/berth-keeper.service/keeper",
		Controllers: []string{"cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc"},
	}}}
}

// layoutHybrid is v1 with v2 beside it, which has the one controller that v1 has not taken.
func layoutHybrid() Layout {
	l := layoutV1()
	l.Mode = Hybrid
	l.Hierarchies = l.Hierarchies[:8] // no hugetlb, rdma, systemd
	l.Hierarchies = append(l.Hierarchies, Hierarchy{V2: true, Dir: conventional + "/unified", Own: "/", Controllers: []string{"hugetlb"}})
	return l
}

func denyAll() []specs.LinuxDeviceCgroup { return []specs.LinuxDeviceCgroup{{Access: "rwm"}} }

// cases are the resources that are planned for every layout; each is a golden file for each.
func cases() map[string]*specs.LinuxResources {
	rate := func(major, minor int64, rate uint64) specs.LinuxThrottleDevice {
		d := specs.LinuxThrottleDevice{Rate: rate}
		d.Major, d.Minor = major, minor
		return d
	}
	weight := specs.LinuxWeightDevice{Weight: ptr(uint16(500))}
	weight.Major, weight.Minor = 8, 16
	return map[string]*specs.LinuxResources{
		"none":   nil,
		"docker": dockerLike(),
		"memory": {Memory: &specs.LinuxMemory{
			Limit: ptr(int64(512 << 20)), Swap: ptr(int64(512 << 20)), Reservation: ptr(int64(256 << 20)),
			//lint:ignore SA1019 old configurations have it, and it must be passed over
			Kernel: ptr(int64(1 << 20)), UseHierarchy: ptr(true),
		}},
		"unlimited": {
			Memory: &specs.LinuxMemory{Limit: ptr(int64(-1)), Swap: ptr(int64(-1)), Reservation: ptr(int64(-1))},
			CPU:    &specs.LinuxCPU{Quota: ptr(int64(-1)), Period: ptr(uint64(100000))},
			Pids:   &specs.LinuxPids{Limit: ptr(int64(-1))},
		},
		"zeros": {
			Memory:  &specs.LinuxMemory{Limit: ptr(int64(0)), Swap: ptr(int64(0))},
			CPU:     &specs.LinuxCPU{Shares: ptr(uint64(0)), Quota: ptr(int64(0)), Period: ptr(uint64(0))},
			BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(0))},
			Pids:    &specs.LinuxPids{Limit: ptr(int64(0))},
		},
		"cpu": {CPU: &specs.LinuxCPU{
			Shares: ptr(uint64(2048)), Quota: ptr(int64(25000)), Period: ptr(uint64(50000)), Burst: ptr(uint64(10000)),
			Cpus: "0-3,8", Mems: "0",
		}},
		"idle": {CPU: &specs.LinuxCPU{Shares: ptr(uint64(1024)), Idle: ptr(int64(1))}},
		"io": {BlockIO: &specs.LinuxBlockIO{
			Weight:                  ptr(uint16(10)),
			WeightDevice:            []specs.LinuxWeightDevice{weight},
			ThrottleReadBpsDevice:   []specs.LinuxThrottleDevice{rate(8, 0, 1<<20)},
			ThrottleWriteBpsDevice:  []specs.LinuxThrottleDevice{rate(8, 0, 2<<20), rate(8, 16, 0)},
			ThrottleReadIOPSDevice:  []specs.LinuxThrottleDevice{rate(8, 0, 100)},
			ThrottleWriteIOPSDevice: []specs.LinuxThrottleDevice{rate(8, 0, 200)},
		}},
		"hugetlb":    {HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}, {Pagesize: "1GB", Limit: 1 << 30}}},
		"privileged": {Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}},
		"devices": {Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"},
			{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(200)), Access: "rwm"},
			{Allow: true, Type: "b", Major: ptr(int64(8)), Access: "r"},
			{Allow: true, Type: "b", Major: ptr(int64(8)), Access: "w"},
			{Allow: true, Type: "c", Major: ptr(int64(189)), Minor: ptr(int64(-1)), Access: "rwm"},
			{Allow: false, Type: "c", Major: ptr(int64(189)), Access: "m"},
		}},
		"privileged-but": {Devices: []specs.LinuxDeviceCgroup{
			{Allow: true, Access: "rwm"},
			{Allow: false, Type: "b", Major: ptr(int64(8)), Minor: ptr(int64(0)), Access: "rw"},
		}},
	}
}

func TestPlanGolden(t *testing.T) {
	for mode, l := range map[string]Layout{"v1": layoutV1(), "v2": layoutV2(), "hybrid": layoutHybrid()} {
		for name, r := range cases() {
			t.Run(mode+"/"+name, func(t *testing.T) {
				s, err := Plan(l, "/berth/0123abcd", r)
				got := s.String()
				for _, step := range s.Steps {
					if step.Op == Devices && strings.HasPrefix(name, "dev") {
						got += step.Program.Disassemble()
					}
				}
				if err != nil {
					got = err.Error() + "\n"
				}
				golden(t, mode+"-"+name, got)
			})
		}
	}
	// What only one version has.
	swappiness := &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(20)), KernelTCP: ptr(int64(1 << 20)), DisableOOMKiller: ptr(true)}}
	network := &specs.LinuxResources{Network: &specs.LinuxNetwork{ClassID: ptr(uint32(0x100001)), Priorities: []specs.LinuxInterfacePriority{{Name: "eth0", Priority: 5}}}}
	realtime := &specs.LinuxResources{CPU: &specs.LinuxCPU{RealtimePeriod: ptr(uint64(1000000)), RealtimeRuntime: ptr(int64(10000))}}
	leaf := &specs.LinuxResources{BlockIO: &specs.LinuxBlockIO{LeafWeight: ptr(uint16(300))}}
	rdma := &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"mlx5_1": {HcaHandles: ptr(uint32(3)), HcaObjects: ptr(uint32(1000))}, "mlx4_0": {HcaObjects: ptr(uint32(4))}}}
	unified := &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(1 << 20))}, Unified: map[string]string{"memory.high": "1000000", "cpu.weight": "10", "cgroup.max.depth": "5"}}
	for _, c := range []struct {
		name string
		l    Layout
		r    *specs.LinuxResources
	}{
		{"v1-swappiness", layoutV1(), swappiness}, {"v2-swappiness", layoutV2(), swappiness},
		{"v1-network", layoutV1(), network}, {"v2-network", layoutV2(), network},
		{"v1-realtime", layoutV1(), realtime}, {"v2-realtime", layoutV2(), realtime},
		{"v1-leaf", layoutV1(), leaf}, {"v2-leaf", layoutV2(), leaf},
		{"v1-rdma", layoutV1(), rdma}, {"v2-rdma", layoutV2(), rdma}, {"hybrid-rdma", layoutHybrid(), rdma},
		{"v1-unified", layoutV1(), unified}, {"v2-unified", layoutV2(), unified}, {"hybrid-unified", layoutHybrid(), unified},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Plan(c.l, "/berth/0123abcd", c.r)
			got := s.String()
			if err != nil {
				got = err.Error() + "\n"
			}
			golden(t, c.name, got)
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs:\n--- got\n%s--- want\n%s", file, got, want)
	}
}

func TestPlanRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		r    *specs.LinuxResources
		want string // in the error
		kind fault.Kind
	}{
		{"swap below memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(10)), Swap: ptr(int64(9))}}, "memory.swap (9)", fault.Invalid},
		{"negative memory", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(-2))}}, "memory.limit is -2", fault.Invalid},
		{"swappiness", &specs.LinuxResources{Memory: &specs.LinuxMemory{Swappiness: ptr(uint64(1000))}}, "swappiness is 1000", fault.Invalid},
		{"cpus", &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "all"}}, `cpus is "all"`, fault.Invalid},
		{"idle", &specs.LinuxResources{CPU: &specs.LinuxCPU{Idle: ptr(int64(2))}}, "idle is 2", fault.Invalid},
		{"page size", &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "../2MB"}}}, "page size", fault.Invalid},
		{"device type", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "x", Access: "r"}}}, "devices[0]: type x", fault.Invalid},
		{"device access", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "r"}, {Access: "rx"}}}, "devices[1]: access rx", fault.Invalid},
		{"device without access", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "c"}}}, "access is empty", fault.Invalid},
		{"device number", &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Type: "c", Access: "r", Minor: ptr(int64(-2))}}}, "minor number -2", fault.Invalid},
		{"interface", &specs.LinuxResources{Network: &specs.LinuxNetwork{Priorities: []specs.LinuxInterfacePriority{{Name: "a b"}}}}, "no interface's name", fault.Invalid},
		{"unified path", &specs.LinuxResources{Unified: map[string]string{"../memory.max": "1"}}, "no cgroup file's name", fault.Invalid},
		{"unified dots", &specs.LinuxResources{Unified: map[string]string{"..": "1"}}, "no cgroup file's name", fault.Invalid},
		{"rdma", &specs.LinuxResources{Rdma: map[string]specs.LinuxRdma{"a\nb": {}}}, "no device's name", fault.Invalid},
	} {
		for _, l := range []Layout{layoutV1(), layoutV2(), layoutHybrid()} {
			if s, err := Plan(l, "/a/b", c.r); err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, c.kind) {
				t.Errorf("%s on %v: %v, want %q\n%s", c.name, l.Mode, err, c.want, s)
			}
		}
	}
	for _, path := range []string{"/", "/..", "//.", "/a/..", "/a\x00b"} {
		if s, err := Plan(layoutV2(), path, nil); !fault.Is(err, fault.Invalid) {
			t.Errorf("path %q: %v\n%s", path, err, s)
		}
	}
	if _, err := Plan(Layout{}, "/a", nil); !fault.Is(err, fault.NotImplemented) {
		t.Errorf("no hierarchy: %v", err)
	}
	if _, err := Plan(layoutV1(), "/a", &specs.LinuxResources{CPU: &specs.LinuxCPU{Shares: ptr(uint64(1))}}); err == nil || !strings.Contains(err.Error(), "minimum allowed cpu-shares is 2") {
		t.Errorf("shares 1: %v", err)
	}
	hole := []specs.LinuxDeviceCgroup{
		{Allow: true, Type: "c", Major: ptr(int64(10)), Access: "rwm"},
		{Allow: false, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(5)), Access: "rwm"},
	}
	if _, err := Plan(layoutV1(), "/a", &specs.LinuxResources{Devices: append(denyAll(), hole...)}); err == nil || !strings.Contains(err.Error(), "cannot express") {
		t.Errorf("a hole on v1: %v", err)
	}
	if _, err := Plan(layoutV2(), "/a", &specs.LinuxResources{Devices: append(denyAll(), hole...)}); err != nil {
		t.Errorf("a hole on v2: %v", err)
	}
}

func TestPlace(t *testing.T) {
	v2 := Hierarchy{V2: true, Dir: "/sys/fs/cgroup", Own: "/user.slice/session-1.scope"}
	v1 := Hierarchy{Dir: "/sys/fs/cgroup/memory", Own: "/docker/abc"}
	for _, c := range []struct {
		h    Hierarchy
		mode Mode
		path string
		want string
	}{
		{v2, V2, "/a/b", "/sys/fs/cgroup/a/b"},
		{v2, V2, "a/b", "/sys/fs/cgroup/user.slice/a/b"},
		{v2, V2, "../../../a", "/sys/fs/cgroup/user.slice/a"},
		{v2, V2, "/../../etc", "/sys/fs/cgroup/etc"},
		{v2, V2, "", "/sys/fs/cgroup/user.slice"},
		{v2, Hybrid, "a", "/sys/fs/cgroup/user.slice/session-1.scope/a"},
		{v1, V1, "/a//b/", "/sys/fs/cgroup/memory/a/b"},
		{v1, V1, "a", "/sys/fs/cgroup/memory/docker/abc/a"},
		{v1, V1, "../a", "/sys/fs/cgroup/memory/docker/abc/a"},
		{Hierarchy{V2: true, Dir: "/c", Own: "/"}, V2, "a", "/c/a"},
	} {
		if got := c.h.Place(c.mode, c.path); got != c.want {
			t.Errorf("%s in %s (%v): %s, want %s", c.path, c.h.Own, c.mode, got, c.want)
		}
	}
}

func TestConvert(t *testing.T) {
	for shares, weight := range map[uint64]uint64{0: 0, 1: 1, 2: 1, 3: 2, 10: 4, 100: 17, 512: 59, 1024: 100, 2048: 174, 4096: 303, 8192: 532, 100000: 4340, 262144: 10000, 1 << 40: 10000} {
		if got := WeightFromShares(shares); got != weight {
			t.Errorf("shares %d: weight %d, want %d", shares, got, weight)
		}
	}
	for shares := uint64(2); shares < 262144; shares++ {
		if less, more := WeightFromShares(shares), WeightFromShares(shares+1); less < 1 || more < less || more > 10000 {
			t.Fatalf("shares %d and one more: weights %d and %d", shares, less, more)
		}
	}
	for blkio, weight := range map[uint16]uint64{0: 0, 10: 1, 500: 4950, 1000: 10000} {
		if got := IOWeight(blkio); got != weight {
			t.Errorf("blkio weight %d: %d, want %d", blkio, got, weight)
		}
	}
	for _, c := range []struct {
		memory, swap, want int64
		set, fails         bool
	}{
		{0, 0, 0, false, false},
		{100, 0, 0, false, false},
		{-1, 0, -1, true, false},
		{100, 100, 0, true, false},
		{100, 150, 50, true, false},
		{100, -1, -1, true, false},
		{0, -1, -1, true, false},
		{-1, 150, 150, true, false},
		{0, 150, 0, false, true},
		{100, 50, 0, false, true},
	} {
		got, set, err := SwapMax(c.memory, c.swap)
		if got != c.want || set != c.set || (err != nil) != c.fails {
			t.Errorf("memory %d swap %d: %d %v %v", c.memory, c.swap, got, set, err)
		}
	}
}
