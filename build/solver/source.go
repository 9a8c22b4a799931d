package solver

import (
	"context"

	digest "github.com/opencontainers/go-digest"

	"berth/build/cache"
	"berth/build/snapshot"
)

// findSource pins a source. Its snapshot is asked for only when its identity cannot be known without, or its data is
// needed.
func (n *node) findSource(ctx context.Context, solid bool) (out *outcome, err error) {
	src, err := n.b.source(ctx, n.v)
	if err != nil {
		return nil, err
	}
	cached := false
	n.fan.begin()
	defer func() { n.fan.end(cached, err) }()
	p, err := src.Pin(ctx, n.newRun(n.fan))
	if err != nil {
		return nil, err
	}
	if p.Cache != "" && !n.ignoresCache() {
		out, err := n.lookupHere(ctx, []digest.Digest{p.Cache})
		if err != nil {
			if p.Release != nil {
				p.Release()
			}
			return nil, err
		}
		if out != nil && !(out.Ghost && solid) {
			out.Source, out.Pin = &p.Material, p.Pin
			cached = true
			if p.Release != nil {
				p.Release()
			}
			return out, nil
		}
	}
	out = &outcome{lazy: p.Snapshot, unused: p.Release, Outcome: Outcome{Vertex: n.v, Identities: []digest.Digest{p.Identity}, Source: &p.Material, Pin: p.Pin}}
	if p.Cache != "" {
		out.Keys = []digest.Digest{p.Cache}
	}
	if p.Identity == "" {
		if err := n.identify(ctx, out, p); err != nil {
			return nil, err
		}
	}
	cached = n.isHere(ctx, out)
	return out, nil
}

// isHere reports whether a pinned image has all its layers here already, which people like to see. What is no image is never
// said to be cached.
func (n *node) isHere(ctx context.Context, out *outcome) bool {
	if kind := out.Source.Kind; kind != "docker-image" && kind != "oci-layout" {
		return false
	}
	s, err := out.snap(ctx, 0)
	if err != nil {
		return false // told when it is needed
	}
	for _, l := range chainOf(s) {
		if !n.b.s.cfg.Snapshots.Layers().Has(l) {
			return false
		}
	}
	return true
}

// identify asks the source's snapshot for its identity, and keeps it as a record where the source says so.
func (n *node) identify(ctx context.Context, out *outcome, p Pinned) error {
	s, err := p.Snapshot(ctx)
	if err != nil {
		return err
	}
	if p.Cache != "" && s.Local() != nil {
		solid, err := s.Solid(ctx)
		s.Release()
		if err != nil {
			return err
		}
		s = solid
	}
	id, err := s.Identity(ctx)
	if err != nil {
		s.Release()
		return err
	}
	out.lazy, out.unused, out.snaps = nil, nil, []*snapshot.Snapshot{s}
	out.Identities, out.Chains = []digest.Digest{id}, [][]digest.Digest{chainOf(s)}
	if p.Cache == "" {
		return nil
	}
	n.put(cache.Record{Keys: out.Keys, Outputs: out.Chains, Type: typeOf(&p), Description: n.v.Name}, s.Share())
	return nil
}

// findPassthrough gives inputs on as outputs.
func (n *node) findPassthrough(ctx context.Context, solid bool) (*outcome, error) {
	ins, err := n.resolve(ctx, func(int) bool { return solid })
	if err != nil {
		return nil, err
	}
	out := &outcome{Outcome: Outcome{Vertex: n.v, Cached: true}}
	for _, i := range n.v.Op.GetPassthrough().Outputs {
		out.Identities = append(out.Identities, ins.identities[i])
		out.Ghost = out.Ghost || ins.outs[i].Ghost
	}
	if out.Ghost {
		return out, nil
	}
	for _, i := range n.v.Op.GetPassthrough().Outputs {
		s, err := ins.outs[i].snap(ctx, n.v.Inputs[i].Index)
		if err != nil {
			release(out.snaps)
			return nil, err
		}
		out.snaps = append(out.snaps, s.Share())
		out.Chains = append(out.Chains, chainOf(s))
	}
	return out, nil
}
