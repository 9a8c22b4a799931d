package systemd

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
)

var update = flag.Bool("update", false, "write the golden files anew")

func ptr[T any](v T) *T { return &v }

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in, prefix, id string
		user           bool
		name, path     string
		err            string
	}{
		{"", "berth", "abc", false, "berth-abc.scope", "/system.slice/berth-abc.scope", ""},
		{"", "berth", "abc", true, "berth-abc.scope", "/user.slice/berth-abc.scope", ""},
		{":docker:0123", "", "", false, "docker-0123.scope", "/system.slice/docker-0123.scope", ""},
		{"machine.slice:libpod:0123", "", "", false, "libpod-0123.scope", "/machine.slice/libpod-0123.scope", ""},
		{"kubepods-burstable-pod1.slice:cri:x", "", "", false, "cri-x.scope", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-x.scope", ""},
		{"-.slice:a:b", "", "", false, "a-b.scope", "/a-b.scope", ""},
		{"a.slice::x", "", "", false, "x.scope", "/a.slice/x.scope", ""},
		{"a.slice::a-b.slice", "", "", false, "a-b.slice", "/a.slice/a-b.slice", ""},
		{"/docker/abc", "", "", false, "", "", "slice:prefix:name"},
		{"a.slice:b:", "", "", false, "", "", "no name"},
		{"a:b:c", "", "", false, "", "", "invalid slice name: a"},
		{"a--b.slice:b:c", "", "", false, "", "", "invalid slice name"},
		{"-a.slice:b:c", "", "", false, "", "", "invalid slice name"},
		{"a/b.slice:b:c", "", "", false, "", "", "invalid slice name"},
		{".slice:b:c", "", "", false, "", "", "invalid slice name"},
		{"a.slice:b:c d", "", "", false, "", "", "no unit's name"},
		{"a.slice:b:c/d", "", "", false, "", "", "no unit's name"},
		{"a.slice:b:" + strings.Repeat("x", 250), "", "", false, "", "", "no unit's name"},
	} {
		u, err := Parse(c.in, c.prefix, c.id, c.user)
		if c.err != "" {
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: %v, want %q", c.in, err, c.err)
			}
			continue
		}
		if err != nil || u.Name != c.name || u.Path() != c.path {
			t.Errorf("%q: %+v %s %v, want %s %s", c.in, u, u.Path(), err, c.name, c.path)
		}
	}
}

// objectName escapes a unit's name for its D-Bus object path: everything but letters and digits (and a
// digit at the start) becomes _2e.
func objectName(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' && i > 0 {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "_%02x", c)
	}
	return b.String()
}

func TestVersion(t *testing.T) {
	for in, want := range map[string]int{"252.38-1~deb12u1": 252, "v245": 245, "systemd 239 (239-58.el8)": 239, "": 0, "x": 0} {
		if got := parseVersion(in); got != want {
			t.Errorf("%q: %d, want %d", in, got, want)
		}
	}
}

func TestBitmask(t *testing.T) {
	for in, want := range map[string][]byte{"0": {1}, "0-3": {15}, "8": {0, 1}, "0,9-10": {1, 6}, "63": {0, 0, 0, 0, 0, 0, 0, 128}, " 0 , 1\n": {3}} {
		if got, err := Bitmask(in); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%q: %v %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", ",", "a", "3-1", "-1", "1-", "99999999", "0-4294967295"} {
		if got, err := Bitmask(in); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v %v", in, got, err)
		}
	}
}

