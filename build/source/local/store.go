package local

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
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

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// Config says where and how.
type Config struct {
	Root      string          // a directory of the store alone
	Snapshots *snapshot.Store // where trees become snapshots; nil: they do not
	Boot      string          // what tells this boot of the machine from others; "" asks the kernel
	Log       *slog.Logger    // nil: nothing is logged
}

// Store keeps trees. It is safe for concurrent use.
type Store struct {
	cfg  Config
	boot string
	log  *slog.Logger

	opening sync.Mutex // held while the directory is read
	trash   sync.WaitGroup
	broom   sync.Mutex // held while the trash is emptied

	mu      sync.Mutex // guards what follows
	loaded  bool
	closed  bool
	trees   map[string]*record
	flights map[string]*flight
}

// record is one tree.
type record struct {
	ID   string `json:"-"`
	Key  string `json:"key"`            // of the request that it holds the files of
	Kin  string `json:"group"`          // of the trees that may have the same files
	Name string `json:"name"`           // for people
	Once bool   `json:"once,omitempty"` // goes with its last reader

	Created time.Time `json:"created"`

	used    time.Time // when a sync last ended
	users   int       // who reads it
	busy    bool      // a sync is changing it, or it is being removed
	durable bool      // the mark is there
	dirty   bool      // its index is of this boot
	size    int64     // bytes of its files; -1: not known
}

const (
	fileTree    = "tree"
	fileIndex   = "index"
	fileDurable = "durable"
	dirFS       = "fs"
	dirTrash    = "trash"

	treeVersion = 1

	maxSiblings = 4 // trees of a group that are kept without being used
	maxDonors   = 3
)

// New gives the store. Its directory is read when it is first used.
func New(cfg Config) *Store {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{cfg: cfg, boot: cfg.Boot, log: cfg.Log, trees: map[string]*record{}, flights: map[string]*flight{}}
}

// load reads the directory, and deletes what a crash left.
func (s *Store) load() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	loaded, closed := s.loaded, s.closed
	s.mu.Unlock()
	if closed {
		return fault.New(fault.Unavailable, "the builder is closing")
	}
	if loaded {
		return nil
	}
	if s.boot == "" {
		b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
		if err != nil {
			return err
		}
		s.boot = strings.TrimSpace(string(b))
	}
	if err := os.MkdirAll(filepath.Join(s.cfg.Root, dirTrash), 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.cfg.Root)
	if err != nil {
		return err
	}
	trees := map[string]*record{}
	for _, e := range entries {
		switch r, err := s.read(e.Name()); {
		case e.Name() == dirTrash:
		case err == nil:
			trees[r.ID] = r
		default:
			s.log.Info("a build context that is not whole is deleted", "tree", e.Name(), "err", err)
			s.discard(e.Name())
		}
	}
	s.empty()
	s.mu.Lock()
	s.trees, s.loaded = trees, true
	s.mu.Unlock()
	return nil
}

// read reads one tree's files.
func (s *Store) read(name string) (*record, error) {
	raw, err := os.ReadFile(s.path(name, fileTree))
	if err != nil {
		return nil, err
	}
	var f struct {
		Version int `json:"version"`
		record
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return nil, err
	}
	if f.Version != treeVersion {
		return nil, fault.New(fault.Invalid, "version %d", f.Version)
	}
	boot, err := indexBoot(s.path(name, fileIndex))
	if err != nil {
		return nil, err
	}
	r := f.record
	if r.Once {
		return nil, fault.New(fault.Gone, "it was for one build")
	}
	r.ID, r.size, r.dirty = name, -1, boot == s.boot
	_, err = os.Lstat(s.path(name, fileDurable))
	r.durable = err == nil
	if !r.dirty && !r.durable {
		return nil, fault.New(fault.Unavailable, "the machine was started anew since it was written")
	}
	if st, err := os.Stat(s.path(name, fileIndex)); err == nil {
		r.used = st.ModTime()
	}
	return &r, nil
}

func (s *Store) path(elem ...string) string {
	return filepath.Join(append([]string{s.cfg.Root}, elem...)...)
}

// Close makes the trees fit for the next boot, and waits for what is being deleted. Trees that are given out stay where they are.
func (s *Store) Close() error {
	s.opening.Lock()
	defer s.opening.Unlock()
	s.mu.Lock()
	s.closed = true
	var list []*record
	for _, r := range s.trees {
		if !r.busy && !r.durable && !r.Once {
			list = append(list, r)
		}
	}
	s.mu.Unlock()
	defer s.trash.Wait()
	if len(list) == 0 {
		return nil
	}
	root, err := tree.OpenDir(s.cfg.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := root.SyncFS(); err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		errs = append(errs, atomicfile.Write(s.path(r.ID, fileDurable), nil, 0o600))
	}
	return errors.Join(errs...)
}

