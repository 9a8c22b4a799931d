package link

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Link is the wish for a link. Zero values are not asked for.
type Link struct {
	Name   string // at most 15 bytes; may hold one %d, for a number that the kernel picks
	Index  int    // asked for; 0: the kernel picks
	Kind   string // "veth", "bridge", "macvlan", "ipvlan", "vlan", "ifb", "dummy"
	MTU    int
	MAC    net.HardwareAddr
	Up     bool
	Master int      // index of the bridge it becomes a port of
	Parent int      // index of the link it sits on: macvlan, ipvlan, vlan
	NS     *os.File // namespace to make it in; nil: the socket's

	Peer    *Link          // of a veth; it cannot be up from the start: veth_open wants the other end (ENOTCONN)
	Bridge  *BridgeOptions // of a bridge
	Mode    string         // of a macvlan: "bridge", "private", "vepa", "passthru"; of an ipvlan: "l2", "l3", "l3s"
	Flag    string         // of an ipvlan: "", "bridge", "private", "vepa"
	VLAN    uint16         // of a vlan: its id
	TxQueue int            // packets; 0: the driver's default
}

// BridgeOptions are what a bridge is made with.
type BridgeOptions struct {
	// Spanning tree and forwarding delay are always off: they make a new port wait 30 s.

	VLANFiltering     bool
	MulticastSnooping *bool // nil: the kernel's default, on
}

// Modes of macvlan and ipvlan as the kernel numbers them (if_link.h).
var macvlanModes = map[string]uint32{"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
var ipvlanModes = map[string]uint16{"l2": 0, "l3": 1, "l3s": 2}
var ipvlanFlags = map[string]uint16{"": 0, "bridge": 0, "private": 1, "vepa": 2}

// Numbers of if_link.h that the unix package lacks.
const (
	vethInfoPeer = 1

	macvlanMode = 1
	ipvlanMode  = 1
	ipvlanFlag  = 2
	vlanID      = 1

	bridgeForwardDelay  = 1
	bridgeSTP           = 5
	bridgeVLANFiltering = 7
	bridgeMcastSnooping = 23

	inet6AddrGenMode     = 8
	inet6AddrGenModeNone = 1

	portState     = 1
	portDisabled  = 0
	portFlush     = 24
	portHairpin   = 4
	portIsolated  = 33
	portNeighSupp = 32
	infoSlaveData = 5
	infoSlaveKind = 4
)

// Add makes a link, and of a veth both ends, all in one message. EEXIST is Conflict, EOPNOTSUPP (the kernel has no such
// kind) NotImplemented.
func Add(l Link) Op {
	var m builder
	m.link(l)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.text(unix.IFLA_INFO_KIND, l.Kind)
		m.data(l)
	})
	return Op{what: "add " + l.Kind + " " + l.Name, kind: unix.RTM_NEWLINK, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// link appends what every link has: struct ifinfomsg and the common attributes.
func (m *builder) link(l Link) {
	flags, change := uint32(0), uint32(0)
	if l.Up {
		flags, change = unix.IFF_UP, unix.IFF_UP
	}
	m.ifinfo(unix.AF_UNSPEC, l.Index, flags, change)
	if l.Name != "" {
		m.text(unix.IFLA_IFNAME, l.Name)
	}
	if l.MTU > 0 {
		m.u32(unix.IFLA_MTU, uint32(l.MTU))
	}
	if len(l.MAC) > 0 {
		m.attr(unix.IFLA_ADDRESS, l.MAC)
	}
	if l.Master > 0 {
		m.u32(unix.IFLA_MASTER, uint32(l.Master))
	}
	if l.Parent > 0 {
		m.u32(unix.IFLA_LINK, uint32(l.Parent))
	}
	if l.NS != nil {
		m.u32(unix.IFLA_NET_NS_FD, uint32(l.NS.Fd()))
	}
	if l.TxQueue > 0 {
		m.u32(unix.IFLA_TXQLEN, uint32(l.TxQueue))
	}
}

func (m *builder) ifinfo(family uint8, index int, flags, change uint32) {
	m.raw(family, 0)
	m.native16(0)
	m.native32(uint32(index))
	m.native32(flags)
	m.native32(change)
}

// data appends what a kind of its own has.
func (m *builder) data(l Link) {
	switch {
	case l.Kind == "veth" && l.Peer != nil:
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.nest(vethInfoPeer, func() { m.link(*l.Peer) })
		})
	case l.Kind == "bridge" && l.Bridge != nil:
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.u32(bridgeForwardDelay, 0)
			m.u32(bridgeSTP, 0)
			if l.Bridge.VLANFiltering {
				m.u8(bridgeVLANFiltering, 1)
			}
			if s := l.Bridge.MulticastSnooping; s != nil {
				m.flag(bridgeMcastSnooping, *s)
			}
		})
	case l.Kind == "macvlan":
		m.nest(unix.IFLA_INFO_DATA, func() { m.u32(macvlanMode, macvlanModes[l.Mode]) })
	case l.Kind == "ipvlan":
		m.nest(unix.IFLA_INFO_DATA, func() {
			m.u16(ipvlanMode, ipvlanModes[l.Mode])
			m.u16(ipvlanFlag, ipvlanFlags[l.Flag])
		})
	case l.Kind == "vlan":
		m.nest(unix.IFLA_INFO_DATA, func() { m.u16(vlanID, l.VLAN) })
	}
}

