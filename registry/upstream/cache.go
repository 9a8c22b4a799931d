package upstream

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
	"berth/registry/notice"
	"berth/registry/storage"
)

// Config is what the cache needs.
type Config struct {
	Dir       string         // its own directory; made when it is missing
	Store     *storage.Store // of the registry
	Sources   []Source       // set by the registry's settings; those of DIR/sources.json come after them
	HostsDirs []string       // see remote.Config
	Proxy     func(*http.Request) (*url.URL, error)
	UserAgent string
	// Count is told of everything that the cache was asked for: kind is manifest or blob, result hit, miss, stale or error.
	Count func(source, kind, result string, fetched int64)
	// Quota says whether so many more bytes may be stored in a repository; what may not goes to the clients all the same. nil: no limit.
	Quota func(ctx context.Context, repository string, more int64) error
	// Stored is told of repositories that have got a manifest or a tag; nil: nobody.
	Stored func(repository string)
	Log    *slog.Logger // nil: slog.Default()
}

const (
	maxFetches  = 64               // blobs that are fetched at once
	quiet       = 20 * time.Second // after which the rest of an image is fetched
	lookEvery   = 5 * time.Second  // for images that have gone quiet
	askTimeout  = 2 * time.Minute  // for a manifest
	pauseFor    = 30 * time.Second // for which a source that failed is not asked for what we have a copy of
	renewIn     = 5 * time.Second  // is how long a client with a copy at hand waits for the source
	absentFor   = 30 * time.Second // for which what a source does not have is not asked again
	maxAbsent   = 4096
	waitingFor  = 30 * 24 * time.Hour // for which a manifest waits for its blobs since somebody wanted it
	maxWaiting  = 20_000              // manifests that wait; the oldest give way
	tidyEvery   = time.Hour
	maxFinishes = 3 // tries to make a copy whole
)

// Cache is the sources and what was copied of them. All methods may be called at once.
type Cache struct {
	cfg    Config
	log    *slog.Logger
	db     *bbolt.DB
	ctx    context.Context // ends with Close; fetches outlive the requests that began them
	cancel context.CancelFunc
	all    sync.WaitGroup
	slots  chan struct{} // a fetch holds one

	changing sync.Mutex // puts changes of the sources in a row; held over I/O, taken before mu

	mu      sync.Mutex
	closed  bool
	fixed   []Source
	added   []Source
	sources map[string]*source
	order   []*source
	copies  map[string]string    // repository → source
	absent  map[string]time.Time // what a source did not have, and when that was
	asked   map[string]time.Time // when lists of referrers were asked for
	asking  map[string]*asking   // manifests that are being asked for
	fetches map[string]*fetch    // blobs that are being fetched
	active  map[string]*unfinished
}

// source is a Source in use.
type source struct {
	Source
	client *remote.Client

	mu     sync.Mutex
	repos  map[string]*remote.Repository // their tokens are worth keeping
	failed time.Time                     // when it failed last; zero: it answered last
	reason string
	hits   int64
	misses int64
	stale  int64
	errors int64
	bytes  int64
}

// Open opens the cache's directory.
func Open(cfg Config) (*Cache, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Count == nil {
		cfg.Count = func(string, string, string, int64) {}
	}
	if cfg.Quota == nil {
		cfg.Quota = func(context.Context, string, int64) error { return nil }
	}
	if cfg.Stored == nil {
		cfg.Stored = func(string) {}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the mirrors")
	}
	if err := atomicfile.Sweep(cfg.Dir); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "open the mirrors")
	}
	c := &Cache{cfg: cfg, log: cfg.Log, slots: make(chan struct{}, maxFetches), copies: map[string]string{}, absent: map[string]time.Time{}, asked: map[string]time.Time{},
		asking: map[string]*asking{}, fetches: map[string]*fetch{}, active: map[string]*unfinished{}}
	for _, s := range cfg.Sources {
		s, err := s.check()
		if err != nil {
			return nil, err
		}
		c.fixed = append(c.fixed, s)
	}
	var err error
	if c.added, err = readSources(c.file()); err != nil {
		return nil, err
	}
	if err := c.use(); err != nil {
		return nil, err
	}
	if c.db, err = openCopies(filepath.Join(cfg.Dir, "copies.db")); err != nil {
		return nil, err
	}
	if err := c.load(); err != nil {
		c.db.Close()
		return nil, err
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.all.Go(c.finishLoop)
	return c, nil
}

// Close ends what is being fetched and closes the files. Requests have ended before.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.all.Wait()
	for _, s := range c.sources {
		s.client.Close()
	}
	return c.db.Close()
}

func (c *Cache) file() string { return filepath.Join(c.cfg.Dir, "sources.json") }

// sourcesFile is DIR/sources.json.
type sourcesFile struct {
	Version int      `json:"version"`
	Sources []Source `json:"sources"`
}

func readSources(file string) ([]Source, error) {
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var f sourcesFile
	if err == nil {
		err = json.Unmarshal(content, &f)
	}
	if err == nil && f.Version != 1 {
		err = fault.New(fault.Invalid, "it has format %d, this program reads 1", f.Version)
	}
	if err != nil {
		return nil, fault.In(err, "read the mirrors (%s)", file)
	}
	return f.Sources, nil
}

