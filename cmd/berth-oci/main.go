// Command berth-oci runs containers from OCI bundles. It takes runc's commands and flags, so that
// containerd, Docker, Podman and scripts can use it in runc's place.
package main

import (
	"os"

	"berth/kernel/shortlived"
	"berth/runtime/oci"
)

// Set by the linker, see the Makefile.
var version, commit = "dev", "unknown"

func main() {
	shortlived.Begin()
	os.Exit(oci.Main(os.Args, oci.Build{Version: version, Commit: commit}))
}
