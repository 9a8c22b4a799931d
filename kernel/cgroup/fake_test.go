package cgroup

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// fake makes a root with the files given as "path: text".
func fake(t testing.TB, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestDetect(t *testing.T) {
	for _, c := range []struct {
		name, mounts, self string
		files              map[string]string
		mode               Mode
		want               []string // "dir own controllers"
		err                bool
	}{
		{
			name:   "systemd, v2",
			mounts: "24 1 0:21 / /proc rw - proc proc rw\n35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
			self:   "0::/system.slice/ssh.service\n",
			files:  map[string]string{"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory\n"},
			mode:   V2,
			want:   []string{"/sys/fs/cgroup /system.slice/ssh.service cpuset,cpu,io,memory"},
		},
		{
			name: "systemd, v1 with joined controllers, listed in another order, and mounted twice",
			mounts: "30 1 0:25 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n" +
				"31 30 0:26 / /sys/fs/cgroup/systemd rw shared:7 - cgroup cgroup rw,xattr,name=systemd\n" +
				"32 30 0:27 / /var/lib/x/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"33 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n" +
				"34 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"35 30 0:29 / /sys/fs/cgroup/with\\040blank rw - cgroup cgroup rw,pids\n",
			self: "5:cpuacct,cpu:/user.slice\n4:memory:/a\n3:pids:/\n1:name=systemd:/user.slice/x\n",
			mode: V1,
			want: []string{
				"/sys/fs/cgroup/systemd /user.slice/x name=systemd",
				"/sys/fs/cgroup/memory /a memory",
				"/sys/fs/cgroup/cpu,cpuacct /user.slice cpu,cpuacct",
				"/sys/fs/cgroup/with blank / pids",
			},
		},
		{
			name: "hybrid",
			mounts: "31 30 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n" +
				"34 30 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n",
			self:  "4:memory:/a\n0::/b\n",
			files: map[string]string{"sys/fs/cgroup/unified/cgroup.controllers": "hugetlb\n"},
			mode:  Hybrid,
			want:  []string{"/sys/fs/cgroup/memory /a memory", "/sys/fs/cgroup/unified /b hugetlb"},
		},
		{
			name: "in a container without a cgroup namespace",
			mounts: "31 30 0:26 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
				"32 30 0:27 /docker/abc /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n",
			self: "4:memory:/docker/abc/in\n3:pids:/docker/abc\n",
			mode: V1,
			want: []string{"/sys/fs/cgroup/memory /in memory", "/sys/fs/cgroup/pids / pids"},
		},
		{
			name:   "outside its cgroup namespace",
			mounts: "35 24 0:30 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
			self:   "0::/../..\n",
			files:  map[string]string{"sys/fs/cgroup/cgroup.controllers": ""},
			mode:   V2,
			want:   []string{"/sys/fs/cgroup / "},
		},
		{name: "nothing", mounts: "24 1 0:21 / /proc rw - proc proc rw\n", self: "0::/\n", err: true},
		{name: "nonsense", mounts: "x - cgroup\n - cgroup2 \n\n", self: "::\n:\n", err: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{"proc/self/mountinfo": c.mounts, "proc/self/cgroup": c.self}
			for k, v := range c.files {
				files[k] = v
			}
			root := fake(t, files)
			l, err := DetectAt(root)
			if (err != nil) != c.err {
				t.Fatal(err)
			}
			if err != nil {
				if !fault.Is(err, fault.NotImplemented) {
					t.Error(err)
				}
				return
			}
			var got []string
			for _, h := range l.Hierarchies {
				got = append(got, strings.TrimPrefix(h.Dir, root)+" "+h.Own+" "+strings.Join(h.Controllers, ","))
			}
			if l.Mode != c.mode || !slices.Equal(got, c.want) {
				t.Errorf("%v %q, want %v %q", l.Mode, got, c.mode, c.want)
			}
		})
	}
	if _, err := DetectAt(t.TempDir()); err == nil {
		t.Error("an empty root has cgroups")
	}
}

