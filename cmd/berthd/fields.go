package main

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"berth/engine"
	"berth/engine/cdi"
)

// fieldConfig is what options say about limits and devices of containers.
type fieldConfig struct {
	CDIDirs     []string
	StorageOpts []string
	RTPeriod    int // µs
	RTRuntime   int // µs
}

// fieldOptions lists them.
func fieldOptions(c *fieldConfig) []option {
	return []option{
		{"cdi-spec-dir", "", "cdi-spec-dirs", fmt.Sprintf("Directory with specifications of CDI devices (default %s); may be repeated, and an empty one switches CDI off", strings.Join(cdi.DefaultDirs(), ", ")), &list{to: &c.CDIDirs}},
		{"storage-opt", "", "storage-opts", "Option of the storage driver: overlay2.size=SIZE limits what a container may write beside its image", &list{to: &c.StorageOpts, check: checkStorageOpt}},
		{"cpu-rt-period", "", "cpu-rt-period", "Period in µs over which the time of real-time processes is measured (cgroup v1)", newNumber(&c.RTPeriod, 0)},
		{"cpu-rt-runtime", "", "cpu-rt-runtime", "Time in µs that real-time processes of all containers may take in a period (cgroup v1)", newNumber(&c.RTRuntime, 0)},
	}
}

// into puts them into the engine's configuration.
func (c *fieldConfig) into(to *engine.Config) {
	to.CDIDirs = cdi.DefaultDirs()
	if c.CDIDirs != nil {
		to.CDIDirs = nil
		for _, d := range c.CDIDirs {
			if d != "" {
				to.CDIDirs = append(to.CDIDirs, d)
			}
		}
	}
	for _, o := range c.StorageOpts {
		if size, err := layerSize(o); err == nil && size > 0 { // checked when they were read
			to.LayerSize = size
		}
	}
	to.OCIPath = beside("berth-oci")
	to.CPURealtimePeriod, to.CPURealtimeRuntime = int64(c.RTPeriod), int64(c.RTRuntime)
}

func checkStorageOpt(o string) error {
	_, err := layerSize(o)
	return err
}

// layerSize reads one --storage-opt in dockerd's spelling. What its driver does on request, and ours always, is accepted.
func layerSize(o string) (uint64, error) {
	key, value, ok := strings.Cut(o, "=")
	if !ok {
		return 0, fmt.Errorf("unable to parse storage-opt key/value: %q", o)
	}
	switch strings.ToLower(key) {
	case "overlay2.override_kernel_check": // deprecated there: does nothing
		return 0, nil
	case "overlay2.size":
		n, err := units.RAMInBytes(value)
		if err != nil {
			return 0, err
		}
		return uint64(n), nil
	}
	return 0, fmt.Errorf("overlay2: unknown option %s", key)
}
