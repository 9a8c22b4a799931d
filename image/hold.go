package image

import (
	"context"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Hold is a lease: what it has taken is not deleted before Release, whatever is removed or pruned meanwhile. Releasing
// is safe to repeat, so that it can be deferred. A Hold lives in memory; what dies with the engine is swept at its next start.
// It is safe for concurrent use.
type Hold struct {
	s *Store

	mu       sync.Mutex
	released bool
	layers   []digest.Digest
	blobs    []digest.Digest
}

// Hold gives a new, empty lease.
func (s *Store) Hold() *Hold { return &Hold{s: s} }

// Layers holds layers by diff id: all, or none and it is NotFound.
func (h *Hold) Layers(diffIDs ...digest.Digest) error {
	if err := h.s.layers.Retain(diffIDs...); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		h.s.layers.Release(diffIDs...)
		return errReleased
	}
	h.layers = append(h.layers, diffIDs...)
	return nil
}

// Blob holds a document or a compressed layer that is in the blob store; NotFound when it is not.
func (h *Hold) Blob(d digest.Digest) error {
	if err := h.s.blobs.Retain(context.Background(), d); err != nil {
		return err
	}
	return h.AdoptBlob(d)
}

// AdoptBlob takes over a hold that the caller has from blob.Store.Put or Writer.Commit.
func (h *Hold) AdoptBlob(d digest.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		h.s.blobs.Release(d)
		return errReleased
	}
	h.blobs = append(h.blobs, d)
	return nil
}

// AdoptLayers takes over holds that the caller has from layer.Store.Commit.
func (h *Hold) AdoptLayers(diffIDs ...digest.Digest) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.released {
		h.s.layers.Release(diffIDs...)
		return errReleased
	}
	h.layers = append(h.layers, diffIDs...)
	return nil
}

// Image holds an image with all that belongs to it: layers, configuration, manifests, kept blobs. NotFound when there is no such
// image any more.
func (h *Hold) Image(id digest.Digest) error {
	// While mu is held the record cannot go, and as long as it is there what it names is held: nothing here waits.
	h.s.mu.RLock()
	defer h.s.mu.RUnlock()
	r := h.s.images[id]
	if r == nil {
		return fault.New(fault.NotFound, "No such image: %s", id)
	}
	if err := h.Layers(r.doc.RootFS.DiffIDs...); err != nil {
		return err
	}
	if err := h.Blob(id); err != nil {
		return err
	}
	for _, d := range r.held {
		if err := h.Blob(d); err != nil {
			return err
		}
	}
	return nil
}

// Release gives everything back, once.
func (h *Hold) Release() {
	h.mu.Lock()
	layers, blobs := h.layers, h.blobs
	h.layers, h.blobs, h.released = nil, nil, true
	h.mu.Unlock()
	h.s.releaseDocuments(blobs)
	h.s.layers.Release(layers...)
}

var errReleased = fault.New(fault.Internal, "the hold has been released")