// fakeV2 makes a v2 layout with the container /c that has the files.
func fakeV2(t testing.TB, files map[string]string) *Cgroup {
	t.Helper()
	all := map[string]string{"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma"}
	for name, text := range files {
		all["c/"+name] = text
	}
	root := fake(t, all)
	c, err := Open(Layout{Mode: V2, Hierarchies: []Hierarchy{{V2: true, Dir: root, Own: "/", Controllers: strings.Fields(all["cgroup.controllers"])}}}, "/c")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestStatsV2(t *testing.T) {
	c := fakeV2(t, map[string]string{
		"cpu.stat":            "usage_usec 100\nuser_usec 60\nsystem_usec 40\nnr_periods 5\nnr_throttled 2\nthrottled_usec 7\nnr_bursts 1\nburst_usec 3\n",
		"cpu.pressure":        "some avg10=1.50 avg60=0.25 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
		"memory.current":      "1000\n",
		"memory.max":          "max\n",
		"memory.peak":         "2000\n",
		"memory.swap.current": "50\n",
		"memory.swap.max":     "4096\n",
		"memory.stat":         "anon 400\nfile 300\nkernel 77\ninactive_file 200\n",
		"memory.events":       "low 0\nhigh 0\nmax 4\noom 1\noom_kill 3\noom_group_kill 0\n",
		"memory.swap.events":  "high 0\nmax 0\nfail 6\n",
		"pids.current":        "3\n",
		"pids.max":            "10\n",
		"pids.events":         "max 8\n",
		"io.stat":             "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 \n8:16 rbytes=9\n",
		"rdma.current":        "mlx4_0 hca_handle=2 hca_object=2000\n",
		"rdma.max":            "mlx4_0 hca_handle=3 hca_object=max\n",
	})
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU: CPUStats{Usage: 100000, User: 60000, System: 40000, Periods: 5, ThrottledPeriods: 2, Throttled: 7000, Bursts: 1, BurstTime: 3000,
			Pressure: &Pressure{Some: PressureLine{1.5, 0.25, 0, 123}, Full: PressureLine{Total: 9}}},
		Memory: MemoryStats{Usage: 1000, Limit: Unlimited, Max: 2000, Failures: 4, Cache: 300, Inactive: 200, Swap: 50, SwapUsage: 50, SwapLimit: 4096,
			SwapFailures: 6, Kernel: 77, OOMKills: 3, Stat: map[string]uint64{"anon": 400, "file": 300, "kernel": 77, "inactive_file": 200}},
		Pids: PidsStats{3, 10, 8},
		IO: IOStats{
			Bytes: []IOEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 0, "Discard", 5}, {8, 16, "Read", 9}},
			Ops:   []IOEntry{{8, 0, "Read", 3}, {8, 0, "Write", 4}, {8, 0, "Discard", 6}},
		},
		Rdma: map[string]RdmaStats{"mlx4_0": {2, 2000, 3, Unlimited}},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
	if n := c.OOMKills(); n != 3 {
		t.Errorf("OOM kills %d", n)
	}
}

