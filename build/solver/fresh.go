package solver

import (
	"sync"

	digest "github.com/opencontainers/go-digest"
)

// fresh knows the steps that builds which are still open ran without asking the cache. Another build that has such a step in its graph takes
// what it gave: targets of one bake that are made of each other are builds of their own, and a step of one is to run once for them all,
// with the secrets of the target that it belongs to. The zero value knows none.
type fresh struct {
	mu sync.Mutex // guards Build.forgotten, too
	by map[freshKey]map[*Build]bool
}

// freshKey names a step by its vertex, which is what a client calls the same, and one of the keys that it ran under.
type freshKey struct{ vertex, key digest.Digest }

// add notes that a step has run for a build. One that is closed has no say any more: a step that it began may go on for others.
func (f *fresh) add(b *Build, vertex digest.Digest, keys []digest.Digest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.forgotten {
		return
	}
	if f.by == nil {
		f.by = map[freshKey]map[*Build]bool{}
	}
	for _, key := range keys {
		k := freshKey{vertex, key}
		if f.by[k] == nil {
			f.by[k] = map[*Build]bool{}
		}
		f.by[k][b] = true
	}
}

// has tells whether a step has run for a build that is open.
func (f *fresh) has(vertex, key digest.Digest) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.by[freshKey{vertex, key}]) > 0
}

// forget is told that a build is closed.
func (f *fresh) forget(b *Build) {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.forgotten = true
	for k, builds := range f.by {
		if delete(builds, b); len(builds) == 0 {
			delete(f.by, k)
		}
	}
}
