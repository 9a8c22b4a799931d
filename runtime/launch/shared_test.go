package launch

import (
	"os"
	"os/exec"
	"testing"
)

// TestWhereMountsAreShared repeats the tests of roots in a mount namespace whose mounts are all shared,
// as systemd makes them on most machines: there a root that stays a peer of the host's mount cannot be
// pivoted to, and what is mounted in it appears on the host.
func TestWhereMountsAreShared(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: namespaces and mounts are made for real")
	}
	if _, err := exec.LookPath("unshare"); err != nil {
		t.Skip("needs unshare: package util-linux")
	}
	// busybox's unshare cannot share.
	if err := exec.Command("unshare", "-m", "--propagation", "shared", "true").Run(); err != nil {
		t.Skip("needs unshare --propagation: package util-linux")
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "shared", os.Args[0], "-test.run", "^(TestOverlayRoot|TestOldKernel.*|TestManyLayers.*)$")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
