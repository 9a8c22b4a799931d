package remotecache

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	sessioncontent "github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/codes"

	"berth/base/fault"
	"berth/image"
)

// localPlace is a directory of the client, which shows it as a content store.
type localPlace struct {
	dir   string
	store content.Store
	root  digest.Digest // of the manifest to import: the client has looked it up in the directory's index
	shape shape
}

func (c *Caches) openLocal(ctx context.Context, attrs map[string]string, sessionID string) (place, error) {
	p := &localPlace{dir: attrs["dest"]}
	var err error
	if p.shape, err = parseShape(attrs); err != nil {
		return nil, err
	}
	if p.dir == "" {
		if p.dir = attrs["src"]; p.dir == "" {
			return nil, fault.New(fault.Invalid, "local cache importer requires src")
		}
		if p.root, err = digest.Parse(attrs["digest"]); err != nil {
			return nil, fault.New(fault.Invalid, "local cache importer requires explicit digest")
		}
	}
	if sessionID == "" {
		return nil, fault.New(fault.Invalid, "local cache exporter/importer requires session")
	}
	caller, err := c.cfg.Sessions.Get(ctx, sessionID)
	if err != nil {
		return nil, err
	}
	p.store = sessioncontent.NewCallerStore(caller, "local:"+p.dir)
	return p, nil
}

func (p *localPlace) name() string { return "local:" + p.dir }

func (p *localPlace) table(ctx context.Context) (*document, error) {
	if p.root == "" {
		return nil, fault.New(fault.NotFound, "the index of the directory is the client's business")
	}
	raw, err := p.read(ctx, ocispec.Descriptor{Digest: p.root})
	if err != nil {
		return nil, err
	}
	var m anyManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "manifest %s", p.root)
	}
	list := m.Manifests
	if m.Config != nil {
		list = append(list, *m.Config)
	}
	for _, d := range list {
		if d.MediaType == configType {
			raw, err := p.read(ctx, d)
			if err != nil {
				return nil, err
			}
			return parseDocument(raw)
		}
	}
	return nil, fault.New(fault.NotFound, "there is no cache in %s", p.root)
}

func (p *localPlace) read(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	if d.Size == 0 {
		info, err := p.store.Info(ctx, d.Digest)
		if err != nil {
			return nil, storeError(err)
		}
		d.Size = info.Size
	}
	r, err := p.get(ctx, d)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return readVerified(r, d)
}

func (p *localPlace) publish(ctx context.Context, doc *document) (map[string]string, error) {
	config, manifest, desc, mdesc, err := p.shape.documents(doc)
	if err != nil {
		return nil, err
	}
	if err := p.put(ctx, desc, bytesFrom(config)); err != nil {
		return nil, err
	}
	if err := p.put(ctx, mdesc, bytesFrom(manifest)); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(mdesc)
	return map[string]string{manifestKey: string(raw)}, err
}

func (p *localPlace) has(ctx context.Context, d ocispec.Descriptor) (bool, error) {
	_, err := p.store.Info(ctx, d.Digest)
	if err = storeError(err); fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

func (p *localPlace) put(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	r, err := open(0)
	if err != nil {
		return err
	}
	defer r.Close()
	err = content.WriteBlob(ctx, p.store, "berth-"+string(d.Digest), r, ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	if grpcerrors.Code(err) == codes.AlreadyExists || errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (p *localPlace) get(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	ra, err := p.store.ReaderAt(ctx, d)
	if err != nil {
		return nil, storeError(err)
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(ra, 0, ra.Size()), ra}, nil
}

func (p *localPlace) mount(context.Context, ocispec.Descriptor, []image.Source) bool { return false }

func (p *localPlace) source(ocispec.Descriptor) *image.Source { return nil }

// storeError gives what the client's store says its kind.
func storeError(err error) error {
	switch {
	case err == nil:
		return nil
	case errdefs.IsNotFound(err), grpcerrors.Code(err) == codes.NotFound:
		return fault.Wrap(fault.NotFound, err, "the client's directory")
	case errors.Is(err, context.Canceled):
		return err
	}
	return fault.In(err, "the client's directory")
}
