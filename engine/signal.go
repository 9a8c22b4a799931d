package engine

import (
	"golang.org/x/sys/unix"

	"berth/kernel/process"
)

// parseSignal reads "SIGTERM", "term", "15", "RTMIN+3". What it refuses has Docker's words; 0 is none, so that who asks with it
// whether a container lives does not end it.
func parseSignal(s string) (unix.Signal, error) {
	n, err := process.ParseSignal(s)
	return unix.Signal(n), err
}
