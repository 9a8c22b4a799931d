package lazy_test

import (
	"bytes"
	"context"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/containerd/stargz-snapshotter/estargz/zstdchunked"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image/layer"
	"berth/image/layer/layertest"
	"berth/image/lazy"
)

// The layer store's contract holds for lazy layers as well: those that stay lazy, those that become whole while
// they are used, and after each restart.
func TestSuite(t *testing.T) {
	needLazy(t)
	for name, cfg := range map[string]lazy.Config{"views": {FillDelay: time.Hour}, "filled": {}} {
		t.Run(name, func(t *testing.T) {
			origins := &shelf{blobs: map[digest.Digest]*origin{}}
			keepers := map[string]*parker{}
			layertest.Run(t, func(t *testing.T, root string) layertest.Store {
				t.Cleanup(func() { forceUnmount(root) })
				layers, err := layer.Open(layer.Config{Root: root})
				if err != nil {
					t.Fatal(err)
				}
				if keepers[root] == nil { // the keeper outlives the store
					keepers[root] = newParker(t)
				}
				keeper := keepers[root]
				c := cfg
				c.Root, c.Layers, c.Keeper, c.Open = filepath.Join(root, "lazy"), layers, keeper, origins.open
				m, err := lazy.Open(ctx, c)
				if err != nil {
					t.Fatal(err)
				}
				return &lazyStore{Store: layers, m: m, origins: origins}
			})
		})
	}
}

// lazyStore adds layers lazily where a pull could: when the blob can be packed and its diff id is right.
type lazyStore struct {
	*layer.Store
	m       *lazy.Manager
	origins *shelf
}

func (s *lazyStore) Close() error {
	s.m.Close()
	return s.Store.Close()
}

func (s *lazyStore) Add(ctx context.Context, r io.Reader, want digest.Digest) (layer.Info, error) {
	raw, err := io.ReadAll(r)
	if err != nil {
		return layer.Info{}, err
	}
	p, ok := packRaw(raw)
	if !ok || want != "" && want != p.diff {
		return s.Store.Add(ctx, bytes.NewReader(raw), want)
	}
	o := s.origins.put(p)
	info, err := s.m.Add(ctx, lazy.Layer{Descriptor: p.desc, DiffID: p.diff, From: o})
	if err != nil {
		return s.Store.Add(ctx, bytes.NewReader(raw), want)
	}
	return info, nil
}

// packRaw packs a tar without changing it.
func packRaw(raw []byte) (p packed, ok bool) {
	var b bytes.Buffer
	meta := map[string]string{}
	w := estargz.NewWriterWithCompressor(&b, &zstdchunked.Compressor{CompressionLevel: zstd.SpeedFastest, Metadata: meta})
	if err := w.AppendTarLossLess(bytes.NewReader(raw)); err != nil {
		return p, false
	}
	if _, err := w.Close(); err != nil {
		return p, false
	}
	p = packed{blob: b.Bytes(), diff: digest.Digest(w.DiffID())}
	p.desc = ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerZstd, Digest: digest.FromBytes(p.blob), Size: int64(len(p.blob)), Annotations: meta}
	return p, p.diff == digest.FromBytes(raw)
}

// shelf has the blobs of a test, for stores that are opened again.
type shelf struct {
	blobs map[digest.Digest]*origin
	mu    sync.Mutex
}

func (s *shelf) put(p packed) *origin {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.blobs[p.desc.Digest] == nil {
		s.blobs[p.desc.Digest] = newOrigin(p.blob)
	}
	return s.blobs[p.desc.Digest]
}

func (s *shelf) open(ctx context.Context, repository string, d ocispec.Descriptor) (lazy.Ranger, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blobs[d.Digest], nil
}
