// Package alone runs the tests of a package in a network and mount namespace of their own, so that they may make links,
// addresses, rules and mounts without touching the machine's. It is for tests only.
//
// TestMain calls Main, which executes the test binary again in new namespaces; a test that needs them calls Need.
package alone

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"berth/kernel/link"
)

const mark = "BERTH_TEST_ALONE"

// Main runs the tests in namespaces of their own, lo up, and gives the exit status: func TestMain(m *testing.M) {
// os.Exit(alone.Main(m)) }. Where namespaces cannot be made it runs them where they are, and Need skips.
func Main(m *testing.M) int {
	if os.Getenv(mark) != "" {
		return inside(m)
	}
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Env = append(os.Environ(), mark+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &unix.SysProcAttr{Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
	if err := self.Start(); err != nil {
		os.Unsetenv(mark)
		return m.Run()
	}
	err := self.Wait()
	var status *exec.ExitError
	switch {
	case errors.As(err, &status):
		return max(status.ExitCode(), 1)
	case err != nil:
		return 1
	}
	return 0
}

func inside(m *testing.M) int {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		os.Unsetenv(mark)
		return m.Run()
	}
	if err := LoopbackUp(); err != nil {
		println("lo up:", err.Error())
		return 1
	}
	return m.Run()
}

// LoopbackUp sets lo up in the calling thread's namespace.
func LoopbackUp() error {
	c, err := link.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Do(link.Set(1, link.Change{Up: true}))
}

// Need skips a test that does not run alone.
func Need(t testing.TB) {
	t.Helper()
	if os.Getenv(mark) == "" {
		t.Skip("needs CAP_SYS_ADMIN: a network namespace of its own")
	}
}
