package nofile_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"berth/kernel/nofile"
)

// TestAtStart starts itself with a soft limit below the hard one: Go raises it, and AtStart still knows it.
func TestAtStart(t *testing.T) {
	const inside = "BERTH_TEST_NOFILE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/bin/sh", "-c", `ulimit -S -n 123 && exec "$0" -test.run '^TestAtStart$' -test.v`, os.Args[0])
		cmd.Env = append(os.Environ(), inside+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	soft, hard, changed := nofile.AtStart()
	if soft != 123 || hard != now.Max || !changed {
		t.Errorf("%d, %d, %v; want 123, %d, true", soft, hard, changed, now.Max)
	}
	if now.Cur < now.Max-1 {
		t.Errorf("Go has not raised the limit: it is %d; is this package still needed?", now.Cur)
	}
}
