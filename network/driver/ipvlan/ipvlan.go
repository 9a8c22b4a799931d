// Package ipvlan is the driver of networks whose containers have addresses of their own on the network of a link of the
// host's, all with its hardware address.
//
// Modes (option ipvlan_mode): "l2", the default, which switches; "l3", which routes: the default route goes to the link
// itself, and no broadcast passes; "l3s": the same, and the host's connection tracking sees it. The option ipvlan_flag
// says whether containers of one parent reach each other: "bridge", the default, "private", "vepa".
package ipvlan

import (
	"log/slog"
	"net/netip"
	"strings"

	"berth/kernel/link"
	"berth/network/driver"
	"berth/network/driver/parent"
)

// Docker's options.
const (
	OptMode = "ipvlan_mode"
	OptFlag = "ipvlan_flag"
)

// New opens the driver "ipvlan" in the calling thread's network namespace.
func New(log *slog.Logger) (*parent.Driver, error) {
	d := &parent.Driver{
		Kind: "ipvlan", Log: log,
		Link: func(n driver.Network, l *link.Link) {
			l.MAC = nil // it is the parent's
			l.Mode, _ = mode(n)
			l.Flag, _ = flag(n)
		},
		Attached: func(n driver.Network, a *driver.Attachment) {
			if m, _ := mode(n); strings.HasPrefix(m, "l3") && !n.Internal {
				a.Gateway4, a.Gateway6, a.OnLink = netip.Addr{}, netip.Addr{}, true
			}
		},
		Options: func(n driver.Network) error {
			if _, err := mode(n); err != nil {
				return err
			}
			_, err := flag(n)
			return err
		},
		Shared: func(_, _ driver.Network) bool { return false },
	}
	return d, d.Dial()
}

func mode(n driver.Network) (string, error) { return parent.Mode(n, OptMode, "l2", "l3", "l3s") }
func flag(n driver.Network) (string, error) {
	return parent.Mode(n, OptFlag, "bridge", "private", "vepa")
}
