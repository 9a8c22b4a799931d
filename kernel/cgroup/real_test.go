package cgroup

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/probe"
)

// These tests use the machine's own hierarchies, below /berth-test-PID.

var counter atomic.Int64

// real gives the machine's layout and a path of this test's own, removed at the end with what is in it.
func real(t testing.TB) (Layout, string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root: making cgroups")
	}
	l, err := Detect()
	if err != nil {
		t.Skip("needs cgroups: " + err.Error())
	}
	parent := "/berth-test-" + strconv.Itoa(os.Getpid())
	t.Cleanup(func() {
		if c, err := Open(l, parent); err == nil {
			if err := c.Kill(); err != nil {
				t.Errorf("clean up: %v", err)
			}
			if err := c.Remove(); err != nil {
				t.Errorf("clean up: %v", err)
			}
		}
	})
	return l, parent + "/c" + strconv.FormatInt(counter.Add(1), 10)
}

// ways gives the machine's layout, and parts of it as if they were all: v1 alone, v2 alone, and v2
// without cgroup.kill.
func ways(t *testing.T, test func(t *testing.T, l Layout, path string, have probe.Features)) {
	l, _ := real(t)
	var v1, v2 []Hierarchy
	for _, h := range l.Hierarchies {
		if h.V2 {
			v2 = append(v2, h)
		} else {
			v1 = append(v1, h)
		}
	}
	run := func(name string, l Layout, have probe.Features) {
		t.Run(name, func(t *testing.T) {
			_, path := real(t)
			test(t, l, path, have)
		})
	}
	run("all", l, probe.Host())
	if l.Mode == Hybrid {
		run("v1", Layout{V1, v1}, probe.Host())
	}
	if len(v2) > 0 {
		run("v2", Layout{V2, v2}, probe.Host())
		run("v2 without cgroup.kill", Layout{V2, v2}, probe.Host().Without(probe.CgroupKill))
	}
}

func ptr[T any](v T) *T { return &v }

func apply(t testing.TB, l Layout, path string, r *specs.LinuxResources) *Cgroup {
	t.Helper()
	s, err := Plan(l, path, r)
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.Apply()
	if err != nil {
		t.Fatalf("%v\n%s", err, s)
	}
	return c
}

// sleeper starts a process inside the cgroup, the way a launcher does on v1.
func sleeper(t testing.TB, c *Cgroup, script string) *exec.Cmd {
	t.Helper()
	a := c.Attach()
	var sh strings.Builder
	for _, f := range a.V1Procs {
		sh.WriteString("echo 0 >" + f + " || exit 9\n")
	}
	if a.V2Dir != "" {
		sh.WriteString("echo 0 >" + a.V2Dir + "/cgroup.procs || exit 9\n")
	}
	cmd := exec.Command("/bin/sh", "-c", sh.String()+script)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

// eventually waits until ok, or fails the test.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen: %s", what)
		}
	}
}

func dockerLike() *specs.LinuxResources {
	return &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(100))},
	}
}

// needs skips where the machine has not the controller.
func needs(t testing.TB, l Layout, controllers ...string) {
	t.Helper()
	for _, c := range controllers {
		if l.Find(c) == nil {
			t.Skipf("needs the cgroup controller %s", c)
		}
	}
}

func TestRealLimits(t *testing.T) {
	l, path := real(t)
	needs(t, l, "memory", "cpu", "pids")
	c := apply(t, l, path, dockerLike())
	want := map[string]string{
		"memory memory.limit_in_bytes":       "67108864",
		"memory memory.memsw.limit_in_bytes": "134217728",
		"cpu cpu.shares":                     "512",
		"cpu cpu.cfs_quota_us":               "50000",
		"pids pids.max":                      "100",
	}
	if l.Mode == V2 {
		want = map[string]string{
			"memory memory.max":      "67108864",
			"memory memory.swap.max": "67108864",
			"cpu cpu.weight":         utoa(WeightFromShares(512)),
			"cpu cpu.max":            "50000 100000",
			"pids pids.max":          "100",
		}
	}
	for key, v := range want {
		controller, file, _ := strings.Cut(key, " ")
		if got := trimmed(c.Dir(controller) + "/" + file); got != v {
			t.Errorf("%s is %q, want %q", file, got, v)
		}
	}
	cmd := sleeper(t, c, "exec sleep 100")
	eventually(t, "the process is inside everywhere", func() bool {
		for i := range l.Hierarchies {
			if pids, err := readProcs(c.dirs[i]); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
				return false
			}
		}
		return true
	})
	if pids, err := c.Procs(); err != nil || len(pids) != 1 || pids[0] != cmd.Process.Pid {
		t.Errorf("processes %v %v, want %d", pids, err, cmd.Process.Pid)
	}
	if _, err := Plan(l, path, nil); err != nil {
		t.Fatal(err)
	}
	s, _ := Plan(l, path, nil)
	if _, err := s.Apply(); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a second container in the same cgroup: %v", err)
	}
	if err := c.Remove(); !fault.Is(err, fault.Conflict) {
		t.Errorf("removing a populated cgroup: %v", err)
	}
	c, err := Open(l, path)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("the process ended with %v", err)
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	if _, err := Open(l, path); !fault.Is(err, fault.NotFound) {
		t.Errorf("after Remove: %v", err)
	}
}

