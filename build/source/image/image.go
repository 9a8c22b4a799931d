package image

import (
	"context"
	"log/slog"
	"strconv"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
	"berth/image/transfer"
)

// Config says what images are found with.
type Config struct {
	Images    *image.Store
	Transfer  *transfer.Transfer
	Snapshots *snapshot.Store
	Sessions  *session.Manager
	Log       *slog.Logger // nil: nothing is logged
}

// Images finds images. It is safe for concurrent use.
type Images struct {
	cfg  Config
	log  *slog.Logger
	memo memo
}

// New makes it. There is nothing to close.
func New(cfg Config) *Images {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Images{cfg: cfg, log: cfg.Log}
}

// Scheme is what identifiers of operations begin with that name images.
const Scheme = "docker-image://"

// Mode says where an image is looked for.
type Mode int

// The modes.
const (
	Default Mode = iota // here, then at the registry
	Pull                // at the registry
	Local               // like Default: it is what Docker does anyway
)

// ParseMode reads a mode as clients write it: "", default, pull or local.
func ParseMode(s string) (Mode, error) {
	switch s {
	case "", pb.AttrImageResolveModeDefault:
		return Default, nil
	case pb.AttrImageResolveModeForcePull:
		return Pull, nil
	case pb.AttrImageResolveModePreferLocal:
		return Local, nil
	}
	return 0, fault.New(fault.Invalid, "invalid resolvemode: %s", s)
}

// Source is an image as an operation of a build names it.
type Source struct {
	images   *Images
	name     ref.Ref
	platform ocispec.Platform
	mode     Mode
	layers   int           // only so many, the lowest; 0: all
	checksum digest.Digest // that the root must have; "": any
}

// Source reads an operation.
func (m *Images) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	name, err := parseName(op.GetIdentifier())
	if err != nil {
		return nil, err
	}
	src := &Source{images: m, name: name, platform: v.Platform}
	for k, value := range op.GetAttrs() {
		switch k {
		case pb.AttrImageResolveMode:
			src.mode, err = ParseMode(value)
		case pb.AttrImageLayerLimit:
			src.layers, err = layerLimit(value)
		case pb.AttrImageChecksum:
			src.checksum, err = digest.Parse(value)
		}
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "attribute %s of %s", k, op.GetIdentifier())
		}
	}
	return src, nil
}

func parseName(identifier string) (ref.Ref, error) {
	text, ok := strings.CutPrefix(identifier, Scheme)
	if !ok {
		return ref.Ref{}, fault.New(fault.Invalid, "invalid image identifier %s", identifier)
	}
	name, err := ref.Parse(text)
	if err != nil {
		return ref.Ref{}, err
	}
	return name.WithDefaultTag(), nil
}

func layerLimit(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n <= 0 {
		return 0, fault.New(fault.Invalid, "invalid layer limit %s", value)
	}
	return n, nil
}

// Pin finds the image. Its identity is that of its chain, whether the layers are here or not.
func (s *Source) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	title := "resolve " + s.name.String()
	r.Status(title, "", 0, 0, false)
	defer r.Status(title, "", 0, 0, true)
	res, err := s.images.resolve(ctx, s.name, s.platform, s.mode, r.Sessions)
	if err != nil {
		return solver.Pinned{}, err
	}
	if s.checksum != "" && res.digest != s.checksum {
		return solver.Pinned{}, fault.New(fault.Invalid, "image digest %s for %s does not match expected checksum %s", res.digest, s.name, s.checksum)
	}
	chain := res.chain
	if s.layers > 0 && s.layers < len(chain) {
		chain = chain[:s.layers]
	}
	platform := s.platform
	pin := solver.Pinned{
		Pin:      string(res.digest),
		Material: solver.Material{Kind: "docker-image", URI: s.name.String(), Platform: &platform, Digest: res.digest},
		Snapshot: func(context.Context) (*snapshot.Snapshot, error) { return s.images.snapshot(res, chain, r), nil },
	}
	return pin, nil
}

