package cache

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
)

// Layers is what the cache needs of the layer store.
type Layers interface {
	Retain(chain ...digest.Digest) error
	Release(chain ...digest.Digest) []digest.Digest
}

// Config is what a store needs.
type Config struct {
	Layers Layers
	Root   string // the directory of cache.db
	// Size tells the bytes of a layer; nil: 0.
	Size func(digest.Digest) int64
	// Shared reports whether an image uses the layer too; nil: none does.
	Shared func(digest.Digest) bool
	// Others are further things that take room for builds (contexts, cache mounts, git mirrors), listed and pruned
	// together with the records.
	Others []Other
	Log    *slog.Logger // nil: nothing is logged
}

// flushAfter is how long a record waits for others to be written with it.
const flushAfter = 100 * time.Millisecond

// Store is the cache of one engine. It is safe for concurrent use.
type Store struct {
	cfg Config
	log *slog.Logger
	db  *database

	writing sync.Mutex // held by whoever changes the file and the holds with it; taken before mu

	mu      sync.Mutex // guards what follows; held for memory only
	records map[string]*entry
	keys    map[digest.Digest]string // of entries and aliases that are not written yet
	aliases map[digest.Digest]string // those of keys that are not of new entries
	used    map[string]use           // uses that are not written yet
	last    map[string]Trace         // traces that are not written yet
	files   int                      // files that they name
	timer   *time.Timer

	collected time.Time // when GC last began
	grown     bool      // something was put since then
	named     int       // aliases since that was last said
	closed    bool
	flushes   sync.WaitGroup
}

// entry is a record that is not written yet.
type entry struct {
	rec     Record
	pending []Pending
}

// use is how often and when a record was used since that was last written.
type use struct {
	times int
	last  time.Time
}

// Open opens the cache, creating it at the first record, and holds the layers of its records. A file that cannot be read is
// set aside: a cache is a help and no need.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cfg.Log,
		records: map[string]*entry{}, keys: map[digest.Digest]string{}, aliases: map[digest.Digest]string{}, used: map[string]use{}, last: map[string]Trace{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.db = &database{root: cfg.Root, log: s.log, most: usual}
	if err := s.db.openExisting(); err != nil {
		return nil, fault.In(err, "open build cache")
	}
	if err := s.holdAll(); err != nil {
		s.db.close()
		return nil, fault.In(err, "open build cache")
	}
	return s, nil
}

// holdAll takes the holds of all records. A record one of whose layers is not here becomes a ghost.
func (s *Store) holdAll() error {
	var ghosts []string
	var held [][]digest.Digest
	err := s.db.eachHold(func(id string, layers []digest.Digest) {
		if s.cfg.Layers.Retain(layers...) != nil {
			ghosts = append(ghosts, id)
		} else {
			held = append(held, layers)
		}
	})
	if err != nil {
		for _, layers := range held {
			s.cfg.Layers.Release(layers...)
		}
		return s.db.setAside(err)
	}
	if len(ghosts) == 0 {
		return nil
	}
	s.log.Warn("layers of build cache records are gone; their steps will run again", "records", len(ghosts))
	return s.db.ghost(ghosts)
}

// Close writes what is pending and closes the file. The holds stay: they end with the layer store.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	if s.timer != nil && s.timer.Stop() {
		s.flushes.Done() // it will not run
	}
	s.mu.Unlock()
	s.flushes.Wait()
	err := s.flush()
	return errors.Join(err, s.db.close())
}

// Lookup gives the record of a key, or nil; it may be a ghost. It counts as a use.
func (s *Store) Lookup(key digest.Digest) *Record {
	s.mu.Lock()
	id, ok := s.keys[key]
	if ok {
		if e := s.records[id]; e != nil {
			rec := e.rec
			s.use(id)
			s.mu.Unlock()
			return &rec
		}
	}
	s.mu.Unlock()
	rec, err := s.db.lookup(key, id)
	if err != nil {
		s.log.Warn("read build cache", "err", err)
		return nil
	}
	if rec == nil {
		return nil
	}
	s.mu.Lock()
	s.use(rec.ID)
	s.mu.Unlock()
	return rec
}

// use counts a use. Its caller holds mu.
func (s *Store) use(id string) {
	u := s.used[id]
	u.times++
	u.last = time.Now()
	s.used[id] = u
	s.schedule()
}

// Pending is a snapshot on its way to the disk.
type Pending interface {
	Durable(ctx context.Context) error
	Release()
}

