package oci

import (
	"context"
	"io"
	"log/slog"
	"strconv"
	"strings"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
	"berth/image/layer"
)

// Config says what images are read with.
type Config struct {
	Images    *image.Store
	Snapshots *snapshot.Store
	Sessions  *session.Manager
	Log       *slog.Logger // nil: nothing is logged
}

// Layouts reads images out of clients' stores. It is safe for concurrent use.
type Layouts struct{ cfg Config }

// New makes it. There is nothing to close.
func New(cfg Config) *Layouts { return &Layouts{cfg: cfg} }

// Scheme is what identifiers of operations begin with that name such images.
const Scheme = "oci-layout://"

// name is where an image is.
type name struct {
	text    string
	root    digest.Digest
	session string // the only one to ask; "": any of the build's
	store   string
}

// Source is an image as an operation of a build names it.
type Source struct {
	from     *Layouts
	name     name
	platform ocispec.Platform
	layers   int // only so many, the lowest; 0: all
}

// Source reads an operation.
func (l *Layouts) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	n, err := parse(op)
	if err != nil {
		return nil, err
	}
	src := &Source{from: l, name: n, platform: v.Platform}
	if value := op.GetAttrs()[pb.AttrOCILayoutLayerLimit]; value != "" {
		if src.layers, err = strconv.Atoi(value); err != nil || src.layers <= 0 {
			return nil, fault.New(fault.Invalid, "invalid layer limit %s", value)
		}
	}
	return src, nil
}

func parse(op *pb.SourceOp) (name, error) {
	text, ok := strings.CutPrefix(op.GetIdentifier(), Scheme)
	if !ok {
		return name{}, fault.New(fault.Invalid, "invalid OCI layout identifier %s", op.GetIdentifier())
	}
	_, d, ok := strings.Cut(text, "@")
	if !ok {
		return name{}, fault.New(fault.Invalid, "reference %q must have digest", text)
	}
	root, err := digest.Parse(d)
	if err != nil {
		return name{}, fault.Wrap(fault.Invalid, err, "invalid reference %q", text)
	}
	n := name{text: text, root: root, session: op.GetAttrs()[pb.AttrOCILayoutSessionID], store: op.GetAttrs()[pb.AttrOCILayoutStoreID]}
	return n, nil
}

// Pin reads the image's documents. Its identity is that of its chain.
func (s *Source) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	r.Status("resolve "+s.name.text, "", 0, 0, false)
	defer r.Status("resolve "+s.name.text, "", 0, 0, true)
	img, err := s.from.resolve(ctx, s.name, s.platform, r.Sessions)
	if err != nil {
		return solver.Pinned{}, err
	}
	if s.layers > 0 && s.layers < len(img.chain) {
		img.chain, img.layers = img.chain[:s.layers], img.layers[:s.layers]
	}
	platform := s.platform
	return solver.Pinned{
		Pin:      string(s.name.root),
		Material: solver.Material{Kind: "oci-layout", URI: s.name.text, Platform: &platform, Digest: s.name.root},
		Snapshot: func(context.Context) (*snapshot.Snapshot, error) { return s.from.snapshot(img, s.name, r), nil },
	}, nil
}

// ResolveSourceMetadata finds an image's configuration.
func (l *Layouts) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, group session.Group) (*sourceresolver.MetaResponse, error) {
	n, err := parse(op)
	if err != nil {
		return nil, err
	}
	var platform *ocispec.Platform
	if want := opt.OCILayoutOpt; want != nil {
		platform = want.Platform
		if want.Store.StoreID != "" {
			n.store = want.Store.StoreID
		}
		if want.Store.SessionID != "" {
			n.session = want.Store.SessionID
		}
	}
	img, err := l.resolve(ctx, n, platformOf(platform), group)
	if err != nil {
		return nil, err
	}
	return &sourceresolver.MetaResponse{Op: op, Image: &sourceresolver.ResolveImageResponse{Digest: n.root, Config: img.config}}, nil
}

func (l *Layouts) snapshot(img *found, n name, r *solver.Run) *snapshot.Snapshot {
	if len(img.chain) == 0 {
		return l.cfg.Snapshots.Scratch()
	}
	if snap, err := l.cfg.Snapshots.FromChain(img.chain); err == nil {
		return snap
	}
	return l.cfg.Snapshots.Promise(img.chain, func(ctx context.Context) error { return l.bring(ctx, img, n, r) })
}

// atOnce is how many layers are read at a time: they come over one connection, and unpacking is what takes time.
const atOnce = 3

// bring unpacks the layers that are not here, and holds all.
func (l *Layouts) bring(ctx context.Context, img *found, n name, r *solver.Run) error {
	layers := l.cfg.Images.Layers()
	hold := l.cfg.Images.Hold()
	defer hold.Release()
	staged := make([]*layer.Staged, len(img.layers))
	defer func() {
		for _, s := range staged {
			if s != nil {
				s.Drop()
			}
		}
	}()
	seen := map[digest.Digest]bool{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, d := range img.layers {
		diffID := img.chain[i]
		if seen[diffID] || layers.HasWhole(diffID) && hold.Layers(diffID) == nil {
			continue
		}
		seen[diffID] = true
		g.Go(session.Safe(func() error {
			return l.with(gctx, n, r.Sessions, func(ctx context.Context, store ctdcontent.Store) (err error) {
				staged[i], err = l.stage(ctx, store, d, diffID, r)
				return err
			})
		}))
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := failpoint.Hit("build/before-layout-commit"); err != nil {
		return err
	}
	var list []*layer.Staged
	for _, s := range staged {
		if s != nil {
			list = append(list, s)
		}
	}
	if err := layers.Commit(list...); err != nil {
		return err
	}
	for _, s := range list {
		if err := hold.AdoptLayers(s.DiffID); err != nil {
			return err
		}
	}
	return layers.Retain(img.chain...)
}

func (l *Layouts) stage(ctx context.Context, store ctdcontent.Store, d ocispec.Descriptor, diffID digest.Digest, r *solver.Run) (*layer.Staged, error) {
	at, err := store.ReaderAt(ctx, d)
	if err != nil {
		return nil, fault.In(err, "layer %s", d.Digest)
	}
	defer at.Close()
	body := &told{r: io.NewSectionReader(at, 0, min(at.Size(), d.Size)), tell: func(n int64) { r.Status("extracting "+string(d.Digest), "extract", n, d.Size, false) }}
	s, err := l.cfg.Images.Layers().Stage(ctx, body, diffID)
	if err != nil {
		return nil, fault.In(err, "layer %s", d.Digest)
	}
	r.Status("extracting "+string(d.Digest), "extract", d.Size, d.Size, true)
	return s, nil
}

// told tells how much was read, each megabyte.
type told struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

// Read reads.
func (t *told) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	was := t.n >> 20
	if t.n += int64(n); t.n>>20 != was {
		t.tell(t.n)
	}
	return n, err
}

// with gives the client's store.
func (l *Layouts) with(ctx context.Context, n name, group session.Group, f func(context.Context, ctdcontent.Store) error) error {
	call := func(ctx context.Context, _ string, c session.Caller) error {
		return f(ctx, sessioncontent.NewCallerStore(c, "oci:"+n.store))
	}
	if n.session == "" {
		return l.cfg.Sessions.Any(ctx, group, call)
	}
	return l.cfg.Sessions.Any(ctx, session.NewGroup(n.session), call)
}
