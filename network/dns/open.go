package dns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"berth/base/fault"
	"berth/kernel/netns"
	"berth/kernel/redirect"
	"berth/kernel/socket"
)

// open fills in the sandbox's sockets: parked ones, or new ones with new rules. made tells that they are new.
func (s *Server) open(ctx context.Context, sb *sandbox, fresh bool) (made bool, err error) {
	ns, err := netns.Open(sb.key)
	if err != nil {
		return false, err
	}
	defer ns.Close()
	if !fresh && s.takeOver(ctx, sb, ns) {
		return false, nil
	}
	if err := s.make(sb, ns); err != nil {
		sb.close()
		return false, err
	}
	return true, nil
}

func (s *Server) make(sb *sandbox, ns *os.File) error {
	select {
	case s.door <- struct{}{}:
	case <-s.ctx.Done():
		return fault.New(fault.Unavailable, "the name server is closed")
	}
	defer func() { <-s.door }()
	return netns.Do(ns, func() error {
		if err := sb.listen(); err != nil {
			return fault.Wrap(fault.Internal, err, "listen")
		}
		udp, err := socket.Bound(sb.udp)
		if err != nil {
			return err
		}
		tcp, err := socket.Bound(sb.tcp)
		if err != nil {
			return err
		}
		return redirect.Redirect{Table: "berth-dns", Addr: self(), Port: dnsPort, UDP: udp.Port(), TCP: tcp.Port()}.Load()
	})
}

// listen makes the sockets in the thread's namespace, on ports that are not 53 whatever the container's range of ports is.
func (sb *sandbox) listen() error {
	var err error
	if sb.udp, err = listenElsewhere(socket.UDP); err != nil {
		return err
	}
	sb.tcp, err = listenElsewhere(socket.TCP)
	return err
}

func listenElsewhere(k socket.Kind) (int, error) {
	for range 8 {
		fd, err := socket.Listen(k, netip.AddrPortFrom(self(), 0))
		if err != nil {
			return -1, err
		}
		at, err := socket.Bound(fd)
		if err == nil && at.Port() != dnsPort {
			return fd, nil
		}
		socket.Close(fd)
	}
	return -1, fmt.Errorf("%v: no port but 53 is free", k)
}

// takeOver gets the sandbox's sockets from the keeper, if both are there and belong to the namespace.
func (s *Server) takeOver(ctx context.Context, sb *sandbox, ns *os.File) bool {
	if s.cfg.Parker == nil {
		return false
	}
	for _, p := range []struct {
		fd   *int
		kind socket.Kind
	}{{&sb.udp, socket.UDP}, {&sb.tcp, socket.TCP}} {
		f, err := s.cfg.Parker.Take(ctx, parkName(sb.id, p.kind))
		if err == nil {
			*p.fd, err = socket.Own(f)
		}
		if err == nil {
			err = belongs(*p.fd, ns)
		}
		if err != nil {
			if !fault.Is(err, fault.NotFound) {
				s.cfg.Log.Warn("a parked name server socket is of no use", "sandbox", sb.id, "socket", p.kind.String(), "err", err)
			}
			sb.close()
			return false
		}
	}
	return true
}

// belongs says why the socket is not one that open made in the namespace.
func belongs(fd int, ns *os.File) error {
	at, err := socket.Bound(fd)
	if err != nil {
		return err
	}
	if at.Addr() != self() {
		return fmt.Errorf("it is bound to %v", at)
	}
	own, err := socket.Namespace(fd)
	if err != nil {
		return err
	}
	defer own.Close()
	if !netns.Same(own, ns) {
		return errors.New("it is of another namespace")
	}
	return nil
}

const parkPrefix = "dns/"

func parkName(id string, k socket.Kind) string { return parkPrefix + id + "/" + k.String() }

// An errand is something to be done at the keeper. They are run in order by one goroutine, so that a container's start does not wait for
// them: an engine that dies before its sockets are parked makes new ones.
type errand func(context.Context) error

const errandTime = 10 * time.Second

func (s *Server) runErrands() {
	for do := range s.errands {
		ctx, cancel := context.WithTimeout(context.Background(), errandTime) // not ended by Close, which waits for them
		if err := do(ctx); err != nil {
			s.cfg.Log.Warn("parking name server sockets", "err", err)
		}
		cancel()
	}
}

func (s *Server) park(sb *sandbox) {
	s.send(func(ctx context.Context) error {
		return errors.Join(s.parkOne(ctx, sb, socket.UDP), s.parkOne(ctx, sb, socket.TCP))
	})
}

func (s *Server) parkOne(ctx context.Context, sb *sandbox, k socket.Kind) error {
	f, err := sb.share(k)
	if f == nil || err != nil {
		return err // dropped meanwhile
	}
	defer f.Close()
	return s.cfg.Parker.Park(ctx, parkName(sb.id, k), f)
}

func (sb *sandbox) share(k socket.Kind) (*os.File, error) {
	sb.mu.RLock()
	defer sb.mu.RUnlock()
	fd := sb.udp
	if k == socket.TCP {
		fd = sb.tcp
	}
	if fd < 0 {
		return nil, nil
	}
	return socket.Share(fd, parkName(sb.id, k))
}

func (s *Server) unpark(id string) {
	s.send(func(ctx context.Context) error {
		return errors.Join(s.cfg.Parker.Unpark(ctx, parkName(id, socket.UDP)), s.cfg.Parker.Unpark(ctx, parkName(id, socket.TCP)))
	})
}

// send hands an errand on; when too many wait, it waits too.
func (s *Server) send(do errand) {
	if s.cfg.Parker == nil {
		return
	}
	s.gate.RLock()
	defer s.gate.RUnlock()
	if !s.shut {
		s.errands <- do
	}
}

// Repark parks the sockets of all sandboxes again, for a keeper that is new.
func (s *Server) Repark() {
	for _, sb := range s.all() {
		s.park(sb)
	}
}

// Recovered says that Serve was called for every sandbox that is left of an earlier engine: what is parked for others is forgotten.
func (s *Server) Recovered(ctx context.Context) error {
	if s.cfg.Parker == nil {
		return nil
	}
	names, err := s.cfg.Parker.Parked(ctx)
	if err != nil {
		return fault.In(err, "list parked sockets")
	}
	for _, name := range names {
		id, ours := strings.CutPrefix(name, parkPrefix)
		id, _, _ = strings.Cut(id, "/")
		if ours && s.find(id) == nil {
			s.unpark(id)
		}
	}
	return nil
}

func (s *Server) all() []*sandbox {
	s.mu.RLock()
	defer s.mu.RUnlock()
	list := make([]*sandbox, 0, len(s.byID))
	for _, sb := range s.byID {
		list = append(list, sb)
	}
	return list
}
