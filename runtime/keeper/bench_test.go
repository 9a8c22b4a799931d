package keeper

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// keeperKB reads a figure of a process's /proc/PID/status in KB.
func keeperKB(t testing.TB, pid int, names ...string) (sum int) {
	t.Helper()
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		for _, n := range names {
			if v, ok := strings.CutPrefix(s.Text(), n+":"); ok {
				k, _ := strconv.Atoi(strings.Fields(v)[0])
				sum += k
			}
		}
	}
	return sum
}

// TestMemory holds the keeper to its promise: 10 KB for each further process.
func TestMemory(t *testing.T) {
	const n = 400
	r := newRig(t)
	pid := r.keeperPID()
	start := func(from, to int) {
		var wg sync.WaitGroup
		for w := range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := from + w; i < to; i += 4 {
					if _, err := r.c.Launch(r.ctx(), Launch{
						ID: fmt.Sprintf("%064d", i), Stdin: true, Program: program("/bin/sleep", "1000"),
						Log: r.logCfg(fmt.Sprint(i)),
					}); err != nil {
						t.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
	}
	start(0, 20) // threads, buffers
	before := keeperKB(t, pid, "RssAnon", "RssShmem")
	idle := keeperKB(t, pid, "VmRSS")
	start(20, 20+n)
	after := keeperKB(t, pid, "RssAnon", "RssShmem")
	t.Logf("resident with 20 processes %d KB; %d more cost %d KB, %.1f KB each", idle, n, after-before, float64(after-before)/n)
	if after-before > 10*n {
		t.Errorf("%d KB for %d processes", after-before, n)
	}
	// A new client has all of the insurance when Open returns.
	c, err := Open(r.ctx(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.held) != n+20 {
		t.Errorf("insurance of %d processes, want %d", len(c.held), n+20)
	}
	for k, x := range c.held {
		if string(x.roles) != "pioe" || len(x.fds) != 4 {
			t.Fatalf("%v: %q", k, x.roles)
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	r := benchRig(b)
	b.ResetTimer()
	for b.Loop() {
		if _, err := r.c.Info(r.ctx()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLaunchToExit(b *testing.B) {
	r := benchRig(b)
	i := 0
	b.ResetTimer()
	for b.Loop() {
		id := strconv.Itoa(i)
		i++
		if _, err := r.c.Launch(r.ctx(), Launch{ID: id, Program: program("/bin/true")}); err != nil {
			b.Fatal(err)
		}
		for x := range r.c.Exits() {
			if x.ID == id {
				break
			}
		}
		if err := r.c.Ack(r.ctx(), id, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	r := benchRig(b)
	for i := range 1000 {
		if _, err := r.c.Launch(r.ctx(), Launch{ID: fmt.Sprintf("%064d", i), Program: program("/bin/sleep", "1000")}); err != nil {
			b.Fatal(err)
		}
	}
	pid, err := r.c.Info(r.ctx())
	if err != nil {
		b.Fatal(err)
	}
	b.Logf("1000 processes: resident %d KB, of it anonymous and shared %d KB", keeperKB(b, pid.PID, "VmRSS"), keeperKB(b, pid.PID, "RssAnon", "RssShmem"))
	b.ResetTimer()
	for b.Loop() {
		all, err := r.c.List(r.ctx())
		if err != nil || len(all) != 1000 {
			b.Fatal(len(all), err)
		}
	}
}
