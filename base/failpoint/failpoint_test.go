package failpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestOff(t *testing.T) {
	if err := Hit("x"); err != nil {
		t.Fatal(err)
	}
}

func TestErrorEveryHitAndNth(t *testing.T) {
	t.Cleanup(func() { Arm("") })
	if err := Arm("a=error, b=error:2"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if Hit("a") == nil {
			t.Error("a must fail every time")
		}
	}
	if Hit("c") != nil {
		t.Error("c must never fail")
	}
	for n, want := range []bool{false, true, false} {
		if failed := Hit("b") != nil; failed != want {
			t.Errorf("b must fail the second time only; time %d: %v", n+1, failed)
		}
	}
	Arm("")
	if Hit("a") != nil {
		t.Error("still armed")
	}
}

func TestEveryPoint(t *testing.T) {
	t.Cleanup(func() { Arm("") })
	passed := filepath.Join(t.TempDir(), "passed")
	if err := Arm("*=note:" + passed + ",b=error:2"); err != nil {
		t.Fatal(err)
	}
	for n, want := range []bool{false, true} {
		if Hit("a") != nil || (Hit("b") != nil) != want {
			t.Errorf("time %d", n)
		}
	}
	if b, _ := os.ReadFile(passed); string(b) != "a\nb\na\nb\n" {
		t.Errorf("noted %q", b)
	}
	Arm("*=error:1")
	for _, name := range []string{"a", "b"} {
		if Hit(name) == nil || Hit(name) != nil {
			t.Errorf("%s must fail the first time only", name)
		}
	}
}

func TestSleep(t *testing.T) {
	t.Cleanup(func() { Arm("") })
	synctest.Test(t, func(t *testing.T) {
		if err := Arm("a=sleep:10s"); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := Hit("a"); err != nil || time.Since(start) != 10*time.Second {
			t.Errorf("err %v after %v", err, time.Since(start))
		}
	})
}

func TestKill(t *testing.T) {
	if os.Getenv("FAILPOINT_CHILD") != "" {
		Arm(os.Getenv(Env))
		Hit("die")
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FAILPOINT_CHILD=1", Env+"=die=kill")
	cmd.Run()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGKILL {
		t.Errorf("child ended with %v, want SIGKILL", cmd.ProcessState)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, s := range []string{"x", "=kill", "x=", "x=explode", "x=sleep", "x=sleep:fast", "x=sleep:-1s", "x=note", "x=note:", "x=kill:0", "x=kill:a", "x=kill:1:2"} {
		if err := Arm(s); err == nil || !strings.Contains(err.Error(), "failpoint") {
			t.Errorf("%q accepted (%v)", s, err)
		}
	}
	if armed.Load() != nil {
		t.Error("a bad spec armed something")
	}
}

func BenchmarkOff(b *testing.B) {
	for b.Loop() {
		Hit("x")
	}
}
