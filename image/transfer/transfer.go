package transfer

import (
	"context"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

// Transfers at a time over all requests, as dockerd's defaults.
const (
	defaultDownloads = 3
	defaultUploads   = 5
)

// Config says what is connected with what.
type Config struct {
	Images       *image.Store
	Remote       *remote.Client
	Verify       Verifier // asked before a pulled image gets its name; nil: every image is accepted
	Lazy         Lazy     // layers that need not be fetched before the image is used; nil: none
	MaxDownloads int      // layers at a time over all pulls; 0: 3
	MaxUploads   int      // layers at a time over all pushes; 0: 5
	KeepBlobs    bool     // compressed layers are kept in the blob store beside the unpacked ones
	StaleIfError bool     // a registry that cannot be asked is no reason to fail a pull while there is a copy here
	Log          *slog.Logger
}

// Verifier decides whether an image may be used here.
type Verifier interface {
	// Verify answers nil, or Forbidden with the line of the policy that says no. root is what the name stands for at the
	// repository; signatures are looked for there.
	Verify(ctx context.Context, name ref.Ref, root ocispec.Descriptor, at *remote.Repository) error
}

// Ruler is a Verifier that can tell beforehand which rule it is going to apply: plans print it.
type Ruler interface {
	Rule(name ref.Ref) string
}

// Transfer pulls and pushes. It is safe for concurrent use.
type Transfer struct {
	cfg  Config
	log  *slog.Logger
	down atomic.Pointer[semaphore.Weighted] // places for layers that come
	up   atomic.Pointer[semaphore.Weighted] // and for those that go
	make *semaphore.Weighted                // and for those of them that are compressed on the way

	mu      sync.Mutex // guards what follows; held for memory only
	flights map[flightKey]*flight
}

// New makes a Transfer. It has nothing to close: what runs, runs for a caller who waits for it.
func New(cfg Config) *Transfer {
	if cfg.MaxDownloads <= 0 {
		cfg.MaxDownloads = defaultDownloads
	}
	if cfg.MaxUploads <= 0 {
		cfg.MaxUploads = defaultUploads
	}
	t := &Transfer{
		cfg: cfg, log: cfg.Log, flights: map[flightKey]*flight{},
		make: semaphore.NewWeighted(int64(min(cfg.MaxUploads, max(2, runtime.GOMAXPROCS(0)/2)))), // each uses several processors, and megabytes
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	t.Limit(cfg.MaxDownloads, cfg.MaxUploads)
	return t
}

// Limit replaces the numbers of layers that come and go at a time. What is under way goes on and is not counted.
func (t *Transfer) Limit(downloads, uploads int) {
	t.down.Store(semaphore.NewWeighted(int64(max(1, downloads))))
	t.up.Store(semaphore.NewWeighted(int64(max(1, uploads))))
}

// Refetch opens a compressed layer at its source again, for repairs. The bytes are not verified.
func (t *Transfer) Refetch(ctx context.Context, src image.Source, cred remote.Credentials) (io.ReadCloser, error) {
	name, err := ref.Parse(src.Repository)
	if err != nil {
		return nil, fault.In(err, "source of a layer")
	}
	return t.cfg.Remote.Repository(name, cred).Blob(ctx, src.Descriptor, 0)
}
