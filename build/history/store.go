package history

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// What is kept by default, as BuildKit keeps it: a record goes when it is beyond both.
const (
	maxRecords = 50
	maxAge     = 48 * time.Hour
)

// What is kept at most, whatever clients do: builds that do nothing cost next to nothing, and their records must not fill the memory or the
// disk before they are old.
const (
	mostRecords   = 10_000   // that are not pinned
	mostPinned    = 1_000    // that are
	mostWritten   = 64 << 20 // bytes of all records that are not pinned, which are held in memory
	mostDocuments = 1 << 30  // bytes of the documents that they name
	mostListeners = 1_000    // who follow at a time
	mostQueued    = 10_000   // events that one who follows has not taken
)

// Config says where the history is.
type Config struct {
	Root   string        // a directory of the history alone; made when something is written
	Max    int           // records that stay however old they are; 0: fifty
	MaxAge time.Duration // records that stay however many they are; 0: of two days
	Log    *slog.Logger
}

// Store is the history of one engine. It is safe for concurrent use.
type Store struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex // guards what follows; held over the reading and writing of small files
	loaded    bool
	records   map[string]*Record // complete
	active    map[string]*Record
	fresh     map[string][]digest.Digest // documents of builds whose records do not name them yet, by the build
	listeners map[*listener]bool
	closed    bool
}

// listener is somebody who follows; what he was not told yet waits in a queue.
type listener struct {
	queue []Event
	lost  bool          // there were more than he could take
	wake  chan struct{} // has room for one
}

// Open makes a store; it reads nothing before the first use.
func Open(cfg Config) *Store {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if cfg.Max == 0 {
		cfg.Max = maxRecords
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = maxAge
	}
	return &Store{cfg: cfg, log: log, records: map[string]*Record{}, active: map[string]*Record{}, fresh: map[string][]digest.Digest{}, listeners: map[*listener]bool{}}
}

// Close ends the listeners.
func (s *Store) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for l := range s.listeners {
		l.poke()
	}
}

// Begin makes a record active.
func (s *Store) Begin(r Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[r.ID] = &r
	s.tell(Event{Type: Started, Record: r})
}

// Complete writes the record of a build that has ended, and removes what is too old.
func (s *Store) Complete(r Record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	delete(s.active, r.ID)
	err := s.write(&r)
	s.replace(&r)
	s.tell(Event{Type: Completed, Record: r})
	s.expire(time.Now())
	return err
}

// replace puts a record in the place of the one of its id, and lets go the documents that nobody names now; mu is held.
func (s *Store) replace(r *Record) {
	loose := s.fresh[r.ID]
	delete(s.fresh, r.ID)
	if old := s.records[r.ID]; old != nil {
		loose = append(loose, old.blobs()...)
	}
	s.records[r.ID] = r
	s.drop(loose)
}

// Update changes a complete record; NotFound: there is none.
func (s *Store) Update(id string, change func(*Record)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	r, ok := s.records[id]
	if !ok {
		return notFound(id)
	}
	changed := *r
	change(&changed)
	if changed.Pinned && !r.Pinned && s.pinned() >= mostPinned {
		return fault.New(fault.Conflict, "there are %d pinned build records already: unpin some", mostPinned)
	}
	if err := s.write(&changed); err != nil {
		return err
	}
	s.replace(&changed)
	s.tell(Event{Type: Completed, Record: changed})
	return nil
}

// pinned counts the records that are; mu is held.
func (s *Store) pinned() (n int) {
	for _, r := range s.records {
		if r.Pinned {
			n++
		}
	}
	return n
}

// Delete removes a record and what belongs to it alone. NotFound: there is none; Conflict: it is active.
func (s *Store) Delete(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return err
	}
	if s.records[id] == nil {
		if s.active[id] != nil {
			return fault.New(fault.Conflict, "build %s is still running", id)
		}
		return notFound(id)
	}
	return s.remove(id)
}

// Get gives a record, also of a build that is under way.
func (s *Store) Get(id string) (Record, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return Record{}, err
	}
	if r := s.records[id]; r != nil {
		return *r, nil
	}
	if r := s.active[id]; r != nil {
		return *r, nil
	}
	return Record{}, notFound(id)
}

func notFound(id string) error { return fault.New(fault.NotFound, "no build record %s", id) }

// ListenOptions say what a listener wants.
type ListenOptions struct {
	Active  bool // only builds that are under way
	ID      string
	Once    bool // not what comes later
	Filters []string
	Limit   int // newest records; 0: all
}

