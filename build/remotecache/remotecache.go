package remotecache

import (
	"context"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Entry is what is exported of one step: under which keys which chains of layers are known.
type Entry struct {
	Keys    []digest.Digest
	Outputs [][]digest.Digest // of each output its chain, lowest first; nil: not made, or a local tree
	Name    string
	Created time.Time
	Result  bool // it is part of a result that is exported: mode=min has the data of these
}

// layerInfo describes one layer of a table.
type layerInfo struct {
	DiffID digest.Digest
	Blob   ocispec.Descriptor
}

// Blob gives the blob that a layer travels as.
type Blob func(ctx context.Context, diffID digest.Digest) (ocispec.Descriptor, error)
