package graph

import (
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// Graph is a parsed definition.
type Graph struct {
	Vertices []*Vertex  // each after its inputs
	Result   Edge       // what was asked for
	Sources  *pb.Source // where in which file a vertex was written; may be nil
}

// Edge is one output of a vertex.
type Edge struct {
	Vertex digest.Digest
	Index  int
}

// Vertex is one operation.
type Vertex struct {
	Digest        digest.Digest // of the operation as it was sent
	Op            *pb.Op        // not to be changed
	Inputs        []Edge
	Name          string           // for people: the Dockerfile's instruction, else one made from the operation
	Platform      ocispec.Platform // normalized; the engine's own where the operation names none
	Constraints   *pb.WorkerConstraints
	Description   map[string]string
	Caps          map[string]bool
	IgnoreCache   bool
	ExportCache   *bool
	ProgressGroup *pb.ProgressGroup
	Resources     *pb.LinuxResources // limits that the client set beside the operation; never part of a key
}

// Parse reads a definition. A definition without operations gives an empty graph, whose result is the empty tree.
func Parse(def *pb.Definition) (*Graph, error) {
	return nil, fault.New(fault.Internal, "not yet")
}

// Vertex gives the vertex of that digest, or nil.
func (g *Graph) Vertex(d digest.Digest) *Vertex { return nil }

// Empty reports whether the result is the empty tree.
func (g *Graph) Empty() bool { return len(g.Vertices) == 0 }

// String prints the graph, one vertex a line, inputs first.
func (g *Graph) String() string { return "" }