// Listen calls f with the builds under way, with the records, and then with what happens until ctx ends or f fails. Unavailable: too many
// listen, or f is too slow.
func (s *Store) Listen(ctx context.Context, o ListenOptions, f func(Event) error) error {
	pass, err := parseFilters(o.Filters, time.Now())
	if err != nil {
		return err
	}
	if o.Limit < 0 {
		return fault.New(fault.Invalid, "invalid limit %d", o.Limit)
	}
	l := &listener{wake: make(chan struct{}, 1)}
	first, err := s.join(l, o, pass)
	if err != nil {
		return err
	}
	defer s.part(l)
	for _, e := range first {
		if err := f(e); err != nil {
			return err
		}
	}
	if o.Once {
		return nil
	}
	for {
		list, closed, lost := s.take(l)
		if lost {
			return fault.New(fault.Unavailable, "more than %d events of builds were not read: listen again", mostQueued)
		}
		for _, e := range list {
			if o.ID != "" && e.Record.ID != o.ID {
				continue
			}
			if err := f(e); err != nil {
				return err
			}
		}
		if closed {
			return nil
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// join lists what is there and enters the listener, so that nothing falls between the two.
func (s *Store) join(l *listener, o ListenOptions, pass match) ([]Event, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(); err != nil {
		return nil, err
	}
	if len(s.listeners) >= mostListeners {
		return nil, fault.New(fault.Unavailable, "the history of builds has %d listeners already", mostListeners)
	}
	var events []Event
	for _, r := range s.active {
		if o.ID == "" || o.ID == r.ID {
			events = append(events, Event{Type: Started, Record: *r})
		}
	}
	if !o.Active {
		var done []Event
		for _, r := range s.records {
			if (o.ID == "" || o.ID == r.ID) && pass(r) {
				done = append(done, Event{Type: Completed, Record: *r})
			}
		}
		slices.SortFunc(done, func(a, b Event) int { return b.Record.Created.Compare(a.Record.Created) })
		if o.Limit > 0 && len(done) > o.Limit {
			done = done[:o.Limit]
		}
		events = append(events, done...)
	}
	s.listeners[l] = true
	return events, nil
}

func (s *Store) part(l *listener) {
	s.mu.Lock()
	delete(s.listeners, l)
	s.mu.Unlock()
}

func (s *Store) take(l *listener) (list []Event, closed, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list, l.queue = l.queue, nil
	return list, s.closed, l.lost
}

// tell queues an event for everybody; mu is held.
func (s *Store) tell(e Event) {
	for l := range s.listeners {
		if len(l.queue) >= mostQueued {
			l.queue, l.lost = nil, true
		}
		if !l.lost {
			l.queue = append(l.queue, e)
		}
		l.poke()
	}
}

func (l *listener) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// expire removes what is beyond number and age, or beyond what is kept at most; mu is held.
func (s *Store) expire(now time.Time) {
	var list []*Record
	for _, r := range s.records {
		if !r.Pinned {
			list = append(list, r)
		}
	}
	slices.SortFunc(list, func(a, b *Record) int { return b.Completed.Compare(a.Completed) })
	var written, documents int64
	for i, r := range list {
		written += r.written
		documents += r.documents()
		old := i >= s.cfg.Max && now.Sub(r.Completed) >= s.cfg.MaxAge
		if i == 0 || !old && i < mostRecords && written <= mostWritten && documents <= mostDocuments {
			continue
		}
		if err := s.remove(r.ID); err != nil {
			s.log.Warn("an old build record stays", "id", r.ID, "err", err)
		}
	}
}

// remove deletes a record and the blobs that only it names; mu is held.
func (s *Store) remove(id string) error {
	r := s.records[id]
	if err := os.Remove(s.recordPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.In(err, "delete build record %s", id)
	}
	delete(s.records, id)
	s.drop(r.blobs())
	s.tell(Event{Type: Deleted, Record: Record{ID: id}})
	return nil
}

// drop deletes documents that no record names, nor a build under way will; mu is held.
func (s *Store) drop(list []digest.Digest) {
	if len(list) == 0 {
		return
	}
	named := map[digest.Digest]bool{}
	for _, r := range s.records {
		for _, d := range r.blobs() {
			named[d] = true
		}
	}
	for _, fresh := range s.fresh {
		for _, d := range fresh {
			named[d] = true
		}
	}
	for _, d := range list {
		if !named[d] {
			_ = os.Remove(s.blobPath(d)) // what is not here is in the image store, and stays
		}
	}
}

// load reads the records at the first use; mu is held. What cannot be read is told and removed: it is no more than history.
func (s *Store) load() error {
	if s.loaded {
		return nil
	}
	dir := filepath.Join(s.cfg.Root, "records")
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.In(err, "read build history")
	}
	s.loaded = true
	named := map[digest.Digest]bool{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		r := &Record{}
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, r)
		}
		if err != nil || s.recordPath(r.ID) != path {
			s.log.Warn("a damaged build record is dropped", "path", path, "err", err)
			_ = os.Remove(path)
			continue
		}
		r.written = int64(len(data))
		s.records[r.ID] = r
		for _, d := range r.blobs() {
			named[d] = true
		}
	}
	s.sweepBlobs(named)
	return nil
}

// sweepBlobs removes blobs that no record names: of builds that were under way when an engine died.
func (s *Store) sweepBlobs(named map[digest.Digest]bool) {
	entries, err := os.ReadDir(filepath.Join(s.cfg.Root, "blobs"))
	if err != nil {
		return
	}
	for _, e := range entries {
		if !named[digest.NewDigestFromEncoded(digest.SHA256, e.Name())] {
			_ = os.Remove(filepath.Join(s.cfg.Root, "blobs", e.Name()))
		}
	}
}

// write puts a record on disk; mu is held.
func (s *Store) write(r *Record) error {
	r.Generation++
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	r.written = int64(len(data))
	return fault.In(place(s.recordPath(r.ID), data), "write build record %s", r.ID)
}

// place writes a file under a temporary name and renames it.
func place(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// recordPath is where a record is. Ids are the clients' choice: what could be a path is hashed.
func (s *Store) recordPath(id string) string {
	name := id
	if id == "" || len(id) > 100 || strings.Trim(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
		name = "h-" + digest.FromString(id).Encoded()
	}
	return filepath.Join(s.cfg.Root, "records", name+".json")
}
