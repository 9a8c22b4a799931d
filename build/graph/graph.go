package graph

import (
	"fmt"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Graph is a parsed definition.
type Graph struct {
	Vertices []*Vertex  // each after its inputs; only what the result needs
	Result   Edge       // what was asked for
	Sources  *pb.Source // where in which file a vertex was written; may be nil
	Weight   int        // of all that was sent, in fields of messages: a measure of the memory that it takes

	byDigest map[digest.Digest]*Vertex
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
	Outputs       int              // how many it has, including those that are not made
	Name          string           // for people: the Dockerfile's instruction, else one made from the operation
	Platform      ocispec.Platform // normalized; the engine's own where the operation names none
	Constraints   *pb.WorkerConstraints
	Description   map[string]string
	Caps          map[string]bool
	IgnoreCache   bool
	ExportCache   *bool
	ProgressGroup *pb.ProgressGroup
	Resources     *pb.LinuxResources // limits that the client set beside the operation; never part of a key
	Nests         bool               // it, or what it is made of, reads a definition from a tree

	length int // of the longest way to an operation without inputs
}

// Kind names the operation: source, exec, file, merge, diff, build, passthrough.
func (v *Vertex) Kind() string {
	switch v.Op.Op.(type) {
	case *pb.Op_Source:
		return "source"
	case *pb.Op_Exec:
		return "exec"
	case *pb.Op_File:
		return "file"
	case *pb.Op_Merge:
		return "merge"
	case *pb.Op_Diff:
		return "diff"
	case *pb.Op_Build:
		return "build"
	case *pb.Op_Passthrough:
		return "passthrough"
	}
	return "unknown"
}

// Vertex gives the vertex of that digest, or nil.
func (g *Graph) Vertex(d digest.Digest) *Vertex { return g.byDigest[d] }

// Empty reports whether the result is the empty tree.
func (g *Graph) Empty() bool { return len(g.Vertices) == 0 }

// String prints the graph, one vertex a line, inputs first; the result's line has an asterisk.
func (g *Graph) String() string {
	var b strings.Builder
	number := make(map[digest.Digest]int, len(g.Vertices))
	for i, v := range g.Vertices {
		number[v.Digest] = i + 1
		mark := " "
		if v.Digest == g.Result.Vertex {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s%3d %-6s %s", mark, i+1, v.Kind(), oneLine(v.Name, 100))
		for n, in := range v.Inputs {
			sep := ", "
			if n == 0 {
				sep = "  ← "
			}
			fmt.Fprintf(&b, "%s%d", sep, number[in.Vertex])
			if in.Index != 0 {
				fmt.Fprintf(&b, ".%d", in.Index)
			}
		}
		if v.IgnoreCache {
			b.WriteString("  (cache ignored)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// oneLine makes text fit on one line of at most max runes.
func oneLine(s string, max int) string {
	s = strings.Join(strings.Fields(s), " ")
	if r := []rune(s); len(r) > max {
		return string(r[:max-1]) + "…"
	}
	return s
}
