package network

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"berth/base/failpoint"
	"berth/kernel/netns"
)

const crashDir = "BERTH_TEST_CRASH_DIR"

// TestCrashChild is the engine that dies: it does what TestCrash's table says, in a process of its own.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("is run by TestCrash")
	}
	if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
		t.Fatal(err)
	}
	n, err := Open(ctx, Config{Root: filepath.Join(dir, "root"), RunRoot: filepath.Join(dir, "run"), Log: slog.New(slog.DiscardHandler), PoolSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	n.Recovered(func(string) bool { return true })
	a, b := want("a", "bridge"), want("b", "bridge")
	a.ContainerID, b.ContainerID = strings.Repeat("a", 64), strings.Repeat("b", 64)
	a.Rate, b.Rate = 1e9, 1e9
	a.Ports = []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}}
	do := func(what string, err error) {
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	_, _, err = n.Create(ctx, CreateRequest{Name: "own", IPAM: subnet("10.1.1.0/24")})
	do("create", err)
	_, err = n.Join(ctx, a)
	do("join", err)
	_, err = n.Join(ctx, b)
	do("join", err)
	_, err = n.Connect(ctx, a, EndpointSpec{Network: "own"})
	do("connect", err)
	_, err = n.Publish(ctx, a, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8081}}, []PortSpec{{Port: 80, Proto: "tcp", HostFirst: 8080}})
	do("publish", err)
	_, err = n.HandOver(ctx, a.ContainerID, b, nil)
	do("hand over", err)
	do("disconnect", n.Disconnect(ctx, a.ContainerID, "own", false))
	do("remove", n.Remove(ctx, "own"))
	do("leave", n.Leave(ctx, a.ContainerID))
	do("leave", n.Leave(ctx, b.ContainerID))
}

// TestCrash kills the engine wherever it hurts. The next one takes up what runs, or, when nothing does, leaves nothing.
func TestCrash(t *testing.T) {
	for _, point := range []string{
		"network/written", "network/bridge-made", "network/join-written", "network/veth-made", "network/attached", "network/joined", "network/joined:2",
		"network/connect-written", "network/veth-made:3", "network/publish-written", "network/handover-written", "network/unplugged", "network/unmade",
		"network/cut", "network/unmounted", "network/unmounted:2",
	} {
		for _, runs := range []bool{false, true} {
			name := point
			if runs {
				name += ", containers run"
			}
			t.Run(name, func(t *testing.T) { crash(t, point, runs) })
		}
	}
}

func crash(t *testing.T, point string, runs bool) {
	h := newRoom(t, func(c *Config) { c.Keeper = nil })
	before := h.links()
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	name, hit, _ := strings.Cut(point, ":")
	action := name + "=kill"
	if hit != "" {
		action += ":" + hit
	}
	child := exec.Command("/proc/self/exe", "-test.run", "^TestCrashChild$")
	child.Env = append(os.Environ(), crashDir+"="+filepath.Dir(h.cfg.Root), failpoint.Env+"="+action)
	out, err := child.CombinedOutput()
	status, ok := child.ProcessState.Sys().(syscall.WaitStatus)
	if err == nil || !ok || !status.Signaled() {
		t.Fatalf("the engine did not die: %v\n%s", err, out)
	}
	h.reopen(map[bool][]string{true: {strings.Repeat("a", 64), strings.Repeat("b", 64)}}[runs]...)
	if runs {
		checkRunning(t, h)
	}
	h.Recovered(func(string) bool { return false })
	if _, err := h.Get("own"); err == nil {
		if err := h.Remove(ctx, "own"); err != nil {
			t.Error(err)
		}
	}
	soon(t, "links are as before", func() bool {
		return slices.Equal(h.links(), before)
	})
	if regexp.MustCompile(`\b808[01]\b`).MatchString(h.Rules()) { // not within an id
		t.Errorf("rules are left:\n%s", h.Rules())
	}
	if n := h.ports.Count(); n != 0 {
		t.Errorf("%d ports are held", n)
	}
	files, _ := os.ReadDir(h.sandboxDir())
	if len(files) > 0 {
		t.Errorf("left: %v", files)
	}
	live, dead, err := netns.List(h.nsDir())
	if err != nil || len(live)+len(dead) > cap(h.pool.ready)+1 {
		t.Errorf("namespaces: %v %v %v", live, dead, err)
	}
}

// checkRunning looks whether the sandboxes that there are agree with the ports, rules and addresses that there are.
func checkRunning(t *testing.T, h *harness) {
	t.Helper()
	doubles := map[string]bool{}
	for _, b := range h.boxes {
		if _, err := os.Stat(b.Key); err != nil {
			continue // cut short before it was, or after it was left: its container cannot run
		}
		for _, p := range b.Ports {
			for _, k := range keys([]Port{p}) {
				if doubles[k.String()] {
					t.Errorf("port %s is of two containers", k)
				}
				doubles[k.String()] = true
				if by, ok := h.ports.Holder(k); !ok || by.ID != b.ContainerID {
					t.Errorf("port %s is held by %v", k, by)
				}
			}
		}
		for _, e := range b.Endpoints {
			x := h.nets[e.NetworkID]
			if x == nil || x.endpoints[b.ContainerID] == nil {
				t.Errorf("endpoint on %s is not known", e.NetworkName)
				continue
			}
			if err := x.take(e); err == nil {
				t.Errorf("address %s was free", e.IPv4)
			}
		}
	}
	c := want("c", "bridge")
	if _, err := h.Join(ctx, c); err != nil {
		t.Error(err)
	}
	if err := h.Leave(ctx, c.ContainerID); err != nil {
		t.Error(err)
	}
}
