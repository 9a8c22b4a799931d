package export

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/solver/result"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
)

// made is an image in the making: what comes of a result, for one output.
type made struct {
	o     *imageOptions
	run   *Run
	index bool    // there are several platforms, or attestations
	parts []*part // in the order of the platforms
	hold  *image.Hold
	names []ref.Ref

	root *image.Attached // the document that stands for all; nil: the image has no manifest yet
}

// part is the image of one platform.
type part struct {
	platform exptypes.Platform
	meta     map[string][]byte // the result's
	ref      Ref
	snap     *snapshot.Snapshot // solid, and ours; nil: the empty tree
	built    []digest.Digest    // the chain as the build gave it
	chain    []digest.Digest    // as the image has it
	layers   []blob             // of the chain, when blobs are wanted
	squashed bool               // into one layer above the base's
	unmoved  int                // layers at the bottom whose times stay: those above were rewritten, where that is wanted
	epoch    *time.Time
	attested []Attestation

	config   []byte
	manifest *image.Attached
	attest   *attestation // the manifest that attests this one, or nil
}

// id is the image's id.
func (p *part) id() digest.Digest { return digest.FromBytes(p.config) }

// exportImage makes the image and brings it where the output says.
func (o *Output) exportImage(ctx context.Context, res *Result, run *Run) (*Done, error) {
	o.e.tidied.Do(o.e.forget)
	m, err := o.compose(ctx, res, run)
	if err != nil {
		return nil, err
	}
	defer m.close()
	switch o.req.Type {
	case OCI, Docker:
		return o.e.toArchive(ctx, o, m)
	}
	return o.e.toStore(ctx, m)
}

// compose evaluates a result and finds out which layers the images of its platforms have.
func (o *Output) compose(ctx context.Context, res *Result, run *Run) (_ *made, err error) {
	meta := maps.Clone(res.Metadata)
	if meta == nil {
		meta = map[string][]byte{}
	}
	maps.Copy(meta, o.image.meta)
	if _, ok := meta[exptypes.ExporterPlatformsKey]; len(res.Refs) > 0 && !ok {
		return nil, fault.New(fault.Invalid, "unable to export multiple refs, missing platforms mapping")
	}
	ps, err := exptypes.ParsePlatforms(meta)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "platforms of the result")
	}
	if len(res.Refs) == 0 && len(ps.Platforms) > 1 {
		return nil, fault.New(fault.Invalid, "cannot export multiple platforms without multi-platform enabled")
	}
	opts := *o.image
	m := &made{o: &opts, run: run, index: len(res.Refs) > 0, hold: o.e.cfg.Images.Hold()}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	for _, p := range ps.Platforms {
		ref, ok := res.FindRef(p.ID)
		if !ok {
			return nil, fault.New(fault.Invalid, "failed to find ref for ID %s", p.ID)
		}
		part := &part{platform: p, meta: meta, ref: ref}
		if part.epoch, err = o.image.epoch.of(meta, p.ID); err != nil {
			return nil, err
		}
		part.attested = wanted(res.Attestations[p.ID], o.image.inline)
		m.index = m.index || len(part.attested) > 0
		m.parts = append(m.parts, part)
	}
	if o.req.Type == Docker && len(res.Refs) > 0 {
		return nil, fault.New(fault.Invalid, "docker exporter does not currently support exporting manifest lists")
	}
	if opts.annotations, err = opts.annotations.fromMeta(meta); err != nil {
		return nil, err
	}
	if err := opts.annotations.check(opts.oci, m.index, func(id string) bool { _, ok := res.FindRef(id); return ok }); err != nil {
		return nil, err
	}
	if err := m.name(meta); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range m.parts {
		g.Go(session.Safe(func() error { return o.e.evaluate(ctx, m, p) }))
	}
	return m, g.Wait()
}

// wanted drops the attestations that are only for images which stay images, where the output is something else.
func wanted(list []Attestation, inline bool) (out []Attestation) {
	for _, a := range list {
		if inline || string(a.Metadata[result.AttestationInlineOnlyKey]) != "true" {
			out = append(out, a)
		}
	}
	return out
}

// name finds the names of the image.
func (m *made) name(meta map[string][]byte) (err error) {
	m.names = m.o.names
	if v, ok := meta[exptypes.ExporterImageNameKey]; ok && m.o.namesFromMeta {
		m.names, err = parseNames(string(v))
	}
	return err
}

func (m *made) close() {
	m.hold.Release()
	for _, p := range m.parts {
		if p.snap != nil {
			p.snap.Release()
		}
	}
}