// Put remembers a record and holds its layers. Keys that named another record name this one from now on. It is found at
// once, and written when the snapshots are durable; they are released then, or at once with an error.
func (s *Store) Put(r Record, pending ...Pending) error {
	if len(r.Keys) == 0 || len(r.Outputs) == 0 {
		releaseAll(pending)
		return fault.New(fault.Internal, "a build cache record without keys or outputs")
	}
	for _, l := range r.layers() {
		if err := l.Validate(); err != nil {
			releaseAll(pending)
			return fault.Wrap(fault.Invalid, err, "remember a build step")
		}
	}
	if err := s.cfg.Layers.Retain(r.layers()...); err != nil {
		releaseAll(pending)
		return fault.In(err, "remember a build step")
	}
	if r.ID == "" {
		r.ID = id.New()[:25]
	}
	now := time.Now()
	if r.Created.IsZero() {
		r.Created = now
	}
	if r.Type == "" {
		r.Type = Regular
	}
	r.LastUsed, r.Ghost, r.Description = now, false, cut(r.Description)
	r.Keys, r.Outputs = slices.Clone(r.Keys), slices.Clone(r.Outputs)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		releaseAll(pending)
		s.cfg.Layers.Release(r.layers()...)
		return fault.New(fault.Unavailable, "the build cache is closed")
	}
	s.records[r.ID] = &entry{r, pending}
	s.grown = true
	for _, k := range r.Keys {
		s.keys[k] = r.ID
		delete(s.aliases, k)
	}
	s.schedule()
	return nil
}

// cut bounds what a record is called: a step may be called by a whole script.
func cut(text string) string {
	const most = 4096
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

func releaseAll(pending []Pending) {
	for _, p := range pending {
		p.Release()
	}
}

// Alias lets further keys name a record.
func (s *Store) Alias(id string, keys ...digest.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if s.keys[k] != id {
			s.keys[k], s.aliases[k] = id, id
			s.named++
		}
	}
	if s.named > s.db.most.aliases/10 {
		s.named, s.grown = 0, true // so that a collection looks at them
	}
	s.schedule()
}

// schedule has what is pending written soon, if that is not under way. Its caller holds mu.
func (s *Store) schedule() {
	if s.timer != nil || s.closed {
		return
	}
	s.flushes.Add(1)
	s.timer = time.AfterFunc(flushAfter, func() {
		defer s.flushes.Done()
		if err := s.flush(); err != nil {
			s.log.Error("write build cache", "err", err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.timer = nil
		if len(s.records)+len(s.aliases)+len(s.used)+len(s.last) > 0 {
			s.schedule()
		}
	})
}

// batch is what one flush writes.
type batch struct {
	records []*entry
	aliases map[digest.Digest]string
	used    map[string]use
	last    map[string]Trace
}

// flush writes what is pending.
func (s *Store) flush() error {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.flushHeld()
}

// flushHeld first waits until the layers are durable; then there is one transaction. Its caller holds writing.
func (s *Store) flushHeld() error {
	s.mu.Lock()
	b := batch{aliases: s.aliases, used: s.used, last: s.last}
	for _, e := range s.records {
		b.records = append(b.records, e)
	}
	s.aliases, s.used, s.last = map[digest.Digest]string{}, map[string]use{}, map[string]Trace{}
	s.files = 0
	s.mu.Unlock()
	if len(b.records) == 0 && !s.db.open() {
		return nil
	}
	slices.SortFunc(b.records, func(x, y *entry) int { return x.rec.Created.Compare(y.rec.Created) })
	lost := s.await(b.records)
	b.records = slices.DeleteFunc(b.records, func(e *entry) bool { return slices.Contains(lost, e) })
	superseded, err := s.db.write(b)
	if err != nil {
		for _, e := range b.records {
			s.cfg.Layers.Release(e.rec.layers()...)
		}
	}
	for _, rec := range superseded {
		s.cfg.Layers.Release(rec.layers()...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range append(b.records, lost...) {
		if s.records[e.rec.ID] != e {
			continue
		}
		delete(s.records, e.rec.ID)
		for _, k := range e.rec.Keys {
			if s.keys[k] == e.rec.ID {
				delete(s.keys, k)
			}
		}
	}
	for k, id := range b.aliases {
		if s.keys[k] == id && s.aliases[k] == "" {
			delete(s.keys, k)
		}
	}
	return err
}

// await waits until the records' layers are durable and gives the records that are lost, because that failed.
func (s *Store) await(list []*entry) (lost []*entry) {
	for _, e := range list {
		for _, p := range e.pending {
			// Without an end: what has been sealed is on its way, and nobody waits for this.
			if err := p.Durable(context.Background()); err != nil {
				s.log.Error("a build step is not remembered: its layers do not reach the disk", "step", e.rec.Description, "err", err)
				lost = append(lost, e)
				s.cfg.Layers.Release(e.rec.layers()...)
				break
			}
		}
		releaseAll(e.pending)
		e.pending = nil
	}
	return lost
}
