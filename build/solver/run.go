package solver

import (
	"context"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/session"
	"berth/build/snapshot"
)

// run runs the operation, together with other builds that want the same.
func (n *node) run(ctx context.Context, op Op, ins *inputs, keys []digest.Digest) (*outcome, error) {
	snaps := make([]*snapshot.Snapshot, len(n.inputs))
	g, gctx := errgroup.WithContext(ctx)
	for i := range n.inputs {
		g.Go(session.Safe(func() (err error) {
			snaps[i], err = n.inputs[i].ready(gctx, ins.outs[i], n.v.Inputs[i].Index)
			return err
		}))
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	key := flightKey{key: keys[len(keys)-1]} // by what it reads, where that is less than all
	if n.ignoresCache() {
		key.vertex = n.v.Digest
	}
	if n.b.cfg.NoCache {
		key.build = n.b
	}
	me := &listener{sink: n.b.sink, vertex: n.v, sessions: n.b.cfg.Sessions}
	join := func(f *fan) func() { return f.join(me) }
	// The inputs are held by this build, which may be closed while others still wait, or before the step has begun.
	var held []*snapshot.Snapshot
	open := func() *fan {
		for _, s := range snaps {
			held = append(held, s.Share())
		}
		return newFan()
	}
	r, err := n.b.s.flights.do(ctx, key, open, join, func(ctx context.Context, f *fan) (*ran, error) {
		defer release(held)
		return n.fly(ctx, op, held, keys, f)
	})
	if r != nil && r.failed != nil {
		n.b.keep(r.failed)
	}
	if err != nil {
		return nil, errdefs.WrapVertex(err, n.v.Digest) // told already, by the step
	}
	out, err := ofSnapshots(ctx, n.v, r.snaps)
	if err != nil {
		release(r.snaps)
		return nil, err
	}
	if n.ignoresCache() {
		n.b.s.fresh.add(n.b, n.v.Digest, r.keys) // of who joined, too: its build may be open for longer
	}
	if r.keys[0] != keys[0] {
		n.alias(r.keys[0], keys)
	}
	r.keys = union(keys, r.keys)
	out.Keys, out.Cached, out.Created, out.Started, out.Completed = r.keys, r.cached, r.created, r.started, r.completed
	return out, nil
}

// alias remembers under this build's keys what another build's run gave.
func (n *node) alias(known digest.Digest, keys []digest.Digest) {
	if rec := n.b.s.cfg.Cache.Lookup(known); rec != nil {
		n.b.s.cfg.Cache.Alias(rec.ID, keys...)
	}
}

// fly is one run of a step.
func (n *node) fly(ctx context.Context, op Op, in []*snapshot.Snapshot, keys []digest.Digest, f *fan) (r *ran, err error) {
	if !n.ignoresCache() || n.isFresh(keys) {
		// Another build may have ended it between the lookup and now.
		if out, err := n.lookupHere(ctx, keys); err == nil && out != nil && !out.Ghost {
			f.found()
			return &ran{snaps: out.snaps, keys: union(keys, out.Keys), cached: true, created: out.Created}, nil
		}
	}
	f.begin()
	defer func() { f.end(false, err) }()
	leave, err := n.b.s.enter(ctx, n.v)
	if err != nil {
		return nil, err
	}
	defer leave()
	r = &ran{keys: keys, started: time.Now()}
	run := n.newRun(f)
	outs, err := op.Run(ctx, in, run)
	r.completed = time.Now()
	r.created = r.completed.UTC().Round(0)
	if err != nil {
		release(outs)
		r.failed = keptBy(err)
		return r, err
	}
	if r.snaps, err = n.solidify(ctx, outs); err != nil {
		return nil, err
	}
	n.remember(r)
	if n.ignoresCache() {
		n.b.s.fresh.add(n.b, n.v.Digest, keys)
	}
	return r, nil
}

// solidify makes chains of outputs: a step's outcome is always made of layers.
func (n *node) solidify(ctx context.Context, outs []*snapshot.Snapshot) ([]*snapshot.Snapshot, error) {
	if len(outs) != n.v.Outputs {
		release(outs)
		return nil, fault.New(fault.Internal, "%s gave %d outputs, not %d", n.v.Name, len(outs), n.v.Outputs)
	}
	for i, s := range outs {
		if s == nil || s.Local() == nil {
			continue
		}
		solid, err := s.Solid(ctx)
		if err != nil {
			release(outs)
			return nil, err
		}
		s.Release()
		outs[i] = solid
	}
	return outs, nil
}

// remember puts a record of what ran. It is written when its layers are durable, which nobody waits for.
func (n *node) remember(r *ran) {
	rec := cache.Record{Keys: r.keys, Type: cache.Regular, Description: n.v.Name, Created: r.created}
	var pending []cache.Pending
	for _, s := range r.snaps {
		if s == nil {
			rec.Outputs = append(rec.Outputs, nil)
			continue
		}
		rec.Outputs = append(rec.Outputs, chainOf(s))
		pending = append(pending, s.Share())
	}
	n.put(rec, pending...)
}

// newRun makes what an operation or source is given.
func (n *node) newRun(f *fan) *Run {
	return &Run{
		Vertex: n.v, BuildID: n.b.cfg.ID, Sessions: f, Manager: n.b.s.cfg.Sessions,
		Stdout: f.stream(1), Stderr: f.stream(2), Progress: f,
		Limits: n.b.cfg.Limits, Entitlements: n.b.cfg.Entitlements,
	}
}
