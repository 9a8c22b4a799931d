package cgroup

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
)

// TestLenient runs its other half as a user who may make no cgroup.
func TestLenient(t *testing.T) {
	real(t)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestLenientAsNobody$", "-test.v")
	cmd.Env = append(os.Environ(), "BERTH_TEST_NOBODY=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestLenientAsNobody") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestLenientAsNobody(t *testing.T) {
	if os.Getenv("BERTH_TEST_NOBODY") == "" {
		return // the half of TestLenient that runs as another user
	}
	l, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Plan(l, "/berth-test-nobody", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Apply(); !fault.Is(err, fault.Forbidden) {
		t.Errorf("strictly: %v", err)
	}
	s.Lenient = true
	if _, err := s.Apply(); !fault.Is(err, fault.NotFound) {
		t.Errorf("leniently: %v", err)
	}
	if l.Find("pids") == nil {
		return
	}
	s, err = Plan(l, "/berth-test-nobody", &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: ptr(int64(7))}})
	if err != nil {
		t.Fatal(err)
	}
	s.Lenient = true
	if _, err := s.Apply(); !fault.Is(err, fault.Forbidden) || !strings.Contains(err.Error(), "linux.resources.pids.limit") {
		t.Errorf("leniently, with a limit: %v", err)
	}
}
