// Package daemon starts the engine from the command line: a root user who types `berth run` on a
// machine where nothing serves the default socket gets an engine, is told so, and the command goes on.
//
// Started here, the engine belongs to nobody's terminal: it runs in a session of its own with its
// output in /run/berth/berthd.log, or, where systemd is process 1, in a transient unit. Two commands
// typed at once start one engine: a lock file orders them. It is never stopped from here
// (`berth system shutdown` asks the engine itself).
package daemon
