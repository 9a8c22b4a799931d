package notice

import (
	"time"

	"github.com/opencontainers/go-digest"

	"berth/registry/access"
)

// Action is what was done.
type Action string

// The actions, with the words of Docker's notification format.
const (
	Push   Action = "push"
	Pull   Action = "pull"
	Mount  Action = "mount"
	Delete Action = "delete"
)

// Event is one thing that has happened to a manifest or a blob.
type Event struct {
	ID         string
	At         time.Time
	Action     Action
	Repository string        // team/web
	Tag        string        // "" when done by digest, and for blobs
	Digest     digest.Digest // of the manifest or blob; "" when only a tag was deleted
	MediaType  string        // of the manifest; application/octet-stream for blobs
	Size       int64         // bytes
	From       string        // the repository that a blob was mounted from
	References []Reference   // of a manifest: its config, layers or manifests
	Actor      access.Subject
	Request    Request
}

// Manifest reports whether the event is about a manifest or tag, not a blob.
func (e Event) Manifest() bool { return e.MediaType != Blob }

// Blob is the media type of every blob: a registry does not know what is in it.
const Blob = "application/octet-stream"

// Reference is something that a manifest names.
type Reference struct {
	MediaType string
	Digest    digest.Digest
	Size      int64
}

// Request is the HTTP request that did it.
type Request struct {
	ID        string
	Addr      string // the client's
	Host      string // as the client named the registry
	Method    string
	UserAgent string
}
