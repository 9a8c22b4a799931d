package oci

import (
	"context"
	"encoding/json"
	"io"

	ctdcontent "github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/session"
	"berth/image"
	"berth/image/layer"
)

// Bounds on what a stranger's layout may be.
const (
	maxDocument = 8 << 20
	maxDepth    = 5 // indexes in indexes
)

// found is an image in a store.
type found struct {
	config []byte
	layers []ocispec.Descriptor // the lowest first
	chain  []digest.Digest
}

// document is a manifest or an index, whichever fields it has.
type document struct {
	MediaType string               `json:"mediaType"`
	Manifests []ocispec.Descriptor `json:"manifests"`
	Config    *ocispec.Descriptor  `json:"config"`
	Layers    []ocispec.Descriptor `json:"layers"`
}

// resolve reads what leads from the root to the platform's image.
func (l *Layouts) resolve(ctx context.Context, n name, p ocispec.Platform, group session.Group) (*found, error) {
	var img *found
	err := l.with(ctx, n, group, func(ctx context.Context, store ctdcontent.Store) error {
		info, err := store.Info(ctx, n.root)
		if err != nil {
			return fault.In(err, "unable to get info about digest")
		}
		img, err = find(ctx, store, ocispec.Descriptor{Digest: n.root, Size: info.Size}, p, 0)
		return err
	})
	if err != nil {
		return nil, fault.In(err, "%s", n.text)
	}
	return img, nil
}

func find(ctx context.Context, store ctdcontent.Store, d ocispec.Descriptor, p ocispec.Platform, depth int) (*found, error) {
	if depth > maxDepth {
		return nil, fault.New(fault.Invalid, "indexes are nested more than %d deep", maxDepth)
	}
	raw, err := read(ctx, store, d)
	if err != nil {
		return nil, err
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "document %s", d.Digest)
	}
	switch {
	case doc.Config != nil && doc.Manifests != nil:
		return nil, fault.New(fault.Invalid, "document %s is both a manifest and an index", d.Digest)
	case doc.Config != nil:
		return manifest(ctx, store, doc)
	case doc.Manifests == nil:
		return nil, fault.New(fault.Invalid, "reference contains neither an index nor a manifest")
	}
	best := choose(doc.Manifests, p)
	if best == nil {
		return nil, fault.New(fault.NotFound, "no match for platform %s in the index", platforms.FormatAll(p))
	}
	return find(ctx, store, *best, p, depth+1)
}

// choose takes the manifest that fits best; among equals the first, and where an index has one image and does not say what it is for, that.
func choose(list []ocispec.Descriptor, p ocispec.Platform) *ocispec.Descriptor {
	match := platforms.Only(p)
	var best, only *ocispec.Descriptor
	images := 0
	for i := range list {
		d := &list[i]
		if d.Annotations["vnd.docker.reference.type"] != "" {
			continue // an attestation
		}
		images++
		switch {
		case d.Platform == nil:
			only = d
		case match.Match(*d.Platform) && (best == nil || match.Less(*d.Platform, *best.Platform)):
			best = d
		}
	}
	if best == nil && images == 1 {
		return only
	}
	return best
}

func manifest(ctx context.Context, store ctdcontent.Store, doc document) (*found, error) {
	raw, err := read(ctx, store, *doc.Config)
	if err != nil {
		return nil, fault.In(err, "configuration")
	}
	config, err := image.ParseDocument(raw)
	if err != nil {
		return nil, err
	}
	chain := config.RootFS.DiffIDs
	if len(chain) != len(doc.Layers) {
		return nil, fault.New(fault.Invalid, "layers from manifest don't match image configuration: %d and %d", len(doc.Layers), len(chain))
	}
	if len(chain) > layer.MaxDepth {
		return nil, fault.New(fault.Invalid, "max depth exceeded")
	}
	for _, d := range doc.Layers {
		if err := d.Digest.Validate(); err != nil || d.Size < 0 {
			return nil, fault.New(fault.Invalid, "a layer's descriptor means nothing: %q", d.Digest)
		}
	}
	return &found{config: raw, layers: doc.Layers, chain: chain}, nil
}

// read reads a document and verifies it.
func read(ctx context.Context, store ctdcontent.Store, d ocispec.Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "digest %q", d.Digest)
	}
	if d.Size > maxDocument || d.Size < 0 {
		return nil, fault.New(fault.Invalid, "document %s has %d bytes, more than %d", d.Digest, d.Size, maxDocument)
	}
	at, err := store.ReaderAt(ctx, d)
	if err != nil {
		return nil, err
	}
	defer at.Close()
	raw, err := io.ReadAll(io.NewSectionReader(at, 0, d.Size))
	if err != nil {
		return nil, err
	}
	if d.Digest.Algorithm().FromBytes(raw) != d.Digest {
		return nil, fault.New(fault.Invalid, "document %s is not what its digest says", d.Digest)
	}
	return raw, nil
}

func platformOf(p *ocispec.Platform) ocispec.Platform {
	if p == nil {
		return platforms.Normalize(platforms.DefaultSpec())
	}
	return platforms.Normalize(*p)
}
