package storage

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// heldMax is how many answers are remembered, about 200 bytes each.
const heldMax = 1 << 16

// held remembers that repositories hold blobs, so that a pull need not look for the link each time. Only this process takes links away, and
// it says so here.
type held struct {
	mu    sync.Mutex
	known map[heldKey]bool
	age   int // grows with every removal
}

type heldKey struct {
	repo   string
	digest digest.Digest
}

// has reports whether the repository is known to hold the blob. age is for add.
func (h *held) has(repo string, d digest.Digest) (known bool, age int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.known[heldKey{repo, d}], h.age
}

// add remembers an answer, unless something was removed since its question was asked.
func (h *held) add(repo string, d digest.Digest, age int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if age != h.age {
		return
	}
	if h.known == nil || len(h.known) >= heldMax {
		h.known = map[heldKey]bool{} // what is in use comes back at once
	}
	h.known[heldKey{repo, d}] = true
}

// remove is called after the link is gone.
func (h *held) remove(repo string, d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.age++
	delete(h.known, heldKey{repo, d})
}