func TestPropertiesGolden(t *testing.T) {
	all := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{
			{Access: "rwm"},
			{Allow: true, Type: "c", Major: ptr(int64(10)), Minor: ptr(int64(200)), Access: "rw"},
			{Allow: true, Type: "b", Major: ptr(int64(8)), Access: "r"},
		},
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(128 << 20)), Reservation: ptr(int64(32 << 20))},
		CPU:     &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(33333)), Period: ptr(uint64(100000)), Cpus: "0-1", Mems: "0"},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(100))},
		BlockIO: &specs.LinuxBlockIO{Weight: ptr(uint16(500))},
	}
	none := &specs.LinuxResources{
		Devices: []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}},
		Memory:  &specs.LinuxMemory{Limit: ptr(int64(-1))},
		CPU:     &specs.LinuxCPU{Quota: ptr(int64(-1))},
		Pids:    &specs.LinuxPids{Limit: ptr(int64(-1))},
	}
	unified := &specs.LinuxResources{
		CPU: &specs.LinuxCPU{Idle: ptr(int64(1))},
		Unified: map[string]string{"cpu.max": "max 50000", "cpu.weight": "7", "cpuset.cpus": "1", "memory.high": "max", "memory.low": "1",
			"memory.min": "2", "memory.max": "3", "memory.swap.max": "4", "pids.max": "5", "io.max": "8:0 rbps=1"},
	}
	var out strings.Builder
	for _, c := range []struct {
		name    string
		mode    cgroup.Mode
		version int
		r       *specs.LinuxResources
	}{
		{"all, v2, 252", cgroup.V2, 252, all},
		{"all, v2, 241", cgroup.V2, 241, all},
		{"all, v1, 252", cgroup.V1, 252, all},
		{"none, v2", cgroup.V2, 252, none},
		{"none, v1", cgroup.V1, 252, none},
		{"unified", cgroup.V2, 252, unified},
		{"unified, 243", cgroup.V2, 243, unified},
		{"nil", cgroup.V2, 252, nil},
	} {
		list, err := Properties(c.mode, c.version, c.r)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		out.WriteString("# " + c.name + "\n")
		for _, p := range list {
			out.WriteString(p.String() + "\n")
		}
	}
	out.WriteString("# scope\n")
	for _, p := range unitProperties(Unit{"a-b.scope", "a.slice"}, "x", 5) {
		out.WriteString(p.String() + "\n")
	}
	out.WriteString("# slice\n")
	for _, p := range unitProperties(Unit{"a-b.slice", "a.slice"}, "x", 5) {
		out.WriteString(p.String() + "\n")
	}
	file := filepath.Join("testdata", "properties.golden")
	if *update {
		os.MkdirAll("testdata", 0o755)
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if out.String() != string(want) {
		t.Errorf("differs:\n--- got\n%s--- want\n%s", out.String(), want)
	}
	for _, bad := range []map[string]string{{"cpu.max": "x"}, {"cpu.max": "1 y"}, {"memory.max": "-1"}, {"cpuset.cpus": "a"}} {
		if list, err := Properties(cgroup.V2, 252, &specs.LinuxResources{Unified: bad}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v %v", bad, list, err)
		}
	}
}

func TestFromAnnotations(t *testing.T) {
	list, err := FromAnnotations(map[string]string{
		"org.systemd.property.TimeoutStopSec": "1.5",
		"org.systemd.property.CollectMode":    "'inactive-or-failed'",
		"org.systemd.property.After":          "['a.service', 'b.service']",
		"org.systemd.property.TasksMax":       "uint64 7",
		"org.example.other":                   "('",
	})
	var got []string
	for _, p := range list {
		got = append(got, p.String())
	}
	want := `After=["a.service", "b.service"] CollectMode="inactive-or-failed" TasksMax=@t 7 TimeoutStopUSec=@t 1500000`
	if err != nil || strings.Join(got, " ") != want {
		t.Errorf("%s %v, want %s", got, err, want)
	}
	for key, text := range map[string]string{"org.systemd.property.": "1", "org.systemd.property.A-b": "1", "org.systemd.property.X": "'", "org.systemd.property.XSec": "'a'", "org.systemd.property.YSec": "-1"} {
		if list, err := FromAnnotations(map[string]string{key: text}); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s=%s: %v %v", key, text, list, err)
		}
	}
}

func TestJobResult(t *testing.T) {
	s := &dbus.Signal{Name: managerIF + ".JobRemoved", Body: []any{uint32(1), dbus.ObjectPath("/j/1"), "a.scope", "done"}}
	if r, mine := jobResult(s, "/j/1"); r != "done" || !mine {
		t.Errorf("%q %v", r, mine)
	}
	if _, mine := jobResult(s, "/j/2"); mine {
		t.Error("another's job")
	}
	if _, mine := jobResult(&dbus.Signal{Name: managerIF + ".JobRemoved"}, "/j/1"); mine {
		t.Error("an empty signal")
	}
}

func TestConnectNowhere(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	if m, err := Connect(t.Context(), true); !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v %v", m, err)
	}
}

