// Package cgroup makes, limits, measures and removes control groups, on cgroup v1, v2 and the hybrid of
// both, by plain files (and one BPF program for devices on v2).
//
// Words. A hierarchy is one mounted cgroup tree: v1 has one for each set of controllers, v2 has one for
// all. The Layout is what a machine has mounted. A container's cgroup is a directory of the same name in
// every hierarchy; Cgroup is the handle on all of them together.
//
// The main value is Setup, what Plan computes from an OCI resource description without touching
// anything: the directories to make and the values to write, in the kernel's order, printable and
// compared with golden files. Its life: Plan → (print) → Apply → *Cgroup → Attach the processes →
// Update, Stats, Freeze, Kill → Remove. Apply undoes what it did when a step fails; a Cgroup may be
// found again at any time with Open, nothing else remembers it.
//
// A process is put inside by its own birth (v2: CLONE_INTO_CGROUP on Attach.V2Dir) or by itself (v1: the
// child writes "0" to each file of Attach.V1Procs): both avoid the lock that makes attaching by process
// number slow.
//
// The package never decides limits, never moves processes that exist, and talks to no daemon: for
// systemd's D-Bus see the sub-package.
package cgroup
