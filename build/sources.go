package build

import (
	"context"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/solver"
	"berth/build/source/blob"
	"berth/build/source/git"
	"berth/build/source/http"
	"berth/build/source/image"
	"berth/build/source/local"
	"berth/build/source/oci"
)

// sources finds the package that knows a source, by the scheme of its identifier.
type sources struct {
	trees   *local.Store
	images  *image.Images
	layouts *oci.Layouts
	blobs   *blob.Blobs
	web     *http.Source
	git     *git.Source
}

// source gives the source of a vertex.
func (s *sources) source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	if op == nil {
		return nil, fault.New(fault.Invalid, "%s is no source", v.Digest)
	}
	switch scheme, _, _ := strings.Cut(op.Identifier, "://"); scheme {
	case "local":
		return s.trees.Source(v)
	case "docker-image":
		return s.images.Source(v)
	case "oci-layout":
		return s.layouts.Source(v)
	case blob.SchemeImage, blob.SchemeLayout:
		return s.blobs.Source(v)
	case "git":
		return s.git.Source(v)
	case "http", "https":
		return s.web.Source(v)
	default:
		return nil, fault.New(fault.Invalid, "failed to parse source %q: unknown scheme", op.Identifier)
	}
}

// resolver tells frontends of one build what sources stand for.
type resolver struct {
	sources *sources
	build   *solver.Build
	group   session.Group
	policy  *policy // nil: the client has none
}

// ResolveSourceMetadata finds out what a source's name stands for.
func (r *resolver) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	op, err := r.build.Permit(op, opt.SourcePolicies...)
	if err == nil && r.policy != nil {
		op, err = r.policy.ask(ctx, op, platformOf(opt))
	}
	if err != nil {
		return nil, fault.In(err, "could not resolve image due to policy")
	}
	return r.resolve(ctx, op, opt)
}

// resolve does so without asking policies.
func (r *resolver) resolve(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error) {
	switch scheme, _, _ := strings.Cut(op.Identifier, "://"); scheme {
	case "docker-image":
		return r.sources.images.ResolveSourceMetadata(ctx, op, opt, r.group)
	case "oci-layout":
		return r.sources.layouts.ResolveSourceMetadata(ctx, op, opt, r.group)
	case "git":
		return r.sources.git.ResolveSourceMetadata(ctx, op, opt, r.group)
	case "http", "https":
		return r.sources.web.ResolveSourceMetadata(ctx, op, opt, r.group)
	default:
		return &sourceresolver.MetaResponse{Op: op}, nil
	}
}
