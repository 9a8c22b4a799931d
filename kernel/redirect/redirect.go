package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"berth/base/fault"
)

// Redirect is one port, for UDP and TCP, and where it leads.
type Redirect struct {
	Table string     // name of its tables
	Addr  netip.Addr // of 127.0.0.0/8
	Port  uint16     // that clients use
	UDP   uint16     // where the server is
	TCP   uint16
}

// Load puts the rules into the namespace. fresh says that no tables of the name can be there; else they are replaced, for
// which the kernel needs some 10 ms. On an error nothing has changed.
func (r Redirect) Load(ns *os.File, fresh bool) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "redirect")
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		failed = load(int(fd), r.tables(true), fresh)
		if failed != nil && !errors.Is(failed, unix.EPERM) {
			// No CONFIG_NF_TABLES_NETDEV or CONFIG_NETFILTER_INGRESS; if something else is wrong, this fails too.
			failed = load(int(fd), r.tables(false), fresh)
		}
	})
	if err == nil {
		err = failed
	}
	return fault.Wrap(fault.Internal, err, "redirect port %d of %v", r.Port, r.Addr)
}

// String gives the rules as `nft list ruleset` shows them.
func (r Redirect) String() string { return text(r.tables(true)) }

// A table has one chain, on one hook, with steps.
type table struct {
	family nftables.TableFamily
	name   string
	addr   netip.Addr
	steps  []step
	hook   hook
}

// A hook is where packets are seen.
type hook int

const (
	sending   hook = iota // before connection tracking
	untracked             // the same, and packets of the steps are not tracked
	receiving             // by lo
)

// A step changes packets of one protocol that have a certain destination port, or source port, at the address.
type step struct {
	tcp, source bool
	from, to    uint16
}

// tables gives the rules. Where lo can be watched as it receives, answers are changed there, after connection tracking has seen them as
// answers to what it saw of the question.
func (r Redirect) tables(ingress bool) []table {
	there := []step{{false, false, r.Port, r.UDP}, {true, false, r.Port, r.TCP}}
	back := []step{{false, true, r.UDP, r.Port}, {true, true, r.TCP, r.Port}}
	if !ingress {
		return []table{{nftables.TableFamilyIPv4, r.Table, r.Addr, append(there, back...), untracked}}
	}
	return []table{{nftables.TableFamilyIPv4, r.Table, r.Addr, there, sending}, {nftables.TableFamilyNetdev, r.Table, r.Addr, back, receiving}}
}

func load(ns int, tables []table, fresh bool) error {
	c, err := nftables.New(nftables.WithNetNSFd(ns))
	if err != nil {
		return err
	}
	for _, t := range tables {
		n := &nftables.Table{Family: t.family, Name: t.name}
		if !fresh {
			c.AddTable(n) // so that there is one to delete
			c.DelTable(n)
		}
		c.AddTable(n)
		chain := &nftables.Chain{Name: "output", Table: n, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityRaw}
		if t.hook == receiving {
			chain = &nftables.Chain{Name: "input", Table: n, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: "lo"}
		}
		c.AddChain(chain)
		if t.hook != receiving {
			c.AddRule(&nftables.Rule{Table: n, Chain: chain, Exprs: othersPass()})
		}
		for _, s := range t.steps {
			c.AddRule(&nftables.Rule{Table: n, Chain: chain, Exprs: t.rule(s)})
		}
	}
	return c.Flush()
}

// othersPass spares packets for other links than lo all other rules.
func othersPass() []expr.Any {
	const loopback = 1 // index of lo, in every namespace
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIF, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, loopback)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	}
}

// Offsets of what is read and written (RFC 791, 768, 9293).
const (
	offSaddr, offDaddr   = 12, 16
	offSport, offDport   = 0, 2
	offUDPSum, offTCPSum = 6, 16
)

func (t table) rule(s step) []expr.Any {
	addr, port, sum, proto := uint32(offDaddr), uint32(offDport), uint32(offUDPSum), byte(unix.IPPROTO_UDP)
	if s.source {
		addr, port = offSaddr, offSport
	}
	if s.tcp {
		sum, proto = offTCPSum, unix.IPPROTO_TCP
	}
	var first, middle []expr.Any
	switch t.hook {
	case receiving: // a table of links sees every protocol
		first = []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)},
		}
	case untracked:
		middle = []expr.Any{&expr.Notrack{}}
	}
	tests := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: addr, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: t.addr.AsSlice()},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, s.from)},
	}
	change := []expr.Any{ // the kernel corrects a checksum that is there already; on lo there is none yet
		&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, s.to)},
		&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: port, Len: 2,
			CsumType: expr.CsumTypeInet, CsumOffset: sum},
	}
	return slices.Concat(first, tests, middle, change)
}

func text(tables []table) string {
	var b strings.Builder
	for _, t := range tables {
		notrack := ""
		switch t.hook {
		case receiving:
			fmt.Fprintf(&b, "table netdev %s {\n\tchain input {\n\t\ttype filter hook ingress device \"lo\" priority filter; policy accept;\n", t.name)
		case untracked:
			notrack = "notrack "
			fallthrough
		default:
			fmt.Fprintf(&b, "table ip %s {\n\tchain output {\n\t\ttype filter hook output priority raw; policy accept;\n\t\toif != \"lo\" accept\n", t.name)
		}
		for _, s := range t.steps {
			proto, addr, port := "udp", "daddr", "dport"
			if s.tcp {
				proto = "tcp"
			}
			if s.source {
				addr, port = "saddr", "sport"
			}
			fmt.Fprintf(&b, "\t\tip %s %s %s %s %d %s%s %s set %d\n", addr, t.addr, proto, port, s.from, notrack, proto, port, s.to)
		}
		b.WriteString("\t}\n}\n")
	}
	return b.String()
}
