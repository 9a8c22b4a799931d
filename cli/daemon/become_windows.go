package daemon

import (
	"berth/base/fault"
)

// Become fails: engines and registries run on Linux.
func Become(path string, _ []string) error {
	return fault.New(fault.NotImplemented, "%s runs on Linux", path)
}
