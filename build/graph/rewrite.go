package graph

import (
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"berth/base/fault"
)

// Rewrite gives a definition with other sources: swap is called with each one that the result needs, and gives what shall be in its place, which may
// be itself. Where nothing changes it gives the definition itself, which is never written to. It fails where swap does, and where Parse would.
func Rewrite(def *pb.Definition, swap func(*pb.SourceOp) (*pb.SourceOp, error)) (*pb.Definition, error) {
	g, err := Parse(def)
	if err != nil || g.Empty() {
		return def, err
	}
	r := rewriter{swap: swap, as: map[digest.Digest]digest.Digest{}, out: &pb.Definition{Metadata: map[string]*pb.OpMetadata{}}}
	given := make(map[digest.Digest][]byte, len(def.Def))
	for _, data := range def.Def {
		given[digest.FromBytes(data)] = data
	}
	for _, v := range g.Vertices {
		if err := r.add(given[v.Digest], v); err != nil {
			return nil, err
		}
		if m := def.Metadata[string(v.Digest)]; m != nil {
			r.out.Metadata[string(r.as[v.Digest])] = m
		}
	}
	if !r.changed {
		return def, nil
	}
	end := def.Def[len(def.Def)-1]
	if end, _, err = r.renamed(end, nil); err != nil {
		return nil, err
	}
	r.out.Def = append(r.out.Def, end)
	r.out.Source = r.located(def.Source)
	return r.out, nil
}

type rewriter struct {
	swap    func(*pb.SourceOp) (*pb.SourceOp, error)
	as      map[digest.Digest]digest.Digest // what the operations are called now
	out     *pb.Definition
	changed bool
}

// add adds an operation whose inputs have been added.
func (r *rewriter) add(data []byte, v *Vertex) error {
	var source *pb.SourceOp
	if s := v.Op.GetSource(); s != nil {
		next, err := r.swap(s)
		if err != nil {
			return err
		}
		if next != s {
			source = next
		}
	}
	data, changed, err := r.renamed(data, source)
	if err != nil {
		return err
	}
	r.changed = r.changed || changed
	r.as[v.Digest] = digest.FromBytes(data)
	r.out.Def = append(r.out.Def, data)
	return nil
}

// renamed gives an operation with its inputs as they are called now, and with a source if there is one. One that stays what it was keeps its bytes.
func (r *rewriter) renamed(data []byte, source *pb.SourceOp) (_ []byte, changed bool, err error) {
	op := &pb.Op{}
	if err := op.Unmarshal(data); err != nil {
		return nil, false, fault.Wrap(fault.Invalid, err, "failed to parse llb proto op")
	}
	if source != nil {
		op.Op, changed = &pb.Op_Source{Source: source}, true
	}
	for _, in := range op.Inputs {
		if now, ok := r.as[digest.Digest(in.Digest)]; ok && string(now) != in.Digest {
			in.Digest, changed = string(now), true
		}
	}
	if !changed {
		return data, false, nil
	}
	data, err = proto.MarshalOptions{Deterministic: true}.Marshal(op)
	return data, true, err
}

// located gives the places of the operations by what these are called now.
func (r *rewriter) located(s *pb.Source) *pb.Source {
	if s == nil {
		return nil
	}
	out := &pb.Source{Infos: s.Infos, Locations: make(map[string]*pb.Locations, len(s.Locations))}
	for name, l := range s.Locations {
		if now, ok := r.as[digest.Digest(name)]; ok {
			out.Locations[string(now)] = l
		}
	}
	return out
}