// live starts a systemd of this test's own: a user instance in a cgroup and a mount namespace of its own,
// where it believes that the machine runs systemd.
func live(t *testing.T) (cgroup.Layout, *Manager) {
	t.Helper()
	const program = "/lib/systemd/systemd"
	if _, err := os.Stat(program); err != nil || os.Getuid() != 0 {
		t.Skip("needs systemd: root and " + program)
	}
	l, err := cgroup.Detect()
	if err != nil {
		t.Skip("needs cgroups: " + err.Error())
	}
	run := t.TempDir() // before the cgroups, so that it is removed when nobody is left to write there
	os.Chmod(run, 0o700)
	var join strings.Builder
	parent := "/berth-test-" + strconv.Itoa(os.Getpid()) + "-systemd"
	for _, h := range l.Hierarchies {
		if h.V2 || h.Has("name=systemd") {
			dir := h.Dir + parent
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Skip("needs systemd: " + err.Error())
			}
			join.WriteString("echo 0 >" + dir + "/cgroup.procs && ")
		}
	}
	t.Cleanup(func() {
		c, err := cgroup.Open(l, parent)
		if err != nil {
			return
		}
		c.Kill()
		if err := c.Remove(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("/bin/sh", "-c", join.String()+
		`mount -t tmpfs tmpfs /run/systemd && mkdir /run/systemd/system && exec "$@"`, "sh",
		program, "--user", "--unit=basic.target")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + run, "XDG_RUNTIME_DIR=" + run, "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=info",
		"XDG_CONFIG_HOME=" + run, "XDG_DATA_HOME=" + run}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Skip("needs systemd: " + err.Error())
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("DBUS_SESSION_BUS_ADDRESS", "")
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // it may forget a call that comes too early
		m, err := Connect(ctx, true)
		cancel()
		if err == nil {
			t.Cleanup(func() { m.Close() })
			return l, m
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log.Name())
			t.Skipf("needs systemd: %v\n%s", err, text)
		}
	}
}

// A real systemd makes the scope around a process, knows its limits, refuses a second of the name, and
// stops it.
func TestLive(t *testing.T) {
	l, m := live(t)
	if m.Version() < 200 {
		t.Errorf("version %d", m.Version())
	}
	u, err := Parse("berthtest.slice:berth:live", "", "", true)
	if err != nil {
		t.Fatal(err)
	}
	sleeper := exec.Command("sleep", "1000")
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- sleeper.Wait() }()
	t.Cleanup(func() { sleeper.Process.Kill() })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	r := &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Access: "rwm"}}, Pids: &specs.LinuxPids{Limit: ptr(int64(77))}, CPU: &specs.LinuxCPU{Shares: ptr(uint64(512))}}
	c, err := m.Scope(ctx, l, u, sleeper.Process.Pid, r, []Property{property("Description", "live test")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Remove() })
	if pids, err := c.Procs(); err != nil || len(pids) != 1 || pids[0] != sleeper.Process.Pid {
		t.Errorf("processes %v %v", pids, err)
	}
	unit := m.conn.Object(service, dbus.ObjectPath(objects+"/unit/"+objectName(u.Name)))
	if path, err := m.stringProperty(ctx, unit, service+".Scope", "ControlGroup"); err != nil || path != m.Path(u) {
		t.Errorf("systemd has it at %q (%v), this package at %q", path, err, m.Path(u))
	}
	tasks := func() uint64 {
		var v dbus.Variant
		if err := unit.CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, service+".Scope", "TasksMax").Store(&v); err != nil {
			t.Error(err)
		}
		n, _ := v.Value().(uint64)
		return n
	}
	if n := tasks(); n != 77 {
		t.Errorf("TasksMax %d, want 77", n)
	}
	if s, err := c.Stats(); err != nil || s.Pids.Limit != 77 {
		t.Errorf("pids limit %d %v, want 77", s.Pids.Limit, err)
	}
	if err := m.Update(ctx, l, u, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(78))}}); err != nil {
		t.Error(err)
	}
	if n := tasks(); n != 78 {
		t.Errorf("TasksMax %d, want 78", n)
	}
	if err := m.Start(ctx, u, os.Getpid(), nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second unit of the name: %v", err)
	}
	if err := m.Stop(ctx, u); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Error("the process outlives its unit")
	}
	if err := m.Stop(ctx, u); err != nil {
		t.Errorf("stopping what is stopped: %v", err)
	}
	bad := specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: "x"}}
	if _, err := m.Scope(ctx, l, u, os.Getpid(), &bad, nil); !fault.Is(err, fault.Invalid) {
		t.Errorf("bad limits: %v", err)
	}
	if err := m.Start(ctx, Unit{"berth-none.scope", "berthtest.slice"}, 0, nil); err == nil {
		t.Error("a scope without a process is accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a-b.slice:c:d")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s, "p", "id", false)
		if err != nil {
			return
		}
		if p := u.Path(); !strings.HasPrefix(p, "/") || strings.Contains(p, "..") && strings.Contains(p, "/../") || strings.Contains(p, "//") {
			t.Errorf("%q: %q", s, p)
		}
	})
}

func FuzzBitmask(f *testing.F) {
	f.Add("0-3,8")
	f.Fuzz(func(t *testing.T, s string) {
		if mask, err := Bitmask(s); err == nil && (len(mask) == 0 || mask[len(mask)-1] == 0) {
			t.Errorf("%q: %v", s, mask)
		}
	})
}
