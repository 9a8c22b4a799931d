// Package oci is the command line of berth-oci: runc's commands, flags, words and files on top of
// runtime/launch, so that containerd, Docker, Podman and people who type runc need not notice.
//
// The life of a container, as the commands see it:
//
//	create   spec checked → directory ROOT/ID → cgroup → launch; the child waits at a fifo
//	start    startContainer hooks → one byte through the fifo → the program runs → poststart hooks
//	run      both at once, without the fifo unless hooks need it
//	kill, pause, resume, update, exec, ps, events    act on what state.json names
//	delete   cgroup emptied and removed → directory removed → poststop hooks
//
// What stands in ROOT/ID:
//
//	config.json   the bundle's configuration as it was at create; later edits of the bundle change nothing
//	state.json    the record (see record.go): written whole and renamed into place, after the child exists
//	exec.fifo     exists from create to start; its presence is what makes the status "created"
//
// The directory is made first and removed last. Everything outside it that a crash may leave (the
// cgroup) is derived from config.json and the id alone, so `delete --force` cleans up after a create
// that was killed at any point. The directory itself is flock'ed by commands that change the container.
//
// A container's status is never stored: it is derived from the process (pid and start time), the
// fifo and the freezer, so it cannot be stale.
//
// The package never decides what isolation is (runtime/launch does), never links D-Bus or criu code
// into the plain path, and prints nothing to standard output but what a command is asked for. It is
// written to be cheap to start: no reflection, no goroutines and no JSON decoding that a command
// does not need.
package oci
