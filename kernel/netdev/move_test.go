package netdev

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// Everything happens in two network namespaces of the test's own, on a thread that ends with it.
func TestMove(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("needs ip: package iproute2")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked
		testMove(t)
	}()
	<-done
}

func testMove(t *testing.T) {
	there := namespace(t)
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip("needs network namespaces: " + err.Error())
	}
	if out, err := exec.Command("sh", "-c", `ip link add one type veth peer name two && ip addr add 192.0.2.7/24 dev one &&
		ip -6 addr add 2001:db8::7/64 dev one nodad && ip addr add 192.0.2.9/32 scope host dev one && ip link set one up && ip link set two up`).CombinedOutput(); err != nil {
		t.Skipf("needs veth devices: %v: %s", err, out)
	}
	if err := Move("none", "", there); !errors.Is(err, unix.ENODEV) {
		t.Errorf("a device that is not there: %v", err)
	}
	if err := Move("one", "lo", there); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := Move("one", "eth%d", there); err != nil {
		t.Fatal(err)
	}
	if err := Move("two", "", there); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setns(there, unix.CLONE_NEWNET); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ip", "-o", "addr", "show", "dev", "eth0").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "192.0.2.7/24") || !strings.Contains(string(out), "2001:db8::7/64") || strings.Contains(string(out), "192.0.2.9") {
		t.Errorf("%v: %s", err, out)
	}
	out, err = exec.Command("ip", "-o", "link", "show", "up").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "eth0") || !strings.Contains(string(out), "two") {
		t.Errorf("%v: %s", err, out)
	}
}

// namespace makes a network namespace and gives a descriptor of it.
func namespace(t *testing.T) int {
	made := make(chan int)
	go func() {
		runtime.LockOSThread() // never unlocked
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			made <- -1
			return
		}
		fd, _ := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		made <- fd
	}()
	fd := <-made
	if fd < 0 {
		t.Skip("needs network namespaces")
	}
	return fd
}

func FuzzAnswer(f *testing.F) {
	f.Add(make([]byte, 64))
	f.Add([]byte{20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := &socket{}
		_, _ = s.answer(data, func(_ uint16, body []byte) {
			attributes(body, func(uint16, []byte) {})
		})
	})
}