// evaluate finds out a platform's layers: those of its tree, squashed and with their times rewritten where that is wanted.
func (e *Exporter) evaluate(ctx context.Context, m *made, p *part) error {
	if p.ref == nil {
		return nil
	}
	snap, err := p.ref.Result(ctx)
	if err != nil {
		return err
	}
	if snap == nil {
		return nil
	}
	if p.snap, err = snap.Solid(ctx); err != nil {
		return err
	}
	p.built = p.snap.Chain()
	p.chain = p.built
	if m.o.squash {
		if err := e.squash(ctx, m, p); err != nil {
			return err
		}
	}
	if m.o.rewrite {
		if err := e.rewrite(ctx, m, p); err != nil {
			return err
		}
	}
	return e.stargz(ctx, m, p)
}

// ready has the layers here, and durable: an image is going to name them.
func (m *made) ready(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, p := range m.parts {
		if p.snap == nil {
			continue
		}
		g.Go(session.Safe(func() error {
			if err := p.snap.Ready(ctx); err != nil {
				return err
			}
			return p.snap.Durable(ctx)
		}))
	}
	return g.Wait()
}

// configure completes the configuration of each platform. Blobs are known by now where there is to be a manifest.
func (e *Exporter) configure(ctx context.Context, m *made) error {
	for _, p := range m.parts {
		in := configInput{
			config: exptypes.ParseKey(p.meta, exptypes.ExporterImageConfigKey, &p.platform),
			base:   exptypes.ParseKey(p.meta, exptypes.ExporterImageBaseConfigKey, &p.platform),
			chain:  p.chain, made: e.madeLayers(p), epoch: p.epoch, squashed: p.squashed,
		}
		if m.run.InlineCache != nil {
			var err error
			if in.cache, err = m.run.InlineCache(ctx, p.platform.ID, p.ref, p.chain, descriptors(p.layers)); err != nil {
				return fault.In(err, "inline cache")
			}
		}
		var err error
		if p.config, err = completeConfig(in); err != nil {
			return err
		}
	}
	return nil
}

// madeLayers finds out when and by what a platform's layers were made.
func (e *Exporter) madeLayers(p *part) []madeLayer {
	list := make([]madeLayer, len(p.chain))
	steps := p.steps()
	for i, d := range p.chain {
		if !p.squashed && i < len(p.built) { // times rewritten or not, the step is the same
			list[i] = steps[chainKey(p.built[:i+1])]
		}
		list[i].find = func() time.Time { return e.memory.first(d) }
		if list[i].by == "" {
			list[i].by = "created by buildkit" // seen only where a frontend gives no history
		}
	}
	return list
}

// steps are the steps that made a platform's layers, by the chains that they gave.
func (p *part) steps() map[string]madeLayer {
	w, ok := p.ref.(interface {
		Walk(f func(solver.Outcome) error) error
	})
	out := map[string]madeLayer{}
	if !ok {
		return out
	}
	_ = w.Walk(func(o solver.Outcome) error {
		for _, chain := range o.Chains {
			if o.Source == nil && len(chain) > 0 {
				out[chainKey(chain)] = madeLayer{created: o.Created, by: o.Vertex.Name}
			}
		}
		return nil
	})
	return out
}

func chainKey(chain []digest.Digest) string {
	var b strings.Builder
	for _, d := range chain {
		b.WriteString(string(d))
	}
	return b.String()
}

// documented reports whether the image needs a manifest now: because there is more to say than an image in the store can.
func (m *made) documented() bool {
	o := m.o
	return m.index || o.push || !o.store || o.whole || o.compression.set || o.compression.force || o.ociSet || o.canonical || o.danglingName(m.names) != "" ||
		o.annotations.any(exptypes.AnnotationManifest, exptypes.AnnotationManifestDescriptor)
}

// danglingName is the name to which the digest of the root is added where the image would have no name, or also then.
func (o *imageOptions) danglingName(names []ref.Ref) string {
	if o.danglingOnly && len(names) > 0 {
		return ""
	}
	return o.dangling
}

// response says what was made, in BuildKit's words.
func (m *made) response(names []ref.Ref) (*Done, error) {
	done := &Done{Response: map[string]string{}}
	desc := ocispec.Descriptor{MediaType: configType(m.o.oci), Digest: m.parts[0].id(), Size: int64(len(m.parts[0].config))}
	if m.root != nil {
		desc = m.rootDescriptor()
	} else {
		desc.Platform = &m.parts[0].platform.Platform
	}
	if !m.index {
		done.Response[exptypes.ExporterImageConfigDigestKey] = string(m.parts[0].id())
	}
	raw, err := json.Marshal(desc)
	if err != nil {
		return nil, err
	}
	done.Descriptor = &desc
	done.Response[exptypes.ExporterImageDigestKey] = string(desc.Digest)
	done.Response[exptypes.ExporterImageDescriptorKey] = base64.StdEncoding.EncodeToString(raw)
	if len(names) > 0 {
		var list []string
		for _, n := range names {
			list = append(list, n.String())
		}
		done.Response[exptypes.ExporterImageNameKey] = strings.Join(slices.Compact(list), ",")
	}
	return done, nil
}

func configType(oci bool) string {
	if oci {
		return ocispec.MediaTypeImageConfig
	}
	return dockerConfig
}
