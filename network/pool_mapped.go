package network

import (
	"log/slog"
	"path/filepath"
	"sync"

	"berth/base/id"
	"berth/kernel/idmap"
	"berth/kernel/link"
	"berth/kernel/netns"
)

// mapped makes the namespaces of containers that have an id mapping. Each belongs to a user namespace of its own, which
// the container will live in: root in there rules this network and no other. Where containers with the same mapping
// start one after another, as all do with --userns-remap, the next ones are made ahead; mappings of --userns=auto
// never come twice.
type mapped struct {
	dir   string
	space func(m idmap.Pair, in string) (fd int, err error)
	log   *slog.Logger

	mu   sync.Mutex
	last string // mapping of the latest container
	key  string // mapping of what the pool holds
	pool *pool  // nil: none
	old  sync.WaitGroup
}

// mappedReady is how many namespaces are kept ready for one mapping.
const mappedReady = 2

func (m *mapped) get(p idmap.Pair, in string) (*slot, error) {
	if in != "" {
		return m.make(p, in)
	}
	if ready := m.poolOf(p); ready != nil {
		return ready.get()
	}
	return m.make(p, "")
}

// poolOf gives the pool for a mapping, which begins with the second container in a row that has it.
func (m *mapped) poolOf(p idmap.Pair) *pool {
	key := p.Key()
	m.mu.Lock()
	defer m.mu.Unlock()
	again := key == m.last
	m.last = key
	if !again || m.pool != nil && m.key == key {
		if m.key != key {
			return nil
		}
		return m.pool
	}
	if old := m.pool; old != nil {
		m.old.Go(old.close)
	}
	m.key, m.pool = key, startPool(mappedReady, func() (*slot, error) { return m.make(p, "") }, m.log)
	return m.pool
}

func (m *mapped) close() {
	m.mu.Lock()
	if m.pool != nil {
		m.pool.close()
		m.pool, m.key = nil, ""
	}
	m.mu.Unlock()
	m.old.Wait()
}

// make makes a namespace with lo up and a socket in it, that belongs to a new user namespace or to the one at the path in.
func (m *mapped) make(p idmap.Pair, in string) (*slot, error) {
	s := &slot{id: id.New()}
	s.key = filepath.Join(m.dir, id.Short(s.id))
	return s.made(func(inside func() error) error {
		return netns.CreateFor(s.key, func() (int, error) { return m.space(p, in) }, inside)
	})
}

// made has a namespace made at s.key, and opens what a slot has.
func (s *slot) made(create func(inside func() error) error) (*slot, error) {
	err := create(func() (err error) {
		if s.in, err = link.Dial(); err != nil {
			return err
		}
		if err := s.in.Do(link.Set(1, link.Change{Up: true})); err != nil {
			s.in.Close()
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if s.ns, err = netns.Open(s.key); err != nil {
		s.in.Close()
		netns.Remove(s.key)
		return nil, err
	}
	return s, nil
}
