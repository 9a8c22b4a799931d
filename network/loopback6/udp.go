package loopback6

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv6"
)

// An exchange by UDP ends when nothing came for this long, as the kernel's tracking has it; and a door has at most so many at a time.
const (
	quiet         = 120 * time.Second
	mostExchanges = 4096
	mostBytes     = 65535
)

// way is how a client's datagrams come: from whom, and to which address of the host, which is the answers' source.
type way struct {
	from netip.AddrPort
	to   netip.Addr
}

// datagrams serves a UDP door: each client has a socket of its own to the container.
func (s *served) datagrams(u *net.UDPConn) {
	p := ipv6.NewPacketConn(u)
	if err := p.SetControlMessage(ipv6.FlagDst, true); err != nil {
		s.log.Warn("a published port cannot be served", "port", u.LocalAddr().String(), "error", err)
		return
	}
	var mu sync.Mutex // guards exchanges
	exchanges := map[way]*net.UDPConn{}
	var all sync.WaitGroup
	defer all.Wait()
	b := make([]byte, mostBytes)
	for {
		n, cm, from, err := p.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || cm == nil {
			continue // a client that has gone away (ICMP) comes back as an error of a read
		}
		a, ok := from.(*net.UDPAddr)
		to, good := netip.AddrFromSlice(cm.Dst)
		if !ok || !good || !s.AnyClient && !to.IsLoopback() {
			continue
		}
		w := way{from: a.AddrPort(), to: to}
		mu.Lock()
		c := exchanges[w]
		if c == nil && len(exchanges) < mostExchanges {
			if c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.Target)); err == nil {
				exchanges[w] = c
				done := s.track(c)
				all.Go(func() {
					defer done()
					answers(p, w, a, c)
					mu.Lock()
					delete(exchanges, w)
					mu.Unlock()
				})
			}
		}
		mu.Unlock()
		if c != nil {
			c.SetReadDeadline(time.Now().Add(quiet))
			c.Write(b[:n])
		}
	}
}

// answers carries what the container says back, until it has been quiet for long.
func answers(p *ipv6.PacketConn, w way, client net.Addr, c *net.UDPConn) {
	b := make([]byte, mostBytes)
	for {
		n, err := c.Read(b)
		var timeout net.Error
		switch {
		case errors.Is(err, net.ErrClosed), errors.As(err, &timeout) && timeout.Timeout():
			return
		case err != nil:
			continue // the port of the container is closed for now
		}
		c.SetReadDeadline(time.Now().Add(quiet))
		p.WriteTo(b[:n], &ipv6.ControlMessage{Src: net.IP(w.to.AsSlice())}, client)
	}
}
