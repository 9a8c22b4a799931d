package buildkit

import (
	"context"
	"time"

	controlapi "github.com/moby/buildkit/api/services/control"
	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/client"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/version"
	"github.com/moby/buildkit/session/grpchijack"
	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"berth/build"
)

// bkVersion is the release of BuildKit whose language and wire this builder speaks: go.mod has the same one, which a test
// compares. Clients choose by it what they ask for.
const bkVersion = "v0.33.1"

// headerNow tells clients our time with streams that show times.
const headerNow = "buildkit-current-timestamp"

// control is BuildKit's Control service.
type control struct {
	controlapi.UnimplementedControlServer
	builder *build.Builder
}

// Solve builds.
func (c *control) Solve(ctx context.Context, req *controlapi.SolveRequest) (*controlapi.SolveResponse, error) {
	r, err := requestOf(req)
	if err != nil {
		return nil, err
	}
	resp, err := c.builder.Solve(ctx, r)
	if err != nil {
		return nil, err
	}
	return &controlapi.SolveResponse{ExporterResponse: resp.Exported}, nil
}

// Status tells how a build goes on.
func (c *control) Status(req *controlapi.StatusRequest, stream controlapi.Control_StatusServer) error {
	if err := sendNow(stream); err != nil {
		return err
	}
	return c.builder.Status(stream.Context(), req.Ref, func(s *client.SolveStatus) error {
		for _, m := range s.Marshal() {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	})
}

// Session serves a session over the stream.
func (c *control) Session(stream controlapi.Control_SessionServer) error {
	sessions, err := c.builder.Sessions()
	if err != nil {
		return err
	}
	conn, closed, headers := grpchijack.Hijack(stream)
	defer conn.Close()
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(context.Canceled)
	go func() { // ends with the stream, which this method holds
		select {
		case <-closed:
			cancel(context.Canceled)
		case <-ctx.Done():
		}
	}()
	return sessions.HandleConn(ctx, conn, headers)
}

// ListWorkers tells what builds: one worker.
func (c *control) ListWorkers(ctx context.Context, req *controlapi.ListWorkersRequest) (*controlapi.ListWorkersResponse, error) {
	w := c.builder.Worker()
	pass, err := filterWorker(req.Filter, w)
	if err != nil || !pass {
		return &controlapi.ListWorkersResponse{}, err
	}
	rec := &apitypes.WorkerRecord{ID: w.ID, Labels: w.Labels, Platforms: pb.PlatformsFromSpec(w.Platforms), BuildkitVersion: version(w)}
	for _, p := range w.Policy {
		rec.GCPolicy = append(rec.GCPolicy, &apitypes.GCPolicy{
			All: p.All, Filters: p.Filters, KeepDuration: int64(p.KeepDuration), ReservedSpace: p.ReservedSpace,
			MaxUsedSpace: p.MaxUsedSpace, MinFreeSpace: p.MinFreeSpace,
		})
	}
	for _, d := range c.builder.Devices() {
		rec.CDIDevices = append(rec.CDIDevices, &apitypes.CDIDevice{Name: d.Name, AutoAllow: d.Free(), Annotations: d.Annotations})
	}
	return &controlapi.ListWorkersResponse{Record: []*apitypes.WorkerRecord{rec}}, nil
}

// Info tells the version.
func (c *control) Info(context.Context, *controlapi.InfoRequest) (*controlapi.InfoResponse, error) {
	return &controlapi.InfoResponse{BuildkitVersion: version(c.builder.Worker())}, nil
}

// version is what clients are told of the builder's version: of the language, as that is what they ask it for.
func version(w build.Worker) *apitypes.BuildkitVersion {
	return &apitypes.BuildkitVersion{
		Package: "github.com/moby/buildkit", Version: bkVersion, Revision: "berth-" + w.Version, DockerfileVersion: dockerfileVersion(dockerfile.Version()),
	}
}

func sendNow(stream grpc.ServerStream) error {
	return stream.SendHeader(metadata.Pairs(headerNow, time.Now().Format(time.RFC3339Nano)))
}
