package nft

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"
)

// Expr is one piece of a rule: a test or a statement.
type Expr interface {
	text(f Family) string // as nft prints it in a table of the family
	encode(p *program)
}

type test struct {
	field Field
	value Value
	not   bool
}

// Is is true of packets whose field has the value, or one in its range.
func Is(f Field, v Value) Expr { return test{field: f, value: v} }

// IsNot is true of packets whose field has another value.
func IsNot(f Field, v Value) Expr { return test{field: f, value: v, not: true} }

func (t test) text(Family) string {
	if t.not {
		return t.field.name + " != " + t.value.text
	}
	return t.field.name + " " + t.value.text
}

func (t test) encode(p *program) {
	p.need(t.field)
	t.field.load(p, 0)
	if t.value.hi != "" {
		p.inRange(t.value, t.not)
		return
	}
	op := uint32(unix.NFT_CMP_EQ)
	if t.not {
		op = unix.NFT_CMP_NEQ
	}
	p.compare(op, t.value.lo)
	if !t.not {
		p.knows(t.field, t.value)
	}
}

type has struct {
	field Field
	flags []Flag
}

// Has is true of packets whose field, CTState or CTStatus, has at least one of the flags.
func Has(f Field, flags ...Flag) Expr { return has{field: f, flags: flags} }

func (h has) text(Family) string {
	return h.field.name + " " + join(h.flags, func(f Flag) string { return f.name }, ",")
}

func (h has) encode(p *program) {
	var bits uint32
	for _, f := range h.flags {
		bits |= f.bit
	}
	h.field.load(p, 0)
	p.mask(string(binary.NativeEndian.AppendUint32(nil, bits)), "\x00\x00\x00\x00")
	p.compare(unix.NFT_CMP_NEQ, "\x00\x00\x00\x00")
}

type in struct {
	set    string
	fields []Field
	vmap   bool
}

// In is true of packets whose fields, in this order, are an element of the set.
func In(set string, fields ...Field) Expr { return in{set: set, fields: fields} }

// Via does what the verdict map says for the packet's fields, and nothing where it has no such element.
func Via(verdicts string, fields ...Field) Expr { return in{set: verdicts, fields: fields, vmap: true} }

func (i in) text(Family) string {
	fields := join(i.fields, Field.String, " . ")
	if i.vmap {
		return fields + " vmap @" + i.set
	}
	return fields + " @" + i.set
}

