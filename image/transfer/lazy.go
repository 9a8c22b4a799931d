package transfer

import (
	"context"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image/remote"
)

// Lazy knows layers that can be served before they are here.
type Lazy interface {
	// Layer looks whether a layer can be served from the repository, file by file, and then gives it. nil, or an error that
	// is only logged: it is fetched whole. It may read the layer's table of contents and changes nothing.
	Layer(ctx context.Context, at *remote.Repository, d ocispec.Descriptor, diffID digest.Digest) (LazyLayer, error)
}

// LazyLayer is a layer that is served while it is being fetched.
type LazyLayer interface {
	// Commit makes the layer part of the layer store, durably, with a hold for the caller, and begins to fetch it in the background.
	Commit(ctx context.Context) error
}
