// Package spec makes and checks OCI container configurations (config.json, runtime-spec 1.3).
//
// It owns what a container gets without being asked: Docker's default mounts, hidden paths, devices,
// capabilities and seccomp profile, from which `berth-oci spec` writes a file and the engine builds each
// container's configuration. It resolves seccomp profiles in Docker's format, whose rules may depend on
// capabilities, architecture and kernel, to the plain form a runtime takes. It says
// precisely what is wrong with a configuration; runtime/oci/config reads one from a file.
//
// Life of a configuration: Default (or a file) gives a *specs.Spec; the engine or a user
// changes it; Validate checks it; the launch room compiles it into system calls.
//
// The package never touches the container's files and starts nothing. Of the machine it looks at what
// the defaults depend on: kernel version, processors, this process's capabilities.
package spec
