package export

import (
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/klauspost/compress/gzip"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	blobstore "berth/image/blob"
)

// An estargz blob is a gzip stream in pieces that can be read one by one, with a list of them at the end. The list stands behind the end of the
// tar, so nothing of it is unpacked, and is part of what the diff id is the digest of: the layer becomes another one.

// stargz makes the layers of a platform estargz blobs, those that a registry has excepted where none is forced. The blobs are kept: they
// cannot be made of the unpacked layers again.
func (e *Exporter) stargz(ctx context.Context, m *made, p *part) error {
	if m.o.compression.kind != estargzip {
		return nil
	}
	if err := e.here(ctx, p); err != nil {
		return err
	}
	p.layers = make([]blob, len(p.chain))
	chain := append([]digest.Digest{}, p.chain...)
	return m.run.step("converting layers to estargz", func() error {
		for i, d := range chain {
			if !m.o.compression.force {
				if b := e.known(d, m.o); b.desc.Digest != "" && len(b.from) > 0 {
					m.keep(&b)
					p.layers[i] = b
					continue
				}
			}
			b, err := e.stargzLayer(ctx, m, d)
			if err != nil {
				return fault.In(err, "layer %s", d)
			}
			p.layers[i], chain[i] = b, b.diffID
		}
		p.chain = chain
		return nil
	})
}

// stargzLayer makes one layer an estargz blob, in the blob store and, where the image is to be in the store, unpacked.
func (e *Exporter) stargzLayer(ctx context.Context, m *made, d digest.Digest) (b blob, err error) {
	out, err := e.cfg.Images.Blobs().Writer(ctx, blobstore.Want{})
	if err != nil {
		return b, err
	}
	defer out.Abort()
	level := m.o.compression.level
	if level == levelDefault {
		level = gzip.BestCompression // as its users expect
	}
	n := &counter{w: out}
	zw := estargz.NewWriterLevel(n, level)
	r, pw := io.Pipe()
	go func() { pw.CloseWithError(e.cfg.Images.Layers().Tar(ctx, d, pw)) }()
	err = zw.AppendTarLossLess(r)
	r.CloseWithError(errors.Join(err, io.ErrClosedPipe))
	if err != nil {
		return b, err
	}
	toc, err := zw.Close()
	if err != nil {
		return b, err
	}
	got, err := out.Commit()
	if err != nil {
		return b, err
	}
	if err := m.hold.AdoptBlob(got); err != nil {
		return b, err
	}
	b = blob{diffID: digest.Digest(zw.DiffID()), kept: true, as: compression{kind: gzipped, level: levelDefault}, desc: ocispec.Descriptor{MediaType: mediaTypeOf(gzipped, m.o.oci), Digest: got, Size: n.n}}
	size, err := e.unpackStargz(ctx, m, b)
	if err != nil {
		return b, err
	}
	b.desc.Annotations = map[string]string{estargz.TOCJSONDigestAnnotation: string(toc), estargz.StoreUncompressedSizeAnnotation: strconv.FormatInt(size, 10)}
	return b, nil
}

// unpackStargz reads a blob back: into the layer store where the image will need it, and to know its size.
func (e *Exporter) unpackStargz(ctx context.Context, m *made, b blob) (int64, error) {
	f, err := e.cfg.Images.Blobs().Open(b.desc.Digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	zr, err := gzip.NewReader(f)
	if err != nil {
		return 0, err
	}
	n := &counter{w: io.Discard}
	if !m.o.store {
		_, err := io.Copy(n, zr)
		return n.n, err
	}
	st, err := e.cfg.Images.Layers().Stage(ctx, io.TeeReader(zr, n), b.diffID)
	if err != nil {
		return 0, err
	}
	defer st.Drop()
	if err := e.cfg.Images.Layers().Commit(st); err != nil {
		return 0, err
	}
	return n.n, m.hold.AdoptLayers(b.diffID)
}
