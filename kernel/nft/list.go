package nft

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// ChainInfo is a chain that is in the kernel, whoever put it there.
type ChainInfo struct {
	Family Family
	Table  string
	Name   string
	Hook   Hook // zero for one that is jumped to
}

// Base reports whether the chain hangs on a hook.
func (c ChainInfo) Base() bool { return c.Hook.Type != "" }

// Chains lists the chains of all tables and families in the connection's namespace. Those that iptables-nft made are among them, those of
// the older iptables are not.
func (c *Conn) Chains() ([]ChainInfo, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var chains []ChainInfo
	err := c.dump(unix.NFT_MSG_GETCHAIN, 0, nil, func(family byte, body []byte) {
		chains = append(chains, chainInfo(family, body))
	})
	return chains, fault.Wrap(fault.Internal, err, "list firewall chains")
}

// dump asks for all objects of a kind, of a family (0: all) and those that the filter's attributes name, and calls each for every one. Older kernels
// give more than the filter says.
func (c *Conn) dump(kind uint16, family Family, filter []byte, each func(family byte, body []byte)) error {
	c.seq++
	var m message
	at := m.begin(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP, c.seq, family, 0)
	m.b = append(m.b, filter...)
	m.finish(at)
	if err := unix.Sendto(c.fd, m.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := dumped(buf[:n], c.seq, each); done || err != nil {
			return err
		}
	}
}

// dumped reads one datagram of a dump. A dump that changes interrupted (NLM_F_DUMP_INTR) is taken as it is: it is for looking around only.
func dumped(b []byte, want uint32, each func(family byte, body []byte)) (done bool, err error) {
	err = messages(b, func(kind, flags uint16, seq uint32, body []byte) error {
		switch {
		case seq != want:
			return nil
		case kind == unix.NLMSG_DONE:
			done = true
		case kind == unix.NLMSG_ERROR && len(body) >= 4:
			done = true
			if errno := unix.Errno(-int32(binary.NativeEndian.Uint32(body))); errno != 0 {
				return errno
			}
		case len(body) >= 4: // struct nfgenmsg
			each(body[0], body[4:])
		}
		return nil
	})
	return done, err
}

func chainInfo(family byte, b []byte) ChainInfo {
	c := ChainInfo{Family: Family(family)}
	attributes(b, func(kind uint16, value []byte) {
		switch kind {
		case unix.NFTA_CHAIN_TABLE:
			c.Table = text(value)
		case unix.NFTA_CHAIN_NAME:
			c.Name = text(value)
		case unix.NFTA_CHAIN_TYPE:
			c.Hook.Type = ChainType(text(value))
		case unix.NFTA_CHAIN_POLICY:
			c.Hook.Drop = number(value) == drop && len(value) >= 4
		case unix.NFTA_CHAIN_HOOK:
			attributes(value, func(kind uint16, value []byte) {
				switch kind {
				case unix.NFTA_HOOK_HOOKNUM:
					c.Hook.Point = Point(number(value))
				case unix.NFTA_HOOK_PRIORITY:
					c.Hook.Priority = int(int32(number(value)))
				}
			})
		}
	})
	return c
}

func number(value []byte) uint32 {
	if len(value) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(value)
}
