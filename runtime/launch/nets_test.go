package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/probe"
)

// TestKeptNets: a container that starts soon after another gets a namespace that was made before, and
// cannot tell it from one of clone3's.
func TestKeptNets(t *testing.T) {
	root := busyboxRoot(t)
	const script = "readlink /proc/self/ns/net; grep -c : /proc/net/dev; ls /sys/class/net; grep /sys\\  /proc/self/mountinfo | cut -d' ' -f5-"
	o := Options{Covered: true, Facts: probe.Host()}
	show := func(l *Launcher, rw bool) (ns, rest string) {
		t.Helper()
		s := plainSpec(root, "sh", "-c", script)
		if rw {
			for i := range s.Mounts {
				s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(opt string) bool { return opt == "ro" })
			}
		}
		res, err := run(t, l, s, o)
		must(t, err)
		ns, rest, _ = strings.Cut(res.out, "\n")
		return ns, rest
	}
	launcher := func() *Launcher {
		l, err := NewLauncher(true)
		must(t, err)
		t.Cleanup(func() { must(t, l.Close()) })
		return l
	}
	plain := launcher()
	_, want := show(plain, false)
	began := time.Now()
	_, wantRW := show(plain, true)
	if took := time.Since(began); took > freshNet/4 {
		t.Skipf("needs a machine that starts a container within %v: it took %v", freshNet/4, took)
	}

	l := launcher()
	must(t, l.KeepNets())
	show(l, false)
	if n := len(l.nets.ready); n != 0 {
		t.Errorf("%d namespaces are kept after a single launch", n)
	}
	show(l, false)
	seen := map[string]bool{}
	for end := time.Now().Add(2 * time.Minute); len(seen) < 3; {
		if time.Now().After(end) {
			t.Fatal("no namespace is fresh when it is used")
		}
		for i := range 200 * 60 {
			if len(l.nets.ready) == readyNets {
				break
			}
			if i%200 == 199 { // on a busy machine no launch has followed another soon enough
				show(l, false)
			}
			time.Sleep(5 * time.Millisecond)
		}
		if len(l.nets.ready) != readyNets {
			t.Fatal("no namespace is ready")
		}
		m := <-l.nets.ready // the next to be used is the other one
		ready := <-l.nets.ready
		l.nets.ready <- ready
		l.nets.ready <- m
		var st unix.Stat_t
		must(t, unix.Fstat(ready.ns, &st))
		held, err := unix.FcntlInt(uintptr(ready.ns), unix.F_DUPFD_CLOEXEC, 0) // a namespace that is gone leaves its number to the next
		must(t, err)
		defer unix.Close(held)
		ns, got := show(l, false)
		if time.Since(ready.made) >= freshNet {
			continue // it may have been too old
		}
		if ns != fmt.Sprintf("net:[%d]", st.Ino) || seen[ns] {
			t.Errorf("the container is in %s, ready was %d", ns, st.Ino)
		}
		seen[ns] = true
		if got != want {
			t.Errorf("in a namespace made before:\n%s\nwant\n%s", got, want)
		}
	}
	before, asked := len(l.nets.ready), time.Now()
	ns, got := show(l, true)
	if got != wantRW || seen[ns] || len(l.nets.ready) < before && time.Since(asked) < freshNet/2 {
		t.Errorf("with a writable sysfs: %s\n%s\nwant\n%s", ns, got, wantRW)
	}
	if own, err := os.Readlink("/proc/self/ns/net"); err != nil || seen[own] {
		t.Errorf("the launcher is in a container's namespace: %v", err)
	}
	within(t, "unused namespaces are given up", func() bool { return len(l.nets.ready) == 0 })
}

func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// TestStartsAtOnce starts containers from several goroutines as the keeper does, every fourth with a failure,
// and looks that nothing of them is left.
func TestStartsAtOnce(t *testing.T) {
	root := busyboxRoot(t)
	l, err := NewLauncher(true)
	must(t, err)
	defer l.Close()
	if probe.Host().Has(probe.CloseRangeUnshare) {
		l.High = 512
	}
	must(t, l.KeepNets())
	o := Options{Covered: true, Facts: probe.Host()}
	good, err := Compile(plainSpec(root, "true"), o)
	must(t, err)
	bad, err := Compile(plainSpec(root, "/not/there"), o)
	must(t, err)
	encoded := [2][]byte{good.Encode(), bad.Encode()}
	streams := quiet(t)
	before := openFiles(t)
	var all sync.WaitGroup
	for range 6 {
		all.Go(func() {
			var d Decoder
			for i := range 20 {
				fails := i % 4 / 3
				p, err := d.Decode(bytes.Clone(encoded[fails]))
				if err != nil {
					t.Error(err)
					return
				}
				proc, err := l.Start(p, streams)
				if fails == 1 {
					if !errors.Is(err, unix.ENOENT) {
						t.Errorf("a program that is not there: %v", err)
					}
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if status := wait(t, proc); status.ExitStatus() != 0 {
					t.Errorf("exit status %d", status.ExitStatus())
				}
			}
		})
	}
	all.Wait()
	within(t, "no descriptor is left", func() bool { return openFiles(t) == before })
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(fds)
}
