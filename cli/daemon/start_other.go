//go:build !linux

package daemon

import (
	"io"

	"berth/base/fault"
)

// Socket is where an engine listens by default. Engines run on Linux: elsewhere it is usually forwarded.
func Socket() string { return "/run/berth/berth.sock" }

// A Starter starts nothing on this system.
type Starter struct{}

// NewStarter makes a Starter that starts nothing.
func NewStarter(io.Writer) *Starter { return &Starter{} }

// Wanted is false: engines run on Linux.
func (s *Starter) Wanted(error) bool { return false }

// Start fails: engines run on Linux.
func (s *Starter) Start() error {
	return fault.New(fault.NotImplemented, "Berth's engine runs on Linux: name one with -H, BERTH_HOST or a context")
}
