package volumetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/failpoint"
	"berth/kernel/mount"
)

const insideVariable = "BERTH_TEST_OWN_MOUNTS"

// Main runs a package's tests in a new mount namespace, where the user may have one: TestMain calls it. Failpoints of the
// environment are armed, for tests that run their own binary again.
func Main(m *testing.M) {
	if os.Getuid() != 0 || os.Getenv(insideVariable) != "" {
		if err := failpoint.Arm(os.Getenv(failpoint.Env)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		os.Exit(exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// NeedMounts skips a test where nothing can be mounted.
func NeedMounts(t *testing.T) {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		t.Skip("needs CAP_SYS_ADMIN: mounts in a mount namespace of its own")
	}
}

// Left lists what is still mounted at and below the directories after a while: some unmounting is done behind an answer.
func Left(t *testing.T, dirs ...string) []string {
	t.Helper()
	for range 500 {
		if len(Mounted(t, dirs...)) == 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return Mounted(t, dirs...)
}

// Mounted lists what is mounted at and below the directories.
func Mounted(t *testing.T, dirs ...string) []string {
	t.Helper()
	list, err := mount.Self(func(i *mount.Info) bool {
		for _, d := range dirs {
			if i.Point == d || strings.HasPrefix(i.Point, d+"/") {
				return true
			}
		}
		return false
	})
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for _, i := range list {
		points = append(points, i.Type+" on "+i.Point)
	}
	return points
}
