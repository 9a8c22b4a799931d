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
//	  clone host paths as detached mounts,
//	  make the terminal
//	clone3 ──────────────────────────────────────▶ join cgroups and namespaces
//	  (waits in the kernel until execve: vfork,    attach root, mount, make devices, mask
//	   or on a socket when the child must wait)    pivot or chroot, limits, identity, seccomp
//	◀──────────────────────────────────────────── execve, or {step, errno} and exit
//
// The child never runs Go: after clone3 a short loop of assembly walks the table. A step may
// skip the next ones on success or on an expected errno; there is no other control flow. That
// is what makes a start cheap: no second process image, no page-table copy, no runtime start-up,
// and nothing of the launcher's memory is written.
//
// Words: a step is one system call; a slot holds a result (usually a descriptor) for later steps;
// a gate is where a child waits to be told to go on; covered is the way of entering a root by
// mounting it over an empty one instead of pivot_root.
//
// The package never reads a config.json, never decides policy, and keeps no state between starts.
package launch
