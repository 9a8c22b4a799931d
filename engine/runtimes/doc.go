// Package runtimes knows the OCI runtimes other than the built-in one that containers may ask for by name (docker run --runtime), and writes
// the command lines by which they are used.
//
// A Runtime is a name and a program with runc's command line: runc, crun, runsc, youki, berth-oci. A Set is what one engine was told of
// with --add-runtime and daemon.json, with the default; it resolves the names that clients give. Where a container of such a runtime
// has its bundle, what a command of it may last, and what becomes of its process, is the engine's and the keeper's matter (package
// runtime/foreign).
//
// The package starts no container. It runs a runtime's short commands (features, kill, delete) with a deadline, since the program is
// somebody else's and may hang.
package runtimes
