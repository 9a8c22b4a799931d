package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func moveNetDevices(map[string]specs.LinuxNetDevice, int) error { return nil }
