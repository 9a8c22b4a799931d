package export

import (
	"context"
	"log/slog"
	"runtime"
	"sync"

	"github.com/moby/buildkit/solver/result"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/image"
	"berth/image/remote"
)

// Types of outputs.
const (
	Moby   = "moby"   // an image in the engine's store, as dockerd's builder says it
	Image  = "image"  // the same, in BuildKit's words
	OCI    = "oci"    // an OCI layout: an archive, or content by content, to the client
	Docker = "docker" // an archive that docker load takes, to the client
	Local  = "local"  // files in a directory of the client
	Tar    = "tar"    // the same as an archive
)

// Config says what is connected with what.
type Config struct {
	Root      string // a directory of the exporter alone
	Images    *image.Store
	Remote    *remote.Client
	Snapshots *snapshot.Store
	Sessions  *session.Manager
	Log       *slog.Logger
}

// Exporter brings results to their places. It is safe for concurrent use.
type Exporter struct {
	cfg    Config
	log    *slog.Logger
	memory *memory
	tidied sync.Once     // the memory of layers that are gone was dropped
	slots  chan struct{} // for layers that are being compressed
}

// New makes an exporter. It opens nothing before it is needed.
func New(cfg Config) *Exporter {
	e := &Exporter{cfg: cfg, log: cfg.Log, memory: newMemory(cfg.Root), slots: make(chan struct{}, max(2, runtime.GOMAXPROCS(0)/2))} // each layer uses several processors
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	return e
}

// Request asks for an output.
type Request struct {
	Type  string
	Attrs map[string]string // in BuildKit's words
	ID    int               // by which the client knows the place among several
}

// Ref is a tree that a build gives, evaluated when it is asked for. *solver.Ref is one, and one that can walk its steps as that does
// tells when the layers were made.
type Ref interface {
	// Result gives the snapshot, which stays the build's.
	Result(ctx context.Context) (*snapshot.Snapshot, error)
}

// Result is what a frontend gave: a tree or one for each platform (nil: the empty tree), what it says of them, and what is attested of
// them by platform.
type Result = result.Result[Ref]

// Attestation is one of a result's.
type Attestation = result.Attestation[Ref]

// Run is what one export is given to work with.
type Run struct {
	Session string                // of the client that takes files and has credentials; "": there is none
	Status  func(progress.Status) // events of the export's vertex, which the callee fills in; nil: nobody listens
	// InlineCache gives the cache records that go into a platform's configuration, whose layers' blobs are told lowest first; nil: none.
	InlineCache func(ctx context.Context, platform string, ref Ref, chain []digest.Digest, blobs []ocispec.Descriptor) ([]byte, error)
}

// Done is what an export made.
type Done struct {
	Response   map[string]string   // in BuildKit's words: containerimage.digest …
	Descriptor *ocispec.Descriptor // of the root document, or of the configuration where there is no manifest; nil: no image was made
	Images     []digest.Digest     // ids of the images that were registered
}

// Output is a request whose attributes were understood.
type Output struct {
	e     *Exporter
	req   Request
	image *imageOptions // of the types that make images
	files *fileOptions  // of the others
}

// Resolve reads what is asked for, before anything is built. Errors are Invalid, for unknown types too.
func (e *Exporter) Resolve(req Request) (*Output, error) {
	o := &Output{e: e, req: req}
	var err error
	switch req.Type {
	case Moby, Image, OCI, Docker:
		o.image, err = parseImage(req.Type, req.Attrs)
	case Local, Tar:
		o.files, err = parseFiles(req.Attrs)
	default:
		err = fault.New(fault.Invalid, "exporter %q could not be found", req.Type)
	}
	return o, err
}

// Name is what progress calls the export.
func (o *Output) Name() string {
	switch o.req.Type {
	case Moby, Image:
		return "exporting to image"
	case Local:
		return "exporting to client directory"
	case Tar:
		return "exporting to client tarball"
	}
	return "exporting to " + o.req.Type + " image format"
}

// Type is the output's type.
func (o *Output) Type() string { return o.req.Type }

// Attrs are the output's attributes as they were asked for.
func (o *Output) Attrs() map[string]string { return o.req.Attrs }

// Export evaluates the result and brings it to its place.
func (o *Output) Export(ctx context.Context, res *Result, run *Run) (*Done, error) {
	if o.files != nil {
		return o.exportFiles(ctx, res, run)
	}
	return o.exportImage(ctx, res, run)
}

// step tells the beginning and the end of a part of the export.
func (r *Run) step(id string, f func() error) error {
	return progress.Part(r.Status, id, f)
}

func (r *Run) status(s progress.Status) {
	if r.Status != nil {
		r.Status(s)
	}
}
