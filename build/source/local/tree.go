package local

import (
	"context"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/snapshot"
	"berth/kernel/tree"
)

// Tree is a copy of a client's files that stays as it is until it is closed. It is a snapshot.Tree.
type Tree struct {
	s    *Store
	r    *record
	x    *index
	dir  string
	once sync.Once
	f    *flight // by which it was shared, or nil
}

// Dir is its path.
func (t *Tree) Dir() string { return t.dir }

// Index is what is in it.
func (t *Tree) Index() snapshot.Index { return t.x }

// ID names the tree with all that is in it, times included: as long as it is the same, nothing has changed.
func (t *Tree) ID() digest.Digest { return t.x.ID() }

// Close gives it up. A second call does nothing.
func (t *Tree) Close() {
	t.once.Do(func() {
		t.s.forget(t.f)
		t.s.leave(t.r)
	})
}

// flight is a sync for all who want the same of one session. It stays for as long as somebody has the tree that it gave, so that the steps of
// one build see the same files.
type flight struct {
	s       *Store
	key     string
	done    chan struct{}
	tree    *Tree // nil after a failure
	err     error
	readers int // open trees of it; guarded by Store.mu
}

// forget takes one open tree off a flight; with the last one the flight is over.
func (s *Store) forget(f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f == nil {
		return
	}
	if f.readers--; f.readers == 0 && s.flights[f.key] == f {
		delete(s.flights, f.key)
	}
}

// join gives the flight, and tells whether the caller has to do it.
func (s *Store) join(key string) (f *flight, mine bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := s.flights[key]; f != nil {
		return f, false
	}
	f = &flight{s: s, key: key, done: make(chan struct{})}
	s.flights[key] = f
	return f, true
}

// land ends a flight for all who wait.
func (s *Store) land(f *flight, t *Tree, err error) (*Tree, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.tree, f.err = t, err
	if t != nil {
		t.f, f.readers = f, 1
	} else {
		delete(s.flights, f.key)
	}
	close(f.done)
	return t, err
}

// wait gives another handle to the flight's tree; nil without an error when it was given up and somebody has to begin again.
func (f *flight) wait(ctx context.Context) (*Tree, error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-f.done:
	}
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	switch {
	case f.tree != nil && f.readers > 0:
		f.readers++
		f.tree.r.users++
		return &Tree{s: f.s, r: f.tree.r, x: f.tree.x, dir: f.tree.dir, f: f}, nil
	case f.tree != nil, fault.Is(f.err, fault.Cancelled), fault.Is(f.err, fault.Deadline):
		return nil, nil // all have closed it, or whoever did it went away
	}
	return nil, f.err
}

// donor is a sibling while it is compared with what comes.
type donor struct {
	r     *record
	store *Store
	x     *index // nil: not read yet
	bad   bool
	at    int
	dirs  dirs
}

// find tells whether the sibling has the same regular file. Files are asked for in order.
func (d *donor) find(st *stat) (sum []byte, ok bool) {
	if !d.open() {
		return nil, false
	}
	for ; d.at < d.x.Len(); d.at++ {
		raw, sum := d.x.record(d.at)
		switch cmp := snapshot.ComparePaths(pathOf(raw), st.path); {
		case cmp > 0:
			return nil, false
		case cmp == 0:
			return sum, sum != nil && same(raw, st.raw)
		}
	}
	return nil, false
}

func (d *donor) open() bool {
	if d.x != nil || d.bad {
		return !d.bad
	}
	var err error
	if d.x, _, err = readIndex(d.store.path(d.r.ID, fileIndex)); err == nil {
		d.dirs.root, err = tree.OpenDir(d.store.path(d.r.ID, dirFS))
	}
	d.bad = err != nil
	return !d.bad
}

func (d *donor) close() {
	d.dirs.close()
	if d.dirs.root != nil {
		_ = d.dirs.root.Close()
	}
}

// indexBoot tells in which boot an index was written.
func indexBoot(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	head := make([]byte, len(indexMagic)+bootLen)
	if _, err := f.ReadAt(head, 0); err != nil {
		return "", err
	}
	if string(head[:len(indexMagic)]) != indexMagic {
		return "", &fs.PathError{Op: "read", Path: path, Err: fs.ErrInvalid}
	}
	return unpadBoot(head[len(indexMagic):]), nil
}
