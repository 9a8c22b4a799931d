package layer

import (
	"context"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
	"berth/image/archive"
	"berth/kernel/probe"
	"berth/kernel/tree"
)

// MaxDepth is the number of layers an image may have, as in Docker.
const MaxDepth = 125

// Config says where and how.
type Config struct {
	Root      string         // directory of the store alone
	Limits    archive.Limits // of one diff
	UserXattr bool           // marks for mounts in a user namespace
	Facts     probe.Features // what the kernel can; the zero value asks it
	Log       *slog.Logger   // nil: nothing is logged
}

// Store is an open store. It is safe for concurrent use.
type Store struct {
	cfg   Config
	log   *slog.Logger
	lock  *tree.Dir
	trash *trash
	disk  syncer
	flush flusher
	hard  hardener

	lazy Lazy // who shows diffs that are not unpacked; guarded by mu; nil: nobody

	naming sync.Mutex // held while a name in d appears or goes, together with its place in diffs; taken before mu

	mu         sync.Mutex // guards what follows; held for memory only
	diffs      map[digest.Digest]*diff
	containers map[string]*container
	chains     map[string]*chainFacts // by chain; what Create needs to know of an image
	skeletons  map[string]bool        // keys of those on disk
	retired    map[string]*time.Timer // views in v that are about to be unmounted; nil: the store is closed
	retiring   sync.WaitGroup         // those that are being unmounted
}

// diff is one unpacked layer.
type diff struct {
	info  Info
	short string
	holds int
	shown bool  // a lazy diff has its view
	soft  bool  // sealed and not durable yet: see seal.go
	since mark  // of a soft diff: before anything of it was written
	disk  int64 // bytes of real blocks; 0 before somebody asked
}

// Info describes a diff.
type Info struct {
	Version    int              `json:"version"`
	DiffID     digest.Digest    `json:"diffID"`
	Size       int64            `json:"size"` // bytes of its files, holes included
	TarSize    int64            `json:"tarSize"`
	Root       *Attributes      `json:"root,omitempty"` // of the root directory, where the tar speaks of it
	OpaqueRoot bool             `json:"opaqueRoot,omitempty"`
	Implied    []string         `json:"implied,omitempty"` // directories the tar has no entry for
	Shadows    []archive.Shadow `json:"shadows,omitempty"`
	Marks      bool             `json:"marks,omitempty"` // it has deletions; not said of layers of earlier versions
	Lazy       bool             `json:"lazy,omitempty"`  // not unpacked yet: a view is mounted on fs
}

