package transfer

import (
	"context"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image"
	"berth/image/remote"
)

// RawConfig is the image's configuration, byte for byte. A plan that is Stale has none.
func (p *PullImage) RawConfig() []byte { return p.rawConfig }

// Chain is the diff ids of the image's layers, the lowest first.
func (p *PullImage) Chain() []digest.Digest {
	chain := make([]digest.Digest, len(p.Layers))
	for i, l := range p.Layers {
		chain[i] = l.DiffID
	}
	return chain
}

// Repository is where the image comes from, as seen with the credentials of the plan. A plan that is Stale has none.
func (p *PullImage) Repository() *remote.Repository { return p.repo }

// Document is one manifest or index that a plan has read, byte for byte.
type Document struct {
	image.Descriptor
	Content []byte
}

// Documents gives the manifests and indexes on the way to the image: the root first.
func (p *PullImage) Documents() []Document {
	var list []Document
	seen := map[digest.Digest]bool{}
	for _, d := range append([]*document{p.root, p.manifest}, p.inner...) {
		if d != nil && !seen[d.desc.Digest] {
			seen[d.desc.Digest] = true
			list = append(list, Document{image.DescriptorOf(d.desc), d.raw})
		}
	}
	return list
}

// BringLayers brings an image's layers here, and nothing else: no image is made of them, and no name is set. The hold that it gives has
// all of them; they go with the last hold. It is what a build does with an image that it begins with.
func (t *Transfer) BringLayers(ctx context.Context, p *PullImage, progress func(Progress)) (*image.Hold, error) {
	if p.Stale != nil {
		return nil, fault.New(fault.Invalid, "%s: the copy that is here is to be used", p.Name.Familiar())
	}
	if t.cfg.Verify != nil {
		if err := t.cfg.Verify.Verify(ctx, p.Name, p.Root, p.repo); err != nil {
			return nil, err
		}
	}
	b := newBoard(progress)
	defer b.close()
	own := *p // who brings the same image at the same time has the same plan, and fetching writes into it
	own.Layers = append([]PullLayer(nil), p.Layers...)
	hold := t.cfg.Images.Hold()
	if err := t.bringLayers(ctx, &own, b, hold); err != nil {
		hold.Release()
		return nil, err
	}
	return hold, nil
}

func (t *Transfer) bringLayers(ctx context.Context, p *PullImage, b *board, hold *image.Hold) error {
	aboard, err := t.fetch(ctx, p, b, hold)
	defer leaveAll(aboard)
	if err != nil {
		return err
	}
	if err := failpoint.Hit("transfer/before-commit"); err != nil {
		return err
	}
	if err := t.commit(p, aboard, hold, b); err != nil {
		return err
	}
	return t.cfg.Images.AddSources(p.sources())
}

// sources says where the plan's layers can be had again. A layer that was here before is only said to be the one of the manifest.
func (p *PullImage) sources() map[digest.Digest]image.Source {
	list := map[digest.Digest]image.Source{}
	for _, l := range p.Layers {
		if _, twice := list[l.DiffID]; twice && l.Do != Fetch {
			continue
		}
		src := l.Descriptor
		src.Data = nil
		list[l.DiffID] = image.Source{Repository: p.Name.Repository(), Descriptor: src, Claimed: l.Do != Fetch}
	}
	return list
}
