package redirect

import (
	"encoding/binary"
	"errors"
	"net/netip"

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

// Load puts the rules into the calling thread's namespace. Tables of the name that are there are replaced, for which the kernel needs
// some 10 ms. On an error nothing has changed.
func (r Redirect) Load() error {
	err := load(r.tables(true))
	if err != nil && !errors.Is(err, unix.EPERM) {
		// No CONFIG_NF_TABLES_NETDEV or CONFIG_NETFILTER_INGRESS; if something else is wrong, this fails too.
		err = load(r.tables(false))
	}
	return fault.Wrap(fault.Internal, err, "redirect port %d of %v", r.Port, r.Addr)
}

// A table has one chain, on one hook, with steps.
type table struct {
	family byte // NFPROTO_…
	name   string
	addr   netip.Addr
	steps  []step
	hook   hook
}

func (t table) chain() string {
	if t.hook == receiving {
		return "input"
	}
	return "output"
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
		return []table{{unix.NFPROTO_IPV4, r.Table, r.Addr, append(there, back...), untracked}}
	}
	return []table{{unix.NFPROTO_IPV4, r.Table, r.Addr, there, sending}, {unix.NFPROTO_NETDEV, r.Table, r.Addr, back, receiving}}
}

// load makes the tables. It tries first as if there were none, which is usual and quick.
func load(tables []table) error {
	err := send(tables, false)
	if errors.Is(err, unix.EEXIST) {
		err = send(tables, true)
	}
	return err
}

func send(tables []table, replace bool) error {
	var m batch
	m.endMessage(m.message(batchBegin, 0, unix.AF_UNSPEC, nftables))
	for i, t := range tables {
		if replace {
			m.table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, t) // so that there is one to delete
			m.table(unix.NFT_MSG_DELTABLE, 0, t)
		}
		m.table(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, t)
		m.chain(t)
		if t.hook != receiving {
			m.rule(t, 0, m.othersPass)
		}
		for j, s := range t.steps {
			flags := uint16(0)
			if i == len(tables)-1 && j == len(t.steps)-1 {
				flags = unix.NLM_F_ACK
			}
			m.rule(t, flags, func() { m.step(t, s) })
		}
	}
	last := m.seq
	m.endMessage(m.message(batchEnd, 0, unix.AF_UNSPEC, nftables))
	return m.send(last)
}

func (m *batch) table(kind, flags uint16, t table) {
	at := m.change(kind, flags, t.family)
	m.text(unix.NFTA_TABLE_NAME, t.name)
	m.endMessage(at)
}

func (m *batch) chain(t table) {
	priority := int32(-300) // "raw": before connection tracking
	point := uint32(unix.NF_INET_LOCAL_OUT)
	if t.hook == receiving {
		priority, point = 0, unix.NF_NETDEV_INGRESS
	}
	at := m.change(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, t.family)
	m.text(unix.NFTA_CHAIN_TABLE, t.name)
	m.text(unix.NFTA_CHAIN_NAME, t.chain())
	m.nest(unix.NFTA_CHAIN_HOOK, func() {
		m.number(unix.NFTA_HOOK_HOOKNUM, point)
		m.number(unix.NFTA_HOOK_PRIORITY, uint32(priority))
		if t.hook == receiving {
			m.text(unix.NFTA_HOOK_DEV, "lo")
		}
	})
	m.text(unix.NFTA_CHAIN_TYPE, "filter")
	m.endMessage(at)
}

func (m *batch) rule(t table, flags uint16, exprs func()) {
	at := m.change(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND|flags, t.family)
	m.text(unix.NFTA_RULE_TABLE, t.name)
	m.text(unix.NFTA_RULE_CHAIN, t.chain())
	m.nest(unix.NFTA_RULE_EXPRESSIONS, exprs)
	m.endMessage(at)
}

// othersPass spares packets for other links than lo all other rules.
func (m *batch) othersPass() {
	const loopback = 1 // index of lo, in every namespace
	m.meta(unix.NFT_META_OIF)
	m.compare(unix.NFT_CMP_NEQ, binary.NativeEndian.AppendUint32(nil, loopback))
	m.accept()
}

// Offsets of what is read and written (RFC 791, 768, 9293).
const (
	offSaddr, offDaddr   = 12, 16
	offSport, offDport   = 0, 2
	offUDPSum, offTCPSum = 6, 16
)

func (m *batch) step(t table, s step) {
	addr, port, sum, proto := uint32(offDaddr), uint32(offDport), uint32(offUDPSum), byte(unix.IPPROTO_UDP)
	if s.source {
		addr, port = offSaddr, offSport
	}
	if s.tcp {
		sum, proto = offTCPSum, unix.IPPROTO_TCP
	}
	if t.hook == receiving { // a table of links sees every protocol
		m.meta(unix.NFT_META_PROTOCOL)
		m.compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	}
	m.load(unix.NFT_PAYLOAD_NETWORK_HEADER, addr, 4)
	m.compare(unix.NFT_CMP_EQ, t.addr.AsSlice())
	m.meta(unix.NFT_META_L4PROTO)
	m.compare(unix.NFT_CMP_EQ, []byte{proto})
	m.load(unix.NFT_PAYLOAD_TRANSPORT_HEADER, port, 2)
	m.compare(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, s.from))
	if t.hook == untracked {
		m.expr("notrack", nil)
	}
	m.store(s.to, port, sum)
}
