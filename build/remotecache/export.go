package remotecache

import (
	"context"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/export"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image"
)

// Ref is a result with the steps that led to it. *solver.Ref is one.
type Ref interface {
	Result(ctx context.Context) (*snapshot.Snapshot, error)
	Walk(f func(solver.Outcome) error) error
}

// blobs are what a place holds.
type blobs interface {
	has(ctx context.Context, d ocispec.Descriptor) (bool, error)
	// put brings a blob there. open gives the content from an offset, as often as it is asked.
	put(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) error
	// get opens a blob. The bytes are not verified.
	get(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error)
	// mount has the place take a blob from where it lies too; false: it does not.
	mount(ctx context.Context, d ocispec.Descriptor, from []image.Source) bool
	// source is where a layer's blob can be had again, or nil.
	source(d ocispec.Descriptor) *image.Source
}

// Target is a cache that a build is to be exported to, whose attributes were understood.
type Target struct {
	c       *Caches
	req     Request
	words   words
	attrs   map[string]string
	carrier *export.Carrier
}

// Target reads what is asked for, before anything is built. Errors are Invalid.
func (c *Caches) Target(req Request) (*Target, error) {
	if err := known(req.Type); err != nil {
		return nil, err
	}
	t := &Target{c: c, req: req}
	var err error
	if t.words, t.attrs, err = parseWords(req.Attrs); err != nil {
		return nil, err
	}
	oci := t.attrs["oci-mediatypes"] != "false"
	if t.carrier, t.attrs, err = c.cfg.Export.Carrier(t.attrs, oci, req.Type == "registry"); err != nil {
		return nil, err
	}
	return t, c.checkPlace(req.Type, t.attrs)
}

// Inline reports whether the cache goes into images instead of a place of its own: see InlineCache.
func (t *Target) Inline() bool { return t.req.Type == "inline" }

// IgnoreError reports whether the build has succeeded when this export fails.
func (t *Target) IgnoreError() bool { return t.words.ignoreError }

// Name is what progress calls the export.
func (t *Target) Name() string {
	switch t.req.Type {
	case "registry":
		return "exporting cache to registry"
	case "local":
		return "exporting cache to client directory"
	case "s3":
		return "exporting cache to Amazon S3"
	}
	return "exporting inline cache"
}

// Export brings to the place what the results' steps gave, and tells the client what it has to know.
func (t *Target) Export(ctx context.Context, refs []Ref, run Run) (map[string]string, error) {
	p, err := t.c.open(ctx, t.req, t.attrs, run.Session)
	if err != nil {
		return nil, err
	}
	x := &exporting{t: t, p: p, run: run, sent: map[digest.Digest]ocispec.Descriptor{}, made: map[digest.Digest]time.Time{}, below: map[digest.Digest]digest.Digest{}}
	if err := x.collect(ctx, refs); err != nil {
		return nil, err
	}
	if len(x.b.t.Records) == 0 {
		return nil, run.step("skipping cache export for empty result", func() error { return nil })
	}
	if err := x.before(ctx); err != nil {
		return nil, err
	}
	if err := run.step("preparing build cache for export", func() error { return x.layers(ctx) }); err != nil {
		return nil, err
	}
	if t.words.mounts != nil {
		if err := run.step("exporting cache mounts", func() error { return x.mounts(ctx, refs) }); err != nil {
			return nil, err
		}
	}
	var resp map[string]string
	err = run.step("writing cache manifest", func() (err error) {
		resp, err = p.publish(ctx, x.document())
		return err
	})
	return resp, fault.In(err, "export cache to %s", p.name())
}

// exporting is one export under way.
type exporting struct {
	t   *Target
	p   place
	run Run
	b   *builder

	wanted []digest.Digest                 // layers whose blobs are to be there
	below  map[digest.Digest]digest.Digest // the layer under each, in the chain that it was first seen in
	made   map[digest.Digest]time.Time     // when layers were made
	old    map[digest.Digest]layer         // blobs of the table that lies there, by diff id
	olds   []mount                         // and its cache mounts

	mu   sync.Mutex
	sent map[digest.Digest]ocispec.Descriptor // blobs that are there, by diff id
	kept []mount
}

// collect lists the records of all steps, and which layers are to travel: with mode=max those of every step, else those of the results.
func (x *exporting) collect(ctx context.Context, refs []Ref) error {
	x.b = newBuilder()
	seen := map[digest.Digest]bool{}
	want := func(chain []digest.Digest) {
		for i, d := range chain {
			if !seen[d] {
				seen[d] = true
				x.wanted = append(x.wanted, d)
				if i > 0 {
					x.below[d] = chain[i-1]
				}
			}
		}
	}
	for _, r := range refs {
		if r == nil {
			continue
		}
		err := walk(r, func(o solver.Outcome) {
			for _, c := range o.Chains {
				if x.t.words.max {
					want(c)
				}
				if n := len(c); n > 0 && x.made[c[n-1]].IsZero() {
					x.made[c[n-1]] = o.Created
				}
			}
			x.b.record(record{Keys: o.Keys, Name: o.Vertex.Name, Created: o.Created}, o.Chains)
		})
		if err != nil {
			return err
		}
		snap, err := r.Result(ctx)
		if err != nil {
			return err
		}
		if snap != nil && snap.Local() == nil {
			want(snap.Chain())
		}
	}
	return nil
}

