package transfer

import (
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

// PullRequest says what to pull.
type PullRequest struct {
	Name         ref.Ref // without tag and digest it means :latest, unless AllTags
	AllTags      bool
	Platform     *image.Platform // nil: what fits this machine best
	Credentials  remote.Credentials
	Lazy         bool           // layers that can be served before they are here are not waited for
	StaleIfError bool           // use the copy that is here when the registry cannot be asked; see Config too
	Progress     func(Progress) // called by one goroutine at a time; it may be slow, the transfer does not wait for it. nil: nobody
}

// Progress is one message of Docker's stream.
type Progress struct {
	ID      string // of a layer, 12 hex digits; or the tag; or ""
	Status  string // "Downloading"
	Current int64  // bytes, with Total; both 0: no detail
	Total   int64
	Aux     any // what goes into "aux": PushResult, or a note on a push of several platforms
}

// Pulled is what a pull did.
type Pulled struct {
	Images []PulledImage // one; of AllTags one for each tag
}

// PulledImage is one image that a name stands for now.
type PulledImage struct {
	Name     ref.Ref
	ID       digest.Digest // of its configuration
	Digest   digest.Digest // of the root: the repository digest
	UpToDate bool          // the name stood for it before
	Stale    time.Duration // how long ago the copy was got, where the registry could not be asked; else 0
}

// PushRequest says what to push.
type PushRequest struct {
	Name        ref.Ref // without a tag it means :latest, unless AllTags
	AllTags     bool
	Platform    *image.Platform // the manifest of this platform alone; nil: the image as it came, with all platforms that can be had
	Credentials remote.Credentials
	Progress    func(Progress) // as in PullRequest
}

// PushResult is the aux message at the end of each pushed tag.
type PushResult struct {
	Tag    string
	Digest string
	Size   int
}

// ManifestPushedInsteadOfIndex is the aux message that says that the image has more platforms than could be pushed.
type ManifestPushedInsteadOfIndex struct {
	Always           bool               `json:"manifestPushedInsteadOfIndex"` // true
	OriginalIndex    ocispec.Descriptor `json:"originalIndex"`
	SelectedManifest ocispec.Descriptor `json:"selectedManifest"`
}

// Pushed is what a push did.
type Pushed struct {
	Images []PushedImage
}

// PushedImage is one tag at the registry.
type PushedImage struct {
	Name      ref.Ref
	Digest    digest.Digest // of the root that the tag stands for there
	Size      int64         // of that document
	MediaType string
	NewDigest bool          // the image came with another manifest, which could not be kept
	Original  digest.Digest // the digest it came with, "" where it was made here
}
