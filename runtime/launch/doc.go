// Package launch turns a description of a container into a process, in two moves that know
// nothing of each other.
//
// Compile decides: it reads an OCI spec and writes a Program, a table of system calls with their
// arguments in the order in which they will be made. A Program is a plain value. It prints one
// system call a line, compares in tests, and travels to the keeper as bytes.
//
// Launcher.Start acts: it makes the Program's first calls itself (Prepare), clones a child in new
// namespaces, and the child makes the rest (Child) and ends in execve.
//
//	launcher                                       child (new namespaces, no Go, no stack)
//	────────                                       ─────
//	Prepare: open cgroups, assemble the overlay,
//	  clone host paths that the child cannot,
//	  make the terminal
//	lay the table out as a program in memory
//	clone3 ──────────────────────────────────────▶ keep the descriptors of the table
//	  (waits in the kernel until execveat)         execveat the program in memory
//	◀────────────────────────────────────────────
//	serve the socket until its end                 join cgroups and namespaces
//	                                               attach root, mount, make devices, mask
//	                                               pivot or chroot, limits, identity, seccomp
//	◀──────────────────────────────────────────── execve closes the socket, or {step, errno} comes through it
//
// The child never runs Go: a short loop of assembly walks the table, at first in the launcher's memory,
// then as the whole text of a program that was written for this one child (elf.go says why). A step
// may skip the next ones on success or on an expected errno; there is no other control flow. That is
// what makes a start cheap: no runtime start-up, no page-table copy, and nothing of the launcher's is
// in reach of the container.
//
// Words: a step is one system call; a slot holds a result (usually a descriptor) for later steps;
// a gate is where a child waits to be told to go on; covered is the way of entering a root by
// mounting it over an empty one instead of pivot_root; views is a mount namespace with proc and sysfs
// alone, from which containers in user namespaces are cloned (mapped.go); an enclosure is a pid namespace around those of containers, with
// which they end when the launcher does (enclosure.go).
//
// The package never reads a config.json, never decides policy, and keeps no state between starts but
// threads and network namespaces that the next one may use (thread.go, nets.go).
package launch
