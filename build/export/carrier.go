package export

import (
	"context"
	"os"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// Carrier makes blobs of layers for whoever carries them elsewhere: remote caches.
type Carrier struct {
	e *Exporter
	o *imageOptions
}

// Carrier reads compression, force-compression and compression-level out of attributes and gives the rest. oci says which media types
// the blobs have. With registry it also tells of blobs that are not here but at a registry.
func (e *Exporter) Carrier(attrs map[string]string, oci, registry bool) (*Carrier, map[string]string, error) {
	c, rest, err := parseCompression(attrs)
	return &Carrier{e, &imageOptions{compression: c, oci: oci, archive: !registry}}, rest, err
}

// Known tells which blob a layer is, and which registries have it, without making it; no digest: nobody knows.
func (c *Carrier) Known(d digest.Digest) (ocispec.Descriptor, []image.Source) {
	b := c.e.known(d, c.o)
	return b.desc, b.from
}

// Make makes a layer's blob. The file has no name and goes when it is closed. The layer must be here, and held by the caller.
func (c *Carrier) Make(ctx context.Context, d digest.Digest) (*os.File, ocispec.Descriptor, error) {
	f, err := c.e.scratch()
	if err != nil {
		return nil, ocispec.Descriptor{}, err
	}
	desc, err := c.e.compress(ctx, d, c.e.known(d, c.o).as, c.o.oci, f)
	if err != nil {
		f.Close()
		return nil, desc, err
	}
	return f, desc, nil
}

// Scratch gives a file without a name.
func (e *Exporter) Scratch() (*os.File, error) { return e.scratch() }
