package solver

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// maxDefinition bounds a definition that lies in a file of an input.
const maxDefinition = 64 << 20

// findBuild evaluates a definition that lies in a file of an input: its outcome is the outcome.
func (n *node) findBuild(ctx context.Context) (*outcome, error) {
	op := n.v.Op.GetBuild()
	ins, err := n.resolve(ctx, func(int) bool { return true })
	if err != nil {
		return nil, err
	}
	i := op.Inputs[pb.LLBDefinitionInput].Input
	s, err := n.inputs[i].ready(ctx, ins.outs[i], n.v.Inputs[i].Index)
	if err != nil {
		return nil, err
	}
	name := pb.LLBDefaultDefinitionFile
	if other, ok := op.Attrs[pb.AttrLLBDefinitionFilename]; ok {
		name = other
	}
	def, err := readDefinition(ctx, s, name)
	if err != nil {
		return nil, fault.In(err, "read definition %s", name)
	}
	ref, err := n.b.RefUnder(n.policies, def)
	if err != nil {
		return nil, err
	}
	if err := n.b.nest(n, ref.g); err != nil {
		return nil, err
	}
	result, err := ref.Result(ctx)
	if err != nil {
		return nil, err
	}
	return ofSnapshots(ctx, n.v, []*snapshot.Snapshot{result.Share()})
}

// maxNesting bounds definitions that lie in what other definitions give.
const maxNesting = 16

// nest notes that a vertex waits for a definition that it has read. One that waits for itself, because its definition has it as a vertex or
// one that waits for it, would wait forever; so would a build whose definitions lead to ever new ones.
func (b *Build) nest(n *node, g *graph.Graph) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.nested == nil {
		b.nested = map[*node]*nesting{}
	}
	at := b.nested[n]
	if at == nil {
		at = &nesting{}
		b.nested[n] = at
	}
	for _, v := range g.Vertices {
		if v.Kind() != "build" {
			continue
		}
		inner := b.byKey[nodeKeyOf(v, n.under)]
		if b.nested[inner] == nil {
			b.nested[inner] = &nesting{}
		}
		at.waits = append(at.waits, inner)
	}
	if b.leads(n, n, map[*node]bool{}) {
		return fault.New(fault.Invalid, "the definition that %s reads contains itself", n.v.Name)
	}
	return b.deepen(n, at.depth, maxNesting)
}

// nesting is what is known of a vertex that reads a definition.
type nesting struct {
	depth int     // how many others it lies in
	waits []*node // those in its definition
}

// leads reports whether from waits for to. b.mu is held.
func (b *Build) leads(from, to *node, seen map[*node]bool) bool {
	for _, inner := range b.nested[from].waits {
		if inner == to {
			return true
		}
		if !seen[inner] {
			seen[inner] = true
			if b.leads(inner, to, seen) {
				return true
			}
		}
	}
	return false
}

// deepen puts what a vertex waits for below it. Nothing waits for itself. b.mu is held.
func (b *Build) deepen(n *node, depth, most int) error {
	at := b.nested[n]
	at.depth = max(at.depth, depth)
	for _, inner := range at.waits {
		if depth >= most {
			return fault.New(fault.Invalid, "%s: definitions are nested more than %d deep", inner.v.Name, most)
		}
		if b.nested[inner].depth > depth {
			continue
		}
		if err := b.deepen(inner, depth+1, most); err != nil {
			return err
		}
	}
	return nil
}

// readDefinition reads a definition from a tree, out of which no link leads.
func readDefinition(ctx context.Context, s *snapshot.Snapshot, name string) (*pb.Definition, error) {
	var def *pb.Definition
	err := s.View(ctx, func(root *tree.Dir) error {
		f, err := root.OpenFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.NotFound, "%s: no such file", name)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		data, err := io.ReadAll(io.LimitReader(f, maxDefinition+1))
		if err != nil {
			return err
		}
		if len(data) > maxDefinition {
			return fault.New(fault.Invalid, "%s exceeds maximum allowed size of %d bytes", name, maxDefinition)
		}
		def, err = graph.Decode(data)
		return err
	})
	return def, err
}