// keys names the tree of a request, and its group.
func keys(c session.Caller, r Request) (key, kin string) {
	kin = hashOf(r.Name, r.Hint, c.SharedKey())
	always := ""
	if r.Always {
		always = "always"
	}
	if r.Meta {
		always += "meta"
	}
	lists, _ := json.Marshal([][]string{r.Include, r.Exclude, r.Follow, r.MetaSaved})
	return hashOf(kin, string(lists), always), kin
}

func hashOf(parts ...string) string {
	raw, _ := json.Marshal(parts)
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// Sync brings what a client offers here, and gives it as a tree that does not change until it is closed. told, unless nil, is told how
// many bytes have come, now and then. The same request of the same session is done once for all who want it at the same time.
func (s *Store) Sync(ctx context.Context, sessionID string, c session.Caller, req Request, told func(current int64, done bool)) (*Tree, error) {
	if err := s.load(); err != nil {
		return nil, err
	}
	key, kin := keys(c, req)
	for {
		f, mine := s.join(sessionID + "/" + key)
		if !mine {
			t, err := f.wait(ctx)
			if t != nil || err != nil {
				return t, err
			}
			continue // who was first gave up
		}
		t, err := s.sync(ctx, c, req, key, kin, told)
		return s.land(f, t, err)
	}
}

// sync does it for one.
func (s *Store) sync(ctx context.Context, c session.Caller, req Request, key, kin string, told func(int64, bool)) (*Tree, error) {
	r, old, err := s.take(key, kin, req.Name, strings.HasPrefix(c.SharedKey(), session.Once))
	if err != nil {
		return nil, err
	}
	donors := s.donors(r)
	defer s.release(donors)
	p := &pass{req: req, told: told, old: old, donors: donors, before: func() error { return s.dirtying(r) }}
	if req.Meta {
		if p.meta, err = newMetaList(req.MetaSaved); err != nil {
			s.idle(r, old.Len() == 0)
			return nil, err
		}
	}
	if p.root, err = tree.OpenDir(s.path(r.ID, dirFS)); err != nil {
		s.drop(r)
		return nil, err
	}
	defer p.root.Close()
	if p.w, err = openWire(ctx, c, req); err != nil {
		s.idle(r, old.Len() == 0)
		return nil, err
	}
	defer p.w.cancel()
	defer p.w.drop()
	x, err := p.run(ctx)
	if x == nil {
		s.drop(r)
		return nil, err
	}
	if x != old || !r.dirty {
		if werr := s.save(r, x); werr != nil {
			s.drop(r)
			return nil, errors.Join(err, werr)
		}
	}
	if err != nil {
		s.idle(r, x.Len() == 0)
		return nil, err
	}
	return s.give(r, x), nil
}

// take finds the tree of a request that nobody uses, or makes one, and locks it.
func (s *Store) take(key, kin, name string, once bool) (*record, *index, error) {
	s.mu.Lock()
	var r *record
	for _, t := range s.trees {
		if t.Key == key && !t.busy && t.users == 0 && (r == nil || t.used.After(r.used)) {
			r = t
		}
	}
	if r != nil {
		r.busy = true
	}
	s.mu.Unlock()
	if r != nil {
		x, _, err := readIndex(s.path(r.ID, fileIndex))
		if err == nil {
			return r, x, nil
		}
		s.log.Warn("the list of a build context's files cannot be read: it is fetched anew", "tree", r.ID, "err", err)
		s.drop(r)
	}
	r = &record{ID: id.New()[:20], Key: key, Kin: kin, Name: name, Once: once, Created: time.Now().UTC(), busy: true}
	raw, err := json.Marshal(struct {
		Version int `json:"version"`
		*record
	}{treeVersion, r})
	if err != nil {
		return nil, nil, err
	}
	if err := os.MkdirAll(s.path(r.ID, dirFS), 0o700); err != nil {
		return nil, nil, err
	}
	// What copies the root's attributes shall find those of a directory as people make it.
	if err := os.Chmod(s.path(r.ID, dirFS), 0o755); err != nil {
		return nil, nil, err
	}
	if err := os.WriteFile(s.path(r.ID, fileTree), raw, 0o600); err != nil {
		return nil, nil, err
	}
	s.mu.Lock()
	s.trees[r.ID] = r
	s.mu.Unlock()
	return r, new(builder).finish(nil), nil
}

// dirtying is called before a tree is changed: from now on its index says what is not so.
func (s *Store) dirtying(r *record) error {
	if r.durable { // an index that comes back after a power cut must not count
		if err := atomicfile.Remove(s.path(r.ID, fileDurable)); err != nil {
			return err
		}
		s.mu.Lock()
		r.durable = false
		s.mu.Unlock()
	}
	if err := os.Remove(s.path(r.ID, fileIndex)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return failpoint.Hit("build/tree-changing")
}

// save puts the index in its place.
func (s *Store) save(r *record, x *index) error {
	if err := failpoint.Hit("build/before-tree-index"); err != nil {
		return err
	}
	if err := x.write(s.path(r.ID, fileIndex), s.boot); err != nil {
		return err
	}
	s.mu.Lock()
	r.dirty = true
	s.mu.Unlock()
	return nil
}

// donors gives siblings whose files may be what is wanted, locked against changes.
func (s *Store) donors(r *record) []*donor {
	s.mu.Lock()
	var list []*record
	for _, t := range s.trees {
		if t != r && t.Kin == r.Kin && !t.busy {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *record) int { return b.used.Compare(a.used) })
	list = list[:min(len(list), maxDonors)]
	for _, t := range list {
		t.users++
	}
	s.mu.Unlock()
	var donors []*donor
	for _, t := range list {
		donors = append(donors, &donor{r: t, store: s})
	}
	return donors
}

func (s *Store) release(donors []*donor) {
	for _, d := range donors {
		d.close()
		s.leave(d.r)
	}
}

// idle unlocks a tree that is as its index says. An empty one is not worth keeping.
func (s *Store) idle(r *record, empty bool) {
	if empty {
		s.drop(r)
		return
	}
	s.mu.Lock()
	r.busy, r.used = false, time.Now()
	s.mu.Unlock()
}

// give unlocks a tree and gives it to a reader.
func (s *Store) give(r *record, x *index) *Tree {
	now := time.Now()
	if err := os.Chtimes(s.path(r.ID, fileIndex), now, now); err != nil {
		s.log.Debug("use of a build context is not noted", "tree", r.ID, "err", err)
	}
	s.mu.Lock()
	r.busy, r.used, r.size = false, now, -1
	r.users++
	s.mu.Unlock()
	return &Tree{s: s, r: r, x: x, dir: s.path(r.ID, dirFS)}
}

// thin deletes the oldest trees of a group that has too many: each set of filters makes one.
func (s *Store) thin(kin string) {
	s.mu.Lock()
	var list []*record
	for _, t := range s.trees {
		if t.Kin == kin && !t.busy && t.users == 0 {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *record) int { return b.used.Compare(a.used) })
	list = list[min(len(list), maxSiblings):]
	for _, t := range list {
		t.busy = true
	}
	s.mu.Unlock()
	for _, t := range list {
		s.drop(t)
	}
}

// leave takes a reader away, and a tree that was for one build with the last.
func (s *Store) leave(r *record) {
	s.mu.Lock()
	r.users--
	over := r.Once && r.users == 0 && !r.busy
	r.busy = r.busy || over
	s.mu.Unlock()
	if over {
		s.drop(r)
	}
	s.thin(r.Kin)
}

// drop deletes a tree that the caller has locked.
func (s *Store) drop(r *record) {
	s.mu.Lock()
	delete(s.trees, r.ID)
	s.mu.Unlock()
	s.discard(r.ID)
	s.empty()
}

// discard moves a tree out of the way.
func (s *Store) discard(name string) {
	to := s.path(dirTrash, name+"-"+id.New()[:8])
	if err := os.Rename(s.path(name), to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("a build context cannot be deleted", "tree", name, "err", err)
	}
}

// empty deletes what was moved out of the way, in the background.
func (s *Store) empty() {
	s.trash.Go(func() {
		s.broom.Lock()
		defer s.broom.Unlock()
		dir, err := tree.OpenDir(s.path(dirTrash))
		if err != nil {
			return
		}
		defer dir.Close()
		names, _ := dir.Names()
		for _, name := range names {
			if err := dir.RemoveAll(name); err != nil {
				s.log.Warn("a build context cannot be deleted", "tree", name, "err", err)
			}
		}
	})
}

var _ snapshot.Tree = (*Tree)(nil)
