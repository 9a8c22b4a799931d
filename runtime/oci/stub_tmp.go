package oci

import (
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func (t *tool) checkpoint(*flagSet) (int, error)                { return 1, nil }
func (t *tool) restore(*flagSet) (int, error)                   { return 1, nil }
func moveNetDevices(map[string]specs.LinuxNetDevice, int) error { return nil }
