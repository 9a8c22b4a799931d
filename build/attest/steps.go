package attest

import (
	"strconv"

	types "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// addSteps tells the steps of the build, and where they stand in which file.
func (f *Facts) addSteps(p *types.ProvenancePredicateSLSA1) error {
	steps, at, err := buildSteps(f.Definition)
	if err != nil {
		return err
	}
	p.BuildDefinition.InternalParameters.BuildConfig = &types.BuildConfig{Definition: steps, DigestMapping: stepNames(at)}
	meta := &p.RunDetails.Metadata.BuildKitMetadata
	if f.Definition != nil && f.Definition.Source != nil && len(f.Definition.Source.Infos) > 0 {
		if meta.Source, err = source(f.Definition.Source, at); err != nil {
			return err
		}
	}
	for d, outputs := range f.outputs {
		i, ok := at[d]
		for output, chain := range outputs {
			layers := f.layers(chain)
			if !ok || layers == nil {
				continue
			}
			if meta.Layers == nil {
				meta.Layers = map[string][][]ocispec.Descriptor{}
			}
			meta.Layers[stepName(i)+":"+strconv.Itoa(output)] = [][]ocispec.Descriptor{layers}
		}
	}
	return nil
}

// layers are the blobs of a chain, nil where one is not known.
func (f *Facts) layers(chain []digest.Digest) (list []ocispec.Descriptor) {
	for _, d := range chain {
		b, ok := f.blobs[d]
		if !ok {
			return nil
		}
		list = append(list, b)
	}
	return list
}

func stepName(i int) string { return "step" + strconv.Itoa(i) }

func stepNames(at map[digest.Digest]int) map[digest.Digest]string {
	out := make(map[digest.Digest]string, len(at))
	for d, i := range at {
		out[d] = stepName(i)
	}
	return out
}

// source tells the files that the steps come from, and which lines each step is.
func source(in *pb.Source, at map[digest.Digest]int) (*types.Source, error) {
	out := &types.Source{Locations: map[string]*pb.Locations{}}
	for _, info := range in.Infos {
		steps, names, err := buildSteps(info.Definition)
		if err != nil {
			return nil, err
		}
		out.Infos = append(out.Infos, types.SourceInfo{Filename: info.Filename, Language: info.Language, Data: info.Data, Definition: steps, DigestMapping: stepNames(names)})
	}
	for d, l := range in.Locations {
		if i, ok := at[digest.Digest(d)]; ok {
			out.Locations[stepName(i)] = l
		}
	}
	return out, nil
}

// buildSteps lists the operations of a definition, each behind its inputs, numbered; the last one only names the result.
func buildSteps(def *pb.Definition) ([]types.BuildStep, map[digest.Digest]int, error) {
	if def == nil || len(def.Def) == 0 {
		return nil, nil, nil
	}
	ops, last := map[digest.Digest]*pb.Op{}, digest.Digest("")
	for _, raw := range def.Def {
		op := &pb.Op{}
		if err := op.UnmarshalVT(raw); err != nil {
			return nil, nil, fault.Wrap(fault.Invalid, err, "failed to parse llb proto op")
		}
		if src := op.GetSource(); src != nil {
			// Of one session, and so never the same twice.
			delete(src.Attrs, pb.AttrLocalSessionID)
			delete(src.Attrs, pb.AttrLocalUniqueID)
		}
		last = digest.FromBytes(raw)
		ops[last] = op
	}
	var order []digest.Digest
	at := map[digest.Digest]int{}
	var walk func(d digest.Digest, depth int) error
	walk = func(d digest.Digest, depth int) error {
		if _, done := at[d]; done {
			return nil
		}
		op := ops[d]
		if op == nil || depth > len(ops) {
			return fault.New(fault.Invalid, "failed to find input %s", d)
		}
		for _, in := range op.Inputs {
			if err := walk(digest.Digest(in.Digest), depth+1); err != nil {
				return err
			}
		}
		at[d] = len(order)
		order = append(order, d)
		return nil
	}
	if err := walk(last, 0); err != nil {
		return nil, nil, err
	}
	steps := make([]types.BuildStep, 0, len(order))
	for i, d := range order {
		op := ops[d]
		s := types.BuildStep{ID: stepName(i), Op: op, Inputs: make([]string, 0, len(op.Inputs))}
		for _, in := range op.Inputs {
			s.Inputs = append(s.Inputs, stepName(at[digest.Digest(in.Digest)])+":"+strconv.FormatInt(in.Index, 10))
		}
		op.Inputs = nil
		steps = append(steps, s)
	}
	return steps, at, nil
}
