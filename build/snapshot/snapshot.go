package snapshot

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Snapshot is a handle to a tree that never changes. Each is released once; its methods are safe for concurrent use.
type Snapshot struct {
	c        *core
	released atomic.Bool
}

// core is what the handles of one tree share.
type core struct {
	s       *Store
	chain   []digest.Digest // never changed
	local   Tree            // nil: the tree is a chain
	provide func(ctx context.Context) error
	parts   []*Snapshot // held for provide, or because the chain is made of theirs

	mu       sync.Mutex // guards what follows; held for memory only
	refs     int
	held     bool          // the layers are here and held
	bringing chan struct{} // provide is under way, closed when it is over
	stack    *layer.Stack
	solid    *Snapshot // the same as a chain
	identity digest.Digest
	memo     map[string]digest.Digest // see Remember
}

// Chain is the tree's diff ids, the lowest first: empty for scratch and for a local tree. It is not to be changed.
func (s *Snapshot) Chain() []digest.Digest { return s.c.chain }

// Local gives the local tree that the snapshot is, or nil.
func (s *Snapshot) Local() Tree { return s.c.local }

// IsScratch reports whether it is the empty chain.
func (s *Snapshot) IsScratch() bool { return s.c.local == nil && len(s.c.chain) == 0 }

// Share gives another handle to the same tree.
func (s *Snapshot) Share() *Snapshot {
	s.c.mu.Lock()
	s.c.refs++
	s.c.mu.Unlock()
	return &Snapshot{c: s.c}
}

// Release gives the handle up. A second call does nothing.
func (s *Snapshot) Release() {
	if s == nil || s.released.Swap(true) {
		return
	}
	c := s.c
	c.mu.Lock()
	c.refs--
	last, held, solid := c.refs == 0, c.held, c.solid
	c.mu.Unlock()
	if !last {
		return
	}
	solid.Release()
	if held {
		c.s.layers.Release(c.chain...)
	}
	if c.local != nil {
		c.local.Close()
	}
	for _, p := range c.parts {
		p.Release()
	}
}

// Identity is a digest that stands for the content: of a chain known without its layers, of a local tree that of all names,
// looks and contents, without times.
func (s *Snapshot) Identity(ctx context.Context) (digest.Digest, error) {
	c := s.c
	if c.local == nil {
		return ChainIdentity(c.chain), nil
	}
	c.mu.Lock()
	id := c.identity
	c.mu.Unlock()
	if id != "" {
		return id, nil
	}
	id, err := treeIdentity(ctx, c.local)
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	c.identity = id
	c.mu.Unlock()
	return id, nil
}

// ChainIdentity is the identity of a chain's tree.
func ChainIdentity(chain []digest.Digest) digest.Digest {
	h := digest.SHA256.Digester()
	h.Hash().Write([]byte("chain"))
	for _, d := range chain {
		h.Hash().Write([]byte("\n" + d))
	}
	return h.Digest()
}

// Ready brings the layers here where they are only promised.
func (s *Snapshot) Ready(ctx context.Context) error {
	c := s.c
	for {
		c.mu.Lock()
		if c.held {
			c.mu.Unlock()
			return nil
		}
		wait := c.bringing
		if wait == nil {
			c.bringing = make(chan struct{})
		}
		c.mu.Unlock()
		if wait == nil {
			return c.bring(ctx)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-wait: // whoever tried may have been cancelled: then it is this one's turn
		}
	}
}

// bring is one attempt to have the layers here.
func (c *core) bring(ctx context.Context) error {
	err := c.s.layers.Retain(c.chain...)
	if err != nil && c.provide != nil {
		err = c.provide(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = err == nil
	close(c.bringing)
	c.bringing = nil
	return err
}

// Durable waits until the layers would survive a power cut. Layers that are only promised are no concern of it.
func (s *Snapshot) Durable(ctx context.Context) error {
	return s.c.s.layers.Durable(ctx, s.c.chain...)
}

// Lowers gives the directories to mount as an overlay's lower ones, the topmost first and at least one. They stay for as long as the
// snapshot is held.
func (s *Snapshot) Lowers(ctx context.Context) ([]string, error) {
	st, err := s.mountable(ctx)
	return st.Lower, err
}

// mountable is what there is to mount.
func (s *Snapshot) mountable(ctx context.Context) (layer.Stack, error) {
	c := s.c
	if c.local != nil {
		return layer.Stack{Lower: []string{c.local.Dir()}, Root: layer.Attributes{Mode: 0o755}}, nil
	}
	if err := s.Ready(ctx); err != nil {
		return layer.Stack{}, err
	}
	c.mu.Lock()
	known := c.stack
	c.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	st, err := c.s.layers.Stack(c.chain)
	if err != nil {
		return st, err
	}
	// Deletions of what is not there would show as devices in a directory that is not mounted on anything.
	if len(st.Lower) == 0 || len(st.Lower) == 1 && st.Marks {
		st.Lower = append(slices.Clone(st.Lower), c.s.void)
	}
	c.mu.Lock()
	c.stack = &st
	c.mu.Unlock()
	return st, nil
}

// Open gives the tree's root, to be closed by the caller: a read-only mount that appears nowhere, or the directory itself where the
// tree is one; nothing may be written to it.
func (s *Snapshot) Open(ctx context.Context) (*tree.Dir, error) {
	lower, err := s.Lowers(ctx)
	if err != nil {
		return nil, err
	}
	if len(lower) == 1 {
		d, err := tree.OpenDir(lower[0])
		return d, fault.In(err, "open snapshot")
	}
	d, err := s.c.s.layers.Attach(layer.Mount{Lower: lower})
	return d, fault.In(err, "open snapshot")
}

// View is Open around a function.
func (s *Snapshot) View(ctx context.Context, f func(root *tree.Dir) error) error {
	root, err := s.Open(ctx)
	if err != nil {
		return err
	}
	defer root.Close()
	return f(root)
}

// Size is the bytes of the files in all layers, or in the tree. Layers that are not here count nothing.
func (s *Snapshot) Size(ctx context.Context) (int64, error) {
	if s.c.local != nil {
		sp, err := layer.Measure(ctx, s.c.local.Dir())
		return sp.Size, err
	}
	var sum int64
	for _, d := range s.c.chain {
		if info, err := s.c.s.layers.Stat(d); err == nil {
			sum += info.Size
		}
	}
	return sum, nil
}

// TopSize is the bytes of the files in the topmost layer: what the step that made the snapshot added.
func (s *Snapshot) TopSize(ctx context.Context) (int64, error) {
	if s.c.local != nil {
		return s.Size(ctx)
	}
	if len(s.c.chain) == 0 {
		return 0, nil
	}
	info, err := s.c.s.layers.Stat(s.c.chain[len(s.c.chain)-1])
	if fault.Is(err, fault.NotFound) {
		return 0, nil
	}
	return info.Size, err
}

// Remember gives what was computed for key on this tree before, or computes it: for what is expensive to know of a local tree.
func (s *Snapshot) Remember(key string, compute func() (digest.Digest, error)) (digest.Digest, error) {
	c := s.c
	c.mu.Lock()
	d, ok := c.memo[key]
	c.mu.Unlock()
	if ok {
		return d, nil
	}
	d, err := compute()
	if err != nil {
		return "", err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.memo == nil {
		c.memo = map[string]digest.Digest{}
	}
	c.memo[key] = d
	return d, nil
}
