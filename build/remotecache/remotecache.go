package remotecache

import (
	"context"
	"log/slog"
	"strings"

	"berth/base/fault"
	"berth/build/cache"
	"berth/build/export"
	"berth/build/progress"
	"berth/build/session"
	"berth/image"
	"berth/image/remote"
	"berth/kernel/tree"
)

// Config says what is connected with what.
type Config struct {
	Images   *image.Store
	Remote   *remote.Client
	Sessions *session.Manager
	Export   *export.Exporter // makes blobs of layers
	Mounts   Mounts           // nil: cache mounts do not travel
	Env      func(string) string
	Log      *slog.Logger
}

// Mounts are the builder's cache mounts, by key: the id, and behind a colon the identity of what one was filled with at first.
type Mounts interface {
	CacheKeys() []string
	// ReadCache gives a cache that nobody uses meanwhile. NotFound: there is none.
	ReadCache(ctx context.Context, key string, f func(root *tree.Dir) error) error
	// FillCache makes a new cache, unless there is one of that key: then it is false.
	FillCache(ctx context.Context, key, description string, f func(root *tree.Dir) error) (filled bool, err error)
}

// Caches exports and imports. It is safe for concurrent use.
type Caches struct {
	cfg Config
	log *slog.Logger
}

// New makes it. Nothing is opened.
func New(cfg Config) *Caches {
	c := &Caches{cfg: cfg, log: cfg.Log}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.cfg.Env == nil {
		c.cfg.Env = func(string) string { return "" }
	}
	return c
}

// Request names a cache elsewhere, in BuildKit's words.
type Request struct {
	Type  string            // registry, local, inline, s3
	Attrs map[string]string // ref, dest, src, digest, mode, …
}

// Run is what one export is given to work with.
type Run struct {
	Session string                // of the client that has the directory, and credentials
	Status  func(progress.Status) // events of the export's vertex, which the callee fills in; nil: nobody listens
}

// place is where tables and blobs lie.
type place interface {
	// name is what people call it.
	name() string
	// table fetches the table that lies there. NotFound: there is none.
	table(ctx context.Context) (*document, error)
	// publish makes a table the one that lies there; its blobs do already. It gives what is told to the client.
	publish(ctx context.Context, doc *document) (map[string]string, error)
	blobs
}

// Types that there are elsewhere, and why not here.
var refused = map[string]string{
	"gha":    "it is a service of GitHub's runners, reached with a token that they hand to their own builder; use registry or s3",
	"azblob": "use registry or s3",
}

// open finds a place; attrs are what is left when the words of this package are taken out.
func (c *Caches) open(ctx context.Context, req Request, attrs map[string]string, sessionID string) (place, error) {
	switch req.Type {
	case "registry":
		return c.openRegistry(ctx, attrs, sessionID)
	case "local":
		return c.openLocal(ctx, attrs, sessionID)
	case "s3":
		return c.openS3(attrs)
	}
	return nil, known(req.Type)
}

// known refuses types that there are not.
func known(kind string) error {
	switch kind {
	case "registry", "local", "s3", "inline":
		return nil
	}
	if why := refused[kind]; why != "" {
		return fault.New(fault.Invalid, "cache of type %s is not supported: %s", kind, why)
	}
	return fault.New(fault.Invalid, "unknown cache type: %q (want registry, local, inline or s3)", kind)
}

// ImportName is what progress calls an import.
func (c *Caches) ImportName(req Request) string {
	what := req.Type
	for _, k := range []string{"ref", "digest", "bucket", "src"} {
		if v := req.Attrs[k]; v != "" {
			if k == "ref" {
				what = v
			} else {
				what += ":" + v
			}
			break
		}
	}
	return "importing cache manifest from " + what
}

// Import fetches the table of a cache and gives it for lookups. An error means that there is nothing to look up; the build goes on.
func (c *Caches) Import(ctx context.Context, req Request, sessionID string) (cache.Remote, error) {
	if err := known(req.Type); err != nil {
		return nil, err
	}
	if req.Type == "inline" {
		return nil, fault.New(fault.Invalid, "an inline cache is imported by type=registry,ref=IMAGE")
	}
	words, attrs, err := parseWords(req.Attrs)
	if err != nil {
		return nil, err
	}
	p, err := c.open(ctx, req, attrs, sessionID)
	if err != nil {
		return nil, err
	}
	doc, err := p.table(ctx)
	if err != nil {
		return nil, fault.In(err, "import cache from %s", p.name())
	}
	im, err := c.imported(p, doc)
	if err != nil {
		return nil, fault.In(err, "import cache from %s", p.name())
	}
	if words.mounts != nil {
		if err := c.importMounts(ctx, p, doc, words); err != nil {
			c.log.Warn("cache mounts are not imported", "from", p.name(), "err", err)
		}
	}
	return im, nil
}

// words are the attributes that say how much travels.
type words struct {
	max         bool // mode=max: the layers of every step
	ignoreError bool
	mounts      []string // ids of cache mounts that travel; {"*"}: all that the build used
	mountsMax   int64    // bytes of one cache mount's blob
	scopes      []string // of cache mounts: the first is written, all are read
}

// mountsMaxDefault bounds a cache mount that travels.
const mountsMaxDefault = 1 << 30

func parseWords(in map[string]string) (w words, attrs map[string]string, err error) {
	w.mountsMax, w.scopes = mountsMaxDefault, []string{"default"}
	attrs = map[string]string{}
	for k, v := range in {
		switch k {
		case "mode":
			switch strings.ToLower(v) {
			case "max":
				w.max = true
			case "min", "":
			default:
				err = fault.New(fault.Invalid, "invalid cache export mode: %q (want min or max)", v)
			}
		case "ignore-error":
			w.ignoreError, err = parseBool(k, v)
		case "mounts":
			w.mounts = parseMounts(v)
		case "mounts-max":
			w.mountsMax, err = parseSize(k, v)
		case "scope":
			w.scopes, err = parseScopes(v)
		default:
			attrs[k] = v
		}
		if err != nil {
			return w, nil, err
		}
	}
	return w, attrs, nil
}
