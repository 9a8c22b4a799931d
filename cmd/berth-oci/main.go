// Command berth-oci runs containers from OCI bundles. It takes runc's commands and flags, so that
// containerd, Docker, Podman and scripts can use it in runc's place.
//
// It lives for milliseconds on one thread. So Go's runtime does not find out at its start, nor watch,
// how many processors its cgroup allows; and an entry point of our own makes it start with one.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"os"

	"berth/runtime/oci"
)

// Set by the linker, see the Makefile.
var version, commit = "dev", "unknown"

func main() {
	os.Exit(oci.Main(os.Args, oci.Build{Version: version, Commit: commit}))
}
