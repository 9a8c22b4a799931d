package dns

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxRemembered = 4096            // bytes of an answer that is worth remembering
	longest       = 5 * time.Minute // whatever an answer says
	longestNo     = 30 * time.Second
	perEntry      = 256 // bytes that an entry costs beside its message and key
)

// cache remembers answers of upstream servers as long as they say, the most recently used ones within a number of bytes.
//
// Entries belong to one sandbox and its set of servers: what a container is told by servers in its own namespace, where it may
// have led them to itself, must not reach another.
type cache struct {
	mu    sync.Mutex
	left  int // bytes
	order list.List
	byKey map[cacheKey]*list.Element
}

type cacheKey struct {
	generation uint64
	question   string // name in lower case, type and class; the flags and EDNS of the query that shape the answer
}

type remembered struct {
	key    cacheKey
	msg    []byte
	stored time.Time
	until  time.Time
}

func newCache(size int) *cache {
	return &cache{left: size, byKey: map[cacheKey]*list.Element{}}
}

// cacheKey tells what a question's answer is remembered under, and whether it may be.
func (s *Server) cacheKey(set *settings, q *question) (cacheKey, bool) {
	end, ok := questionEnd(q.raw)
	if s.cache == nil || !ok || len(set.upstream) == 0 {
		return cacheKey{}, false
	}
	k := make([]byte, 0, end-12+5)
	for _, c := range q.raw[12 : end-4] {
		k = append(k, lower(c))
	}
	k = append(k, q.raw[end-4:end]...)
	var edns byte
	var size uint16
	if opt := q.msg.IsEdns0(); opt != nil {
		if len(opt.Option) > 0 {
			return cacheKey{}, false // cookies, client subnets: the answer is for this query alone
		}
		edns, size = 1, opt.UDPSize()
		if opt.Do() {
			edns = 2
		}
	}
	if q.msg.IsTsig() != nil || len(q.msg.Answer)+len(q.msg.Ns) > 0 {
		return cacheKey{}, false
	}
	// RD, AD and CD; the transport, since what comes by TCP may be too long for UDP.
	k = append(k, q.raw[2]&0x01, q.raw[3]&0x30|edns, byte(size>>8), byte(size), byte(q.kind))
	return cacheKey{set.generation, string(k)}, true
}

// get gives a copy of what is remembered, with the time that is left to it; its id is for the caller to set.
func (c *cache) get(k cacheKey, now time.Time) []byte {
	c.mu.Lock()
	e := c.byKey[k]
	if e == nil {
		c.mu.Unlock()
		return nil
	}
	r := e.Value.(*remembered)
	if !now.Before(r.until) {
		c.drop(e)
		c.mu.Unlock()
		return nil
	}
	c.order.MoveToFront(e)
	c.mu.Unlock()
	return aged(r.msg, uint32(now.Sub(r.stored)/time.Second))
}

// put remembers an answer if it may be.
func (c *cache) put(k cacheKey, b []byte, now time.Time) {
	life := lifetime(b)
	if life <= 0 {
		return
	}
	r := &remembered{key: k, msg: append([]byte(nil), b...), stored: now, until: now.Add(life)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byKey[k]; e != nil {
		c.drop(e)
	}
	c.left -= r.size()
	c.byKey[k] = c.order.PushFront(r)
	for c.left < 0 {
		c.drop(c.order.Back())
	}
}

func (c *cache) drop(e *list.Element) {
	r := c.order.Remove(e).(*remembered)
	delete(c.byKey, r.key)
	c.left += r.size()
}

func (r *remembered) size() int { return len(r.msg) + len(r.key.question) + perEntry }

// lifetime says how long an answer holds: the shortest of its records, for a denial what its SOA says (RFC 2308, 5). 0: not at all.
func lifetime(b []byte) time.Duration {
	var m dns.Msg
	if len(b) > maxRemembered || m.Unpack(b) != nil || m.Truncated || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return 0
	}
	limit, ttl := longest, uint32(longest/time.Second)
	if len(m.Answer) == 0 {
		limit, ttl = longestNo, 0 // without a SOA nothing says how long
		for _, rr := range m.Ns {
			if soa, ok := rr.(*dns.SOA); ok {
				ttl = min(soa.Minttl, soa.Hdr.Ttl)
			}
		}
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT { // its TTL is no time
				ttl = min(ttl, rr.Header().Ttl)
			}
		}
	}
	return min(limit, time.Duration(ttl)*time.Second)
}

// aged gives the message with the records' times shortened by so many seconds.
func aged(b []byte, seconds uint32) []byte {
	if seconds == 0 {
		return append([]byte(nil), b...)
	}
	var m dns.Msg
	if m.Unpack(b) != nil {
		return nil
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(seconds, h.Ttl)
			}
		}
	}
	m.Compress = true
	older, err := m.Pack()
	if err != nil {
		return nil
	}
	return older
}
