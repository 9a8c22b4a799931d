package relay

import (
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Catching is for good, so it happens in a process of its own: this test's binary once more.
func TestCatch(t *testing.T) {
	if os.Getenv("RELAY_CHILD") == "1" {
		child(t)
		return
	}
	// What this process was told to ignore (nohup) the child would have to leave ignored; what is caught starts anew in it.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT)
	defer signal.Stop(signals)
	cmd := exec.Command(os.Args[0], "-test.run=^TestCatch$", "-test.v")
	cmd.Env = append(os.Environ(), "RELAY_CHILD=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all caught") {
		t.Fatalf("%v\n%s", err, out)
	}
}

func child(t *testing.T) {
	fd, err := Catch()
	if err != nil {
		t.Fatal(err)
	}
	// Work on several threads, with collections and preemptions, while signals rain.
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range 4 {
		work.Add(1)
		go func() {
			defer work.Done()
			for {
				select {
				case <-stop:
					return
				default:
					_ = strings.Repeat("x", 10000)
					runtime.Gosched()
				}
			}
		}()
	}
	counts := map[byte]int{}
	for range 200 {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGWINCH, unix.SIGTSTP, unix.Signal(35), unix.Signal(Last)} {
			if err := unix.Kill(unix.Getpid(), sig); err != nil {
				t.Fatal(err)
			}
			counts[byte(sig)]++
			await(t, fd, byte(sig))
		}
	}
	runtime.GC()
	close(stop)
	work.Wait()
	if _, err := Catch(); err == nil {
		t.Fatal("a second Catch succeeded")
	}
	t.Log("all caught")
}

func await(t *testing.T, fd int, want byte) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	var b [1]byte
	for time.Now().Before(deadline) {
		n, err := unix.Read(fd, b[:])
		if n == 1 {
			if b[0] != want && b[0] != byte(unix.SIGCHLD) {
				t.Fatalf("signal %d, want %d", b[0], want)
			}
			if b[0] == want {
				return
			}
		}
		if err != nil && err != unix.EAGAIN && err != unix.EINTR {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	t.Fatalf("signal %d did not arrive", want)
}
