package ipam

import (
	"net/netip"
	"sync"

	"berth/base/fault"
)

// Pool is the addresses of one subnet.
type Pool struct {
	subnet, span netip.Prefix // span: the part that Next gives from

	mu    sync.Mutex
	taken map[netip.Addr]bool
	from  netip.Addr // no address of the span below it is free
}

// NewPool makes a pool of which nothing is taken but what no machine can have: the subnet's own address and its
// broadcast address, in IPv6 the address of any router. span is the part of the subnet from which addresses are chosen; a
// zero one is all of it.
func NewPool(subnet, span netip.Prefix) *Pool {
	subnet = subnet.Masked()
	if !span.IsValid() {
		span = subnet
	}
	p := &Pool{subnet: subnet, span: span.Masked(), taken: map[netip.Addr]bool{}}
	p.from = p.span.Addr()
	host := subnet.Addr().BitLen() - subnet.Bits()
	if host > 1 { // RFC 3021, RFC 6164: a subnet of two has two hosts
		p.taken[subnet.Addr()] = true
		if subnet.Addr().Is4() {
			p.taken[last(subnet)] = true
		}
	}
	return p
}

// Subnet is what the pool was made of.
func (p *Pool) Subnet() netip.Prefix { return p.subnet }

// Next takes the lowest free address of the pool's span. Unavailable when there is none.
func (p *Pool) Next() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for a := p.from; a.IsValid() && p.span.Contains(a); a = a.Next() {
		if !p.taken[a] {
			p.taken[a] = true
			p.from = a.Next()
			return a, nil
		}
	}
	p.from = last(p.span)
	return netip.Addr{}, fault.New(fault.Unavailable, "no available IPv%d addresses on this network's address pools: %s", family(p.subnet.Addr()), p.subnet)
}

// Take takes a certain address: Conflict in Docker's words when somebody has it, Invalid when it is none of the subnet.
func (p *Pool) Take(a netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.subnet.Contains(a):
		return fault.New(fault.Invalid, "no configured subnet contains IP address %s", a)
	case p.taken[a]:
		return fault.New(fault.Conflict, "Address already in use")
	}
	p.taken[a] = true
	return nil
}

// Hold takes an address that somebody has since before. It is Take: what is held must be free as well.
func (p *Pool) Hold(a netip.Addr) error { return p.Take(a) }

// Give gives an address back. One that is not taken is no error.
func (p *Pool) Give(a netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.taken, a)
	if p.span.Contains(a) && (!p.from.IsValid() || a.Less(p.from)) {
		p.from = a
	}
}

// Taken tells whether somebody has the address.
func (p *Pool) Taken(a netip.Addr) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken[a]
}

// InUse is how many addresses of the pool are taken, those that nobody can have included.
func (p *Pool) InUse() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.taken)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}