// snapshot promises the layers.
func (m *Images) snapshot(res *resolved, chain []digest.Digest, r *solver.Run) *snapshot.Snapshot {
	if len(chain) == 0 {
		return m.cfg.Snapshots.Scratch()
	}
	if snap, err := m.cfg.Snapshots.FromChain(chain); err == nil {
		return snap
	}
	return m.cfg.Snapshots.Promise(chain, func(ctx context.Context) error { return m.bring(ctx, res, chain, r) })
}

// bring fetches the layers that are not here. A chain that is cut short is fetched whole, which nobody asks for but tests.
func (m *Images) bring(ctx context.Context, res *resolved, chain []digest.Digest, r *solver.Run) error {
	plan, err := res.plan, error(nil)
	if plan == nil { // it was here when it was resolved, and is gone
		if plan, err = m.replan(ctx, res, r); err != nil {
			return err
		}
	}
	hold, err := m.cfg.Transfer.BringLayers(ctx, plan, layerProgress(r, plan))
	if err != nil && ctx.Err() == nil && res.plan != nil && res.by != names(r.Sessions) {
		// Who had it resolved may have left, and taken along what opened the registry.
		again, rerr := m.replan(ctx, res, r)
		if rerr != nil {
			return err
		}
		hold, err = m.cfg.Transfer.BringLayers(ctx, again, layerProgress(r, again))
	}
	if err != nil {
		return err
	}
	defer hold.Release()
	return m.cfg.Images.Layers().Retain(chain...)
}

// replan asks the registry again, for the same image.
func (m *Images) replan(ctx context.Context, res *resolved, r *solver.Run) (*transfer.PullImage, error) {
	again, err := m.remote(ctx, res.name, res.platform, r.Sessions)
	if err != nil {
		return nil, err
	}
	if again.plan == nil || !sameChain(again.chain, res.chain) {
		return nil, fault.New(fault.Unavailable, "image %s was removed or replaced during the build", res.name.Familiar())
	}
	return again.plan, nil
}

// layerProgress tells how layers come, in BuildKit's words: by digest, downloading and then extracting.
func layerProgress(r *solver.Run, plan *transfer.PullImage) func(transfer.Progress) {
	short := map[string]transfer.PullLayer{}
	for _, l := range plan.Layers {
		short[l.Digest.Encoded()[:12]] = l
	}
	return func(p transfer.Progress) {
		l, ok := short[p.ID]
		if !ok {
			return
		}
		name := string(l.Digest)
		switch p.Status {
		case "Downloading":
			r.Status(name, "downloading", p.Current, l.Size, false)
		case "Download complete":
			r.Status(name, "downloading", l.Size, l.Size, true)
		case "Extracting":
			r.Status("extracting "+name, "extract", 0, 0, false)
		case "Pull complete":
			r.Status("extracting "+name, "extract", 0, 0, true)
		}
	}
}

// ResolveSourceMetadata finds an image and its configuration without its layers.
func (m *Images) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, group session.Group) (*sourceresolver.MetaResponse, error) {
	name, err := parseName(op.GetIdentifier())
	if err != nil {
		return nil, err
	}
	want := opt.ImageOpt
	if want == nil {
		want = &sourceresolver.ResolveImageOpt{}
	}
	text := want.ResolveMode
	if text == "" {
		text = op.GetAttrs()[pb.AttrImageResolveMode]
	}
	mode, err := ParseMode(text)
	if err != nil {
		return nil, err
	}
	res, err := m.resolve(ctx, name, platformOf(want.Platform), mode, group)
	if err != nil {
		return nil, err
	}
	answer := &sourceresolver.ResolveImageResponse{Digest: res.digest, Config: res.config}
	if want.NoConfig {
		answer.Config = nil
	}
	if want.AttestationChain || len(want.ResolveAttestations) > 0 {
		if answer.AttestationChain, err = m.attestations(ctx, res, want, group); err != nil {
			return nil, err
		}
	}
	return &sourceresolver.MetaResponse{Op: op, Image: answer}, nil
}