func (i in) encode(p *program) {
	p.loadAll(i.fields)
	e := p.expr("lookup")
	p.str(unix.NFTA_LOOKUP_SET, i.set)
	p.u32(unix.NFTA_LOOKUP_SREG, reg(0))
	if i.vmap {
		p.u32(unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
	}
	p.close(e)
}

type add struct {
	set    string
	fields []Field
}

// AddTo makes the packet's fields an element of a Dynamic set.
func AddTo(set string, fields ...Field) Expr { return add{set: set, fields: fields} }

func (a add) text(Family) string {
	return "add @" + a.set + " { " + join(a.fields, Field.String, " . ") + " }"
}

func (a add) encode(p *program) {
	p.loadAll(a.fields)
	e := p.expr("dynset")
	p.str(unix.NFTA_DYNSET_SET_NAME, a.set)
	p.u32(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_ADD)
	p.u32(unix.NFTA_DYNSET_SREG_KEY, reg(0))
	p.close(e)
}

type verdict struct {
	code  int32
	chain string
}

// The verdicts of every hook, which golang.org/x/sys/unix does not have.
const (
	drop   = 0
	accept = 1
)

// Accept ends the packet's way through this base chain; a later one may still drop it.
func Accept() Expr { return verdict{code: accept} }

// Drop ends the packet's way for good.
func Drop() Expr { return verdict{code: drop} }

// Return goes on where this chain was jumped to from, or to the base chain's policy.
func Return() Expr { return verdict{code: unix.NFT_RETURN} }

// Jump goes on in the chain and comes back at its end.
func Jump(chain string) Expr { return verdict{code: unix.NFT_JUMP, chain: chain} }

// Goto goes on in the chain and comes not back.
func Goto(chain string) Expr { return verdict{code: unix.NFT_GOTO, chain: chain} }

func (v verdict) text(Family) string {
	switch v.code {
	case accept:
		return "accept"
	case drop:
		return "drop"
	case unix.NFT_RETURN:
		return "return"
	case unix.NFT_JUMP:
		return "jump " + v.chain
	}
	return "goto " + v.chain
}

func (v verdict) encode(p *program) {
	e := p.expr("immediate")
	p.u32(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	d := p.open(unix.NFTA_IMMEDIATE_DATA)
	v.data(&p.message)
	p.end(d)
	p.close(e)
}

// data writes the verdict as struct nft_data's attribute.
func (v verdict) data(m *message) {
	n := m.open(unix.NFTA_DATA_VERDICT)
	m.u32(unix.NFTA_VERDICT_CODE, uint32(v.code))
	if v.chain != "" {
		m.str(unix.NFTA_VERDICT_CHAIN, v.chain)
	}
	m.end(n)
}

type masquerade struct{}

// Masquerade gives the connection the address of the interface it leaves by as its source.
func Masquerade() Expr { return masquerade{} }

func (masquerade) text(Family) string { return "masquerade" }
func (masquerade) encode(p *program)  { p.close(p.expr("masq")) }

type nat struct {
	to          netip.AddrPort // port 0: kept
	destination bool
}

// DNAT gives the connection another destination; port 0 keeps the port.
func DNAT(to netip.AddrPort) Expr { return nat{to: to, destination: true} }

// SNAT gives the connection another source.
func SNAT(to netip.Addr) Expr { return nat{to: netip.AddrPortFrom(to, 0)} }

func (n nat) text(f Family) string {
	to := n.to.Addr().String()
	if n.to.Port() != 0 {
		to = n.to.String()
	}
	return natVerb(n.destination, n.to.Addr().Is4(), f) + to
}

// natVerb is how the statement begins: in a table of both families it names the one that it is for.
func natVerb(destination, v4 bool, f Family) string {
	verb := "snat"
	if destination {
		verb = "dnat"
	}
	switch {
	case f != Inet:
		return verb + " to "
	case v4:
		return verb + " ip to "
	}
	return verb + " ip6 to "
}

// encode writes no test of the protocol: nft_nat passes packets of the other family by.
func (n nat) encode(p *program) {
	a := n.to.Addr().AsSlice()
	p.immediate(0, string(a))
	if n.to.Port() != 0 {
		p.immediate(len(a), string(binary.BigEndian.AppendUint16(nil, n.to.Port())))
	}
	p.nat(n.destination, n.to.Addr().Is4(), n.to.Port() != 0)
}

type natMap struct {
	name   string
	v4     bool
	fields []Field
}

// DNATBy gives the connection the destination, an address and a port, that the map has for the packet's fields, and does nothing
// where the map has no such element.
func DNATBy(name string, v4 bool, fields ...Field) Expr {
	return natMap{name: name, v4: v4, fields: fields}
}

func (n natMap) text(f Family) string {
	return natVerb(true, n.v4, f) + join(n.fields, Field.String, " . ") + " map @" + n.name
}

func (n natMap) encode(p *program) {
	p.loadAll(n.fields)
	e := p.expr("lookup")
	p.str(unix.NFTA_LOOKUP_SET, n.name)
	p.u32(unix.NFTA_LOOKUP_SREG, reg(0))
	p.u32(unix.NFTA_LOOKUP_DREG, reg(0))
	p.close(e)
	p.nat(true, n.v4, true)
}

func layerOf(v4 bool) byte {
	if v4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

// text gives the rule as nft prints it.
func (r Rule) text(f Family) string {
	s := join(r.Exprs, func(e Expr) string { return e.text(f) }, " ")
	if r.Comment != "" {
		s += " comment " + quote(cut(r.Comment))
	}
	return strings.TrimSpace(s)
}

// cut shortens a comment to what the kernel keeps.
func cut(s string) string {
	if len(s) > 127 {
		s = strings.ToValidUTF8(s[:127], "")
	}
	return s
}
