// Package daemon starts the engine from the command line: who types `berth run` where nothing serves the
// default socket gets an engine, is told so, and the command goes on. Root gets the machine's engine, another user one
// of his own (docs/rootless.md), unless the machine's lets him in.
//
// Started here, the engine belongs to nobody's terminal: it runs in a session of its own with its
// output in berthd.log beside its socket, or, where systemd is process 1, in a transient unit. Two commands
// typed at once start one engine: a lock file orders them. It is never stopped from here
// (`berth system shutdown` asks the engine itself).
package daemon