// Change is what Set changes of a link; zero values leave it as it is.
type Change struct {
	Name   string
	MTU    int
	MAC    net.HardwareAddr
	Up     bool
	Down   bool
	Master int
	Alone  bool     // leave the master
	NS     *os.File // move it there

	// NoLinkLocal keeps the kernel from giving it an fe80:: address of its own making (IN6_ADDR_GEN_MODE_NONE). Before it
	// is set up; a link that is being made does not take it (EAFNOSUPPORT).
	NoLinkLocal bool
	Promisc     bool
	Alias       string // a text of ours by which a link is known again; at most 255 bytes
}

// SetNamed changes the link of that name. In one batch with Add it is done with it or not at all, whatever kills us.
func SetNamed(ifname string, c Change) Op {
	o := set(0, ifname, c)
	o.what = "change link " + ifname
	return o
}

// Set changes a link.
func Set(index int, c Change) Op { return set(index, "", c) }

func set(index int, ifname string, c Change) Op {
	var m builder
	flags, change := uint32(0), uint32(0)
	if c.Up {
		flags, change = unix.IFF_UP, unix.IFF_UP
	}
	if c.Down {
		change = unix.IFF_UP
	}
	if c.Promisc {
		flags, change = flags|unix.IFF_PROMISC, change|unix.IFF_PROMISC
	}
	m.ifinfo(unix.AF_UNSPEC, index, flags, change)
	if ifname != "" {
		m.text(unix.IFLA_IFNAME, ifname)
	}
	if c.Name != "" {
		m.text(unix.IFLA_IFNAME, c.Name)
	}
	if c.MTU > 0 {
		m.u32(unix.IFLA_MTU, uint32(c.MTU))
	}
	if len(c.MAC) > 0 {
		m.attr(unix.IFLA_ADDRESS, c.MAC)
	}
	switch {
	case c.Alone:
		m.u32(unix.IFLA_MASTER, 0)
	case c.Master > 0:
		m.u32(unix.IFLA_MASTER, uint32(c.Master))
	}
	if c.Alias != "" {
		m.attr(unix.IFLA_IFALIAS, []byte(c.Alias))
	}
	if c.NoLinkLocal {
		m.nest(unix.IFLA_AF_SPEC, func() {
			m.nest(unix.AF_INET6, func() { m.u8(inet6AddrGenMode, inet6AddrGenModeNone) })
		})
	}
	if c.NS != nil {
		m.u32(unix.IFLA_NET_NS_FD, uint32(c.NS.Fd()))
	}
	return Op{what: "change " + name(index), kind: unix.RTM_NEWLINK, body: m.b}
}

// Delete deletes a link; of a veth both ends.
func Delete(index int) Op {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, index, 0, 0)
	return Op{what: "delete " + name(index), kind: unix.RTM_DELLINK, body: m.b}
}

// DeleteNamed deletes the link of that name.
func DeleteNamed(ifname string) Op {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	m.text(unix.IFLA_IFNAME, ifname)
	return Op{what: "delete link " + ifname, kind: unix.RTM_DELLINK, body: m.b}
}

// Port is how a bridge treats one of its ports.
type Port struct {
	Hairpin  bool // a frame may leave by the port it came in by
	Isolated bool // it talks to ports only that are not isolated. Linux 4.18
}

