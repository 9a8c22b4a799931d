package network

import (
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"berth/base/id"
	"berth/kernel/link"
	"berth/kernel/netns"
)

// slot is a network namespace that is ready: lo up, under the id of the sandbox that it will be.
type slot struct {
	id  string
	key string
	ns  *os.File
	in  *link.Conn // rtnetlink in it
}

func (s *slot) close() {
	s.in.Close()
	s.ns.Close()
}

// pool holds namespaces ready, since making one takes a good part of a container's start. One that was given out never
// comes back.
type pool struct {
	new   func() (*slot, error)
	log   *slog.Logger
	ready chan *slot
	more  chan struct{} // somebody took one
	stop  chan struct{}
	wg    sync.WaitGroup
}

// openPool starts a pool. Namespaces in dir that no sandbox has are a former life's, ready or not: they are removed.
func openPool(dir string, size int, used map[string]bool, log *slog.Logger) *pool {
	if size == 0 {
		size = 4
	}
	live, dead, err := netns.List(dir)
	if err != nil {
		log.Warn("network namespaces of a former life are not seen", "err", err)
	}
	for _, path := range append(live, dead...) {
		if !used[filepath.Base(path)] {
			if err := netns.Remove(path); err != nil {
				log.Warn("a network namespace of a former life stays", "path", path, "err", err)
			}
		}
	}
	return startPool(size, func() (*slot, error) { return makeSlot(dir) }, log)
}

func startPool(size int, new func() (*slot, error), log *slog.Logger) *pool {
	p := &pool{new: new, log: log, ready: make(chan *slot, max(size, 0)), more: make(chan struct{}, 1), stop: make(chan struct{})}
	p.wg.Go(p.fill)
	return p
}

// fill keeps the pool full.
func (p *pool) fill() {
	for {
		for len(p.ready) < cap(p.ready) {
			s, err := p.new()
			if err != nil {
				p.log.Warn("no network namespace can be made ahead", "err", err)
				break // whoever needs one will see
			}
			select {
			case p.ready <- s:
			case <-p.stop:
				p.drop(s)
				return
			}
		}
		select {
		case <-p.more:
		case <-p.stop:
			return
		}
	}
}

// get gives a ready namespace, or makes one where there is none.
func (p *pool) get() (*slot, error) {
	select {
	case s := <-p.ready:
		select {
		case p.more <- struct{}{}:
		default:
		}
		return s, nil
	default:
		return p.new()
	}
}

// makeSlot makes a namespace with lo up and a socket in it.
func makeSlot(dir string) (*slot, error) {
	s := &slot{id: id.New()}
	s.key = filepath.Join(dir, id.Short(s.id))
	return s.made(func(inside func() error) error { return netns.CreateWith(s.key, inside) })
}

func (p *pool) drop(s *slot) {
	s.close()
	if err := netns.Remove(s.key); err != nil {
		p.log.Warn("a network namespace stays", "path", s.key, "err", err)
	}
}

// close removes what is ready.
func (p *pool) close() {
	close(p.stop)
	p.wg.Wait()
	for {
		select {
		case s := <-p.ready:
			p.drop(s)
		default:
			return
		}
	}
}