// walk tells the outcomes that can be told: those with keys.
func walk(r Ref, f func(solver.Outcome)) error {
	return r.Walk(func(o solver.Outcome) error {
		if len(o.Keys) == 0 || o.Vertex == nil || o.Vertex.ExportCache != nil && !*o.Vertex.ExportCache {
			return nil
		}
		f(o)
		return nil
	})
}

// before looks at what lies there already: blobs of steps whose layers are not here stay. A place that does not answer now is not taken for
// an empty one: what lies there would be written over. Who may not read there may still write: some registries let nobody read a repository
// that is yet to be made, and some people are given the right to push alone.
func (x *exporting) before(ctx context.Context) error {
	x.old = map[digest.Digest]layer{}
	doc, err := x.p.table(ctx)
	switch {
	case fault.Is(err, fault.NotFound):
		return nil
	case fault.Is(err, fault.Invalid) && ctx.Err() == nil:
		x.t.c.log.Warn("the build cache that lies there makes no sense and is written anew", "cache", x.p.name(), "err", err)
		return nil
	case fault.Is(err, fault.Unauthorized) && ctx.Err() == nil:
		x.t.c.log.Warn("the build cache that may lie there cannot be read and is written anew", "cache", x.p.name(), "err", err)
		return nil
	case err != nil:
		return fault.In(err, "look at the cache that lies in %s", x.p.name())
	}
	for _, l := range doc.Layers {
		x.old[l.Annotations.DiffID] = l
	}
	x.olds = doc.Berth.Mounts
	return nil
}

// uploads are the blobs that go up at a time.
const uploads = 4

// layers brings the blobs there.
func (x *exporting) layers(ctx context.Context) error {
	hold := x.t.c.cfg.Images.Hold()
	defer hold.Release()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	for _, d := range x.wanted {
		here := hold.Layers(d) == nil
		g.Go(session.Safe(func() error { return fault.In(x.layer(ctx, d, here), "layer %s", d) }))
	}
	return g.Wait()
}

// layer brings one layer's blob there, by the cheapest way.
func (x *exporting) layer(ctx context.Context, d digest.Digest, here bool) error {
	desc, from := x.t.carrier.Known(d)
	if l, ok := x.old[d]; ok && (!here || desc.Digest == l.Blob) {
		desc = ocispec.Descriptor{MediaType: l.Annotations.MediaType, Digest: l.Blob, Size: l.Annotations.Size}
	}
	if desc.Digest != "" {
		there, err := x.p.has(ctx, desc)
		if err != nil {
			return err
		}
		if there || x.p.mount(ctx, desc, from) {
			x.note(d, desc)
			return nil
		}
	}
	if !here {
		return nil // its record tells what the step gave, and that the data is not to be had
	}
	f, desc, err := x.t.carrier.Make(ctx, d)
	if err != nil {
		return err
	}
	defer f.Close()
	there, err := x.p.has(ctx, desc)
	if err == nil && !there {
		err = x.run.step("writing layer "+string(desc.Digest), func() error { return x.p.put(ctx, desc, section(f, desc.Size)) })
	}
	if err != nil {
		return err
	}
	x.note(d, desc)
	return nil
}

// section gives a file from an offset, as often as it is wanted.
func section(f *os.File, size int64) func(offset int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(f, offset, size-offset)), nil
	}
}

// note remembers that a blob is there, and that the layer can be had again from there.
func (x *exporting) note(d digest.Digest, desc ocispec.Descriptor) {
	x.mu.Lock()
	x.sent[d] = desc
	x.mu.Unlock()
	if s := x.p.source(desc); s != nil {
		if err := x.t.c.cfg.Images.AddSource(d, *s); err != nil {
			x.t.c.log.Warn("where a layer went is not recorded", "layer", d, "err", err)
		}
	}
}

// document is the table with the blobs that are there, in an order that does not depend on which came first.
func (x *exporting) document() *document {
	doc := &document{Records: []struct{}{}, Berth: &x.b.t, Layers: []layer{}}
	for _, d := range x.wanted {
		desc, ok := x.sent[d]
		if !ok {
			continue
		}
		parent := -1
		if below, ok := x.below[d]; ok {
			parent = slices.IndexFunc(doc.Layers, func(l layer) bool { return l.Annotations.DiffID == below })
		}
		doc.Layers = append(doc.Layers, layer{Blob: desc.Digest, Parent: parent, Annotations: &layerAnnotations{
			MediaType: desc.MediaType, DiffID: d, Size: desc.Size, CreatedAt: x.made[d],
		}})
	}
	doc.Berth.Mounts = x.kept
	return doc
}

// descriptors are the blobs of a document as a manifest names them, each once.
func (d *document) descriptors() (list []ocispec.Descriptor) {
	add := func(desc ocispec.Descriptor) {
		if !slices.ContainsFunc(list, func(o ocispec.Descriptor) bool { return o.Digest == desc.Digest }) {
			list = append(list, desc)
		}
	}
	for _, l := range d.Layers {
		add(ocispec.Descriptor{MediaType: l.Annotations.MediaType, Digest: l.Blob, Size: l.Annotations.Size, Annotations: map[string]string{
			"containerd.io/uncompressed": string(l.Annotations.DiffID), "buildkit/createdat": l.Annotations.CreatedAt.UTC().Format(time.RFC3339Nano),
		}})
	}
	for _, m := range d.Berth.Mounts {
		add(m.Blob)
	}
	return list
}

// step tells the beginning and the end of a part of the export.
func (r *Run) step(id string, f func() error) error {
	return progress.Part(r.Status, id, f)
}
