package snapshot

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/image/archive"
	"berth/image/layer"
	"berth/kernel/tree"
)

// Merge lays snapshots over each other, the last on top: their chains are joined, no file is touched. What a layer deletes it deletes
// of all that is below it now. Layers that are only promised stay so.
func (s *Store) Merge(ctx context.Context, list []*Snapshot) (*Snapshot, error) {
	var parts []*Snapshot
	drop := func() {
		for _, p := range parts {
			p.Release()
		}
	}
	var chain []digest.Digest
	for _, in := range list {
		if in == nil || in.IsScratch() {
			continue
		}
		solid, err := in.Solid(ctx)
		if err != nil {
			drop()
			return nil, err
		}
		parts = append(parts, solid)
		chain = append(chain, solid.Chain()...)
	}
	switch {
	case len(parts) == 0:
		return s.Scratch(), nil
	case len(parts) == 1:
		return parts[0], nil
	case len(chain) > layer.MaxDepth:
		drop()
		return nil, fault.New(fault.Invalid, "max depth exceeded")
	}
	return s.joined(chain, parts), nil
}

// joined is a snapshot of a chain whose layers are those of others, which become its own.
func (s *Store) joined(chain []digest.Digest, parts []*Snapshot) *Snapshot {
	return s.handle(&core{chain: chain, parts: parts, provide: func(ctx context.Context) error {
		for _, p := range parts {
			if err := p.Ready(ctx); err != nil {
				return err
			}
		}
		return s.layers.Retain(chain...)
	}})
}

// Diff gives what makes upper out of lower: the rest of upper's chain where lower's is its beginning, and then no file is
// touched; else the trees are compared.
func (s *Store) Diff(ctx context.Context, lower, upper *Snapshot) (*Snapshot, error) {
	if lower == nil || lower.IsScratch() {
		if upper == nil {
			return s.Scratch(), nil
		}
		return upper.Solid(ctx)
	}
	if upper == nil {
		upper = s.Scratch()
		defer upper.Release()
	}
	from, to := lower.Chain(), upper.Chain()
	if lower.Local() == nil && upper.Local() == nil && len(from) <= len(to) && slices.Equal(from, to[:len(from)]) {
		if len(from) == len(to) {
			return s.Scratch(), nil
		}
		return s.joined(to[len(from):], []*Snapshot{upper.Share()}), nil
	}
	id, err := s.compare(ctx, lower, upper)
	if err != nil {
		return nil, fault.In(err, "compare trees")
	}
	if id == layer.EmptyDiff {
		s.layers.Release(id)
		return s.Scratch(), nil
	}
	return s.held([]digest.Digest{id}), nil
}

// compare makes a layer of the difference of two trees.
func (s *Store) compare(ctx context.Context, lower, upper *Snapshot) (digest.Digest, error) {
	a, err := lower.Open(ctx)
	if err != nil {
		return "", err
	}
	defer a.Close()
	b, err := upper.Open(ctx)
	if err != nil {
		return "", err
	}
	defer b.Close()
	return s.stage(ctx, func(ctx context.Context, w io.Writer) error {
		return archive.Between(ctx, a, b, w, archive.WriteOptions{Skip: unarchivable})
	})
}

// solidify makes a layer of a local tree.
func (s *Store) solidify(ctx context.Context, t Tree) (digest.Digest, error) {
	root, err := tree.OpenDir(t.Dir())
	if err != nil {
		return "", err
	}
	defer root.Close()
	return s.stage(ctx, func(ctx context.Context, w io.Writer) error {
		return archive.Diff(ctx, root, w, archive.WriteOptions{Skip: unarchivable})
	})
}

// stage makes a layer of the archive that write writes, and gives it with a hold.
func (s *Store) stage(ctx context.Context, write func(ctx context.Context, w io.Writer) error) (digest.Digest, error) {
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		err := write(ctx, w)
		w.CloseWithError(err)
		done <- err
	}()
	info, err := s.layers.Add(ctx, r, "")
	r.CloseWithError(context.Canceled)
	if werr := <-done; err == nil && werr != nil {
		s.layers.Release(info.DiffID)
		err = werr
	}
	return info.DiffID, err
}

// unarchivable tells names that a layer's archive would take for whiteouts.
func unarchivable(name string) bool { return strings.HasPrefix(path.Base(name), ".wh.") }
