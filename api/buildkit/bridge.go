package buildkit

import (
	"context"

	"github.com/moby/buildkit/client/buildid"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"

	"berth/base/fault"
	"berth/build"
	"berth/build/frontend"
)

// bridge is the LLBBridge service: each call names its build in its metadata, and that build's bridge answers.
type bridge struct {
	gwpb.UnimplementedLLBBridgeServer
	builder *build.Builder
}

// of finds the bridge of a call's build.
func (b *bridge) of(ctx context.Context) (*frontend.Bridge, error) {
	id := buildid.FromIncomingContext(ctx)
	if id == "" {
		return nil, fault.New(fault.Invalid, "no buildid found in context")
	}
	br, err := b.builder.Bridge(ctx, id)
	if fault.Is(err, fault.NotFound) {
		return nil, errdefs.NewUnknownJobError(id)
	}
	return br, err
}

// forward calls a method of the build's bridge.
func forward[Req, Resp any](b *bridge, ctx context.Context, req Req, call func(*frontend.Bridge, context.Context, Req) (Resp, error)) (Resp, error) {
	br, err := b.of(ctx)
	if err != nil {
		var none Resp
		return none, err
	}
	return call(br, ctx, req)
}

// The methods: what they do is said at frontend.Bridge.

func (b *bridge) ResolveImageConfig(ctx context.Context, r *gwpb.ResolveImageConfigRequest) (*gwpb.ResolveImageConfigResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ResolveImageConfig)
}

func (b *bridge) ResolveSourceMeta(ctx context.Context, r *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ResolveSourceMeta)
}

func (b *bridge) Solve(ctx context.Context, r *gwpb.SolveRequest) (*gwpb.SolveResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Solve)
}

func (b *bridge) ReadFile(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ReadFile)
}

func (b *bridge) ReadDir(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ReadDir)
}

func (b *bridge) StatFile(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).StatFile)
}

func (b *bridge) Evaluate(ctx context.Context, r *gwpb.EvaluateRequest) (*gwpb.EvaluateResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Evaluate)
}

func (b *bridge) Ping(ctx context.Context, r *gwpb.PingRequest) (*gwpb.PongResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Ping)
}

func (b *bridge) Return(ctx context.Context, r *gwpb.ReturnRequest) (*gwpb.ReturnResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Return)
}

func (b *bridge) Inputs(ctx context.Context, r *gwpb.InputsRequest) (*gwpb.InputsResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Inputs)
}

func (b *bridge) NewContainer(ctx context.Context, r *gwpb.NewContainerRequest) (*gwpb.NewContainerResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).NewContainer)
}

func (b *bridge) ReleaseContainer(ctx context.Context, r *gwpb.ReleaseContainerRequest) (*gwpb.ReleaseContainerResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ReleaseContainer)
}

func (b *bridge) ReadFileContainer(ctx context.Context, r *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ReadFileContainer)
}

func (b *bridge) ReadDirContainer(ctx context.Context, r *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).ReadDirContainer)
}

func (b *bridge) StatFileContainer(ctx context.Context, r *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).StatFileContainer)
}

func (b *bridge) Warn(ctx context.Context, r *gwpb.WarnRequest) (*gwpb.WarnResponse, error) {
	return forward(b, ctx, r, (*frontend.Bridge).Warn)
}

func (b *bridge) ExecProcess(stream gwpb.LLBBridge_ExecProcessServer) error {
	br, err := b.of(stream.Context())
	if err != nil {
		return err
	}
	return br.ExecProcess(stream)
}
