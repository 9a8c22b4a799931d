package export

import (
	"context"
	"io"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/session"
	"berth/image"
	blobstore "berth/image/blob"
)

// blob is a layer as it travels.
type blob struct {
	diffID digest.Digest
	desc   ocispec.Descriptor // no digest: not known yet
	from   []image.Source     // registries that have it, the latest first
	kept   bool               // it is in the blob store, held by the export
	as     compression        // how it is made anew: as its registry has it, where nothing else is forced
}

func descriptors(list []blob) []ocispec.Descriptor {
	out := make([]ocispec.Descriptor, 0, len(list))
	for _, b := range list {
		out = append(out, b.desc)
	}
	return out
}

// blobs finds which blobs the layers of all platforms are. Those that nobody knows yet are made to learn their digests; with
// lookOnly they stay unknown, because whoever asks is about to make them anyway.
func (e *Exporter) blobs(ctx context.Context, m *made, lookOnly bool) error {
	return m.run.step("exporting layers", func() error {
		g, ctx := errgroup.WithContext(ctx)
		seen := map[digest.Digest]func() blob{}
		var fill []func()
		for _, p := range m.parts {
			if p.layers != nil {
				continue // made already
			}
			p.layers = make([]blob, len(p.chain))
			for i, d := range p.chain {
				if seen[d] == nil {
					b := e.known(d, m.o)
					m.keep(&b)
					seen[d] = func() blob { return b }
					if b.desc.Digest == "" && !lookOnly {
						g.Go(session.Safe(func() error { return e.measure(ctx, m, &b) }))
					}
				}
				get := seen[d]
				fill = append(fill, func() { p.layers[i] = get() })
			}
		}
		err := g.Wait()
		for _, f := range fill {
			f()
		}
		return err
	})
}

// known looks up which blob a layer is: one that a registry has, unless another compression is forced, else what it was found
// to become.
func (e *Exporter) known(d digest.Digest, o *imageOptions) blob {
	b := blob{diffID: d, as: o.compression}
	list := e.cfg.Images.Sources(d)
	for i := len(list) - 1; i >= 0; i-- {
		s := list[i]
		kind := kindOf(s.Descriptor.MediaType)
		if s.Claimed || foreign(s.Descriptor.MediaType) || o.compression.force && kind != o.compression.kind {
			continue // nobody here has compared that blob with the layer, or it is not what is wanted
		}
		if b.desc.Digest == "" && !o.compression.force {
			b.as = compression{kind: kind, level: levelDefault}
		}
		if !o.travels() && !e.cfg.Images.Blobs().Has(s.Descriptor.Digest) {
			continue // the bytes are wanted here, and making them takes no network
		}
		if b.desc.Digest == "" {
			b.desc = ocispec.Descriptor{MediaType: mediaTypeOf(kind, o.oci), Digest: s.Descriptor.Digest, Size: s.Descriptor.Size}
		}
		if s.Descriptor.Digest == b.desc.Digest {
			b.from = append(b.from, s)
		}
	}
	if b.desc.Digest == "" && b.as.ours() {
		if f, ok := e.memory.blob(d, b.as.key()); ok {
			b.desc = ocispec.Descriptor{MediaType: b.as.mediaType(o.oci), Digest: f.Digest, Size: f.Size}
		}
	}
	return b
}

// keep has a blob that is in the blob store stay there until the export is over.
func (m *made) keep(b *blob) { b.kept = b.desc.Digest != "" && m.hold.Blob(b.desc.Digest) == nil }

// travels reports whether blobs stay where they are until a registry gets them from there.
func (o *imageOptions) travels() bool { return !o.archive }

// foreign reports layers that may not be passed on.
func foreign(mediaType string) bool {
	return strings.Contains(mediaType, "nondistributable") || strings.Contains(mediaType, ".foreign.")
}

// measure makes a layer's blob to learn its digest. A blob that could not be made again is kept.
func (e *Exporter) measure(ctx context.Context, m *made, b *blob) error {
	c := b.as
	if c.ours() {
		d, err := e.compress(ctx, b.diffID, c, m.o.oci, io.Discard)
		b.desc = d
		return err
	}
	w, err := e.cfg.Images.Blobs().Writer(ctx, blobstore.Want{})
	if err != nil {
		return err
	}
	defer w.Abort()
	d, err := e.compress(ctx, b.diffID, c, m.o.oci, w)
	if err != nil {
		return err
	}
	got, err := w.Commit()
	if err != nil {
		return err
	}
	if err := m.hold.AdoptBlob(got); err != nil {
		return err
	}
	if got != d.Digest {
		return fault.New(fault.Internal, "layer %s was written as %s and is %s", b.diffID, d.Digest, got)
	}
	b.desc, b.kept = d, true
	return nil
}

// compress writes a layer's blob: its tar, rebuilt and verified, compressed. What it came to is remembered.
func (e *Exporter) compress(ctx context.Context, d digest.Digest, c compression, oci bool, w io.Writer) (ocispec.Descriptor, error) {
	select {
	case e.slots <- struct{}{}:
	case <-ctx.Done():
		return ocispec.Descriptor{}, ctx.Err()
	}
	defer func() { <-e.slots }()
	h := digest.SHA256.Digester()
	n := &counter{w: io.MultiWriter(h.Hash(), w)}
	zw, err := c.newWriter(n)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := e.cfg.Images.Layers().Tar(ctx, d, zw); err != nil {
		zw.Close()
		return ocispec.Descriptor{}, fault.In(err, "layer %s", d)
	}
	if err := zw.Close(); err != nil {
		return ocispec.Descriptor{}, fault.In(err, "layer %s", d)
	}
	e.memory.setBlob(d, c.key(), blobFact{Digest: h.Digest(), Size: n.n})
	return ocispec.Descriptor{MediaType: c.mediaType(oci), Digest: h.Digest(), Size: n.n}, nil
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
