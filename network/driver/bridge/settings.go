package bridge

import (
	"os"
	"strings"

	"berth/base/fault"
	"berth/kernel/link"
	"berth/network/driver"
)

// settings writes what a bridge needs of /proc/sys. The bridge is down.
func (d *Driver) settings(n driver.Network) error {
	v4, v6 := "net/ipv4/conf/"+n.Bridge+"/", "net/ipv6/conf/"+n.Bridge+"/"
	off := "1"
	if n.IPv6 {
		off = "0"
	}
	if err := link.SetSysctl(v6+"disable_ipv6", off); err != nil && !fault.Is(err, fault.NotFound) {
		if n.IPv6 {
			return fault.In(err, "Unable to enable IPv6 on bridge %s", n.Bridge)
		}
		d.warn(n, err)
	}
	if n.IPv6 {
		d.try(n, v6+"accept_ra", "0")  // what containers say of routers is not for the host
		d.try(n, v6+"accept_dad", "0") // nobody else has our addresses; while it looks, it asks for no neighbour, for 2 s
	}
	if n.Internal {
		return nil
	}
	// Lets clients on 127.0.0.1 be led to containers. Only on our own bridge: from there, packets with such a source or
	// destination are nobody else's.
	d.try(n, v4+"route_localnet", "1")
	if !d.cfg.Forward {
		return nil
	}
	if n.IPv4 {
		if err := link.SetSysctl("net.ipv4.ip_forward", "1"); err != nil {
			return fault.In(err, "setup IPv4 forwarding failed")
		}
	}
	if n.IPv6 {
		return forward6()
	}
	return nil
}

// forward6 switches IPv6 forwarding on. It makes the host a router, which by default no longer listens to routers: links
// that did are told to go on doing so (accept_ra 2), or the host would lose its own default route.
func forward6() error {
	const all = "net/ipv6/conf/all/forwarding"
	now, err := link.Sysctl(all)
	if err != nil {
		return fault.In(err, "setup IPv6 forwarding failed")
	}
	if now == "1" {
		return nil
	}
	links, _ := os.ReadDir("/proc/sys/net/ipv6/conf")
	for _, l := range links {
		key := "net/ipv6/conf/" + l.Name() + "/accept_ra"
		if v, err := link.Sysctl(key); err == nil && v == "1" && l.Name() != "lo" && l.Name() != "all" && l.Name() != "default" {
			_ = link.SetSysctl(key, "2")
		}
	}
	if err := link.SetSysctl("net/ipv6/conf/default/forwarding", "1"); err != nil {
		return fault.In(err, "setup IPv6 forwarding failed")
	}
	return fault.In(link.SetSysctl(all, "1"), "setup IPv6 forwarding failed")
}

func (d *Driver) try(n driver.Network, key, value string) {
	if err := link.SetSysctl(key, value); err != nil {
		d.warn(n, err)
	}
}

func (d *Driver) warn(n driver.Network, err error) {
	d.cfg.Log.Warn("a setting of a network's bridge is not made", "network", n.Name, "bridge", n.Bridge, "err", strings.TrimSpace(err.Error()))
}