func TestStatsV1(t *testing.T) {
	root := fake(t, map[string]string{
		"cpu/c/cpu.stat":                                    "nr_periods 5\nnr_throttled 2\nthrottled_time 7\n",
		"cpu/c/cpuacct.usage":                               "100\n",
		"cpu/c/cpuacct.usage_percpu":                        "60 40 \n",
		"cpu/c/cpuacct.stat":                                "user 3\nsystem 2\n",
		"memory/c/memory.usage_in_bytes":                    "1000\n",
		"memory/c/memory.limit_in_bytes":                    "9223372036854771712\n",
		"memory/c/memory.max_usage_in_bytes":                "2000\n",
		"memory/c/memory.failcnt":                           "4\n",
		"memory/c/memory.memsw.usage_in_bytes":              "1100\n",
		"memory/c/memory.memsw.limit_in_bytes":              "5000\n",
		"memory/c/memory.stat":                              "cache 300\nrss 5\ntotal_inactive_file 200\n",
		"memory/c/memory.oom_control":                       "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
		"memory/c/sub/memory.oom_control":                   "oom_kill 1\n",
		"blkio/c/blkio.throttle.io_service_bytes_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
		"blkio/c/blkio.throttle.io_serviced":                "8:0 Read 4\nTotal 4\n",
		"blkio/c/blkio.bfq.io_serviced_recursive":           "",
		"blkio/c/blkio.time_recursive":                      "8:0 77\n",
	})
	l := Layout{Mode: V1}
	for _, name := range []string{"cpu", "memory", "blkio"} {
		l.Hierarchies = append(l.Hierarchies, Hierarchy{Dir: root + "/" + name, Own: "/", Controllers: []string{name}})
	}
	l.Hierarchies[0].Controllers = []string{"cpu", "cpuacct"}
	c, err := Open(l, "/c")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Stats()
	if err != nil {
		t.Fatal(err)
	}
	want := Stats{
		CPU: CPUStats{Usage: 100, User: 30e6, System: 20e6, PerCPU: []uint64{60, 40}, Periods: 5, ThrottledPeriods: 2, Throttled: 7},
		Memory: MemoryStats{Usage: 1000, Limit: Unlimited, Max: 2000, Failures: 4, Cache: 300, Inactive: 200, SwapCombined: true, SwapUsage: 1100, Swap: 100,
			SwapLimit: 5000, OOMKills: 3, Stat: map[string]uint64{"cache": 300, "rss": 5, "total_inactive_file": 200}},
		IO: IOStats{
			Bytes: []IOEntry{{8, 0, "Read", 1}, {8, 0, "Write", 2}, {8, 0, "Total", 3}},
			Ops:   []IOEntry{{8, 0, "Read", 4}},
			Time:  []IOEntry{{8, 0, "", 77}},
		},
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got  %+v\nwant %+v", s, want)
	}
}

func TestStatsOfNothing(t *testing.T) {
	c := fakeV2(t, map[string]string{"cgroup.procs": ""})
	if err := os.RemoveAll(c.V2Dir()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Stats(); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := c.Remove(); err != nil {
		t.Errorf("removing what is gone: %v", err)
	}
	if n := c.OOMKills(); n != 0 {
		t.Errorf("OOM kills %d", n)
	}
}

// An update is ordered by what holds at the moment, and is written.
func TestUpdateV2(t *testing.T) {
	files := func() map[string]string {
		return map[string]string{
			"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma",
			"memory.max":         "1000\n", "memory.current": "500\n", "memory.swap.max": "0\n", "memory.low": "0\n",
			"cpu.max": "5000 20000\n", "cpu.weight": "100\n", "pids.max": "max\n",
		}
	}
	for _, c := range []struct {
		name string
		r    *specs.LinuxResources
		want []string // writes, in order
		err  string
	}{
		{"raise", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(2000)), Swap: ptr(int64(3000))}}, []string{"memory.swap.max=1000", "memory.max=2000"}, ""},
		{"swap alone", &specs.LinuxResources{Memory: &specs.LinuxMemory{Swap: ptr(int64(1500))}}, []string{"memory.swap.max=500"}, ""},
		{"memory alone", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(800))}}, []string{"memory.max=800"}, ""},
		{"below use", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(400)), CheckBeforeUpdate: ptr(true)}}, nil, "current usage: 500"},
		{"below use, unchecked", &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: ptr(int64(400))}}, []string{"memory.max=400"}, ""},
		{"period alone", &specs.LinuxResources{CPU: &specs.LinuxCPU{Period: ptr(uint64(50000))}}, []string{"cpu.max=5000 50000"}, ""},
		{"quota alone", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(7000))}}, []string{"cpu.max=7000"}, ""},
		{"no quota", &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: ptr(int64(-1))}}, []string{"cpu.max=max"}, ""},
		{"pids", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(-1))}}, []string{"pids.max=max"}, ""},
		{"nothing", &specs.LinuxResources{}, nil, ""},
		{"nil", nil, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := fakeV2(t, files())
			s, err := g.PlanUpdate(c.r)
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %q", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, step := range s.Steps {
				if step.Op == Write {
					got = append(got, step.File+"="+step.Value)
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("writes %q, want %q", got, c.want)
			}
			if err := g.Update(c.r); err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				file, value, _ := strings.Cut(w, "=")
				// A plain file keeps what a shorter write does not cover.
				if got := trimmed(g.V2Dir() + "/" + file); !strings.HasPrefix(got, value) {
					t.Errorf("%s holds %q, want %q", file, got, value)
				}
			}
		})
	}
}

