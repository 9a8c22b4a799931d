// Package pinned remembers what builds were told about their sources, for as long as their clients' sessions last: a build
// that has once been told what a branch or an address means, and perhaps checked it against a policy, gets just that, whatever
// the world makes of it meanwhile.
//
// A value is made once for a session and a name, however many ask at the same time. It belongs to the Memory, and is dropped some time after the
// last session that asked for it has ended. The package knows nothing of what the values are.
package pinned

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Live tells which sessions there are. It is *session.Manager.
type Live interface{ Sessions() []string }

// grace is how long a value stays although its session is not there: a session may come after the first question, and it is looked at
// so often.
const grace = 30 * time.Second

// Memory remembers values of one type. It is safe for concurrent use.
type Memory[V any] struct {
	live Live
	drop func(V)

	mu        sync.Mutex // guards what follows, and what entries say they guard by it
	bySession map[string]map[string]*entry[V]
	timer     *time.Timer // nil: nothing is remembered
}

// entry is a value, or one being made.
type entry[V any] struct {
	turn chan struct{} // has an element while nobody makes the value
	at   time.Time
	refs int // sessions that have it; guarded by Memory.mu
	done bool
	v    V
}

// New makes a memory. drop, which may be nil, gives up a value that nobody can ask for any more.
func New[V any](live Live, drop func(V)) *Memory[V] {
	if drop == nil {
		drop = func(V) {}
	}
	return &Memory[V]{live: live, drop: drop, bySession: map[string]map[string]*entry[V]{}}
}

// Get gives the value of that name for one of the sessions, made by f where there is none yet. kept tells whether it belongs to the memory: without
// a session, it is the caller's. What failed is tried again by who asks next.
func (m *Memory[V]) Get(ctx context.Context, sessions []string, name string, f func() (V, error)) (v V, kept bool, err error) {
	if m.live == nil || len(sessions) == 0 {
		v, err = f()
		return v, false, err
	}
	e := m.entry(sessions, name)
	select {
	case <-e.turn:
		defer func() { e.turn <- struct{}{} }()
	case <-ctx.Done():
		return v, false, context.Cause(ctx)
	}
	m.mu.Lock()
	done, v := e.done, e.v
	m.mu.Unlock()
	if done {
		return v, true, nil
	}
	if v, err = f(); err != nil {
		return v, false, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.refs == 0 { // its sessions have ended meanwhile
		return v, false, nil
	}
	e.done, e.v = true, v
	return v, true, nil
}

// entry finds the entry that one of the sessions has, or makes one, and gives it to all of them.
func (m *Memory[V]) entry(sessions []string, name string) *entry[V] {
	m.mu.Lock()
	defer m.mu.Unlock()
	var e *entry[V]
	for _, id := range sessions {
		if e = m.bySession[id][name]; e != nil {
			break
		}
	}
	if e == nil {
		e = &entry[V]{turn: make(chan struct{}, 1), at: time.Now()}
		e.turn <- struct{}{}
	}
	for _, id := range sessions {
		if m.bySession[id] == nil {
			m.bySession[id] = map[string]*entry[V]{}
		}
		if m.bySession[id][name] == nil {
			m.bySession[id][name] = e
			e.refs++
		}
	}
	if m.timer == nil {
		m.timer = time.AfterFunc(grace, m.sweep)
	}
	return e
}

// sweep drops what belongs to sessions that have ended.
func (m *Memory[V]) sweep() {
	live := m.live.Sessions()
	var gone []V
	m.mu.Lock()
	for id, names := range m.bySession {
		if slices.Contains(live, id) {
			continue
		}
		for name, e := range names {
			if time.Since(e.at) < grace {
				continue
			}
			delete(names, name)
			if e.refs--; e.refs == 0 && e.done {
				gone = append(gone, e.v)
			}
		}
		if len(names) == 0 {
			delete(m.bySession, id)
		}
	}
	m.timer = nil
	if len(m.bySession) > 0 {
		m.timer = time.AfterFunc(grace, m.sweep)
	}
	m.mu.Unlock()
	for _, v := range gone {
		m.drop(v)
	}
}
