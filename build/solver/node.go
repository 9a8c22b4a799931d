package solver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/moby/buildkit/solver/errdefs"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/snapshot"
)

// A node is a vertex in a build. It is evaluated at most twice: a ghost that is needed after all is run.
type node struct {
	b      *Build
	v      *graph.Vertex
	inputs []*node // one for each of v.Inputs
	fan    *fan    // of what concerns this build alone: pinning, fetching, being found in the cache

	mu       sync.Mutex // guards what follows
	out      *outcome
	err      error
	op       Op
	distrust bool // imported caches have promised data that they have not
}

// outcome evaluates the vertex: once, however many ask. Without solid an outcome without data will do.
func (n *node) outcome(ctx context.Context, solid bool) (*outcome, error) {
	for {
		n.mu.Lock()
		out, err := n.out, n.err
		n.mu.Unlock()
		if err != nil || out != nil && !(solid && out.Ghost) {
			return out, err
		}
		_, err = n.b.nodes.do(ctx, n, nil, nil, func(ctx context.Context, _ struct{}) (struct{}, error) {
			return struct{}{}, n.evaluate(ctx, solid)
		})
		if err != nil {
			return nil, err
		}
	}
}

// evaluate finds the outcome and keeps it, or the error, unless the error is that nobody waits any more.
func (n *node) evaluate(ctx context.Context, solid bool) error {
	out, err := n.find(ctx, solid)
	if err != nil {
		var ve *errdefs.VertexError
		if !errors.As(err, &ve) {
			n.fan.failed(err)
			err = errdefs.WrapVertex(err, n.v.Digest)
		}
		if ctx.Err() != nil {
			return err
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.out, n.err = out, err
	if out != nil {
		n.b.own(out)
	}
	return err
}

func (n *node) find(ctx context.Context, solid bool) (*outcome, error) {
	switch n.v.Kind() {
	case "source":
		return n.findSource(ctx, solid)
	case "passthrough":
		return n.findPassthrough(ctx, solid)
	case "build":
		return n.findBuild(ctx)
	}
	return n.findOp(ctx, solid)
}

// findOp finds the outcome of an operation: in the cache by its inputs' identities, then by what it reads of them, else
// it is run. Wherever inputs turn out to be ghosts whose data is needed they are run, and what they give may differ from
// what they gave when they were recorded: then the search begins anew. It ends, because each time a ghost less is left.
func (n *node) findOp(ctx context.Context, solid bool) (*outcome, error) {
	op, err := n.operation()
	if err != nil {
		return nil, err
	}
	ins, err := n.resolve(ctx, func(int) bool { return false })
	if err != nil {
		return nil, err
	}
	for {
		trace := n.traceOf(op, ins)
		keys := []digest.Digest{quickKey(op.Key(), ins.identities)}
		if out, err := n.lookup(ctx, keys, solid); out != nil || err != nil {
			return out, err
		}
		again := func(needed func(int) bool) (bool, error) {
			solidIns, err := n.resolve(ctx, needed)
			if err != nil {
				return false, err
			}
			changed := !ins.same(solidIns)
			ins = solidIns
			return changed, nil
		}
		if n.readsParts(op) {
			changed, err := again(func(i int) bool { return op.Reads(i) != nil })
			if err != nil {
				return nil, err
			}
			if changed {
				continue
			}
			key, err := n.contentKey(ctx, op, ins, &trace)
			if isLost(err) {
				if _, err := again(func(i int) bool { return op.Reads(i) != nil }); err != nil {
					return nil, err
				}
				continue
			}
			if err != nil {
				return nil, fault.In(err, "failed to compute cache key")
			}
			keys = append(keys, key)
			if out, err := n.lookup(ctx, keys, solid); out != nil || err != nil {
				return out, err
			}
		}
		changed, err := again(func(int) bool { return true })
		if err != nil {
			return nil, err
		}
		if changed {
			continue
		}
		out, err := n.run(ctx, op, ins, keys)
		if isLost(err) {
			if _, err := again(func(int) bool { return true }); err != nil {
				return nil, err
			}
			continue
		}
		if err == nil {
			n.addFiles(ctx, op, ins, &trace)
			n.note(trace)
		}
		return out, err
	}
}

// inputs are the outcomes of a node's inputs.
type inputs struct {
	outs       []*outcome
	identities []digest.Digest
}

func (a *inputs) same(b *inputs) bool {
	for i := range a.identities {
		if a.identities[i] != b.identities[i] {
			return false
		}
	}
	return true
}

// resolve evaluates the inputs, all at once. The first that fails ends the others, if nobody else waits for them.
func (n *node) resolve(ctx context.Context, solid func(input int) bool) (*inputs, error) {
	ins := &inputs{outs: make([]*outcome, len(n.inputs)), identities: make([]digest.Digest, len(n.inputs))}
	one := func(ctx context.Context, i int) (err error) {
		if ins.outs[i], err = n.inputs[i].outcome(ctx, solid(i)); err != nil {
			return err
		}
		ins.identities[i], err = ins.outs[i].identity(n.v.Inputs[i].Index)
		return err
	}
	if len(n.inputs) == 1 {
		return ins, one(ctx, 0)
	}
	g, gctx := errgroup.WithContext(ctx)
	for i := range n.inputs {
		g.Go(func() error { return one(gctx, i) })
	}
	return ins, g.Wait()
}

// operation gives the node's operation.
func (n *node) operation() (Op, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.op == nil {
		op, err := n.b.s.operation(n.v)
		if err != nil {
			return nil, err
		}
		n.op = op
	}
	return n.op, nil
}

func (n *node) readsParts(op Op) bool {
	for i := range n.inputs {
		if op.Reads(i) != nil {
			return true
		}
	}
	return false
}

// contentKey reads of the inputs what the operation will read, and notes that in the trace.
func (n *node) contentKey(ctx context.Context, op Op, ins *inputs, t *cache.Trace) (digest.Digest, error) {
	readings := make([]reading, len(n.inputs))
	g, ctx := errgroup.WithContext(ctx)
	for i := range n.inputs {
		readings[i].identity = ins.identities[i]
		selectors := op.Reads(i)
		if selectors == nil {
			continue
		}
		readings[i].selected = make([]digest.Digest, len(selectors))
		g.Go(func() error {
			s, err := n.inputs[i].ready(ctx, ins.outs[i], n.v.Inputs[i].Index)
			if err != nil {
				return err
			}
			for j, sel := range selectors {
				if readings[i].selected[j], err = n.b.s.cfg.Content.Digest(ctx, s, sel); err != nil {
					return fault.In(err, "failed to calculate checksum of ref %.25s::%.25s", n.inputs[i].v.Digest.Encoded(), ins.identities[i].Encoded())
				}
			}
			t.Inputs[i].Selected = readings[i].selected
			for _, sel := range selectors {
				t.Inputs[i].Paths = append(t.Inputs[i].Paths, sel.Path)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return contentKey(op.Key(), readings), nil
}

// lookup looks for a record under the newest of the keys, here and then in what the build imports. What is found under
// one key is remembered under all.
func (n *node) lookup(ctx context.Context, keys []digest.Digest, solid bool) (*outcome, error) {
	if n.ignoresCache() {
		return nil, nil
	}
	out, err := n.lookupHere(ctx, keys)
	if err != nil {
		return nil, err
	}
	if out == nil || out.Ghost {
		there, err := n.lookupThere(ctx, keys)
		if err != nil {
			return nil, err
		}
		if there != nil && (out == nil || !there.Ghost) {
			out = there
		}
	}
	if out == nil || out.Ghost && solid {
		return nil, nil
	}
	out.Keys = union(keys, out.Keys)
	n.fan.found()
	return out, nil
}

func (n *node) ignoresCache() bool { return n.b.cfg.NoCache || n.v.IgnoreCache }

func (n *node) lookupHere(ctx context.Context, keys []digest.Digest) (*outcome, error) {
	rec := n.b.s.cfg.Cache.Lookup(keys[len(keys)-1])
	if rec == nil || len(rec.Outputs) != n.v.Outputs {
		return nil, nil
	}
	if len(keys) > 1 {
		n.b.s.cfg.Cache.Alias(rec.ID, keys...)
	}
	out, err := n.b.ofChains(ctx, n.v, rec.Outputs, rec.Created, rec.Ghost, nil)
	if out != nil {
		out.Keys = rec.Keys
	}
	return out, err
}

// union gives the keys of both lists, the first ones first.
func union(a, b []digest.Digest) []digest.Digest {
	list := slices.Clone(a)
	for _, k := range b {
		if !slices.Contains(list, k) {
			list = append(list, k)
		}
	}
	return list
}

// lookupThere asks the caches that the build imports. One that fails is passed over: a cache is a help and no need.
func (n *node) lookupThere(ctx context.Context, keys []digest.Digest) (*outcome, error) {
	var ghost *outcome
	n.mu.Lock()
	distrust := n.distrust
	n.mu.Unlock()
	if distrust {
		return nil, nil
	}
	for _, remote := range n.b.imports() {
		found, err := remote.Lookup(ctx, keys[len(keys)-1])
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil || found == nil || len(found.Outputs) != n.v.Outputs {
			if err != nil && !fault.Is(err, fault.NotFound) {
				n.b.s.log.Warn("ask an imported build cache", "vertex", n.v.Name, "err", err)
			}
			continue
		}
		if found.Provide == nil {
			if ghost == nil {
				if ghost, err = n.b.ofChains(ctx, n.v, found.Outputs, found.Created, true, nil); err != nil {
					return nil, err
				}
				ghost.Keys = found.Keys
			}
			continue
		}
		all := union(keys, found.Keys)
		out, err := n.b.ofChains(ctx, n.v, found.Outputs, found.Created, false, n.provider(found, all))
		if out != nil {
			out.Keys, out.imported = all, true
		}
		return out, err
	}
	return ghost, nil
}

// provider brings the layers of a remote's record and keeps the record here then.
func (n *node) provider(found *cache.Found, keys []digest.Digest) func(context.Context, int) error {
	return func(ctx context.Context, output int) error {
		if err := found.Provide(ctx, output); err != nil {
			return err
		}
		outputs := make([][]digest.Digest, len(found.Outputs))
		outputs[output] = found.Outputs[output]
		made := 0
		for _, chain := range found.Outputs {
			if chain != nil {
				made++
			}
		}
		if made > 1 {
			return nil // the others may not be here
		}
		return n.b.s.cfg.Cache.Put(cache.Record{Keys: keys, Outputs: outputs, Type: cache.Regular, Description: n.v.Name, Created: found.Created})
	}
}

// ready gives one output of the node's outcome with its data here. What is told meanwhile stands under this vertex.
func (n *node) ready(ctx context.Context, out *outcome, index int) (*snapshot.Snapshot, error) {
	s, err := out.snap(ctx, index)
	if err != nil {
		return nil, errdefs.WrapVertex(err, n.v.Digest)
	}
	_, err = n.b.fetches.do(ctx, fetch{n, index}, nil, nil, func(ctx context.Context, _ struct{}) (struct{}, error) {
		done := n.fan.fetching()
		err := s.Ready(ctx)
		if err != nil && out.imported && ctx.Err() == nil {
			err = n.lose(out, err)
			done(nil)
			return struct{}{}, err
		}
		done(err)
		return struct{}{}, err
	})
	if isLost(err) {
		return nil, err
	}
	if err != nil {
		return nil, errdefs.WrapVertex(err, n.v.Digest)
	}
	return s, nil
}

// lostError says that an imported cache has not the data that it promised. The step runs then: a cache is a help and no need.
type lostError struct{ err error }

func (l *lostError) Error() string { return l.err.Error() }
func (l *lostError) Unwrap() error { return l.err }

func isLost(err error) bool {
	var l *lostError
	return errors.As(err, &l)
}

// lose makes a ghost of an outcome whose data cannot be had, so that the vertex is evaluated again.
func (n *node) lose(out *outcome, err error) error {
	n.b.s.log.Warn("an imported build cache has not the data that it promised; the step runs", "vertex", n.v.Name, "err", err)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.distrust = true
	if n.out == out {
		gone := &outcome{Outcome: out.public()}
		gone.Ghost = true
		n.out = gone
	}
	return &lostError{err}
}

// run runs the operation, together with other builds that want the same.
func (n *node) run(ctx context.Context, op Op, ins *inputs, keys []digest.Digest) (*outcome, error) {
	snaps := make([]*snapshot.Snapshot, len(n.inputs))
	g, gctx := errgroup.WithContext(ctx)
	for i := range n.inputs {
		g.Go(func() (err error) {
			snaps[i], err = n.inputs[i].ready(gctx, ins.outs[i], n.v.Inputs[i].Index)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	key := flightKey{key: keys[0]}
	if n.ignoresCache() {
		key.build, key.vertex = n.b, n.v.Digest
	}
	me := &listener{sink: n.b.sink, vertex: n.v, sessions: n.b.cfg.Sessions}
	join := func(f *fan) func() { return f.join(me) }
	r, err := n.b.s.flights.do(ctx, key, newFan, join, func(ctx context.Context, f *fan) (*ran, error) {
		// The inputs are held by this build, which may be closed while others still wait.
		held := make([]*snapshot.Snapshot, len(snaps))
		for i, s := range snaps {
			held[i] = s.Share()
		}
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
	out.Keys, out.Cached, out.Created, out.Started, out.Completed = r.keys, r.cached, r.created, r.started, r.completed
	return out, nil
}

// fly is one run of a step.
func (n *node) fly(ctx context.Context, op Op, in []*snapshot.Snapshot, keys []digest.Digest, f *fan) (r *ran, err error) {
	if !n.ignoresCache() {
		// Another build may have ended it between the lookup and now.
		if out, err := n.lookupHere(ctx, keys[:1]); err == nil && out != nil && !out.Ghost {
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
	if err := n.remember(r); err != nil {
		release(r.snaps)
		return nil, err
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
func (n *node) remember(r *ran) error {
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
	return n.b.s.cfg.Cache.Put(rec, pending...)
}

// newRun makes what an operation or source is given.
func (n *node) newRun(f *fan) *Run {
	return &Run{
		Vertex: n.v, BuildID: n.b.cfg.ID, Sessions: f, Manager: n.b.s.cfg.Sessions,
		Stdout: f.stream(1), Stderr: f.stream(2), Progress: f,
		Limits: n.b.cfg.Limits, Entitlements: n.b.cfg.Entitlements,
	}
}
