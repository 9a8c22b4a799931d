package cgroup

import (
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

func memory(limit, swap int64) *specs.LinuxResources {
	m := &specs.LinuxMemory{}
	if limit != 0 {
		m.Limit = &limit
	}
	if swap != 0 {
		m.Swap = &swap
	}
	return &specs.LinuxResources{Memory: m}
}

// Memory and swap are moved up and down, together and alone; v1's kernel checks one against the other at
// every write.
func TestRealMemoryUpdate(t *testing.T) {
	l, path := real(t)
	needs(t, l, "memory")
	const M = 1 << 20
	c := apply(t, l, path, memory(32*M, 64*M))
	if l.Mode != V2 && !exists(c.Dir("memory")+"/memory.memsw.limit_in_bytes") {
		t.Skip("needs swap accounting")
	}
	for _, step := range []struct {
		limit, swap         int64
		wantLimit, wantSwap string // v1's numbers
	}{
		{128 * M, 256 * M, "134217728", "268435456"}, // both above the old ones
		{16 * M, 32 * M, "16777216", "33554432"},     // both below
		{64 * M, 64 * M, "67108864", "67108864"},
		{0, 128 * M, "67108864", "134217728"},
		{-1, 0, "9223372036854771712", "9223372036854771712"},
		{16 * M, 0, "16777216", "9223372036854771712"},
		{0, -1, "16777216", "9223372036854771712"},
	} {
		if err := c.Update(memory(step.limit, step.swap)); err != nil {
			t.Fatalf("%d/%d: %v", step.limit/M, step.swap/M, err)
		}
		if l.Find("memory").V2 {
			continue
		}
		dir := c.Dir("memory")
		if got := trimmed(dir + "/memory.limit_in_bytes"); got != step.wantLimit {
			t.Errorf("%d/%d: limit %s, want %s", step.limit/M, step.swap/M, got, step.wantLimit)
		}
		if got := trimmed(dir + "/memory.memsw.limit_in_bytes"); got != step.wantSwap {
			t.Errorf("%d/%d: memsw %s, want %s", step.limit/M, step.swap/M, got, step.wantSwap)
		}
	}
	if l.Find("memory").V2 {
		return
	}
	if err := c.Update(memory(16*M, 16*M)); err != nil {
		t.Fatal(err)
	}
	err := c.Update(memory(32*M, 0))
	if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "at the same time") {
		t.Errorf("memory above memory plus swap: %v", err)
	}
}

// A process that takes too much is killed, the watch says so, and it is counted.
func TestRealOOM(t *testing.T) {
	l, path := real(t)
	needs(t, l, "memory")
	c := apply(t, l, path, memory(8<<20, 8<<20))
	w, err := c.WatchOOM()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	// tail keeps the end of what it reads in memory.
	cmd := sleeper(t, c, "head -c 100000000 /dev/zero | tail -c 100000000 >/dev/null")
	fds := []unix.PollFd{{Fd: int32(w.FD()), Events: unix.POLLIN}}
	for deadline := time.Now().Add(20 * time.Second); ; {
		n, err := unix.Poll(fds, 1000)
		if n > 0 {
			break
		}
		if err != nil && err != unix.EINTR || time.Now().After(deadline) {
			t.Fatalf("no word of an OOM kill: %v", err)
		}
	}
	if !w.Drain() {
		t.Error("the watch says that the cgroup is gone")
	}
	cmd.Wait()
	eventually(t, "an OOM kill is counted", func() bool { return c.OOMKills() > 0 })
	s, err := c.Stats()
	if err != nil || s.Memory.OOMKills == 0 || s.Memory.Limit != 8<<20 || s.Memory.Max == 0 || len(s.Memory.Stat) == 0 {
		t.Errorf("stats %+v %v", s.Memory, err)
	}
	if s.CPU.Usage == 0 || s.CPU.User+s.CPU.System == 0 {
		t.Errorf("stats %+v", s.CPU)
	}
	if err := c.Remove(); err != nil {
		t.Fatal(err)
	}
	if n, _ := unix.Poll(fds, 5000); n == 0 {
		t.Error("the watch does not tell of the removal")
	}
	if w.Drain() {
		t.Error("the watch says that the cgroup is still there")
	}
}

func BenchmarkRealStats(b *testing.B) {
	l, path := real(b)
	c := apply(b, l, path, nil)
	for b.Loop() {
		if _, err := c.Stats(); err != nil {
			b.Fatal(err)
		}
	}
}
