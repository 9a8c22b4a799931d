package frontend

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
)

// Client is what one call of a frontend works with.
type Client struct {
	host *Host
	call *Call

	mu         sync.Mutex
	containers map[*container]bool
}

var _ gwclient.Client = (*Client)(nil)

// Solve solves a definition, or calls another frontend.
func (c *Client) Solve(ctx context.Context, req gwclient.SolveRequest) (_ *gwclient.Result, err error) {
	defer session.Survive(&err) // called on goroutines of the frontend's, as all that a frontend calls
	return c.host.solve(ctx, req, c.call)
}

// ResolveSourceMetadata finds out what a source's name stands for. It shows as a step of its own.
func (c *Client) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (_ *sourceresolver.MetaResponse, err error) {
	defer session.Survive(&err)
	policies, err := c.call.under(opt.SourcePolicies)
	if err != nil {
		return nil, err
	}
	opt.SourcePolicies = policies
	if err := c.host.admit(op.SizeVT() + len(opt.LogName)); err != nil {
		return nil, err
	}
	name := opt.LogName
	if name == "" {
		name = "resolve image config for " + graph.Redact(op.Identifier)
	}
	platform := platformOf(opt)
	id := op.Identifier
	if platform != nil {
		id += platforms.FormatAll(*platform)
	} else {
		id += platforms.FormatAll(platforms.DefaultSpec())
	}
	var resp *sourceresolver.MetaResponse
	err = Step(c.host.Progress, digest.FromString(id), name, func() (err error) {
		resp, err = c.host.Sources.ResolveSourceMetadata(ctx, op.CloneVT(), opt)
		return err
	})
	if err != nil {
		return nil, err
	}
	if resp.Image != nil {
		if c.call.inProcess() {
			err := checkImage(resp.Image.Config)
			if err == nil {
				err = c.call.met(resp.Image.Config)
			}
			if err != nil {
				return nil, fault.In(err, "%s", op.Identifier)
			}
		}
		ref, remote := strings.CutPrefix(resp.Op.Identifier, "docker-image://")
		c.call.mu.Lock()
		c.call.images = append(c.call.images, Image{
			Ref: strings.TrimPrefix(ref, "oci-layout://"), Platform: platform, Digest: resp.Image.Digest, Local: !remote,
		})
		c.call.mu.Unlock()
	}
	return resp, nil
}

// ResolveImageConfig finds an image's configuration by its name.
func (c *Client) ResolveImageConfig(ctx context.Context, ref string, opt sourceresolver.Opt) (string, digest.Digest, []byte, error) {
	return sourceresolver.NewImageMetaResolver(c).ResolveImageConfig(ctx, ref, opt)
}

// BuildOpts tells the frontend its options and what this builder can.
func (c *Client) BuildOpts() gwclient.BuildOpts {
	return gwclient.BuildOpts{
		Opts:      c.call.Options,
		SessionID: c.host.Session,
		Workers:   []gwclient.WorkerInfo{c.host.Worker},
		Product:   product,
		Caps:      gwpb.Caps.CapSet(gwpb.Caps.All()),
		LLBCaps:   pb.Caps.CapSet(pb.Caps.All()),
	}
}

// product is what frontends call the builder when it is too old for them.
const product = "Berth"

// Inputs gives the definitions that the client named.
func (c *Client) Inputs(ctx context.Context) (map[string]llb.State, error) {
	inputs := make(map[string]llb.State, len(c.call.Inputs))
	for name, def := range c.call.Inputs {
		op, err := llb.NewDefinitionOp(def)
		if err != nil {
			return nil, fmt.Errorf("input %s: %w", name, err)
		}
		inputs[name] = llb.NewState(op)
	}
	return inputs, nil
}

// Warn shows a warning at a step.
func (c *Client) Warn(ctx context.Context, vertex digest.Digest, msg string, opts gwclient.WarnOpts) error {
	level := opts.Level
	if level == 0 {
		level = 1
	}
	c.host.Progress.Warning(progress.Warning{
		Vertex: vertex, Level: level, Short: []byte(msg), Detail: opts.Detail, URL: opts.URL, Info: opts.SourceInfo, Range: opts.Range,
	})
	return nil
}

// close releases the call's containers.
func (c *Client) close() {
	c.mu.Lock()
	list := c.containers
	c.containers = nil
	c.mu.Unlock()
	for k := range list {
		k.Release(context.Background())
	}
}

// Step shows f as a step of the build, with its outcome.
func Step(sink progress.Sink, id digest.Digest, name string, f func() error) error {
	start := time.Now()
	v := progress.Vertex{Digest: id, Name: name, Started: &start}
	sink.Vertex(v)
	err := f()
	end := time.Now()
	v.Completed = &end
	if err != nil {
		v.Error = err.Error()
	}
	sink.Vertex(v)
	return err
}

func platformOf(opt sourceresolver.Opt) *ocispec.Platform {
	switch {
	case opt.ImageOpt != nil && opt.ImageOpt.Platform != nil:
		return opt.ImageOpt.Platform
	case opt.OCILayoutOpt != nil:
		return opt.OCILayoutOpt.Platform
	}
	return nil
}
