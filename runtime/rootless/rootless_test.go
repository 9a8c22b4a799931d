package rootless

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"
)

func TestPastaDate(t *testing.T) {
	for text, want := range map[string]int{
		"pasta unknown version\nCopyright Red Hat\n": 0,
		"pasta 2024_12_11.09478d5\n":                 20241211,
		"pasta 0.0~git20240220.1e6f92b-1\n":          20240220,
		"pasta 0.0~git20250503.587980c-2\n":          20250503,
		"pasta 0^20250121.g4f2c8e7-2.fc41.x86_64\n":  20250121,
		"pasta 20230309.7c7625d\n":                   20230309,
		"":                                           0,
	} {
		if got := pastaDate(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
}

// TestPastaArgs: old releases never look for listening sockets when -T is given.
func TestPastaArgs(t *testing.T) {
	for _, c := range []struct {
		date    int
		forward bool
	}{{0, true}, {20230309, false}, {20250101, true}} {
		args := wayOut{name: "pasta", date: c.date}.pastaArgs(7, "f", c.forward)
		if got := slices.Contains(args, "-T"); got != (c.date >= scansWell) {
			t.Errorf("%d: %v", c.date, args)
		}
		if got := slices.Contains(args, "--dns-forward"); got != c.forward {
			t.Errorf("%d: %v", c.date, args)
		}
		if args[len(args)-1] != "7" || !slices.Contains(args, "--no-map-gw") {
			t.Errorf("%v", args)
		}
	}
}

func TestInsideResolver(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "",
		"nameserver 192.0.2.1\n":               "nameserver 192.0.2.1\n",
		"nameserver 127.0.0.53\noptions a\n":   "nameserver 10.0.2.3\noptions a\n",
		"nameserver ::1\nnameserver 127.1.1.1": "nameserver 10.0.2.3\n",
		"nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch x": "nameserver 10.0.2.3\nnameserver 192.0.2.1\nsearch x",
	} {
		if got := insideResolver(text, slirpResolver); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// TestHolder: who is gone, or another one with the same number, is not the holder; End ends everything, and only that.
func TestHolder(t *testing.T) {
	dir := t.TempDir()
	sleep := func() *exec.Cmd {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Skipf("needs sleep: %v", err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		return c
	}
	keeps, carries, other := sleep(), sleep(), sleep()
	var h holder
	var err error
	if h.task, err = taskOf(keeps.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if h.Network, err = taskOf(carries.Process.Pid); err != nil {
		t.Fatal(err)
	}
	if !Ended(dir) {
		t.Error("nothing has begun")
	}
	if err := h.write(dir); err != nil {
		t.Fatal(err)
	}
	if got, ok := found(dir); !ok || got.task != h.task || got.Network != h.Network || Ended(dir) {
		t.Errorf("found %+v, %v", got, ok)
	}
	before := h
	before.Start--
	if before.alive() {
		t.Error("a process of another time was taken for the holder")
	}
	// Somebody else's process whose number an old pidfile has.
	if err := os.WriteFile(pastaFile(dir), []byte(strconv.Itoa(other.Process.Pid)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	End(dir)
	for _, c := range []*exec.Cmd{keeps, carries} {
		if err := c.Wait(); err == nil {
			t.Error("it was not killed")
		}
	}
	if o, err := taskOf(other.Process.Pid); err != nil || !o.alive() {
		t.Error("a process was killed that is not pasta")
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 0 || !Ended(dir) {
		t.Errorf("left: %v", left)
	}
	End(dir) // again does nothing
}

// What carries packets is started again when it ends, also when that fails at first, and not after the namespaces were ended.
func TestTend(t *testing.T) {
	dir := t.TempDir()
	sleep := func() (task, *exec.Cmd) {
		c := exec.Command("sleep", "1000")
		if err := c.Start(); err != nil {
			t.Skipf("needs sleep: %v", err)
		}
		t.Cleanup(func() { _ = c.Process.Kill(); _ = c.Wait() })
		now, err := taskOf(c.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		return now, c
	}
	end := func(c *exec.Cmd) {
		_ = c.Process.Kill()
		_ = c.Wait()
	}
	var h holder
	h.task, _ = sleep()
	var carries *exec.Cmd
	h.Network, carries = sleep()
	if err := h.write(dir); err != nil {
		t.Fatal(err)
	}
	starts := make(chan *exec.Cmd)
	fails := true
	tend := &tender{cfg: Config{ExecRoot: dir, Log: slog.New(slog.DiscardHandler)}, first: time.Millisecond, longest: time.Millisecond, lead: func(h *holder) {
		if h.Network != (task{}) {
			t.Errorf("%+v is to be started, and runs", h.Network)
		}
		var c *exec.Cmd
		if fails = !fails; !fails {
			h.Network, c = sleep()
		}
		starts <- c
	}}
	over := make(chan struct{})
	go func() { defer close(over); tend.tend(h) }()
	for range 3 {
		end(carries)
		for carries = nil; carries == nil; {
			carries = <-starts
		}
		for now, ok := found(dir); !ok || now.task != h.task || now.Network.PID != carries.Process.Pid; now, ok = found(dir) {
			time.Sleep(time.Millisecond)
		}
	}
	End(dir) // ends it as well
	_ = carries.Wait()
	<-over

	h.task, _ = sleep()
	h.Network, carries = sleep()
	if err := h.write(dir); err != nil {
		t.Fatal(err)
	}
	tend.stop()
	end(carries)
	tend.tend(h) // starts nothing: nobody would take it
	tend.tend(holder{task: h.task})
}

func TestListens(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000002:00000000 00:00000000 00000000  4242        0 19711606 1 0000000006e0d203 100 0 0 10 0
   1: 0100007F:0050 00000000:01BB 01 00000002:00000000 00:00000000 00000000  4242        0 19711606 1 0000000006e0d203 100 0 0 10 0
`
	for port, want := range map[uint16]bool{8080: true, 80: false, 443: false, 0x9: false} {
		if got := listens(table, port); got != want {
			t.Errorf("%d: %v", port, got)
		}
	}
	if PortTaken() != nil {
		t.Error("the machine's engine asks nobody")
	}
}
