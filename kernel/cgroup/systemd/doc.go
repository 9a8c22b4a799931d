// Package systemd makes container cgroups through systemd: for hosts where systemd must own every cgroup,
// as Kubernetes wants it. It talks D-Bus, so nothing that starts containers the plain way links it.
//
// Words. A unit is systemd's name for a cgroup: a scope holds processes that others started, a slice holds
// units. OCI's cgroupsPath for this driver is "slice:prefix:name" and means the scope prefix-name.scope in
// the slice (or, when name ends in .slice, that slice itself). A property is one setting of a unit; limits
// are translated to properties so that systemd, which rewrites its units' files, agrees with them.
//
// A Unit's life: Parse → Scope starts it around a process that waits, and waits for systemd's job → the
// files that systemd has no property for are written as without it → Update → Stop, which also forgets
// a failure. What systemd made, systemd removes.
package systemd
