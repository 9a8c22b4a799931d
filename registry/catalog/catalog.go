package catalog

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/notice"
)

// Source is where a repository's content is read: FromStorage, or a test's.
type Source interface {
	// Each calls yield with every repository's path; an error of yield ends it.
	Each(ctx context.Context, yield func(repository string) error) error
	// Read looks at one repository. NotFound when it has no content.
	Read(ctx context.Context, repository string) (Derived, error)
}

// Config is what a catalog needs.
type Config struct {
	Root   string         // directory of its own; made when it is missing
	Source Source         // the registry's content
	Access access.Decider // who may pull what: decides what a search shows

	// Certify says whether a repository's newest image is signed under a named policy; nil: none is. It is
	// asked when a repository was pushed to and by Rebuild. After an error, which is logged, the mark stays
	// only if the image is the one that had it.
	Certify func(ctx context.Context, repository string) (policy string, ok bool, err error)

	Log *slog.Logger // nil: slog.Default()
}

// Catalog knows the repositories. All methods may be called at once.
type Catalog struct {
	cfg    Config
	log    *slog.Logger
	people *bbolt.DB // facts and counts: see doc.go
	found  *bbolt.DB // derived

	wake   chan struct{} // has room for one: the worker looks at queue and counts
	stop   context.CancelFunc
	worker sync.WaitGroup

	// writing puts changes of people.db in a row, file and memory together: bbolt lets the next transaction
	// begin before the last one's OnCommit has run. It is held while the disk works and taken before mu.
	writing sync.Mutex

	// reading puts looks at the storage in a row, so that an older one never replaces a newer one. It is held while the
	// storage is read and taken before mu.
	reading sync.Mutex

	mu      sync.RWMutex
	index   *index
	derived map[string]Derived  // by repository; what is in index.db
	facts   map[string]*facts   // by repository; what is in people.db, and counts that are not there yet
	queue   map[string]struct{} // repositories to read again
	busy    bool                // the worker is reading what it took from queue
	idle    *sync.Cond          // of mu: queue became empty and the worker is not busy
	dirty   map[string]struct{} // repositories whose counts must be written
}

// countEvery is how often counts go to disk: what a kill -9 may lose of them.
const countEvery = 5 * time.Second

