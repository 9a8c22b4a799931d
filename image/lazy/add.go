package lazy

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/image/layer"
)

// Prepared is a layer whose table of contents was read. Nothing is on disk yet.
type Prepared struct {
	m     *Manager
	layer Layer
	toc   *toc
	tree  *tree
	parts []part // of the blob, read for the table of contents
	here  bool   // the store has the layer
}

// part is a stretch of a blob.
type part struct {
	offset int64
	bytes  []byte
}

// Look finds out whether a layer can be served lazily: it reads its table of contents and changes nothing. NotImplemented: it
// cannot; on any other error, too, an ordinary pull of the layer may work.
func (m *Manager) Look(ctx context.Context, l Layer) (*Prepared, error) {
	if m.why != "" {
		return nil, fault.New(fault.NotImplemented, "layers cannot be served lazily: %s", m.why)
	}
	p, err := planOf(l.Descriptor)
	if err != nil {
		return nil, err
	}
	if err := l.DiffID.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "diff id %q", l.DiffID)
	}
	ready := &Prepared{m: m, layer: l}
	if ready.here = m.cfg.Layers.Has(l.DiffID); ready.here {
		return ready, nil
	}
	select {
	case m.looks <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-m.looks }()
	err = ready.look(ctx, p)
	return ready, fault.In(err, "look for the table of contents of layer %s", l.Descriptor.Digest)
}

func (p *Prepared) look(ctx context.Context, where plan) (err error) {
	get := func(ctx context.Context, offset, length int64) ([]byte, error) {
		for _, have := range p.parts { // the end of the blob may hold the table too
			if at := offset - have.offset; at >= 0 && at+length <= int64(len(have.bytes)) {
				return have.bytes[at : at+length], nil
			}
		}
		b, err := readRange(ctx, p.layer.From, p.layer.Descriptor, offset, length, p.m.cfg.ReadTimeout)
		if err == nil {
			p.parts = append(p.parts, part{offset, b})
		}
		return b, err
	}
	if p.toc, err = readTOC(ctx, p.layer.Descriptor, where, get); err != nil {
		return err
	}
	p.tree, err = buildTree(ctx, p.toc, p.m.cfg.Layers.OpaqueAttr())
	return err
}

// readRange reads a small range into memory, within a time.
func readRange(ctx context.Context, from Ranger, d ocispec.Descriptor, offset, length int64, patience time.Duration) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fault.New(fault.Unavailable, "the registry took more than %s", patience))
	defer cancel()
	r, err := from.BlobRange(ctx, d, offset, length)
	if err != nil {
		return nil, causeOf(ctx, err)
	}
	defer r.Close()
	b := make([]byte, length)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, causeOf(ctx, err)
	}
	return b, nil
}

// Add is Look and Commit.
func (m *Manager) Add(ctx context.Context, l Layer) (layer.Info, error) {
	p, err := m.Look(ctx, l)
	if err != nil {
		return layer.Info{}, err
	}
	return p.Commit(ctx)
}

// Commit shows the layer in the layer store before its content is here, durably, and has the content fetched in the background. The
// caller gets a hold on it, as by layer.Store.Commit. A layer that the store has is held and given as it is. On an error nothing is
// left, and an ordinary pull of the layer may work.
func (p *Prepared) Commit(ctx context.Context) (layer.Info, error) {
	d := p.layer.DiffID
	p.m.Supply(d, p.layer.From)
	if p.m.cfg.Layers.Retain(d) == nil {
		return p.m.held(d)
	}
	if p.here {
		return layer.Info{}, fault.New(fault.Conflict, "layer %s was removed meanwhile", d)
	}
	c, err := p.write()
	if err != nil {
		return layer.Info{}, fault.In(err, "add lazy layer %s", p.layer.Descriptor.Digest)
	}
	info, err := p.m.admit(c)
	if err != nil {
		c.end(true)
	}
	return info, err
}

// write makes the layer's directory, under a name that means nothing yet.
func (p *Prepared) write() (_ *content, err error) {
	dir, err := os.MkdirTemp(p.m.cfg.Root, "tmp-")
	if err != nil {
		return nil, err
	}
	l, t := p.layer, p.toc
	c := p.m.newContent(dir, record{
		Version: recordVersion, Numbering: numbering, DiffID: l.DiffID, Repository: l.Repository, Blob: l.Descriptor,
		Form: t.form, TOC: digest.FromBytes(t.json), TOCOffset: t.offset,
	})
	c.from, c.tree = l.From, p.tree
	defer func() {
		if err != nil {
			c.end(true)
		}
	}()
	if c.cache, err = openCache(dir, l.Descriptor, p.m.cfg.ReadTimeout, c.source); err != nil {
		return nil, err
	}
	for _, have := range p.parts {
		if err := c.cache.store(have.bytes, have.offset); err != nil {
			return nil, err
		}
	}
	text, err := json.Marshal(c.record)
	if err != nil {
		return nil, err
	}
	if err := atomicfile.Write(filepath.Join(dir, "toc"), t.json, 0o600); err != nil {
		return nil, err
	}
	return c, atomicfile.Write(filepath.Join(dir, "lazy.json"), append(text, '\n'), 0o600)
}
