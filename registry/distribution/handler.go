package distribution

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
	"berth/registry/access"
	"berth/registry/notice"
	"berth/registry/storage"
)

// Config is what the handler works with. Storage is needed, everything else has a default.
type Config struct {
	Storage *storage.Store
	// Who tells the caller of a request. Unauthorized makes the answer a challenge. nil: everybody is anonymous.
	Who func(r *http.Request) (access.Subject, error)
	// Challenge writes the header WWW-Authenticate for what the caller wanted; repository "" is no repository. nil: there is no way to sign in.
	Challenge func(w http.ResponseWriter, r *http.Request, repository string, actions ...access.Action)
	Access    access.Decider                                                 // nil: everybody may do everything
	Events    func(notice.Event)                                             // nil: nobody listens
	Quota     func(ctx context.Context, repository string, more int64) error // Forbidden when so many more bytes do not fit; nil: no limit
	Upstream  Upstream                                                       // nil: none
	// Claim is told of a push to a repository that does not exist, before anything is stored; an error refuses it. nil: all are welcome.
	Claim func(ctx context.Context, s access.Subject, repository string) error
	// ReadOnly refuses everything that changes content, with 405.
	ReadOnly bool
	// ChunkMin is told to clients as the smallest chunk that is worth sending, in bytes; smaller ones are taken. Zero: not told.
	ChunkMin int64
	// Idle is for how long a client may send nothing in the middle of a body. Zero: a minute.
	Idle time.Duration
	Log  *slog.Logger
}

// Upstream is where a repository's content is fetched from when it is not here.
type Upstream interface {
	// Covers reports whether the repository is a copy of an upstream's. Of such a one every tag is asked of Manifest, which
	// decides whether the copy is fresh enough; digests and blobs only when they are not here.
	Covers(repository string) bool
	// Manifest fetches, stores and gives a manifest, or the stale copy when the upstream fails. NotFound when the upstream has none.
	Manifest(ctx context.Context, repository, tagOrDigest string) (*Manifest, error)
	// Blob streams a blob to the client and stores it. NotFound before anything was written when the upstream has none.
	Blob(ctx context.Context, repository string, d digest.Digest, w http.ResponseWriter, r *http.Request) error
}

// Manifest is what an upstream gives.
type Manifest struct {
	storage.Manifest
	Age     time.Duration // since the upstream was asked last; more than zero is told in the header Age
	Warning string        // told in a header Warning, without quotes: "the upstream does not answer, this is a copy"
}

// Handler serves /v2/.
type Handler struct {
	cfg Config
}

// New makes a handler.
func New(cfg Config) *Handler {
	if cfg.Who == nil {
		cfg.Who = func(*http.Request) (access.Subject, error) { return access.Subject{}, nil }
	}
	if cfg.Access == nil {
		cfg.Access = access.Everyone{}
	}
	if cfg.Events == nil {
		cfg.Events = func(notice.Event) {}
	}
	if cfg.Quota == nil {
		cfg.Quota = func(context.Context, string, int64) error { return nil }
	}
	if cfg.Claim == nil {
		cfg.Claim = func(context.Context, access.Subject, string) error { return nil }
	}
	if cfg.Idle == 0 {
		cfg.Idle = time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Handler{cfg: cfg}
}

// call is one request on its way.
type call struct {
	*Handler
	w       http.ResponseWriter
	r       *http.Request
	id      string
	repo    string
	subject access.Subject
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Handler: h, w: w, r: r, id: id.New()[:16]}
	header := w.Header()
	header.Set("Docker-Distribution-Api-Version", "registry/2.0")
	// What people push must never act in the browser of whoever looks at the registry's pages.
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	err := c.writable()
	if err == nil {
		err = c.serve()
	}
	if err != nil {
		c.fail(err)
	}
}

// writable refuses what would change content where that is not wanted.
func (c *call) writable() error {
	if !c.cfg.ReadOnly || c.r.Method == http.MethodGet || c.r.Method == http.MethodHead {
		return nil
	}
	return &apiError{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "this registry is read-only"}
}

func (c *call) serve() error {
	t, err := parse(c.r.URL.Path, c.r.URL.RawPath)
	if err != nil {
		return err
	}
	c.repo = t.repository
	switch t.what {
	case ping:
		return c.ping()
	case catalog:
		return c.catalog()
	case tagList:
		return c.tags()
	case manifests:
		return c.manifest(t.reference)
	case blobs:
		return c.blob(t.reference)
	case referrers:
		return c.referrers(t.reference)
	case uploads:
		return c.startUpload()
	default:
		return c.upload(t.reference)
	}
}

// what is the kind of thing that a path names.
type what int

const (
	ping what = iota
	catalog
	tagList
	manifests
	blobs
	referrers
	uploads
	upload
)

type target struct {
	what       what
	repository string
	reference  string // tag or digest, digest, or upload's id
}

// parse reads a path from its end, because a repository's name may contain every word of the API.
func parse(path, raw string) (target, error) {
	if strings.Contains(strings.ToLower(raw), "%2f") {
		return target{}, nameInvalid(path) // an escaped slash would be another name to a proxy before us
	}
	rest, ok := strings.CutPrefix(path, "/v2")
	switch {
	case !ok:
		return target{}, notFound()
	case rest == "" || rest == "/":
		return target{what: ping}, nil
	case rest == "/_catalog":
		return target{what: catalog}, nil
	}
	parts := strings.Split(strings.TrimPrefix(rest, "/"), "/")
	n := len(parts)
	at := func(i int) string {
		if i < 0 {
			return ""
		}
		return parts[i]
	}
	t, name := target{}, 0
	switch {
	case at(n-3) == "blobs" && at(n-2) == "uploads" && at(n-1) != "":
		t, name = target{what: upload, reference: at(n - 1)}, n-3
	case at(n-3) == "blobs" && at(n-2) == "uploads", at(n-2) == "blobs" && at(n-1) == "uploads":
		t, name = target{what: uploads}, n-2
		if at(n-1) == "" {
			name = n - 3
		}
	case at(n-2) == "tags" && at(n-1) == "list":
		t, name = target{what: tagList}, n-2
	case at(n-2) == "manifests":
		t, name = target{what: manifests, reference: at(n - 1)}, n-2
	case at(n-2) == "blobs":
		t, name = target{what: blobs, reference: at(n - 1)}, n-2
	case at(n-2) == "referrers":
		t, name = target{what: referrers, reference: at(n - 1)}, n-2
	default:
		return target{}, notFound()
	}
	t.repository = strings.Join(parts[:name], "/")
	if storage.CheckName(t.repository) != nil {
		return target{}, nameInvalid(t.repository)
	}
	return t, nil
}

// ping tells a client whether its credentials are good. Where one can sign in, a caller without any is asked to: clients learn from
// this answer how, and come back anonymously if they have nothing to show.
func (c *call) ping() error {
	if err := c.method(http.MethodGet, http.MethodHead); err != nil {
		return err
	}
	s, err := c.cfg.Who(c.r)
	if err == nil && c.cfg.Challenge != nil && s.Anonymous() && c.r.Header.Get("Authorization") == "" {
		err = fault.New(fault.Unauthorized, "authentication required")
	}
	if err != nil {
		return c.denied(err, "")
	}
	c.json(http.StatusOK, struct{}{})
	return nil
}

// method refuses other methods than these.
func (c *call) method(allowed ...string) error {
	for _, m := range allowed {
		if c.r.Method == m {
			return nil
		}
	}
	c.w.Header().Set("Allow", strings.Join(allowed, ", "))
	return &apiError{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: "The operation is unsupported."}
}
