package storage

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
)

// formatVersion is what the key "version" holds; docs/formats-registry.md tells the history.
const formatVersion = "1"

// Config are a store's settings.
type Config struct {
	// Grace is for how long the collector spares what a client has pushed, mounted or asked for and nothing names yet: the
	// time a client may take between a blob and its manifest. Zero means an hour.
	Grace time.Duration
	// SparseIndexes accepts an index of which some manifests are not in the repository.
	SparseIndexes bool
	Log           *slog.Logger // nil: nothing is logged
}

// Store is the content of a registry. Its methods may be called concurrently; each checks names itself, so that no caller
// can make it leave its keys.
type Store struct {
	driver Driver
	cfg    Config
	leases leases
	held   held
	turns  turns // orders changes within one repository

	mu       sync.Mutex
	names    map[string]bool    // the repositories that exist
	sorted   []string           // their names; nil when they have changed. Replaced, never changed
	sizes    map[string]int64   // bytes that a repository holds, where somebody has asked
	sessions map[string]*Upload // uploads that this process has touched
}

// Open opens the store that lies on driver, or makes it. The driver is the store's from here on, also after an error.
func Open(ctx context.Context, driver Driver, cfg Config) (*Store, error) {
	if cfg.Grace == 0 {
		cfg.Grace = time.Hour
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{driver: driver, cfg: cfg, names: map[string]bool{}, sizes: map[string]int64{}, sessions: map[string]*Upload{}}
	s.leases.grace = cfg.Grace
	if err := s.recover(ctx); err != nil {
		driver.Close()
		return nil, fault.In(err, "opening the registry's storage")
	}
	return s, nil
}

func (s *Store) recover(ctx context.Context) error {
	version, err := s.driver.Read(ctx, versionKey)
	switch {
	case fault.Is(err, fault.NotFound):
		if err := s.driver.Write(ctx, versionKey, []byte(formatVersion+"\n")); err != nil {
			return err
		}
	case err != nil:
		return err
	case strings.TrimSpace(string(version)) != formatVersion:
		return fault.New(fault.Invalid, "it has format %s and this program knows %s: use the program that wrote it, or a newer one", shorten(strings.TrimSpace(string(version))), formatVersion)
	}
	for e, err := range s.driver.List(ctx, namesKey) {
		if err != nil {
			return err
		}
		s.names[strings.ReplaceAll(strings.TrimPrefix(e.Key, namesKey), ":", "/")] = true
	}
	return nil
}

// Close ends the store. Requests have ended before.
func (s *Store) Close() error { return s.driver.Close() }

// Ping reports whether the driver answers.
func (s *Store) Ping(ctx context.Context) error {
	_, err := s.driver.Stat(ctx, versionKey)
	return err
}

// Grace is how long the collector spares what nothing names yet.
func (s *Store) Grace() time.Duration { return s.cfg.Grace }

// Repositories gives the names of all repositories that begin with prefix, sorted.
func (s *Store) Repositories(_ context.Context, prefix string) ([]string, error) {
	s.mu.Lock()
	if s.sorted == nil {
		s.sorted = slices.Sorted(maps.Keys(s.names))
	}
	all := s.sorted
	s.mu.Unlock()
	from, _ := slices.BinarySearch(all, prefix)
	to := from
	for to < len(all) && strings.HasPrefix(all[to], prefix) {
		to++
	}
	return slices.Clone(all[from:to]), nil
}

// Adopt looks for repositories that have content but no name, which no crash leaves, only damage, and gives them their names again: without
// one a repository cannot be seen, least of all by the collector. It gives those that it has found.
func (s *Store) Adopt(ctx context.Context) ([]string, error) {
	strays, err := s.strays(ctx)
	if err != nil {
		return nil, err
	}
	for _, repo := range strays {
		s.cfg.Log.Warn("a repository had content but no name, it was given its name again", "repository", repo)
		if err := s.adopt(ctx, repo); err != nil {
			return nil, err
		}
	}
	return strays, nil
}

func (s *Store) adopt(ctx context.Context, repo string) error {
	defer s.turns.shared(repo)()
	return s.addName(ctx, repo)
}

func (s *Store) strays(ctx context.Context) ([]string, error) {
	found := map[string]bool{}
	for e, err := range s.driver.List(ctx, repositoriesKey) {
		if err != nil {
			return nil, err
		}
		repo, _, ok := strings.Cut(strings.TrimPrefix(e.Key, repositoriesKey), "/_")
		if ok && !found[repo] && !s.Exists(repo) && CheckName(repo) == nil {
			found[repo] = true
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Exists reports whether a repository exists: something has been pushed to it.
func (s *Store) Exists(repository string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[repository]
}

// addName makes a repository exist. The caller has its turn, shared at least.
func (s *Store) addName(ctx context.Context, repo string) error {
	if s.Exists(repo) {
		return nil
	}
	if err := s.driver.Write(ctx, nameKey(repo), nil); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[repo], s.sorted = true, nil
	return nil
}

// RemoveEmpty makes a repository that holds nothing cease to exist. It reports whether it did.
func (s *Store) RemoveEmpty(ctx context.Context, repository string) (bool, error) {
	defer s.turns.alone(repository)()
	for _, kind := range []string{"manifests", "blobs", "tags"} {
		for _, err := range s.driver.List(ctx, repoKey(repository, kind)) {
			return false, err // one entry, or a failure: either way it stays
		}
	}
	if err := s.driver.Remove(ctx, nameKey(repository)); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, repository)
	s.sorted = nil
	delete(s.sizes, repository)
	return true, nil
}

// readJSON reads a small value into v. What does not parse is Internal and names the key: the storage is damaged.
func (s *Store) readJSON(ctx context.Context, key string, v any) error {
	data, err := s.driver.Read(ctx, key)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fault.Wrap(fault.Internal, err, "%s is damaged", key)
	}
	return nil
}

func (s *Store) writeJSON(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "%s", key)
	}
	return s.driver.Write(ctx, key, data)
}

// has reports whether a key is there.
func (s *Store) has(ctx context.Context, key string) (bool, error) {
	_, err := s.driver.Stat(ctx, key)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}

// turns order what happens to one repository: additions go side by side, a removal goes alone, so that nothing is
// removed between the look and the write of an addition. Names share slots; nobody holds two.
//
// These locks are held over I/O on purpose: the order is what they are for.
type turns struct {
	slots [256]sync.RWMutex
}

func (t *turns) shared(repo string) (end func()) {
	l := &t.slots[slot(repo)]
	l.RLock()
	return l.RUnlock
}

func (t *turns) alone(repo string) (end func()) {
	l := &t.slots[slot(repo)]
	l.Lock()
	return l.Unlock
}

// slot is FNV-1a, folded.
func slot(s string) int {
	h := uint32(2166136261)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return int((h>>16 ^ h) & 255)
}
