package solver

import (
	"context"
	"errors"
	"sync"

	"github.com/moby/buildkit/solver/errdefs"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/graph"
	"berth/build/session"
)

// A node is a vertex in a build. It is evaluated at most twice: a ghost that is needed after all is run.
type node struct {
	b      *Build
	v      *graph.Vertex
	inputs []*node // one for each of v.Inputs
	fan    *fan    // of what concerns this build alone: pinning, fetching, being found in the cache

	under    digest.Digest // the policies, if the vertex reads a definition from a tree, or is made of one that does
	policies []*spb.Policy // that this definition is held to, beside the build's

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
		g.Go(session.Safe(func() error { return one(gctx, i) }))
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
		g.Go(session.Safe(func() error {
			s, err := n.inputs[i].ready(ctx, ins.outs[i], n.v.Inputs[i].Index)
			if err != nil {
				return err
			}
			for j, sel := range selectors {
				if readings[i].selected[j], err = n.b.s.cfg.Content.Digest(ctx, s, sel); err == nil {
					continue
				}
				if s.IsScratch() && fault.Is(err, fault.NotFound) {
					err = fault.New(fault.NotFound, "lstat %s: no such file or directory", sel.Path) // BuildKit's words where there is nothing at all
				} else {
					err = fault.In(err, "failed to calculate checksum of ref %.25s::%.25s", n.inputs[i].v.Digest.Encoded(), ins.identities[i].Encoded())
				}
				return &ReadError{Input: i, Tree: s, Err: err}
			}
			t.Inputs[i].Selected = readings[i].selected
			for _, sel := range selectors {
				t.Inputs[i].Paths = append(t.Inputs[i].Paths, sel.Path)
			}
			return nil
		}))
	}
	if err := g.Wait(); err != nil {
		return "", err
	}
	return contentKey(op.Key(), readings), nil
}
