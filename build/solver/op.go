package solver

import (
	"context"
	"io"
	"time"

	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/content"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
)

// Op is an operation on snapshots: exec, file, merge, diff.
type Op interface {
	// Key is a digest of all that decides the outcome except the inputs.
	Key() digest.Digest
	// Reads tells what it reads of an input; nil: the whole, by its identity.
	Reads(input int) []content.Selector
	// Run does it. The inputs are ready and belong to the caller; the outputs, one for each output of the vertex (nil
	// for one that is not made), become the caller's. An error may have a method Release(), which is called when the
	// last build that got it is closed.
	Run(ctx context.Context, in []*snapshot.Snapshot, r *Run) ([]*snapshot.Snapshot, error)
}

// Source is where a snapshot comes from that no operation makes.
type Source interface {
	// Pin finds what exactly is meant now. For a local context it brings the context up to date.
	Pin(ctx context.Context, r *Run) (Pinned, error)
}

// Pinned is a source whose content is fixed.
type Pinned struct {
	// Identity is the identity of the snapshot if it is known without having it; "" asks the snapshot.
	Identity digest.Digest
	// Pin is what people and provenance call it: a digest, a commit.
	Pin string
	// Cache, if not "", is a key under which the snapshot is kept as a record, so that a pinned commit or download is not
	// fetched again.
	Cache digest.Digest
	// CacheType is the type of that record; "" is regular.
	CacheType string
	// Snapshot gives it; the caller releases it. It may be a promise whose data comes with Ready. It is called once at
	// most, and not at all when only the identity was needed.
	Snapshot func(ctx context.Context) (*snapshot.Snapshot, error)
	// Release, if not nil, is called once if Snapshot was not called and will not be.
	Release  func()
	Material Material
}

// Material is a source as provenance tells it.
type Material struct {
	Kind     string            // docker-image, oci-layout, git, http, local
	URI      string            // as it was written, normalized: docker.io/library/alpine:3, https://…#ref
	Platform *ocispec.Platform // of an image
	Digest   digest.Digest     // of what was used: manifest or index, file; for git sha1:COMMIT
	Attrs    map[string]string // further facts by name (subdir, filename)
}

// Run is what an operation or a source is given to work with. It belongs to one vertex.
type Run struct {
	Vertex       *graph.Vertex
	BuildID      string           // of the first build that wanted it
	Sessions     session.Group    // of all builds that want it
	Manager      *session.Manager // finds sessions
	Stdout       io.Writer        // becomes the vertex's log
	Stderr       io.Writer
	Progress     progress.Sink // takes events of this vertex, whatever they say of Vertex; its own state is the solver's
	Limits       any           // of exec steps, as the client set them (exec.Limits); never part of a key
	Entitlements []string      // what the build may: network.host, security.insecure, device, device=NAME
}

// Status tells how far a part of the vertex is: id names the part, action what is done, current and total are bytes
// (total 0: unknown). done ends it.
func (r *Run) Status(id, action string, current, total int64, done bool) {
	now := time.Now()
	s := progress.Status{ID: id, Name: action, Current: current, Total: total, Timestamp: now}
	if done {
		s.Completed = &now
	}
	r.Progress.Status(s)
}

// Warn tells something the build's author should know.
func (r *Run) Warn(w progress.Warning) { r.Progress.Warning(w) }
