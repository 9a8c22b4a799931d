package link

import (
	"encoding/binary"
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// Handles of queueing disciplines and classes: major in the upper 16 bits.
const (
	Root    = 0xFFFFFFFF // the parent of a link's own discipline
	Ingress = 0xFFFFFFF1 // the parent of what comes in: clsact's
)

// Handle makes major:minor.
func Handle(major, minor uint16) uint32 { return uint32(major)<<16 | uint32(minor) }

// Numbers of pkt_sched.h, pkt_cls.h and tc_act that the unix package lacks.
const (
	tcaKind    = 1
	tcaOptions = 2

	tbfParms  = 1
	tbfRate64 = 4
	tbfBurst  = 6

	htbParms  = 1
	htbInit   = 2
	htbRate64 = 6
	htbCeil64 = 7

	fqCodelLimit = 2

	u32ClassID = 1
	u32Sel     = 5
	u32Act     = 7

	actKind    = 1
	actOptions = 2

	mirredParms       = 2
	mirredEgressRedir = 1

	policeTable  = 1
	policeRates  = 2
	policeRate64 = 8

	actStolen = 4
	actShot   = 2

	linkLayerEthernet = 1
)

// tick is what the kernel's packet scheduler counts time in: 64 ns.
const tick = 64

// TBF caps what leaves by a link to rate bits a second, with bursts of burst bytes, and lets at most queue bytes wait.
func TBF(index int, rate uint64, burst, queue uint32) Op {
	bytes := rate / 8
	var m builder
	m.tc(index, Root, Handle(1, 0), 0)
	m.text(tcaKind, "tbf")
	m.nest(tcaOptions, func() {
		var p builder // struct tc_tbf_qopt
		p.rate(bytes)
		p.rate(0) // no peak rate
		p.native32(queue)
		p.native32(ticks(burst, bytes))
		p.native32(0)
		m.attr(tbfParms, p.b)
		m.u32(tbfBurst, burst)
		if bytes > math.MaxUint32 {
			m.u64(tbfRate64, bytes)
		}
	})
	return Op{what: fmt.Sprintf("limit %s to %d bit/s", name(index), rate), kind: unix.RTM_NEWQDISC, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: m.b}
}

// ClsAct gives a link the hooks at which filters see what comes in and what leaves. Linux 4.5.
func ClsAct(index int) Op {
	var m builder
	m.tc(index, Ingress, Handle(0xFFFF, 0), 0)
	m.text(tcaKind, "clsact")
	return Op{what: "add clsact to " + name(index), kind: unix.RTM_NEWQDISC, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// inHook is the parent of filters on what comes in, of clsact: its handle with minor 0xFFF2.
const inHook = 0xFFFFFFF2

// RedirectIn sends all that comes in by a link out by another, such as an ifb, which hands it back once its own
// discipline lets it go. The link needs ClsAct.
func RedirectIn(index, to int) Op {
	var m builder
	m.tc(index, inHook, 0, filterInfo(1, unix.ETH_P_ALL))
	m.all("mirred", func() {
		var p builder // struct tc_mirred: tc_gen, what, to where
		p.native32(0)
		p.native32(0)
		p.native32(actStolen)
		p.native32(0)
		p.native32(0)
		p.native32(mirredEgressRedir)
		p.native32(uint32(to))
		m.attr(mirredParms, p.b)
	})
	return Op{what: fmt.Sprintf("redirect what comes in by %s to %s", name(index), name(to)), kind: unix.RTM_NEWTFILTER, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// PoliceIn drops what comes in by a link beyond rate bits a second and bursts of burst bytes. The link needs ClsAct. Some
// kernels have no such action (ENOENT).
func PoliceIn(index int, rate uint64, burst uint32) Op {
	bytes := rate / 8
	var m builder
	m.tc(index, inHook, 0, filterInfo(1, unix.ETH_P_ALL))
	m.all("police", func() {
		var p builder // struct tc_police
		p.native32(0)
		p.native32(actShot)
		p.native32(0)
		p.native32(ticks(burst, bytes))
		p.native32(math.MaxUint32) // mtu: any, segments that the card will cut included
		p.rate(bytes)
		p.b[len(p.b)-12] = 3 // cell_log: the policer alone refuses a rate without a table (ENOMEM), and reads nothing in it
		p.rate(0)
		p.native32(0)
		p.native32(0)
		p.native32(0)
		m.attr(policeTable, p.b)
		m.attr(policeRates, make([]byte, 1024))
		if bytes > math.MaxUint32 {
			m.u64(policeRate64, bytes)
		}
	})
	return Op{what: fmt.Sprintf("police what comes in by %s", name(index)), kind: unix.RTM_NEWTFILTER, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// all appends a filter that does something to every packet: u32 with a key that any packet has, since that is the
// classifier that every kernel with traffic control has.
func (m *builder) all(action string, options func()) {
	m.text(tcaKind, "u32")
	m.nest(tcaOptions, func() {
		m.attr(u32Sel, selector(key{}))
		m.nest(u32Act, func() {
			m.nest(1, func() {
				m.text(actKind, action)
				m.nest(actOptions, options)
			})
		})
	})
}

// key is one comparison of u32: four bytes of the packet, offset bytes behind the start of its network header.
type key struct {
	value, mask uint32
	offset      int32
}

// selector is struct tc_u32_sel with its keys.
func selector(keys ...key) []byte {
	var p builder
	p.raw(1, 0, uint8(len(keys)), 0) // terminal
	p.native16(0)
	p.native16(0)
	p.native16(0)
	p.native16(0)
	p.native32(0)
	for _, k := range keys {
		p.b = binary.BigEndian.AppendUint32(p.b, k.mask)
		p.b = binary.BigEndian.AppendUint32(p.b, k.value)
		p.native32(uint32(k.offset))
		p.native32(0)
	}
	return p.b
}

// HTB makes a link's discipline one that divides it among classes; what no filter matches goes to the class 1:fallback.
func HTB(index int, fallback uint16) Op {
	var m builder
	m.tc(index, Root, Handle(1, 0), 0)
	m.text(tcaKind, "htb")
	m.nest(tcaOptions, func() {
		var p builder // struct tc_htb_glob
		p.native32(3) // version
		p.native32(10)
		p.native32(uint32(fallback))
		p.native32(0)
		p.native32(0)
		m.attr(htbInit, p.b)
	})
	return Op{what: "divide " + name(index), kind: unix.RTM_NEWQDISC, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// HTBClass makes or changes the class 1:minor below parent (0: the link itself): rate bits a second are its own, and it
// may take up to ceil of what others leave, in proportion to its rate: quantum is how many bytes it takes at a turn.
func HTBClass(index int, parent uint32, minor uint16, rate, ceil uint64, quantum uint32) Op {
	if parent == 0 {
		parent = Handle(1, 0)
	}
	r, c := max(rate/8, 1), max(ceil/8, 1)
	burst := func(bytes uint64) uint32 { return uint32(min(max(bytes/250, 16<<10), 16<<20)) } // 4 ms, a timer's worth
	var m builder
	m.tc(index, parent, Handle(1, minor), 0)
	m.text(tcaKind, "htb")
	m.nest(tcaOptions, func() {
		var p builder // struct tc_htb_opt
		p.rate(r)
		p.rate(c)
		p.native32(ticks(burst(r), r))
		p.native32(ticks(burst(c), c))
		p.native32(quantum)
		p.native32(0)
		p.native32(0)
		m.attr(htbParms, p.b)
		m.u64(htbRate64, r)
		m.u64(htbCeil64, c)
	})
	return Op{what: fmt.Sprintf("class 1:%x of %s", minor, name(index)), kind: unix.RTM_NEWTCLASS, flags: unix.NLM_F_CREATE, body: m.b}
}

// DeleteClass deletes the class 1:minor; its filters must be gone.
func DeleteClass(index int, minor uint16) Op {
	var m builder
	m.tc(index, 0, Handle(1, minor), 0)
	return Op{what: fmt.Sprintf("delete class 1:%x of %s", minor, name(index)), kind: unix.RTM_DELTCLASS, body: m.b}
}

// FairQueue gives the class 1:minor fair queueing among its flows.
func FairQueue(index int, minor uint16) Op {
	var m builder
	m.tc(index, Handle(1, minor), 0, 0)
	m.text(tcaKind, "fq_codel")
	m.nest(tcaOptions, func() { m.u32(fqCodelLimit, 2048) })
	return Op{what: fmt.Sprintf("fair queueing of 1:%x of %s", minor, name(index)), kind: unix.RTM_NEWQDISC, flags: unix.NLM_F_CREATE, body: m.b}
}

// Match is what a Classify filter looks at: one address, as source or as destination.
type Match struct {
	Address []byte // 4 or 16 bytes
	Source  bool
}

// Classify puts what a link sends from or to an address into the class 1:minor, which is below 0x8000.
func Classify(index int, x Match, minor uint16) Op {
	var m builder
	m.tc(index, Handle(1, 0), 0, classInfo(minor, len(x.Address) == 16))
	m.text(tcaKind, "u32")
	at := int32(16) // of the destination in an IPv4 header
	switch {
	case x.Source && len(x.Address) == 16:
		at = 8
	case len(x.Address) == 16:
		at = 24
	case x.Source:
		at = 12
	}
	var keys []key
	for i := 0; i+4 <= len(x.Address); i += 4 {
		keys = append(keys, key{binary.BigEndian.Uint32(x.Address[i:]), math.MaxUint32, at + int32(i)})
	}
	m.nest(tcaOptions, func() {
		m.u32(u32ClassID, Handle(1, minor))
		m.attr(u32Sel, selector(keys...))
	})
	return Op{what: fmt.Sprintf("classify on %s", name(index)), kind: unix.RTM_NEWTFILTER, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: m.b}
}

// classInfo gives each class and family a priority of its own: that is by what its filter is deleted.
func classInfo(minor uint16, v6 bool) uint32 {
	if v6 {
		return filterInfo(2*minor+1, unix.ETH_P_IPV6)
	}
	return filterInfo(2*minor, unix.ETH_P_IP)
}

// Unclassify deletes the filter of a class; v6 says of which family.
func Unclassify(index int, minor uint16, v6 bool) Op {
	var m builder
	m.tc(index, Handle(1, 0), 0, classInfo(minor, v6))
	return Op{what: fmt.Sprintf("delete filter of %s", name(index)), kind: unix.RTM_DELTFILTER, body: m.b}
}

// tc appends struct tcmsg.
func (m *builder) tc(index int, parent, handle, info uint32) {
	m.raw(unix.AF_UNSPEC, 0)
	m.native16(0)
	m.native32(uint32(index))
	m.native32(handle)
	m.native32(parent)
	m.native32(info)
}

// rate appends struct tc_ratespec. With the link layer said, the kernel wants no table of rates (Linux 3.9).
func (m *builder) rate(bytes uint64) {
	m.raw(0, linkLayerEthernet)
	m.native16(0)
	m.native16(0)
	m.native16(0)
	m.native32(uint32(min(bytes, math.MaxUint32)))
}

// ticks is how long burst bytes take at a rate, in the scheduler's time.
func ticks(burst uint32, bytes uint64) uint32 {
	if bytes == 0 {
		return 0
	}
	return uint32(min(uint64(burst)*1e9/bytes/tick, math.MaxUint32))
}

// filterInfo packs a filter's priority and the protocol it sees, in network order.
func filterInfo(priority, protocol uint16) uint32 {
	return uint32(priority)<<16 | uint32(protocol>>8|protocol<<8)
}

// stats reads struct rtnl_link_stats64.
func (i *Info) stats(b []byte) {
	if len(b) < 32 {
		return
	}
	i.RxPackets, i.TxPackets = binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])
	i.RxBytes, i.TxBytes = binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])
}
