package exec

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// insecureDevices are what a box that is not confined gets. In a user namespace these are the ones that anybody on the host may use, as there: the nodes in a
// mapped /dev belong to its root, who is somebody else on the host.
func (b *box) insecureDevices() []specs.LinuxDevice {
	list := insecureDevices()
	if b.mapping == nil {
		return list
	}
	return slices.DeleteFunc(list, func(d specs.LinuxDevice) bool {
		fi, err := os.Stat(d.Path)
		return err != nil || fi.Mode().Perm()&0o006 != 0o006
	})
}

// insecureDevices are BuildKit's for security.insecure: what a container engine, a virtual machine or a file system in user space
// needs, and loop devices.
func insecureDevices() []specs.LinuxDevice {
	var list []specs.LinuxDevice
	for _, d := range []struct {
		path         string
		major, minor int64
	}{
		{"/dev/kmsg", 1, 11}, {"/dev/cuse", 10, 203}, {"/dev/fuse", 10, 229}, {"/dev/kvm", 10, 232}, {"/dev/net/tun", 10, 200}, {"/dev/loop-control", 10, 237},
	} {
		list = append(list, specs.LinuxDevice{Path: d.path, Type: "c", Major: d.major, Minor: d.minor})
	}
	for i := range 8 + loopsInUse() {
		list = append(list, specs.LinuxDevice{Path: fmt.Sprintf("/dev/loop%d", i), Type: "b", Major: 7, Minor: int64(i)})
	}
	return list
}

// maxLoops bounds the loop devices that a step gets.
const maxLoops = 256

// loopsInUse counts the loop devices that there are beyond the first eight.
func loopsInUse() int {
	list, err := os.ReadDir("/sys/block")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range list {
		if strings.HasPrefix(e.Name(), "loop") {
			n++
		}
	}
	return min(max(n-8, 0), maxLoops)
}
