package exec

import (
	"context"
	"sync"
	"testing"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/base/id"
)

// modules stands for the kernel's security modules. They are at work in the virtual machine of test/vm alone.
type modules struct {
	mu    sync.Mutex
	asked []bool // what shared was
	held  int
	gives Confined
	err   error
}

func (m *modules) Confine(_ context.Context, shared bool) (Confined, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, shared)
	if m.err != nil {
		return Confined{}, m.err
	}
	m.held++
	c := m.gives
	c.Free = func() { m.mu.Lock(); m.held--; m.mu.Unlock() }
	return c, nil
}

// Each step is confined once, for as long as it lives; who has a cache mount shares its files.
func TestStepsAreConfined(t *testing.T) {
	m := &modules{}
	r := newRoom(t, func(c *Config) { c.Security = m })
	r.run(shell("true")).ok(t)
	r.run(shell("true", &pb.Mount{Dest: "/cache", Input: int64(pb.Empty), Output: int64(pb.SkipOutput), MountType: pb.MountType_CACHE,
		CacheOpt: &pb.CacheOpt{ID: "c"}})).ok(t)
	if o := r.run(shell("false")); o.failure == nil {
		t.Error("a failed step did not fail")
	}
	if len(m.asked) != 3 || m.asked[0] || !m.asked[1] || m.asked[2] || m.held != 0 {
		t.Errorf("asked: %v, of which %d are still held", m.asked, m.held)
	}
	m.err = fault.New(fault.Invalid, "no such profile")
	if o := r.run(shell("true")); !fault.Is(o.failure, fault.Invalid) {
		t.Errorf("a step that cannot be confined: %v", o.failure)
	}
}

// What a process is confined by: not what is insecure, and not what the client took away.
func TestConfinedProcesses(t *testing.T) {
	const profile, label = "docker-default", "system_u:system_r:container_t:s0:c1,c2"
	r := newRoom(t, func(c *Config) { c.Security = &modules{gives: Confined{AppArmor: profile, ProcessLabel: label}} })
	for name, c := range map[string]struct {
		limits                 Limits
		insecure               bool
		wantProfile, wantLabel string
	}{
		"a step":            {Limits{}, false, profile, label},
		"an insecure one":   {Limits{}, true, "", ""},
		"without a profile": {Limits{ApparmorUnconfined: true}, false, "", label},
		"without a label":   {Limits{LabelsDisabled: true}, false, profile, ""},
	} {
		b, err := r.box(context.Background(), boxConfig{id: id.New()[:25], network: pb.NetMode_NONE, limits: c.limits, mounts: []Mount{{Mount: root(), Snapshot: r.base}}})
		must(t, err)
		if err = b.settle(c.insecure); err == nil {
			p, perr := b.process(command{args: []string{"true"}, insecure: c.insecure})
			if err = perr; err == nil && (p.ApparmorProfile != c.wantProfile || p.SelinuxLabel != c.wantLabel) {
				t.Errorf("%s: profile %q, label %q", name, p.ApparmorProfile, p.SelinuxLabel)
			}
		}
		b.close()
		b.drop()
		must(t, err)
	}
}

// An engine that may not protect anybody better than itself gives its steps its own place in the order of the out-of-memory killer.
func TestOOMScoreAdj(t *testing.T) {
	for own, want := range map[string]int{"0\n": 0, "200\n": 200, "-900\n": 0, "": 0} {
		if got := lowestAdj(own); got != want {
			t.Errorf("%q: %d, want %d", own, got, want)
		}
	}
	r := newRoom(t)
	r.adj = 155
	if o := r.run(shell("cat /proc/self/oom_score_adj")).ok(t); o.out != "155\n" {
		t.Errorf("a step has %q", o.out)
	}
}
