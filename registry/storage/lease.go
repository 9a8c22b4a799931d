package storage

import (
	"maps"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
)

// leases say which digests the collector must spare although nothing may name them. The digest's slot orders leasing
// and sweeping: who holds a lease and then finds the blob will find it as long as he holds the lease.
//
// Lock order: slot, then mu. A slot is held over the sweep's I/O on purpose.
type leases struct {
	grace time.Duration
	slots [256]sync.Mutex

	mu      sync.Mutex
	held    map[digest.Digest]int       // how many operations in flight name it
	until   map[digest.Digest]time.Time // a client has been told that it is there
	pruned  int                         // how many promises the last prune has left
	shorter time.Duration               // by how much the grace of the collection that is running is shorter than ours
	touched map[digest.Digest]bool      // leased since the collection that is running began; nil: none is running
}

// hold leases digests until release is called.
func (l *leases) hold(ds ...digest.Digest) (release func()) {
	for _, d := range ds {
		l.one(d, func() {
			if l.held == nil {
				l.held = map[digest.Digest]int{}
			}
			l.held[d]++
		})
	}
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			for _, d := range ds {
				if l.held[d]--; l.held[d] == 0 {
					delete(l.held, d)
				}
			}
		})
	}
}

// promise leases a digest for the grace: a client has heard that the blob is there and may build on it. When it turns out that it is not,
// back takes the promise away again: strangers must not fill the memory with digests of their making. A promise that somebody
// else has had, before or since, stays.
func (l *leases) promise(d digest.Digest) (back func()) {
	var until time.Time
	var had bool
	l.one(d, func() {
		if l.until == nil {
			l.until = map[digest.Digest]time.Time{}
		}
		_, had = l.until[d]
		until = time.Now().Add(l.grace)
		l.until[d] = until
		if len(l.until) >= 2*l.pruned+1024 {
			l.prune()
		}
	})
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !had && l.until[d].Equal(until) {
			delete(l.until, d)
		}
	}
}

// prune forgets promises that are over. The caller holds mu.
func (l *leases) prune() {
	now := time.Now()
	maps.DeleteFunc(l.until, func(_ digest.Digest, until time.Time) bool { return !until.After(now) })
	l.pruned = len(l.until)
}

func (l *leases) one(d digest.Digest, take func()) {
	slot := &l.slots[slot(string(d))]
	slot.Lock()
	defer slot.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	take()
	if l.touched != nil {
		l.touched[d] = true
	}
}

// begin starts a collection: what is leased now or from now on is spared until end, however short the lease. Promises count as long as
// the collection's grace says.
func (l *leases) begin(grace time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.touched != nil {
		return false
	}
	l.touched = map[digest.Digest]bool{}
	for d := range l.held {
		l.touched[d] = true
	}
	l.prune()
	l.shorter = max(l.grace-grace, 0)
	for d, until := range l.until {
		if l.counts(until) {
			l.touched[d] = true
		}
	}
	return true
}

func (l *leases) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.touched, l.shorter = nil, 0
}

// counts reports whether a promise still holds. The caller holds mu.
func (l *leases) counts(until time.Time) bool { return until.Add(-l.shorter).After(time.Now()) }

// sweep calls remove unless the digest is leased. It reports whether it did.
func (l *leases) sweep(d digest.Digest, remove func() (bool, error)) (bool, error) {
	slot := &l.slots[slot(string(d))]
	slot.Lock()
	defer slot.Unlock()
	if l.leased(d) {
		return false, nil
	}
	return remove()
}

func (l *leases) leased(d digest.Digest) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.held[d] > 0 || l.touched[d] || l.counts(l.until[d])
}
