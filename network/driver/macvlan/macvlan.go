// Package macvlan is the driver of networks whose containers are machines of their own on the network of a link of the
// host's, with a hardware address each.
//
// Modes (option macvlan_mode): "bridge", the default: containers of one parent reach each other directly; "vepa": through
// the switch outside; "private": not at all; "passthru": one container has the parent to itself. In no mode does the host
// reach them by the parent itself: that is the kernel's way with macvlan.
package macvlan

import (
	"log/slog"

	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/parent"
)

// OptMode is Docker's option.
const OptMode = "macvlan_mode"

// New opens the driver "macvlan" in the calling thread's network namespace.
func New(log *slog.Logger) (*parent.Driver, error) {
	d := &parent.Driver{
		Kind: "macvlan", Log: log,
		Link: func(n driver.Network, l *link.Link) { l.Mode, _ = mode(n) },
		Options: func(n driver.Network) error {
			_, err := mode(n)
			return err
		},
		Shared: func(_, _ driver.Network) bool { return false },
	}
	return d, d.Dial()
}

func mode(n driver.Network) (string, error) {
	return parent.Mode(n, OptMode, "bridge", "vepa", "private", "passthru")
}
