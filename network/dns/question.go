package dns

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"berth/kernel/socket"
)

const localTTL = 600 // seconds, Docker's

// A question is a query that was understood and that Names does not know.
type question struct {
	raw  []byte // the message as it came
	msg  dns.Msg
	kind socket.Kind
}

// local answers what needs nobody else: the names of containers, and what is no proper question. Otherwise it gives the question,
// whose raw is b. Both nil: it deserves no answer.
func (s *Server) local(sb *sandbox, b []byte, kind socket.Kind) ([]byte, *question) {
	const headerLen = 12
	if len(b) < headerLen || b[2]&0x80 != 0 { // an answer is never answered: that way lie loops
		return nil, nil
	}
	q := &question{raw: b, kind: kind}
	if code := q.parse(); code != dns.RcodeSuccess {
		return headerOnly(b, code), nil
	}
	if opt := q.msg.IsEdns0(); opt != nil && opt.Version() != 0 {
		return q.answer(nil, dns.RcodeBadVers), nil
	}
	asked := q.msg.Question[0]
	if asked.Qclass != dns.ClassINET {
		return nil, q
	}
	if records, known := s.records(sb, asked); known {
		return q.answer(records, dns.RcodeSuccess), nil
	}
	// With an ndots of the user's own, names without a dot are for his search list and leave the host only with it.
	if sb.settings.Load().ndots && (asked.Qtype == dns.TypeA || asked.Qtype == dns.TypeAAAA) && !strings.Contains(strings.TrimSuffix(asked.Name, "."), ".") {
		return q.answer(nil, dns.RcodeSuccess), nil
	}
	return nil, q
}

// parse reads the message and gives the code that refuses it.
func (q *question) parse() int {
	b := q.raw
	if opcode := int(b[2]>>3) & 0xf; opcode != dns.OpcodeQuery {
		return dns.RcodeNotImplemented
	}
	count := func(at int) uint16 { return binary.BigEndian.Uint16(b[at:]) }
	if count(4) != 1 || count(6) > 1 || count(8) > 1 || count(10) > 2 {
		return dns.RcodeFormatError
	}
	if q.msg.Unpack(b) != nil || len(q.msg.Question) != 1 {
		return dns.RcodeFormatError
	}
	return dns.RcodeSuccess
}

// records gives the answer to a question whose name is a container's.
func (s *Server) records(sb *sandbox, asked dns.Question) (list []dns.RR, known bool) {
	head := dns.RR_Header{Name: asked.Name, Rrtype: asked.Qtype, Class: dns.ClassINET, Ttl: localTTL}
	name := strings.ToLower(strings.TrimSuffix(asked.Name, "."))
	switch asked.Qtype {
	case dns.TypeA:
		v4, _, known := s.cfg.Names.Lookup(sb.id, name)
		for _, a := range shuffled(v4) {
			list = append(list, &dns.A{Hdr: head, A: net.IP(a.AsSlice())})
		}
		return list, known
	case dns.TypeAAAA:
		_, v6, known := s.cfg.Names.Lookup(sb.id, name)
		for _, a := range shuffled(v6) {
			list = append(list, &dns.AAAA{Hdr: head, AAAA: net.IP(a.AsSlice())})
		}
		return list, known
	case dns.TypeMX:
		// No data: mail for a container goes to its address (RFC 5321, 5.1).
		v4, v6, known := s.cfg.Names.Lookup(sb.id, name)
		return nil, known && len(v4)+len(v6) > 0
	case dns.TypePTR:
		a, ok := reversed(name)
		if !ok {
			return nil, false
		}
		host, ok := s.cfg.Names.Reverse(sb.id, a)
		if !ok {
			return nil, false
		}
		return []dns.RR{&dns.PTR{Hdr: head, Ptr: dns.Fqdn(host)}}, true
	}
	return nil, false
}

// shuffled gives the addresses in an order of chance: that is the round robin.
func shuffled(list []netip.Addr) []netip.Addr {
	if len(list) < 2 {
		return list
	}
	mixed := make([]netip.Addr, len(list))
	for i, j := range rand.Perm(len(list)) {
		mixed[i] = list[j]
	}
	return mixed
}

// reversed reads the address out of 4.3.2.1.in-addr.arpa or its like of IPv6.
func reversed(name string) (netip.Addr, bool) {
	if digits, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		parts := strings.Split(digits, ".")
		if len(parts) != 4 {
			return netip.Addr{}, false
		}
		a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
		return a, err == nil
	}
	digits, ok := strings.CutSuffix(name, ".ip6.arpa")
	if !ok || len(digits) != 63 {
		return netip.Addr{}, false
	}
	var bytes [16]byte
	for i := range 32 {
		d := strings.IndexByte("0123456789abcdef", digits[2*i])
		if d < 0 || i < 31 && digits[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		bytes[15-i/2] |= byte(d) << (4 * (i % 2))
	}
	return netip.AddrFrom16(bytes), true
}

// answer packs an answer of our own, cut to what the asker takes. nil: it cannot be packed, which no name of ours causes.
func (q *question) answer(records []dns.RR, code int) []byte {
	var m dns.Msg
	m.SetReply(&q.msg)
	m.RecursionAvailable = true
	m.Compress = true
	m.Answer = records
	size := dns.MaxMsgSize
	if q.kind == socket.UDP {
		size = dns.MinMsgSize
	}
	if opt := q.msg.IsEdns0(); opt != nil { // RFC 6891, 6.1.1: who sends OPT gets OPT
		m.SetEdns0(maxQuestion, opt.Do())
		if q.kind == socket.UDP {
			size = max(size, int(opt.UDPSize()))
		}
	}
	m.Rcode = code
	m.Truncate(size)
	b, err := m.Pack()
	if err != nil {
		return headerOnly(q.raw, dns.RcodeServerFailure)
	}
	return b
}

func (q *question) refused() []byte { return q.answer(nil, dns.RcodeRefused) }
func (q *question) failed() []byte  { return q.answer(nil, dns.RcodeServerFailure) }

// headerOnly answers what could not be read but for its first twelve bytes.
func headerOnly(b []byte, code int) []byte {
	r := make([]byte, 12)
	copy(r, b[:4])
	r[2] = r[2]&0x79 | 0x80 // QR; opcode and RD as asked
	r[3] = 0x80 | byte(code)&0xf
	return r
}
