package solver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/snapshot"
)

// Outcome is what is known of a vertex that has been evaluated.
type Outcome struct {
	Vertex     *graph.Vertex
	Keys       []digest.Digest   // under which it is remembered: this build's quick key first, then all that are known
	Identities []digest.Digest   // of each output; "" for one that was not made
	Chains     [][]digest.Digest // of each output; nil for a local tree or an output that was not made
	Cached     bool
	Ghost      bool      // the data is not here and was not needed
	Source     *Material // of a source
	Pin        string    // of a source
	Created    time.Time // when the step ran that made it, in this build or an earlier one; zero of sources
	Started    time.Time // of what ran in this build
	Completed  time.Time
}

// outcome is what a vertex gives. It never changes, but for the snapshots of a source, which are asked for when they are
// needed.
type outcome struct {
	Outcome
	mu    sync.Mutex
	snaps []*snapshot.Snapshot // owned by the build; nil for outputs not made
	lazy  func(ctx context.Context) (*snapshot.Snapshot, error)
	// unused is called when lazy never was; nil: nothing needs to be.
	unused func()
	// imported says that the data is to come from an imported cache.
	imported bool
}

// snap gives one output. It belongs to the build.
func (o *outcome) snap(ctx context.Context, index int) (*snapshot.Snapshot, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.lazy != nil {
		// Held over the call: it is the outcome's own and others have to wait for it anyway.
		s, err := o.lazy(ctx)
		if err != nil {
			return nil, err
		}
		o.lazy, o.unused = nil, nil
		o.snaps = []*snapshot.Snapshot{s}
		o.Chains = [][]digest.Digest{chainOf(s)}
	}
	if index >= len(o.snaps) || o.snaps[index] == nil {
		return nil, fault.New(fault.Internal, "output %d of %s was not made", index, o.Vertex.Name)
	}
	return o.snaps[index], nil
}

// identity gives the identity of one output.
func (o *outcome) identity(index int) (digest.Digest, error) {
	if index >= len(o.Identities) || o.Identities[index] == "" {
		return "", fault.New(fault.Internal, "output %d of %s was not made", index, o.Vertex.Name)
	}
	return o.Identities[index], nil
}

// close gives up what the outcome holds.
func (o *outcome) close() {
	o.mu.Lock()
	snaps, unused := o.snaps, o.unused
	o.snaps, o.lazy, o.unused = nil, nil, nil
	o.mu.Unlock()
	release(snaps)
	if unused != nil {
		unused()
	}
}

// public gives what others may know.
func (o *outcome) public() Outcome {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.Outcome
}

// chainOf is the chain of a snapshot, nil for a local tree and not nil for the empty one.
func chainOf(s *snapshot.Snapshot) []digest.Digest {
	if s.Local() != nil {
		return nil
	}
	if c := s.Chain(); c != nil {
		return c
	}
	return []digest.Digest{}
}

// ofSnapshots makes the outcome of snapshots, which become its own.
func ofSnapshots(ctx context.Context, v *graph.Vertex, snaps []*snapshot.Snapshot) (*outcome, error) {
	o := &outcome{Outcome: Outcome{Vertex: v}, snaps: snaps}
	for _, s := range snaps {
		if s == nil {
			o.Identities = append(o.Identities, "")
			o.Chains = append(o.Chains, nil)
			continue
		}
		id, err := s.Identity(ctx)
		if err != nil {
			return nil, err
		}
		o.Identities = append(o.Identities, id)
		o.Chains = append(o.Chains, chainOf(s))
	}
	return o, nil
}

// ofChains makes the outcome that a record tells. provide brings the layers of one output; without it they have to be
// here, and where they are not the outcome is a ghost: good for keys, and nothing else.
func (b *Build) ofChains(ctx context.Context, v *graph.Vertex, chains [][]digest.Digest, created time.Time, ghost bool, provide func(context.Context, int) error) (*outcome, error) {
	store := b.s.cfg.Snapshots
	snaps := make([]*snapshot.Snapshot, len(chains))
	for i, chain := range chains {
		if chain == nil {
			continue
		}
		switch {
		case ghost:
			snaps[i] = store.Promise(chain, absent)
		case provide != nil:
			snaps[i] = store.Promise(chain, func(ctx context.Context) error { return provide(ctx, i) })
		default:
			s, err := store.FromChain(chain)
			if fault.Is(err, fault.NotFound) {
				release(snaps)
				return b.ofChains(ctx, v, chains, created, true, nil)
			}
			if err != nil {
				release(snaps)
				return nil, err
			}
			snaps[i] = s
		}
	}
	o, err := ofSnapshots(ctx, v, snaps)
	if err != nil {
		release(snaps)
		return nil, err
	}
	o.Cached, o.Ghost, o.Created = true, ghost, created
	if ghost {
		release(snaps)
		o.snaps = nil
	}
	return o, nil
}

func absent(context.Context) error {
	return fault.New(fault.Internal, "the layers of a ghost were asked for")
}

func release(snaps []*snapshot.Snapshot) {
	for _, s := range snaps {
		if s != nil {
			s.Release()
		}
	}
}

// ran is what a step that ran gave, on its way to the builds that wait for it.
type ran struct {
	snaps     []*snapshot.Snapshot
	keys      []digest.Digest
	cached    bool // another build had made it a moment before
	created   time.Time
	started   time.Time
	completed time.Time
	failed    *failure
}

func (r *ran) share() *ran {
	if r == nil {
		return nil
	}
	c := *r
	c.snaps = slices.Clone(r.snaps)
	for i, s := range c.snaps {
		if s != nil {
			c.snaps[i] = s.Share()
		}
	}
	c.failed.hold()
	return &c
}

func (r *ran) drop() {
	if r == nil {
		return
	}
	release(r.snaps)
	r.failed.release()
}

// failure is an error that keeps something, such as the state of a failed step for a shell in it, until the last build
// that got it is closed.
type failure struct {
	holds atomic.Int64
	what  interface{ Release() }
}

// keptBy gives the failure of an error that keeps something, held once; nil if it keeps nothing.
func keptBy(err error) *failure {
	var what interface {
		error
		Release()
	}
	if !errors.As(err, &what) {
		return nil
	}
	f := &failure{what: what}
	f.holds.Store(1)
	return f
}

func (f *failure) hold() {
	if f != nil {
		f.holds.Add(1)
	}
}

func (f *failure) release() {
	if f != nil && f.holds.Add(-1) == 0 {
		f.what.Release()
	}
}

// typeOf is the type of the record of a vertex.
func typeOf(p *Pinned) string {
	if p != nil && p.CacheType != "" {
		return p.CacheType
	}
	return cache.Regular
}
