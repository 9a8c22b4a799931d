package solver

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
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
	ref, err := n.b.Ref(def)
	if err != nil {
		return nil, err
	}
	result, err := ref.Result(ctx)
	if err != nil {
		return nil, err
	}
	return ofSnapshots(ctx, n.v, []*snapshot.Snapshot{result.Share()})
}

// readDefinition reads a definition from a tree, out of which no link leads.
func readDefinition(ctx context.Context, s *snapshot.Snapshot, name string) (*pb.Definition, error) {
	def := &pb.Definition{}
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
		return fault.Wrap(fault.Invalid, def.Unmarshal(data), "not a definition")
	})
	return def, err
}
