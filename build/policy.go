package build

import (
	"context"
	"maps"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/sourcepolicy/policysession"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/frontend"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/solver"
	"berth/build/source/git"
)

// maxPolicyCalls bounds how often a client may ask back, or put another source in the place of one.
const maxPolicyCalls = 10

// policy asks the client of a build whether a source may be used.
type policy struct {
	sessions *session.Manager
	session  string
	sources  *resolver
}

// ask gives the source that is to be used: the one that is asked about, or what the client puts in its place. Forbidden: none. What a source
// is fetched from is a source too.
func (p *policy) ask(ctx context.Context, op *pb.SourceOp, platform *ocispec.Platform) (*pb.SourceOp, error) {
	op, err := p.askOne(ctx, op, platform)
	if err != nil {
		return nil, err
	}
	inner, with, err := nested(op)
	if inner == nil || err != nil {
		return op, err
	}
	other, err := p.askOne(ctx, inner, platform)
	if err != nil {
		return nil, fault.In(err, "error evaluating git bundle source policy")
	}
	if other == inner {
		return op, nil
	}
	return with(other), nil
}

// nested gives the blob that a git source is fetched from.
func nested(op *pb.SourceOp) (inner *pb.SourceOp, with func(*pb.SourceOp) *pb.SourceOp, err error) {
	inner, err = git.Bundle(op)
	return inner, func(other *pb.SourceOp) *pb.SourceOp { return git.WithBundle(op, other) }, err
}

func (p *policy) askOne(ctx context.Context, op *pb.SourceOp, platform *ocispec.Platform) (*pb.SourceOp, error) {
	caller, err := p.sessions.Get(ctx, p.session)
	if err != nil {
		return nil, fault.In(err, "ask the client for its policy")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = caller.Context(ctx)
	client := policysession.NewPolicyVerifierClient(caller.Conn())
	req := &policysession.CheckPolicyRequest{Platform: platformToPB(platform), Source: frontend.MetaMessage(&sourceresolver.MetaResponse{Op: op})}
	given := op
	if canonical := git.Canonical(op.Identifier); canonical != op.Identifier {
		op = op.CloneVT() // a policy is not to be passed by writing a repository in another way
		op.Identifier = canonical
		req.Source.Source = op
	}
	asked := op
	for range maxPolicyCalls {
		resp, err := client.CheckPolicy(ctx, req)
		if err != nil {
			return nil, err
		}
		if more := resp.GetRequest(); more != nil {
			if more.Source.GetIdentifier() != op.Identifier || !maps.Equal(more.Source.GetAttrs(), op.Attrs) {
				return nil, fault.New(fault.Invalid, "policy requested different source identifier: %q != %q", more.Source.GetIdentifier(), op.Identifier)
			}
			meta, err := p.sources.resolve(ctx, more.Source, frontend.MetaOptions(more))
			if err != nil {
				return nil, fault.In(err, "error resolving source metadata from policy request")
			}
			req.Source = frontend.MetaMessage(meta)
			continue
		}
		d := resp.GetDecision()
		switch {
		case d == nil:
			return nil, fault.New(fault.Invalid, "no decision in policy response")
		case d.Action == spb.PolicyAction_ALLOW && op == asked:
			return given, nil
		case d.Action == spb.PolicyAction_ALLOW:
			return op, nil
		case d.Action != spb.PolicyAction_CONVERT:
			err := fault.New(fault.Forbidden, "source %q not allowed by policy: action %s", op.Identifier, d.Action)
			return nil, policysession.WrapDenyMessages(err, d.DenyMessages)
		case d.Update == nil:
			return nil, fault.New(fault.Invalid, "convert action requires updated source")
		}
		op = d.Update
		req.Source = frontend.MetaMessage(&sourceresolver.MetaResponse{Op: op})
	}
	return nil, fault.New(fault.Invalid, "too many policy requests")
}

// policed gives sources that ask the policy of the build that wants them first.
func (b *Builder) policed(s *sources) func(*graph.Vertex) (solver.Source, error) {
	return func(v *graph.Vertex) (solver.Source, error) {
		inner, err := s.source(v)
		if err != nil {
			return nil, err
		}
		return &policedSource{Source: inner, b: b, sources: s, v: v}, nil
	}
}

type policedSource struct {
	solver.Source
	b       *Builder
	sources *sources
	v       *graph.Vertex
}

// Pin asks the policy, if there is one, and pins what it says.
func (p *policedSource) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	run, _ := p.b.find(r.BuildID)
	if run == nil || run.policy == nil {
		return p.Source.Pin(ctx, r)
	}
	before := p.v.Op.GetSource()
	op, err := run.policy.ask(ctx, before, &p.v.Platform)
	if err != nil {
		return solver.Pinned{}, fault.In(err, "error evaluating the source policy")
	}
	if op == before {
		return p.Source.Pin(ctx, r)
	}
	changed, whole := *p.v, p.v.Op.CloneVT()
	whole.Op = &pb.Op_Source{Source: op}
	changed.Op = whole
	source, err := p.sources.source(&changed)
	if err != nil {
		return solver.Pinned{}, err
	}
	return source.Pin(ctx, r)
}

func platformToPB(p *ocispec.Platform) *pb.Platform {
	if p == nil {
		return nil
	}
	return &pb.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}

// platformOf gives the platform that a source is resolved for.
func platformOf(opt sourceresolver.Opt) *ocispec.Platform {
	switch {
	case opt.ImageOpt != nil && opt.ImageOpt.Platform != nil:
		return opt.ImageOpt.Platform
	case opt.OCILayoutOpt != nil:
		return opt.OCILayoutOpt.Platform
	}
	return nil
}
