package exec

import (
	"fmt"
	"runtime"
)

// foreign explains an exec format error where the step is for another kind of machine.
func (b *box) foreign() string {
	arch := b.cfg.platform.Architecture
	if arch == "" || arch == runtime.GOARCH {
		return ""
	}
	return fmt.Sprintf(": this machine (%s) cannot run programs for linux/%s: install an emulator (on Debian and Ubuntu: apt-get install qemu-user-static binfmt-support)", runtime.GOARCH, arch)
}
