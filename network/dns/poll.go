package dns

import (
	"errors"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/socket"
)

const (
	maxQuestion = 4096 // bytes of a datagram that is read; longer ones are malformed
	turnLength  = 16   // datagrams and connections of one sandbox before another has its turn
)

// poll waits for all sockets and answers what can be answered at once. Everything else gets a goroutine.
func (s *Server) poll() {
	var tokens []uint64
	var err error
	buf := make([]byte, maxQuestion)
	for {
		tokens, err = s.set.Wait(tokens[:0])
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				s.cfg.Log.Error("name server stopped", "err", err)
			}
			return
		}
		for _, t := range tokens {
			sb := s.at(t >> 1)
			switch {
			case sb == nil: // dropped since
			case t&1 == 0:
				s.datagrams(sb, buf)
			default:
				s.connections(sb)
			}
		}
	}
}

func (s *Server) datagrams(sb *sandbox, buf []byte) {
	for range turnLength {
		n, from, cut, ok := sb.receive(buf)
		if !ok {
			return
		}
		if cut {
			continue
		}
		reply, q := s.local(sb, buf[:n], socket.UDP)
		switch {
		case reply != nil:
			sb.send(reply, from)
		case q != nil:
			q.raw = append([]byte(nil), q.raw...) // buf is read into again
			s.elsewhere(sb, q, from)
		}
	}
}

// elsewhere asks the upstream servers in a goroutine, if there may be one more.
func (s *Server) elsewhere(sb *sandbox, q *question, from netip.AddrPort) {
	if !s.admit(sb) {
		sb.send(q.refused(), from)
		return
	}
	s.work.Go(func() {
		defer s.release(sb)
		if reply := s.forward(s.ctx, sb, q); reply != nil {
			sb.send(reply, from)
		}
	})
}

func (s *Server) connections(sb *sandbox) {
	for range turnLength {
		conn, err := sb.accept()
		if socket.None(err) || errors.Is(err, os.ErrClosed) {
			return
		}
		switch {
		case err == nil:
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// It goes on waiting, and we are told of it at once.
			s.warn(sb, "a container's connection to its name server has to wait: "+err.Error())
			time.Sleep(5 * time.Millisecond)
			return
		case errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EPROTO):
			continue // that client has gone
		default:
			// The container may end a socket in its own namespace (SOCK_DESTROY, with CAP_NET_ADMIN). It would be told to us for ever; the
			// one for datagrams goes on.
			s.warn(sb, "a container's name server takes no connections any more: "+err.Error())
			sb.deaf(s.set)
			return
		}
		if sb.conns.Add(1) > maxConns {
			sb.conns.Add(-1)
			conn.Close()
			s.warn(sb, "a container has too many connections to its name server")
			continue
		}
		s.work.Go(func() {
			defer sb.conns.Add(-1)
			s.converse(sb, conn)
		})
	}
}

// admit takes a place among the questions under way and reports whether there was one.
func (s *Server) admit(sb *sandbox) bool {
	if sb.pending.Add(1) > maxPending {
		sb.pending.Add(-1)
		s.warn(sb, "a container asks more than is answered")
		return false
	}
	if s.total.Add(1) > maxTotal {
		s.total.Add(-1)
		sb.pending.Add(-1)
		s.warn(sb, "containers ask more than is answered")
		return false
	}
	return true
}

func (s *Server) release(sb *sandbox) {
	s.total.Add(-1)
	sb.pending.Add(-1)
}

// warn logs that a limit was met, at most every two seconds.
func (s *Server) warn(sb *sandbox, what string) {
	now, last := time.Now().Unix(), s.warned.Load()
	if now-last >= 2 && s.warned.CompareAndSwap(last, now) {
		s.cfg.Log.Warn(what, "sandbox", sb.id)
	}
}

// receive, send and accept use the descriptors under the lock that keeps them open; none of them waits.

func (sb *sandbox) receive(buf []byte) (n int, from netip.AddrPort, cut, ok bool) {
	sb.mu.RLock()
	defer sb.mu.RUnlock()
	if sb.udp < 0 {
		return 0, netip.AddrPort{}, false, false
	}
	n, from, cut, err := socket.Receive(sb.udp, buf)
	return n, from, cut, err == nil
}

func (sb *sandbox) send(b []byte, to netip.AddrPort) {
	sb.mu.RLock()
	defer sb.mu.RUnlock()
	if sb.udp >= 0 {
		socket.Send(sb.udp, b, to) // lost if it fails: the client asks again
	}
}

// deaf stops listening for connections.
func (sb *sandbox) deaf(set *socket.Set) {
	sb.mu.Lock()
	defer sb.mu.Unlock()
	if sb.tcp < 0 {
		return
	}
	_ = set.Remove(sb.tcp) // see forget
	socket.Close(sb.tcp)
	sb.tcp = -1
}

func (sb *sandbox) accept() (*os.File, error) {
	sb.mu.RLock()
	defer sb.mu.RUnlock()
	if sb.tcp < 0 {
		return nil, os.ErrClosed
	}
	return socket.Accept(sb.tcp)
}
