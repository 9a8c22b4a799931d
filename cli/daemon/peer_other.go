//go:build !linux

package daemon

import (
	"context"
	"net"
)

// PeerPID is 0: engines run on Linux, so this one is on another machine.
func PeerPID(net.Conn) int { return 0 }

// WaitGone returns at once: there is nothing here to wait for.
func WaitGone(context.Context, int) error { return nil }
