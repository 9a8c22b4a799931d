package graph

import (
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/apicaps"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// Bounds on what a client can send. The largest Dockerfiles known make some thousand operations.
const (
	maxOps    = 100_000
	maxBytes  = 128 << 20
	maxInputs = 10_000
	maxMounts = 1_000  // of one exec operation
	maxLength = 20_000 // operations that wait for each other: whoever evaluates them has something under way for each
	maxNotes  = 10_000 // descriptions, or ranges in files, of one operation
)

// Parse reads a definition. One that is nil or has no operations gives an empty graph, whose result is the empty tree.
func Parse(def *pb.Definition) (*Graph, error) {
	if def == nil || len(def.Def) == 0 {
		return &Graph{}, nil
	}
	g, err := parse(def)
	if err != nil {
		return nil, fault.In(err, "failed to load LLB")
	}
	return g, nil
}

func parse(def *pb.Definition) (*Graph, error) {
	weight, err := checkNotes(def)
	if err != nil {
		return nil, err
	}
	ops, last, more, err := decode(def.Def)
	if err != nil {
		return nil, err
	}
	end := ops[last]
	if len(ops) < 2 {
		return nil, invalid("invalid LLB with %d vertexes", len(ops))
	}
	if len(end.Inputs) == 0 {
		return nil, invalid("invalid LLB with no inputs on last vertex")
	}
	delete(ops, last)
	p := &parser{ops: ops, def: def, g: &Graph{Sources: def.Source, Weight: weight + more, byDigest: make(map[digest.Digest]*Vertex, len(ops))}}
	p.g.Result = edge(end.Inputs[0])
	if err := p.visit(p.g.Result.Vertex); err != nil {
		return nil, err
	}
	if p.g.Result.Index >= p.g.byDigest[p.g.Result.Vertex].Outputs {
		return nil, invalid("invalid output index %d of %s", p.g.Result.Index, p.g.Result.Vertex)
	}
	return p.g, nil
}

// decode reads the operations and names each by the digest of its bytes.
func decode(encoded [][]byte) (ops map[digest.Digest]*pb.Op, last digest.Digest, weight int, err error) {
	if len(encoded) > maxOps {
		return nil, "", 0, invalid("invalid LLB with %d vertexes: more than %d", len(encoded), maxOps)
	}
	ops = make(map[digest.Digest]*pb.Op, len(encoded))
	total, s := 0, scale{left: MaxWeight}
	for _, dt := range encoded {
		if total += len(dt); total > maxBytes {
			return nil, "", 0, invalid("invalid LLB of more than %d bytes", maxBytes)
		}
		if err := s.weigh(opType, dt, 0); err != nil {
			return nil, "", 0, err
		}
		op := &pb.Op{}
		if err := op.Unmarshal(dt); err != nil {
			return nil, "", 0, fault.Wrap(fault.Invalid, err, "failed to parse llb proto op")
		}
		if len(op.Inputs) > maxInputs {
			return nil, "", 0, invalid("invalid op with %d inputs", len(op.Inputs))
		}
		for i, in := range op.Inputs {
			if in == nil || in.Index < 0 {
				return nil, "", 0, invalid("invalid input %d output index %d", i, in.GetIndex())
			}
		}
		last = digest.FromBytes(dt)
		ops[last] = op
	}
	return ops, last, MaxWeight - s.left, nil
}

type parser struct {
	ops  map[digest.Digest]*pb.Op
	def  *pb.Definition
	g    *Graph
	caps *apicaps.CapSet
}

// visit adds a vertex after its inputs. It keeps its own stack, because how deep a definition is is the client's choice.
// A digest cannot be part of what it is made of, but the check costs nothing and guards the order.
func (p *parser) visit(root digest.Digest) error {
	type frame struct {
		dgst digest.Digest
		next int
	}
	open := map[digest.Digest]bool{}
	stack := []frame{{dgst: root}}
	for len(stack) > 0 {
		f := &stack[len(stack)-1]
		op, ok := p.ops[f.dgst]
		if !ok {
			return invalid("invalid missing input digest %s", f.dgst)
		}
		if f.next == 0 {
			open[f.dgst] = true
		}
		if f.next < len(op.Inputs) {
			in := digest.Digest(op.Inputs[f.next].Digest)
			f.next++
			if p.g.byDigest[in] != nil {
				continue
			}
			if open[in] {
				return invalid("invalid op %s that is its own input", in)
			}
			stack = append(stack, frame{dgst: in})
			continue
		}
		if err := p.add(f.dgst, op); err != nil {
			return err
		}
		delete(open, f.dgst)
		stack = stack[:len(stack)-1]
	}
	return nil
}

// add makes the vertex of an operation whose inputs are there.
func (p *parser) add(d digest.Digest, op *pb.Op) error {
	v := &Vertex{Digest: d, Op: op, Constraints: op.Constraints, Platform: platformOf(op.Platform), Nests: op.GetBuild() != nil}
	for i, in := range op.Inputs {
		e := edge(in)
		if e.Index >= p.g.byDigest[e.Vertex].Outputs {
			return invalid("invalid input %d output index %d", i, e.Index)
		}
		v.Inputs = append(v.Inputs, e)
		v.length = max(v.length, p.g.byDigest[e.Vertex].length+1)
		v.Nests = v.Nests || p.g.byDigest[e.Vertex].Nests
	}
	if v.length >= maxLength {
		return invalid("invalid LLB with more than %d vertexes that depend on each other", maxLength)
	}
	if err := check(op); err != nil {
		return err
	}
	v.Outputs = outputs(op)
	if md := p.def.Metadata[string(d)]; md != nil {
		if err := p.checkCaps(md.Caps); err != nil {
			return err
		}
		v.Description, v.Caps, v.IgnoreCache = md.Description, md.Caps, md.IgnoreCache
		v.ProgressGroup, v.Resources = md.ProgressGroup, md.LinuxResources
		if md.ExportCache != nil {
			v.ExportCache = &md.ExportCache.Value
		}
	}
	v.Name = v.Description["llb.customname"]
	if v.Name == "" {
		v.Name = p.nameOf(op)
	}
	if op.GetExec() == nil {
		v.Name = redact(v.Name)
		if g := v.ProgressGroup; g != nil && redact(g.Name) != g.Name {
			v.ProgressGroup = g.CloneVT()
			v.ProgressGroup.Name = redact(g.Name)
		}
	}
	p.g.byDigest[d] = v
	p.g.Vertices = append(p.g.Vertices, v)
	return nil
}

func (p *parser) checkCaps(caps map[string]bool) error {
	if len(caps) == 0 {
		return nil
	}
	if p.caps == nil {
		set := pb.Caps.CapSet(pb.Caps.All())
		p.caps = &set
	}
	for c := range caps {
		if err := p.caps.Supports(apicaps.CapID(c)); err != nil {
			return fault.Wrap(fault.NotImplemented, err, "")
		}
	}
	return nil
}

// nameOf makes a name for an operation whose author gave none.
func (p *parser) nameOf(op *pb.Op) string {
	input := func(i int64) string {
		if i < 0 || int(i) >= len(op.Inputs) {
			return "scratch"
		}
		return "(" + p.g.byDigest[digest.Digest(op.Inputs[i].Digest)].Name + ")"
	}
	switch o := op.Op.(type) {
	case *pb.Op_Source:
		return o.Source.Identifier
	case *pb.Op_Exec:
		return strings.Join(o.Exec.Meta.Args, " ")
	case *pb.Op_File:
		return fileName(o.File.Actions)
	case *pb.Op_Build:
		return "build"
	case *pb.Op_Merge:
		var names []string
		for size, i := 0, 0; i < len(op.Inputs) && size <= longName; i++ {
			name := p.g.byDigest[digest.Digest(op.Inputs[i].Digest)].Name
			names, size = append(names, name), size+len(name)
		}
		return cut("merge (" + strings.Join(names, ", ") + ")")
	case *pb.Op_Diff:
		return cut("diff " + input(o.Diff.Lower.Input) + " -> " + input(o.Diff.Upper.Input))
	case *pb.Op_Passthrough:
		return "passthrough " + o.Passthrough.Id
	}
	return "unknown"
}

// credentials are the user and the password, or the token, in an address.
var credentials = regexp.MustCompile(`(?i)(https?://)[^/\s@]+@`)

// redact takes them out of a name: it stands in logs, in records of builds and in the list of what is cached, longer than the build lasts.
func redact(name string) string {
	if !strings.Contains(name, "@") {
		return name
	}
	return credentials.ReplaceAllString(name, "${1}xxxxx@")
}

// cut bounds names made of names, which would double with every merge of a merge with itself.
func cut(s string) string {
	if len(s) <= longName {
		return s
	}
	return strings.ToValidUTF8(s[:longName], "") + "…"
}

// longName bounds such names, in bytes.
const longName = 4096

func fileName(actions []*pb.FileAction) string {
	var names []string
	for _, a := range actions {
		switch a := a.Action.(type) {
		case *pb.FileAction_Mkdir:
			names = append(names, "mkdir "+a.Mkdir.Path)
		case *pb.FileAction_Mkfile:
			names = append(names, "mkfile "+a.Mkfile.Path)
		case *pb.FileAction_Symlink:
			names = append(names, "symlink "+a.Symlink.Newpath+" -> "+a.Symlink.Oldpath)
		case *pb.FileAction_Rm:
			names = append(names, "rm "+a.Rm.Path)
		case *pb.FileAction_Copy:
			names = append(names, "copy "+a.Copy.Src+" "+a.Copy.Dest)
		}
	}
	return strings.Join(names, ", ")
}

func edge(in *pb.Input) Edge { return Edge{Vertex: digest.Digest(in.Digest), Index: int(in.Index)} }

// platformOf normalizes a platform; nil is the engine's own.
func platformOf(p *pb.Platform) ocispec.Platform {
	if p == nil {
		return platforms.Normalize(platforms.DefaultSpec())
	}
	return platforms.Normalize(ocispec.Platform{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: slices.Clone(p.OSFeatures),
	})
}

// checkNotes checks what is told of operations beside them, and weighs it.
func checkNotes(def *pb.Definition) (weight int, err error) {
	if len(def.Metadata) > maxOps || len(def.Source.GetLocations()) > maxOps || len(def.Source.GetInfos()) > maxOps {
		return 0, invalid("invalid LLB with metadata of more than %d vertexes", maxOps)
	}
	for d, md := range def.Metadata {
		n := len(md.GetDescription()) + len(md.GetCaps())
		if n > maxNotes {
			return 0, invalid("invalid LLB with %d descriptions of vertex %.100s", n, d)
		}
		weight += n + 1
	}
	for d, locs := range def.Source.GetLocations() {
		if n := len(locs.GetLocations()); n > maxNotes {
			return 0, invalid("invalid LLB with %d locations of vertex %.100s", n, d)
		}
		for _, loc := range locs.GetLocations() {
			weight += len(loc.GetRanges()) + 1
		}
		weight++
	}
	return weight, checkLocations(def.Source)
}

// checkLocations checks what error messages will index later.
func checkLocations(src *pb.Source) error {
	if src == nil {
		return nil
	}
	for d, locs := range src.Locations {
		if locs == nil {
			return invalid("invalid nil source locations for vertex %s", d)
		}
		for i, loc := range locs.Locations {
			if loc == nil {
				return invalid("invalid nil source location %d for vertex %s", i, d)
			}
			if loc.SourceIndex < 0 || int(loc.SourceIndex) >= len(src.Infos) {
				return invalid("invalid source index %d for vertex %s", loc.SourceIndex, d)
			}
		}
	}
	return nil
}

func invalid(format string, args ...any) error { return fault.New(fault.Invalid, format, args...) }