// Open reads the catalog in cfg.Root and starts its worker. A derived file that is missing or damaged is made
// anew in the background. A damaged people.db is an error: stars and descriptions are not thrown away silently.
func Open(cfg Config) (*Catalog, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if err := os.MkdirAll(cfg.Root, 0o700); err != nil {
		return nil, fault.In(err, "open the catalog")
	}
	people, err := openPeople(filepath.Join(cfg.Root, "people.db"))
	if err != nil {
		return nil, err
	}
	found, derived, fresh, err := openFound(filepath.Join(cfg.Root, "index.db"), cfg.Log)
	if err != nil {
		people.Close()
		return nil, err
	}
	c := &Catalog{cfg: cfg, log: cfg.Log, people: people, found: found, derived: derived,
		wake: make(chan struct{}, 1), index: newIndex(),
		queue: map[string]struct{}{}, dirty: map[string]struct{}{}}
	c.idle = sync.NewCond(&c.mu)
	if err := c.load(); err != nil {
		people.Close()
		found.Close()
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.worker.Go(func() { c.work(ctx, fresh) })
	return c, nil
}

// load fills the memory from the two files.
func (c *Catalog) load() error {
	var err error
	if c.facts, err = loadFacts(c.people); err != nil {
		return err
	}
	for name := range c.derived {
		c.index.put(c.entry(name))
	}
	return nil
}

// Close ends the worker, writes the counts and closes the files.
func (c *Catalog) Close() error {
	c.stop()
	c.worker.Wait()
	err := c.writeCounts()
	if e := c.people.Close(); err == nil {
		err = e
	}
	if e := c.found.Close(); err == nil {
		err = e
	}
	return err
}

// Notice takes notice of what happened in the registry. It never waits for a disk.
func (c *Catalog) Notice(e notice.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !e.Manifest() {
		if e.Action == notice.Pull && c.derived[e.Repository].Partial { // perhaps it was the config that came
			c.queue[e.Repository] = struct{}{}
			c.wakeUp()
		}
		return
	}
	switch e.Action {
	case notice.Pull:
		c.factsOf(e.Repository).Pulls++
		c.dirty[e.Repository] = struct{}{}
		if c.isNews(e) {
			c.queue[e.Repository] = struct{}{}
			c.wakeUp()
		}
	case notice.Push:
		f := c.factsOf(e.Repository)
		f.Pushes++
		f.LastPush = e.At
		c.dirty[e.Repository] = struct{}{}
		c.queue[e.Repository] = struct{}{}
		c.wakeUp()
	case notice.Delete:
		c.queue[e.Repository] = struct{}{}
		c.wakeUp()
	}
}

// isNews reports whether a pull shows content that the catalog has not seen: what a mirror fetches is pushed by
// nobody. mu is held.
func (c *Catalog) isNews(e notice.Event) bool {
	d, known := c.derived[e.Repository]
	switch {
	case !known:
		return true
	case e.Tag == "":
		return false
	case e.Tag == d.Newest.Tag:
		return e.Digest != "" && e.Digest != d.Newest.Digest
	}
	_, bound := BoundTag(e.Tag) // those are not listed
	return !bound && !slices.Contains(d.Tags, e.Tag)
}

// Refresh has a repository read again soon: for content that changes without an event, as a retention run's.
func (c *Catalog) Refresh(repository string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue[repository] = struct{}{}
	c.wakeUp()
}

// Collected takes notice of a garbage collection: it removes, without events, what no tag leads to.
func (c *Catalog) Collected() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, d := range c.derived {
		if len(d.Tags) == 0 {
			c.queue[name] = struct{}{}
		}
	}
	c.wakeUp()
}

// Settle waits until everything that was noticed is searchable, or ctx ends.
func (c *Catalog) Settle(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() {
		c.mu.Lock() // so that the waiter is either before its look at ctx or in Wait
		defer c.mu.Unlock()
		c.idle.Broadcast()
	})()
	c.mu.Lock()
	defer c.mu.Unlock()
	for (c.busy || len(c.queue) > 0) && ctx.Err() == nil {
		c.idle.Wait()
	}
	return ctx.Err()
}

// Entry gives what is known of one repository. NotFound when it has no content.
func (c *Catalog) Entry(repository string) (Entry, error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if _, ok := c.derived[repository]; !ok {
		return Entry{}, fault.New(fault.NotFound, "repository %s is not known", repository)
	}
	return c.entry(repository), nil
}

// wakeUp tells the worker to look. mu is held or not.
func (c *Catalog) wakeUp() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// entry joins what was derived with what people said. mu is held, or nobody else knows c yet.
func (c *Catalog) entry(name string) Entry {
	e := Entry{Name: name, Derived: c.derived[name]}
	e.Official = Shown(name) != name
	e.Short = describedBy(e.Labels)
	f := c.facts[name]
	if f == nil {
		e.LastPush = e.Newest.Pushed
		return e
	}
	if f.Short != "" {
		e.Short = f.Short
	}
	e.Long = f.Long
	if f.Official != nil {
		e.Official = *f.Official
	}
	e.Stars, e.Pulls, e.Pushes, e.LastPush = len(f.stars), f.Pulls, f.Pushes, f.LastPush
	if e.LastPush.IsZero() {
		e.LastPush = e.Newest.Pushed
	}
	return e
}

// reindex puts what is known now into the index. mu is held.
func (c *Catalog) reindex(name string) {
	if _, ok := c.derived[name]; !ok {
		c.index.remove(name)
		return
	}
	c.index.put(c.entry(name))
}