// use makes the sources of fixed and added those that are asked. Those that stay the same keep their connections. The caller holds
// changing, or nobody else has the cache yet.
func (c *Cache) use() error {
	c.mu.Lock()
	old := c.sources
	c.mu.Unlock()
	sources, order := map[string]*source{}, []*source{}
	for _, s := range inOrder(slices.Concat(c.fixed, c.added)) {
		if sources[s.Name] != nil {
			continue // the settings come before the file
		}
		if o := old[s.Name]; o != nil && equal(o.Source, s) {
			sources[s.Name], order = o, append(order, o)
			continue
		}
		cfg := remote.Config{HostsDirs: c.cfg.HostsDirs, Proxy: c.cfg.Proxy, UserAgent: c.cfg.UserAgent, Log: c.log}
		if s.Insecure {
			cfg.Insecure = []string{s.Registry}
		}
		client, err := remote.New(cfg)
		if err != nil {
			return err
		}
		n := &source{Source: s, client: client, repos: map[string]*remote.Repository{}}
		sources[s.Name], order = n, append(order, n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sources, c.order = sources, order
	clear(c.absent)
	return nil
}

func equal(a, b Source) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

// Set adds a source, or changes one that was added. It is on disk when Set returns. Conflict when the name is one of the settings'.
func (c *Cache) Set(s Source) error {
	s, err := s.check()
	if err != nil {
		return err
	}
	return c.change(s.Name, func(list []Source) ([]Source, error) {
		i := slices.IndexFunc(list, func(o Source) bool { return o.Name == s.Name })
		if i < 0 {
			return append(list, s), nil
		}
		if s.Password == "" && list[i].account().Keeps(s.account()) {
			s.Password = list[i].Password
		}
		list[i] = s
		return list, nil
	})
}

// Remove forgets a source. Its copies stay and are repositories like others.
func (c *Cache) Remove(name string) error {
	return c.change(name, func(list []Source) ([]Source, error) {
		i := slices.IndexFunc(list, func(o Source) bool { return o.Name == name })
		if i < 0 {
			return nil, fault.New(fault.NotFound, "mirror %s is not known", name)
		}
		return slices.Delete(list, i, i+1), nil
	})
}

func (c *Cache) change(name string, to func([]Source) ([]Source, error)) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	if slices.ContainsFunc(c.fixed, func(s Source) bool { return s.Name == name }) {
		return fault.New(fault.Conflict, "mirror %s is part of the registry's settings: change it there", name)
	}
	list, err := to(slices.Clone(c.added))
	if err != nil {
		return err
	}
	content, err := json.MarshalIndent(sourcesFile{Version: 1, Sources: list}, "", "  ")
	if err != nil {
		return fault.Wrap(fault.Internal, err, "")
	}
	if err := atomicfile.Write(c.file(), append(content, '\n'), 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "write the mirrors")
	}
	c.added = list
	return c.use()
}

// Covers reports whether a repository is a copy of a source's, or may become one.
func (c *Cache) Covers(repository string) bool {
	c.mu.Lock()
	name, copied := c.copies[repository]
	known := c.sources[name] != nil
	c.mu.Unlock()
	if copied {
		return known
	}
	return !c.cfg.Store.Exists(repository) && len(c.candidates(repository)) > 0
}

// candidates gives the sources that are asked for a repository: the one that it was copied from, else those whose rule fits.
func (c *Cache) candidates(repository string) []*source {
	c.mu.Lock()
	defer c.mu.Unlock()
	if name, ok := c.copies[repository]; ok {
		if s := c.sources[name]; s != nil {
			if _, ok := s.remote(repository); ok {
				return []*source{s}
			}
		}
		return nil
	}
	var list []*source
	for _, s := range c.order {
		if _, ok := s.remote(repository); !ok {
			continue
		}
		if s.Prefix == "" && len(list) > 0 && list[0].Prefix != "" {
			break // a name below a prefix is that source's and nobody else's
		}
		list = append(list, s)
	}
	return list
}

// repository gives the client of a repository at the source.
func (s *source) repository(name ref.Ref) *remote.Repository {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.repos[name.Path]
	if r == nil {
		if len(s.repos) > 500 {
			clear(s.repos)
		}
		r = s.client.Repository(name, s.credentials())
		s.repos[name.Path] = r
	}
	return r
}

// count notes how a request ended.
func (c *Cache) count(s *source, kind, result string, fetched int64) {
	s.mu.Lock()
	switch result {
	case "hit":
		s.hits++
	case "miss":
		s.misses++
	case "stale":
		s.stale++
	default:
		s.errors++
	}
	s.bytes += fetched
	s.mu.Unlock()
	c.cfg.Count(s.Name, kind, result, fetched)
}

// answered notes whether a source answers; err is what it failed with, or nil.
func (s *source) answered(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.failed, s.reason = time.Time{}, ""
		return
	}
	s.failed, s.reason = time.Now(), err.Error()
}

// resting reports whether the source failed a moment ago, and why.
func (s *source) resting() (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason, !s.failed.IsZero() && time.Since(s.failed) < pauseFor
}

// Notify hears what clients did: a tag that is pushed into a copy is theirs, one that is deleted is the source's again. For those few it waits for
// the disk: when the push is acknowledged the tag is safe from the source.
func (c *Cache) Notify(e notice.Event) {
	c.mu.Lock()
	_, copied := c.copies[e.Repository]
	c.mu.Unlock()
	if !copied || !e.Manifest() {
		return
	}
	var err error
	switch {
	case e.Action == notice.Push && e.Tag != "":
		err = c.setTag(e.Repository, e.Tag, tagEntry{Digest: e.Digest, Checked: e.At, Local: true})
	case e.Action == notice.Delete && e.Tag != "":
		err = c.forgetTag(e.Repository, e.Tag)
	case e.Action == notice.Delete && e.Digest != "":
		err = c.forgetManifest(e.Repository, e.Digest)
	}
	if err != nil {
		c.log.Error("a change of a copied repository could not be noted", "repository", e.Repository, "error", err)
	}
}
