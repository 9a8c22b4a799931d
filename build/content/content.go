package content

import (
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/json"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/snapshot"
)

// Selector is what is read of a tree. The zero value is all of it.
type Selector struct {
	Path        string   `json:"path,omitempty"`        // "" or "/": the whole tree. Links on the way are followed, inside the tree
	Wildcard    bool     `json:"wildcard,omitempty"`    // the path's elements may have *, ? and […], as path.Match has them
	FollowLinks bool     `json:"followLinks,omitempty"` // a link at the path's end is followed
	Include     []string `json:"include,omitempty"`     // patterns below the path, as .dockerignore has them; none: everything
	Exclude     []string `json:"exclude,omitempty"`     // patterns below the path
	Required    []string `json:"required,omitempty"`    // with patterns or wildcards: beginnings of paths that must be among what is selected
}

// whole reports whether everything is selected.
func (s *Selector) whole() bool {
	return cleaned(s.Path) == "" && !s.Wildcard && !s.filtered()
}

func (s *Selector) filtered() bool { return len(s.Include)+len(s.Exclude) > 0 }

// Hasher computes digests of what selectors select. It is safe for concurrent use.
type Hasher struct {
	mu    sync.Mutex // guards what follows
	known map[string]*list.Element
	order list.List // the latest used first
}

// knownMax bounds how many digests of chains are remembered: some 100 bytes each.
const knownMax = 4096

type remembered struct {
	key    string
	digest digest.Digest
}

// New makes a hasher.
func New() *Hasher { return &Hasher{known: map[string]*list.Element{}} }

// Digest gives the digest of what sel selects in s. A path without wildcards and patterns that is not there is NotFound; bad
// patterns are Invalid.
func (h *Hasher) Digest(ctx context.Context, s *snapshot.Snapshot, sel Selector) (digest.Digest, error) {
	if s.Local() != nil {
		if sel.whole() {
			return s.Identity(ctx)
		}
		return s.Remember(sel.key(), func() (digest.Digest, error) { return compute(ctx, s, sel) })
	}
	key := string(snapshot.ChainIdentity(s.Chain())) + sel.key()
	if d, ok := h.recall(key); ok {
		return d, nil
	}
	d, err := compute(ctx, s, sel)
	if err == nil {
		h.remember(key, d)
	}
	return d, err
}

// All gives one digest of several selectors on one tree, in their order.
func (h *Hasher) All(ctx context.Context, s *snapshot.Snapshot, list []Selector) (digest.Digest, error) {
	sum := sha256.New()
	for _, sel := range list {
		d, err := h.Digest(ctx, s, sel)
		if err != nil {
			return "", err
		}
		sum.Write([]byte(d + "\n"))
	}
	return digest.NewDigest(digest.SHA256, sum), nil
}

func (s *Selector) key() string {
	b, _ := json.Marshal(s) // strings and booleans: nothing can fail
	return string(b)
}

func (h *Hasher) recall(key string) (digest.Digest, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e := h.known[key]
	if e == nil {
		return "", false
	}
	h.order.MoveToFront(e)
	return e.Value.(*remembered).digest, true
}

func (h *Hasher) remember(key string, d digest.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.known[key] != nil {
		return
	}
	h.known[key] = h.order.PushFront(&remembered{key, d})
	for h.order.Len() > knownMax {
		last := h.order.Back()
		h.order.Remove(last)
		delete(h.known, last.Value.(*remembered).key)
	}
}

func compute(ctx context.Context, s *snapshot.Snapshot, sel Selector) (digest.Digest, error) {
	src, err := open(ctx, s)
	if err != nil {
		return "", err
	}
	defer src.close()
	c := &selection{ctx: ctx, src: src, sel: sel, hash: sha256.New()}
	if err := c.compile(); err != nil {
		return "", err
	}
	if err := c.run(); err != nil {
		return "", err
	}
	if err := c.required(); err != nil {
		return "", err
	}
	return digest.NewDigest(digest.SHA256, c.hash), nil
}

// notFound has the words that BuildKit ends such an error with: people and tests know them.
func notFound(name string) error { return fault.New(fault.NotFound, "%q: not found", "/"+name) }