// SetPort sets the flags of the bridge port of that name.
func SetPort(ifname string, p Port) Op {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	m.text(unix.IFLA_IFNAME, ifname)
	m.nest(unix.IFLA_LINKINFO, func() {
		m.text(infoSlaveKind, "bridge")
		m.nest(infoSlaveData, func() {
			m.flag(portHairpin, p.Hairpin)
			m.flag(portIsolated, p.Isolated)
		})
	})
	return Op{what: "set bridge port " + ifname, kind: unix.RTM_NEWLINK, body: m.b}
}

// CutPort cuts a bridge port off its bridge: no frame passes either way, and what the bridge has learned there is
// forgotten. It is quick, other than deleting the link, and stands until the link's carrier changes or it leaves the bridge.
func CutPort(index int) Op {
	var m builder
	// By the bridge's own message: a change by the link's would end with a notice upon which the bridge enables the port
	// again (br_port_carrier_check).
	m.ifinfo(unix.AF_BRIDGE, index, 0, 0)
	m.nest(unix.IFLA_PROTINFO, func() {
		m.u8(portState, portDisabled)
		m.attr(portFlush, nil)
	})
	return Op{what: "cut off bridge port " + name(index), kind: unix.RTM_SETLINK, body: m.b}
}

// Info is what the kernel says of a link.
type Info struct {
	Index                int
	Name                 string
	Alias                string
	Kind                 string // "" of what is no virtual link
	MTU                  int
	MAC                  net.HardwareAddr
	Up                   bool
	Lower                bool // it carries traffic
	Master               int
	Parent               int // index of the link it sits on, or of its peer; perhaps of another namespace
	VLAN                 uint16
	Mode                 string // of a macvlan
	RxBytes, TxBytes     uint64
	RxPackets, TxPackets uint64
}

// ByName gives the link of that name, NotFound when there is none.
func (c *Conn) ByName(ifname string) (Info, error) {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	m.text(unix.IFLA_IFNAME, ifname)
	return c.get(Op{what: "link " + ifname, kind: unix.RTM_GETLINK, body: m.b})
}

// ByIndex gives the link of that index, NotFound when there is none.
func (c *Conn) ByIndex(index int) (Info, error) {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, index, 0, 0)
	return c.get(Op{what: name(index), kind: unix.RTM_GETLINK, body: m.b})
}

func (c *Conn) get(o Op) (i Info, err error) {
	err = c.ask(o, func(_ uint16, body []byte) { i = info(body) })
	return i, err
}

// Links lists all links.
func (c *Conn) Links() (list []Info, err error) {
	var m builder
	m.ifinfo(unix.AF_UNSPEC, 0, 0, 0)
	err = c.ask(Op{what: "list links", kind: unix.RTM_GETLINK, flags: unix.NLM_F_DUMP, body: m.b}, func(kind uint16, body []byte) {
		if kind == unix.RTM_NEWLINK {
			list = append(list, info(body))
		}
	})
	return list, err
}

// info reads struct ifinfomsg and its attributes.
func info(b []byte) (i Info) {
	if len(b) < unix.SizeofIfInfomsg {
		return i
	}
	i.Index = number(b[4:])
	flags := uint32(number(b[8:]))
	i.Up, i.Lower = flags&unix.IFF_UP != 0, flags&unix.IFF_LOWER_UP != 0
	attributes(b[unix.SizeofIfInfomsg:], func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_IFNAME:
			i.Name = text(v)
		case unix.IFLA_IFALIAS:
			i.Alias = text(v)
		case unix.IFLA_MTU:
			i.MTU = number(v)
		case unix.IFLA_ADDRESS:
			i.MAC = append(net.HardwareAddr(nil), v...)
		case unix.IFLA_MASTER:
			i.Master = number(v)
		case unix.IFLA_LINK:
			i.Parent = number(v)
		case unix.IFLA_STATS64:
			i.stats(v)
		case unix.IFLA_LINKINFO:
			i.readKind(v)
		}
	})
	return i
}

// readKind reads IFLA_LINKINFO.
func (i *Info) readKind(b []byte) {
	var data []byte
	attributes(b, func(kind uint16, v []byte) {
		switch kind {
		case unix.IFLA_INFO_KIND:
			i.Kind = text(v)
		case unix.IFLA_INFO_DATA:
			data = v
		}
	})
	attributes(data, func(kind uint16, v []byte) {
		switch {
		case i.Kind == "vlan" && kind == vlanID && len(v) >= 2:
			i.VLAN = binary.NativeEndian.Uint16(v)
		case i.Kind == "macvlan" && kind == macvlanMode:
			for mode, n := range macvlanModes {
				if int(n) == number(v) {
					i.Mode = mode
				}
			}
		}
	})
}
