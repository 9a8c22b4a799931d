package export

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
)

// toStore makes an image in the engine's store, and pushes it where that is wanted.
func (e *Exporter) toStore(ctx context.Context, m *made) (*Done, error) {
	if m.o.push && len(m.names) == 0 && m.o.danglingName(nil) == "" {
		return nil, fault.New(fault.Invalid, "tag is needed when pushing to registry")
	}
	if err := m.ready(ctx); err != nil {
		return nil, err
	}
	var up *push
	switch {
	case m.o.push:
		up = e.newPush(m)
		if err := up.blobs(ctx); err != nil { // on the way they become known
			return nil, err
		}
	case m.documented():
		if err := e.blobs(ctx, m, false); err != nil {
			return nil, err
		}
	default:
		if err := m.run.step("exporting layers", func() error { return nil }); err != nil {
			return nil, err
		}
	}
	if err := e.configure(ctx, m); err != nil {
		return nil, err
	}
	if m.documented() {
		if err := e.attest(ctx, m); err != nil {
			return nil, err
		}
		if err := m.documents(); err != nil {
			return nil, err
		}
		m.tellDocuments()
	}
	names := m.allNames()
	done, err := m.response(names)
	if err != nil {
		return nil, err
	}
	if m.o.store {
		if done.Images, err = e.register(ctx, m, names); err != nil {
			return nil, err
		}
	}
	if up != nil {
		if err := up.documents(ctx); err != nil {
			return nil, err
		}
	}
	return done, nil
}

// allNames are the names that the image gets, with those by digest.
func (m *made) allNames() []ref.Ref {
	names := slices.Clone(m.names)
	if m.root == nil {
		return names
	}
	if m.o.canonical {
		for _, n := range m.names {
			if n.Digest == "" {
				names = append(names, n.WithDigest(m.root.Digest))
			}
		}
	}
	if prefix := m.o.danglingName(m.names); prefix != "" {
		if n, err := ref.Parse(prefix); err == nil {
			names = append(names, n.WithDigest(m.root.Digest))
		}
	}
	return names
}

// tellDocuments tells progress which documents there are.
func (m *made) tellDocuments() {
	done := func() error { return nil }
	for _, p := range m.parts {
		_ = m.run.step("exporting manifest "+string(p.manifest.Digest), done)
		_ = m.run.step("exporting config "+string(p.id()), done)
		if p.attest != nil {
			_ = m.run.step("exporting attestation manifest "+string(p.attest.manifest.Digest), done)
		}
	}
	if m.index {
		_ = m.run.step("exporting manifest list "+string(m.root.Digest), done)
	}
}

// register makes the images of all platforms, and gives them their names.
func (e *Exporter) register(ctx context.Context, m *made, names []ref.Ref) (ids []digest.Digest, err error) {
	for i, p := range m.parts {
		r := image.Registration{Config: p.config, Manifest: p.manifest, Blobs: keptBlobs(p)}
		if m.index {
			r.Index = m.root
			if p.attest != nil {
				r.Documents = p.attest.all()
			}
		}
		if i == len(m.parts)-1 { // a name appears when all that it stands for is here
			r.Names = names
		}
		write := func() error {
			img, _, err := e.cfg.Images.Register(ctx, r)
			if err != nil {
				return err
			}
			ids = append(ids, digest.Digest(img.ID))
			return nil
		}
		if err := m.run.step("writing image "+string(p.id()), write); err != nil {
			return ids, err
		}
	}
	e.cfg.Images.Emit(image.Event{Action: "create", ID: string(m.best()), Name: string(m.best())})
	for _, n := range names {
		_ = m.run.step("naming to "+n.String(), func() error { return nil })
		e.cfg.Images.Emit(image.Event{Action: "tag", ID: string(m.best()), Name: n.Familiar()})
	}
	return ids, nil
}

// best is the image that events tell: the first, which is what the client asked for first.
func (m *made) best() digest.Digest { return m.parts[0].id() }

// keptBlobs are the compressed layers in the blob store that the image names.
func keptBlobs(p *part) (list []digest.Digest) {
	for _, b := range p.layers {
		if b.kept && !slices.Contains(list, b.desc.Digest) {
			list = append(list, b.desc.Digest)
		}
	}
	return list
}
