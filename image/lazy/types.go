package lazy

import (
	"context"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image/layer"
	"berth/kernel/probe"
)

// Config says what a Manager works with.
type Config struct {
	Root   string       // directory of the manager alone
	Layers *layer.Store // the store the layers are put into
	Keeper Parker       // keeps views alive while no engine runs; nil: views end with this process (tests)
	// Open finds the blob of a layer again after a restart, without the credentials of the pull that brought it. nil: such a layer
	// waits for Supply.
	Open        func(ctx context.Context, repository string, d ocispec.Descriptor) (Ranger, error)
	Facts       probe.Features // the zero value asks the kernel
	ReadTimeout time.Duration  // longest wait of a read for the registry; 0: a minute
	FillDelay   time.Duration  // how long after Add the background fill starts; 0: at once
	Log         *slog.Logger   // nil: nothing is logged
}

// Ranger reads ranges of a blob at a registry: *remote.Repository is one. What it gives is not trusted.
type Ranger interface {
	BlobRange(ctx context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, error)
}

// Parker keeps descriptors by name while this process is away: the keeper.
type Parker interface {
	Park(ctx context.Context, name string, f *os.File) error
	Take(ctx context.Context, name string) (*os.File, error)
	Unpark(ctx context.Context, name string) error
	Parked(ctx context.Context) ([]string, error)
}

// Layer is a layer to be served lazily.
type Layer struct {
	Descriptor ocispec.Descriptor // of the compressed blob, with the annotations of the manifest
	DiffID     digest.Digest
	Repository string // where the blob is, for after a restart
	From       Ranger // where the blob is, now
}

// Status is how far a layer has come.
type Status struct {
	DiffID        digest.Digest
	Blob          digest.Digest
	Here, Size    int64  // bytes of the blob that are in the cache, and all; equal when whole
	Whole         bool   // unpacked; views are left over for containers that run
	Views         int    // FUSE mounts that are served
	Reads, Missed int64  // reads of chunks by this process, and how many of them had to ask the registry
	Problem       string // the last error of the fill, "" while all goes well
}