// A refused value leaves the ones before it as they were.
func TestUpdateUndone(t *testing.T) {
	g := fakeV2(t, map[string]string{
		"cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma",
		"memory.max":         "1000\n", "memory.current": "500\n", "cpu.max": "5000 20000\n",
	})
	err := g.Update(&specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(2000))},
		Pids:   &specs.LinuxPids{Limit: ptr(int64(5))}, // there is no such file
	})
	if !fault.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "pids.max") || !strings.Contains(err.Error(), `"5"`) {
		t.Errorf("the error is %v", err)
	}
	if got := trimmed(g.V2Dir() + "/memory.max"); got != "1000" {
		t.Errorf("memory.max is %q after a failed update", got)
	}
}

func FuzzDetect(f *testing.F) {
	f.Add("35 24 0:30 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n31 30 0:26 / /x\\040y rw - cgroup cgroup rw,cpu\n", "0::/a\n4:cpu:/b\n")
	f.Fuzz(func(t *testing.T, mounts, self string) {
		for _, h := range fromMounts([]byte(mounts), ownPaths([]byte(self)), "") {
			if h.Own != "" && h.Own[0] != '/' {
				t.Errorf("own path %q", h.Own)
			}
			if dir := h.Place(V1, "../../x"); !strings.HasPrefix(dir, h.Dir) {
				t.Errorf("%q is outside %q", dir, h.Dir)
			}
		}
	})
}

func FuzzStats(f *testing.F) {
	f.Add("some avg10=1.50 avg60=0.25 avg300=0.00 total=123\n8:0 Read 4\nTotal 4\n8:0 rbytes=1\n")
	f.Fuzz(func(t *testing.T, text string) {
		if p := parsePressure(text); p != nil && (p.Some.Avg10 < 0 || p.Full.Avg10 < 0) {
			t.Errorf("%+v", p)
		}
		for line := range strings.SplitSeq(text, "\n") {
			parseIOEntry(line)
		}
		parseDevicesList([]byte(text))
		keyed([]byte(text), "total")
	})
}

// Whatever the resources, a plan is an error or stays within the container's directories.
func FuzzPlan(f *testing.F) {
	f.Add("/a/b", int64(10), int64(20), uint64(5), "0-3", "memory.max", "1", "c", "rwm")
	f.Fuzz(func(t *testing.T, path string, limit, swap int64, shares uint64, cpus, file, value, kind, access string) {
		r := &specs.LinuxResources{
			Memory:  &specs.LinuxMemory{Limit: &limit, Swap: &swap},
			CPU:     &specs.LinuxCPU{Shares: &shares, Cpus: cpus},
			Devices: []specs.LinuxDeviceCgroup{{Type: kind, Access: access, Major: &limit, Minor: &swap}},
			Unified: map[string]string{file: value},
		}
		for _, l := range []Layout{layoutV1(), layoutV2(), layoutHybrid()} {
			s, err := Plan(l, path, r)
			if err != nil {
				continue
			}
			for _, step := range s.Steps {
				if !strings.HasPrefix(step.Dir, conventional+"/") || strings.Contains(step.Dir, "/../") || strings.Contains(step.File, "/") {
					t.Errorf("a step outside: %+v", step)
				}
			}
			_ = s.String()
		}
	})
}
