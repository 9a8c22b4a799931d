package oci

import (
	"maps"
	"slices"
	"strconv"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/netdev"
)

// moveNetDevices moves devices of the host into the network namespace of a process.
func moveNetDevices(devices map[string]specs.LinuxNetDevice, pid int) error {
	if len(devices) == 0 {
		return nil
	}
	path := "/proc/" + strconv.Itoa(pid) + "/ns/net"
	ns, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "open %s", path)
	}
	defer unix.Close(ns)
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err := netdev.Move(name, devices[name].Name, ns); err != nil {
			return fault.In(err, "linux.netDevices")
		}
	}
	return nil
}
