package transfer

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// rebuild uploads a layer whose blob is nowhere to be had: its tar is rebuilt bit for bit and compressed while it is
// uploaded, once and without a temporary file. What blob that gives is known at the end.
func (u *upload) rebuild(ctx context.Context, l *PushLayer) (ocispec.Descriptor, error) {
	mediaType := typeDockerLayer
	if l.Descriptor.MediaType != "" {
		mediaType = l.Descriptor.MediaType
	}
	if err := u.t.make.Acquire(ctx, 1); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer u.t.make.Release(1)
	d, err := u.p.target.PushStream(ctx, func(w io.Writer) (ocispec.Descriptor, error) {
		return u.t.cfg.Images.RecompressAs(ctx, l.DiffID, mediaType, &counted{w, u.pass(l, 0, 0)})
	})
	if err != nil {
		return d, fault.In(err, "layer %s", l.DiffID)
	}
	u.b.status(l.id(), "Pushed")
	return d, nil
}

// counted is a writer whose bytes are told.
type counted struct {
	w    io.Writer
	pass func(int)
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.pass(n)
	return n, err
}