// Attributes of a directory.
type Attributes struct {
	Mode uint32 `json:"mode"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
}

const formatVersion = 1

// Open opens or makes the store in cfg.Root and recovers it: half-made and half-deleted things go, diffs and containers are
// read. A root that another process has open is Conflict.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cfg.Log,
		diffs: map[digest.Digest]*diff{}, containers: map[string]*container{},
		chains: map[string]*chainFacts{}, skeletons: map[string]bool{}, retired: map[string]*time.Timer{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	// Nobody else on the machine may come near: layers have set-user-id programs (CVE-2021-41091).
	for _, dir := range []string{"", "d", "c", "s", "v", "tmp", "trash"} {
		if err := os.MkdirAll(filepath.Join(cfg.Root, dir), 0o700); err != nil {
			return nil, fault.In(err, "open layer store")
		}
	}
	lock, err := tree.Lock(cfg.Root)
	if err != nil {
		return nil, fault.In(err, "open layer store")
	}
	s.lock = lock
	s.disk.syncfs = lock.SyncFS
	s.flush.sync = s.disk.sync
	s.hard.run = s.harden
	s.trash, err = openTrash(s.path("trash"), s.log)
	if err != nil {
		lock.Close()
		return nil, fault.In(err, "open layer store")
	}
	if err := s.recover(); err != nil {
		s.Close()
		return nil, fault.In(err, "open layer store")
	}
	return s, nil
}

// Close stops background deletions where they are and gives the root up.
func (s *Store) Close() error {
	s.closeRetired()
	err := s.hard.close()
	s.trash.close()
	s.flush.close()
	return errors.Join(err, s.lock.Close())
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, elem...)...)
}

// recover reads what is on disk.
func (s *Store) recover() error {
	if err := s.clearMounts(); err != nil {
		return err
	}
	for _, dir := range []string{"tmp", "v"} {
		if err := s.trash.sweep(s.path(dir)); err != nil {
			return err
		}
	}
	if err := s.recoverDiffs(); err != nil {
		return err
	}
	if err := s.recoverSkeletons(); err != nil {
		return err
	}
	return s.recoverContainers()
}

func (s *Store) recoverDiffs() error {
	names, err := os.ReadDir(s.path("d"))
	if err != nil {
		return err
	}
	for _, n := range names {
		var info Info
		err := readJSON(s.path("d", n.Name(), "layer.json"), &info)
		if err == nil && (info.Version != formatVersion || shortName(info.DiffID) != n.Name()) {
			err = errors.New("not a layer of this format")
		}
		if errors.Is(err, os.ErrNotExist) && s.pending(n.Name()) {
			if err := s.trash.take(s.path("d", n.Name())); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			// Names in d appear only when everything below them is durable: this is damage, or a newer Berth's.
			s.log.Error("layer is unreadable and left alone", "dir", n.Name(), "err", err)
			continue
		}
		s.diffs[info.DiffID] = &diff{info: info, short: n.Name()}
	}
	return nil
}

// pending reports a diff that was sealed and perhaps did not reach the disk.
func (s *Store) pending(name string) bool {
	_, err := os.Lstat(s.path("d", name, "pending.json"))
	return err == nil
}

// shortName is a diff's directory: the first 100 bits of its id. Two diffs that share it cannot be stored together;
// the id in layer.json is compared, so nobody can gain from making such a pair.
func shortName(d digest.Digest) string {
	if d.Validate() != nil {
		return ""
	}
	raw, err := hex.DecodeString(d.Encoded())
	if err != nil {
		return ""
	}
	return strings.ToLower(base32.StdEncoding.EncodeToString(raw)[:20])
}

// Has reports whether the diff is there. It may be gone a moment later: Retain it to be sure.
func (s *Store) Has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.diffs[d] != nil
}

// Stat describes a diff.
func (s *Store) Stat(d digest.Digest) (Info, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.diffs[d]; l != nil {
		return l.info, nil
	}
	return Info{}, missing(d)
}

// Retain takes a hold on each diff of a chain, or on none and fails with NotFound.
func (s *Store) Retain(chain ...digest.Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.retain(chain)
}

func (s *Store) retain(chain []digest.Digest) error {
	for _, d := range chain {
		if s.diffs[d] == nil {
			return missing(d)
		}
	}
	for _, d := range chain {
		s.diffs[d].holds++
	}
	return nil
}

// Release gives holds back. Diffs whose last hold it was are gone at once and deleted in the background; it
// tells their ids.
func (s *Store) Release(chain ...digest.Digest) (deleted []digest.Digest) {
	var idle []digest.Digest
	s.mu.Lock()
	for _, d := range chain {
		l := s.diffs[d]
		if l == nil || l.holds == 0 {
			continue
		}
		if l.holds--; l.holds == 0 {
			idle = append(idle, d)
		}
	}
	s.mu.Unlock()
	for _, d := range idle {
		if s.remove(d) {
			deleted = append(deleted, d)
		}
	}
	return deleted
}

// remove takes a diff out of the store if still nobody holds it.
func (s *Store) remove(d digest.Digest) bool {
	s.naming.Lock()
	s.mu.Lock()
	l := s.diffs[d]
	if l == nil || l.holds > 0 {
		s.mu.Unlock()
		s.naming.Unlock()
		return false
	}
	delete(s.diffs, d)
	clear(s.chains)
	lazy := s.lazy
	s.mu.Unlock()
	if l.info.Lazy {
		s.dropView(l)
	}
	name, err := s.trash.rename(s.path("d", l.short))
	s.naming.Unlock()
	if lazy != nil {
		lazy.Dropped(d)
	}
	if err != nil {
		s.log.Error("delete layer; tried again at the next start", "layer", d, "err", err)
		return true
	}
	s.trash.enqueue(name)
	return true
}

// Sweep deletes the diffs that nobody holds and tells how many bytes they had. Its caller has retained what images
// need; containers have done so themselves.
func (s *Store) Sweep() (freed int64) {
	var idle []digest.Digest
	s.mu.Lock()
	for d, l := range s.diffs {
		if l.holds == 0 {
			l.holds = 1
			idle = append(idle, d)
			freed += l.info.Size
		}
	}
	s.mu.Unlock()
	s.Release(idle...)
	return freed
}

// List gives all diffs, in no order.
func (s *Store) List() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]Info, 0, len(s.diffs))
	for _, l := range s.diffs {
		list = append(list, l.info)
	}
	return list
}

// WaitTrash waits until what was removed so far is deleted from disk: for tests and orderly shutdown.
func (s *Store) WaitTrash(ctx context.Context) error { return s.trash.wait(ctx) }

func missing(d digest.Digest) error { return fault.New(fault.NotFound, "no layer %s", d) }

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// newName is a name that nobody has yet.
func newName() string { return id.New()[:24] }
