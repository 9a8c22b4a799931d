// Package rootless tests the engine of an ordinary user: on the host of a small world (package world), by a user who exists for the test alone.
//
// The user is made in a private mount namespace: passwd, group, subuid and subgid with a line more are bound over the machine's, and a node of
// the tunnel device of its own. His cgroup is a new one in the unified hierarchy, given to him. Nothing of the machine's own files, users,
// network and cgroups changes. Whatever the test does, everything that runs in that cgroup is killed at its end.
package rootless