func TestRealUndo(t *testing.T) {
	l, path := real(t)
	needs(t, l, "cpuset")
	s, err := Plan(l, path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "4000"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Apply()
	if err == nil {
		t.Fatal("CPU 4000 is accepted")
	}
	if !strings.Contains(err.Error(), "cpuset.cpus") || !strings.Contains(err.Error(), "4000") {
		t.Errorf("the error does not name file and value: %v", err)
	}
	for _, h := range l.Hierarchies {
		if dir := h.Place(l.Mode, path); exists(dir) {
			t.Errorf("%s is left", dir)
		}
	}
}

func TestRealFreeze(t *testing.T) { ways(t, testFreeze) }

func testFreeze(t *testing.T, l Layout, path string, have probe.Features) {
	c := apply(t, l, path, nil)
	c.have = have
	cmd := sleeper(t, c, "while :; do :; done")
	eventually(t, "the process is inside", func() bool { p, _ := c.Procs(); return len(p) == 1 })
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	if frozen, err := c.Frozen(); !frozen || err != nil {
		t.Errorf("frozen: %v %v", frozen, err)
	}
	cpu := func() string {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/stat")
		f := strings.Fields(string(b))
		return f[13] + " " + f[14]
	}
	before := cpu()
	time.Sleep(50 * time.Millisecond)
	if after := cpu(); after != before {
		t.Errorf("a frozen process has run: %s, then %s", before, after)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("Kill of a frozen cgroup does not kill")
	}
	if frozen, _ := c.Frozen(); frozen {
		t.Error("still frozen after Kill")
	}
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
	if err := c.Kill(); err != nil {
		t.Errorf("Kill of a removed cgroup: %v", err)
	}
}

// A process that was moved to a cgroup below is found there.
func TestRealAttachBeside(t *testing.T) {
	l, path := real(t)
	c := apply(t, l, path, nil)
	s, err := Plan(l, path, nil)
	if err != nil || !reflect.DeepEqual(s.Attach(), c.Attach()) {
		t.Errorf("planned %+v (%v), made %+v", s.Attach(), err, c.Attach())
	}
	cmd := sleeper(t, c, "exec sleep 100")
	last := c.dirs[len(c.dirs)-1]
	eventually(t, "the process is inside", func() bool { p, _ := readProcs(last); return len(p) == 1 })
	if got := c.AttachBeside(cmd.Process.Pid); !reflect.DeepEqual(got, c.Attach()) {
		t.Errorf("beside a process that is in the cgroup itself: %+v", got)
	}
	if err := os.Mkdir(last+"/sub", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(last+"/sub/cgroup.procs", strconv.Itoa(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	got, want := c.AttachBeside(cmd.Process.Pid), c.Attach()
	if l.Hierarchies[len(c.dirs)-1].V2 {
		want.V2Dir += "/sub"
	} else {
		want.V1Procs[len(want.V1Procs)-1] = last + "/sub/tasks"
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("beside a process that is below: %+v, want %+v", got, want)
	}
	if got := c.AttachBeside(os.Getpid()); !reflect.DeepEqual(got, c.Attach()) {
		t.Errorf("beside a process that is elsewhere: %+v", got)
	}
}

// A tree of forking processes is killed as a whole.
func TestRealKillTree(t *testing.T) { ways(t, testKillTree) }

func testKillTree(t *testing.T, l Layout, path string, have probe.Features) {
	r := &specs.LinuxResources{}
	if l.Find("pids") != nil {
		r.Pids = &specs.LinuxPids{Limit: ptr(int64(40))}
	}
	c := apply(t, l, path, r)
	c.have = have
	cmd := sleeper(t, c, "f() { while :; do sleep 0.01 & sleep 0.01; done 2>/dev/null; }; f & f & f & wait")
	eventually(t, "a tree", func() bool { p, _ := c.Procs(); return len(p) > 5 })
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	eventually(t, "all gone", func() bool { p, _ := c.Procs(); return len(p) == 0 })
	if err := c.Remove(); err != nil {
		t.Error(err)
	}
}

// Many containers come and go below one parent, which a failing one takes away whenever it is empty.
func TestRealConcurrent(t *testing.T) {
	l, path := real(t)
	parent := strings.TrimSuffix(path, path[strings.LastIndex(path, "/"):]) + "/many"
	var wg sync.WaitGroup
	for n := range 4 {
		wg.Go(func() {
			for i := range 25 {
				s, err := Plan(l, parent+"/c"+strconv.Itoa(n), nil)
				if err != nil {
					t.Error(err)
					return
				}
				if n == 0 { // fails after its directories are made
					s.Steps = append(s.Steps, Step{Op: Write, Dir: s.Steps[0].Dir, File: "no.such.file", Value: "1", Field: "test"})
					if _, err := s.Apply(); err == nil {
						t.Error("a missing file is no failure")
					}
					continue
				}
				c, err := s.Apply()
				if err != nil {
					t.Errorf("round %d: %v", i, err)
					return
				}
				if err := c.Remove(); err != nil {
					t.Errorf("round %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
}

// Limits on the machine's own v2, by the one controller that it may have; and the reason when a parent
// that has processes cannot hand it on.
func TestRealV2Controller(t *testing.T) {
	l, path := real(t)
	h := l.V2()
	if h == nil || !h.Has("hugetlb") || len(hugePageSizes()) == 0 {
		t.Skip("needs the hugetlb controller on cgroup v2")
	}
	l = Layout{Mode: V2, Hierarchies: []Hierarchy{*h}}
	size := hugePageSizes()[0]
	r := &specs.LinuxResources{HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: size, Limit: 4 << 20}}}
	c := apply(t, l, path, r)
	s, err := c.Stats()
	if _, ok := s.Hugetlb[size]; err != nil || !ok {
		t.Errorf("stats %+v %v", s.Hugetlb, err)
	}
	if got := trimmed(c.V2Dir() + "/hugetlb." + size + ".max"); got == "" || got == "max" {
		t.Errorf("the limit is %q", got)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}

	full := apply(t, l, path+"-full", nil)
	if err := writeFile(full.V2Dir()+"/cgroup.subtree_control", "-hugetlb"); err != nil {
		t.Fatal(err)
	}
	sleeper(t, full, "exec sleep 100")
	eventually(t, "the process is inside", func() bool { p, _ := full.Procs(); return len(p) == 1 })
	plan, err := Plan(l, path+"-full/child", r)
	if err != nil {
		t.Fatal(err)
	}
	_, err = plan.Apply()
	if !fault.Is(err, fault.NotImplemented) || !strings.Contains(err.Error(), "move the processes into a child") || !strings.Contains(err.Error(), "hugetlb") {
		t.Errorf("below a cgroup with processes: %v", err)
	}
	if exists(full.V2Dir() + "/child") {
		t.Error("the child is left")
	}
}

func BenchmarkRealMakeRemove(b *testing.B) {
	l, path := real(b)
	needs(b, l, "memory", "cpu", "pids")
	r := dockerLike()
	for b.Loop() {
		l, err := Detect()
		if err != nil {
			b.Fatal(err)
		}
		s, err := Plan(l, path, r)
		if err != nil {
			b.Fatal(err)
		}
		c, err := s.Apply()
		if err != nil {
			b.Fatal(err)
		}
		if err := c.Remove(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDetect(b *testing.B) {
	for b.Loop() {
		if _, err := Detect(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPlan(b *testing.B) {
	l, err := Detect()
	if err != nil {
		b.Skip("needs cgroups")
	}
	r := dockerLike()
	for b.Loop() {
		if _, err := Plan(l, "/docker/0123456789", r); err != nil {
			b.Fatal(err)
		}
	}
}

// TestRealCpusetIsBornFull: on v1 the second container below a parent that was made here needs no write to
// its cpuset, and one below a parent of somebody else is filled all the same.
func TestRealCpusetIsBornFull(t *testing.T) {
	l, path := real(t)
	i := slices.IndexFunc(l.Hierarchies, func(h Hierarchy) bool { return !h.V2 && h.Has("cpuset") })
	if i < 0 {
		t.Skip("needs cgroup v1's cpuset")
	}
	h := l.Hierarchies[i]
	check := func(name, flag string) {
		c := apply(t, l, path+"/"+name, nil)
		dir := h.Place(l.Mode, path+"/"+name)
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if got, want := trimmed(dir+"/"+f), trimmed(h.Dir+"/"+f); got != want {
				t.Errorf("%s: %s is %q, want %q", name, f, got, want)
			}
		}
		if got := trimmed(h.Place(l.Mode, path) + "/cgroup.clone_children"); got != flag {
			t.Errorf("after %s the parent's cgroup.clone_children is %s, want %s", name, got, flag)
		}
		if err := c.Remove(); err != nil {
			t.Error(err)
		}
	}
	check("first", "1")
	check("second", "1")
	if err := writeFile(h.Place(l.Mode, path)+"/cgroup.clone_children", "0"); err != nil {
		t.Fatal(err)
	}
	check("elsewhere", "0")
}
