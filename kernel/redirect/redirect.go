package redirect

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"berth/base/fault"
)

// Redirect is one port, for UDP and TCP, and where it leads.
type Redirect struct {
	Table string     // its name
	Addr  netip.Addr // of 127.0.0.0/8
	Port  uint16     // that clients use
	UDP   uint16     // where the server is
	TCP   uint16
}

const loopback = 1 // index of lo, in every namespace

// The offsets of what is read and written (RFC 791, 768, 9293).
const (
	offSaddr, offDaddr     = 12, 16
	offSport, offDport     = 0, 2
	offUDPCheck, offTCPSum = 6, 16
)

const protoTCP, protoUDP = 6, 17

// A step is one rule: a packet of the protocol with the address and port there gets another port there.
type step struct {
	tcp, source bool
	from, to    uint16
}

func (r Redirect) steps() []step {
	return []step{{false, false, r.Port, r.UDP}, {true, false, r.Port, r.TCP}, {false, true, r.UDP, r.Port}, {true, true, r.TCP, r.Port}}
}

// Load puts the rules into the namespace. fresh says that no table of the name can be there; else it is replaced, for which
// the kernel needs some 10 ms. On an error nothing has changed.
func (r Redirect) Load(ns *os.File, fresh bool) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "redirect")
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = r.load(int(fd), fresh) })
	if err == nil {
		err = failed
	}
	return fault.Wrap(fault.Internal, err, "redirect port %d of %v", r.Port, r.Addr)
}

func (r Redirect) load(ns int, fresh bool) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	t := &nftables.Table{Family: nftables.TableFamilyIPv4, Name: r.Table}
	if !fresh {
		c.AddTable(t) // so that there is one to delete
		c.DelTable(t)
	}
	c.AddTable(t)
	// Before connection tracking, should the container itself use it.
	chain := c.AddChain(&nftables.Chain{Name: "output", Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw})
	c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, loopback)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}})
	for _, s := range r.steps() {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: r.exprs(s)})
	}
	return c.Flush()
}

func (r Redirect) exprs(s step) []expr.Any {
	addr, port, check, proto := uint32(offDaddr), uint32(offDport), uint32(offUDPCheck), byte(protoUDP)
	if s.source {
		addr, port = offSaddr, offSport
	}
	if s.tcp {
		check, proto = offTCPSum, protoTCP
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: r.Addr.AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, s.from)},
		&expr.Notrack{},
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, s.to)},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: check},
	}
}

// String gives the rules as `nft list table` shows them.
func (r Redirect) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table ip %s {\n\tchain output {\n\t\ttype filter hook output priority raw; policy accept;\n\t\toif != \"lo\" accept\n", r.Table)
	for _, s := range r.steps() {
		proto, addr, port := "udp", "daddr", "dport"
		if s.tcp {
			proto = "tcp"
		}
		if s.source {
			addr, port = "saddr", "sport"
		}
		fmt.Fprintf(&b, "\t\tip %s %s %s %s %d notrack %s %s set %d\n", addr, r.Addr, proto, port, s.from, proto, port, s.to)
	}
	b.WriteString("\t}\n}\n")
	return b.String()
}
