package blob

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
)

// Store is an open store. It is safe for concurrent use by one process.
type Store struct {
	root string

	mu    sync.Mutex // guards what follows; held for memory only
	blobs map[digest.Digest]*state
}

// state is what is known of one digest.
type state struct {
	there bool
	holds int
	busy  chan struct{} // closed when the writing or deleting that is under way has ended; nil: none is
}

var algorithms = []digest.Algorithm{digest.SHA256, digest.SHA512}

// clearDir deletes what is in a directory. The directory stays: on a full disk it could not be made again.
func clearDir(dir string) error {
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, n := range names {
		if err := os.RemoveAll(filepath.Join(dir, n.Name())); err != nil {
			return err
		}
	}
	return nil
}

// Open opens or makes the store in root, and removes what writers that died left behind.
func Open(root string) (*Store, error) {
	s := &Store{root: root, blobs: map[digest.Digest]*state{}}
	if err := clearDir(s.tmp()); err != nil {
		return nil, fault.In(err, "clean up blob store")
	}
	if err := os.MkdirAll(s.tmp(), 0o700); err != nil {
		return nil, fault.In(err, "open blob store")
	}
	for _, alg := range algorithms {
		dir := filepath.Join(root, alg.String())
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.In(err, "open blob store")
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			return nil, fault.In(err, "open blob store")
		}
		for _, n := range names {
			d := digest.NewDigestFromEncoded(alg, n.Name())
			if d.Validate() == nil {
				s.blobs[d] = &state{there: true}
			}
		}
	}
	return s, nil
}

func (s *Store) tmp() string { return filepath.Join(s.root, "tmp") }

func (s *Store) path(d digest.Digest) string {
	return filepath.Join(s.root, d.Algorithm().String(), d.Encoded())
}

// Want is what a blob is announced to be. Zero fields are not checked; without a digest it gets a sha256 one.
type Want struct {
	Digest digest.Digest
	Size   int64 // bytes; 0 means unknown, except that no blob may be longer than Max
	Max    int64 // refuse more bytes than this; 0: no limit
}

// check refuses digests that no blob can have: they become paths.
func check(d digest.Digest) error {
	if err := d.Validate(); err != nil {
		return fault.Wrap(fault.Invalid, err, "digest %q", d)
	}
	if a := d.Algorithm(); a != digest.SHA256 && a != digest.SHA512 {
		return fault.New(fault.Invalid, "digest %q: only sha256 and sha512 are known", d)
	}
	return nil
}

// Put stores what r holds, to r's end, and gives its digest, held once for the caller. If the blob is there already, or
// another writer brings it, r is not read. Bytes that are not as wanted are Invalid, and nothing is stored.
func (s *Store) Put(ctx context.Context, want Want, r io.Reader) (digest.Digest, error) {
	w, err := s.Writer(ctx, want)
	if err != nil {
		return "", err
	}
	if w == nil {
		return want.Digest, nil
	}
	defer w.Abort()
	if _, err := io.Copy(w, r); err != nil {
		return "", err
	}
	return w.Commit()
}

// Writer starts a blob whose bytes come piece by piece. It is nil when the blob is there already: then it is held
// for the caller. A Writer that is not nil must end in Commit or Abort, or others who want the blob wait for ever.
func (s *Store) Writer(ctx context.Context, want Want) (*Writer, error) {
	if want.Digest != "" {
		if err := check(want.Digest); err != nil {
			return nil, err
		}
		there, err := s.claim(ctx, want.Digest, true)
		if there || err != nil {
			return nil, err
		}
	}
	f, err := os.CreateTemp(s.tmp(), "")
	if err != nil {
		s.settle(want.Digest, false)
		return nil, fault.In(err, "write blob")
	}
	w := &Writer{s: s, ctx: ctx, want: want, f: f, alg: digest.SHA256, hash: sha256.New()}
	if want.Digest != "" && want.Digest.Algorithm() == digest.SHA512 {
		w.alg, w.hash = digest.SHA512, sha512.New()
	}
	return w, nil
}

// claim waits until nobody works on the digest. Then, if the blob is there, it takes a hold; if not and write is
// set, it marks the digest as being written by the caller, who must settle it.
func (s *Store) claim(ctx context.Context, d digest.Digest, write bool) (there bool, err error) {
	for {
		s.mu.Lock()
		st := s.blobs[d]
		if st == nil {
			st = &state{}
			if write {
				s.blobs[d] = st
			}
		}
		if st.busy == nil {
			if st.there {
				st.holds++
			} else if write {
				st.busy = make(chan struct{})
			}
			there = st.there
			s.mu.Unlock()
			return there, nil
		}
		busy := st.busy
		s.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// settle ends the work on a digest that claim marked; there tells whether the blob is there now, held once.
func (s *Store) settle(d digest.Digest, there bool) {
	if d == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.blobs[d]
	close(st.busy)
	st.busy = nil
	if there {
		st.there = true
		st.holds++
		return
	}
	delete(s.blobs, d) // those who wait look it up anew
}

// Retain takes a hold on a blob that must be there.
func (s *Store) Retain(ctx context.Context, d digest.Digest) error {
	if err := check(d); err != nil {
		return err
	}
	there, err := s.claim(ctx, d, false)
	if err == nil && !there {
		err = missing(d)
	}
	return err
}

// Release gives a hold back. The blob whose last hold it was is deleted; a failure to delete is left to the
// next Sweep.
func (s *Store) Release(d digest.Digest) {
	s.mu.Lock()
	st := s.blobs[d]
	if st == nil || st.holds == 0 {
		s.mu.Unlock()
		return
	}
	st.holds--
	if st.holds > 0 {
		s.mu.Unlock()
		return
	}
	st.busy = make(chan struct{})
	s.mu.Unlock()
	os.Remove(s.path(d))
	s.settle(d, false)
}

// Has reports whether the blob is there. It may be gone a moment later: Retain it to be sure.
func (s *Store) Has(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.blobs[d]
	return st != nil && st.there
}

// Blob is an open blob.
type Blob struct {
	*os.File
	Size int64
}

// Open opens a blob for reading. NotFound when it is not there. A deletion meanwhile does not harm the reader.
func (s *Store) Open(d digest.Digest) (*Blob, error) {
	if err := check(d); err != nil {
		return nil, err
	}
	f, err := os.Open(s.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(d)
	}
	if err != nil {
		return nil, fault.In(err, "open blob")
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fault.In(err, "open blob")
	}
	return &Blob{f, st.Size()}, nil
}

// Read gives a small blob whole, of at most max bytes, and verifies it again: documents are parsed and obeyed, so a
// disk that lies must not go unnoticed.
func (s *Store) Read(d digest.Digest, max int64) ([]byte, error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer b.Close()
	if b.Size > max {
		return nil, fault.New(fault.Invalid, "blob %s has %d bytes, more than the %d that are read at once", d, b.Size, max)
	}
	data, err := io.ReadAll(b)
	if err != nil {
		return nil, fault.In(err, "read blob")
	}
	if got := d.Algorithm().FromBytes(data); got != d {
		return nil, fault.New(fault.Internal, "blob %s is damaged on disk: its content has the digest %s", d, got)
	}
	return data, nil
}

// Walk calls f for every blob, in no order, until f fails.
func (s *Store) Walk(f func(d digest.Digest, holds int) error) error {
	type item struct {
		d     digest.Digest
		holds int
	}
	s.mu.Lock()
	list := make([]item, 0, len(s.blobs))
	for d, st := range s.blobs {
		if st.there {
			list = append(list, item{d, st.holds})
		}
	}
	s.mu.Unlock()
	for _, i := range list {
		if err := f(i.d, i.holds); err != nil {
			return err
		}
	}
	return nil
}

// Sweep deletes all blobs that nobody holds, and tells how many. Its owner calls it once after Open, when all
// references have been retained.
func (s *Store) Sweep() int {
	var idle []digest.Digest
	s.mu.Lock()
	for d, st := range s.blobs {
		if st.there && st.holds == 0 && st.busy == nil {
			st.holds = 1 // ours, given back below
			idle = append(idle, d)
		}
	}
	s.mu.Unlock()
	for _, d := range idle {
		s.Release(d)
	}
	return len(idle)
}

func missing(d digest.Digest) error { return fault.New(fault.NotFound, "no blob %s", d) }

// Writer is a blob in the making. It is not safe for concurrent use.
type Writer struct {
	s    *Store
	ctx  context.Context // of the request that writes: the Writer lives no longer
	want Want
	f    *os.File
	alg  digest.Algorithm
	hash hash.Hash
	size int64
	done bool
}

// Write hashes and writes; too many bytes are refused at once.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	w.size += int64(len(p))
	if w.want.Size > 0 && w.size > w.want.Size {
		return 0, fault.New(fault.Invalid, "blob is longer than the %d bytes announced", w.want.Size)
	}
	if w.want.Max > 0 && w.size > w.want.Max {
		return 0, fault.New(fault.Invalid, "blob is longer than the limit of %d bytes", w.want.Max)
	}
	w.hash.Write(p)
	n, err := w.f.Write(p)
	return n, fault.In(err, "write blob")
}

// Commit verifies and names the blob, and gives its digest, held once for the caller.
func (w *Writer) Commit() (digest.Digest, error) {
	defer w.Abort()
	if w.want.Size > 0 && w.size != w.want.Size {
		return "", fault.New(fault.Invalid, "blob has %d bytes, %d were announced", w.size, w.want.Size)
	}
	d := digest.NewDigest(w.alg, w.hash)
	if w.want.Digest == "" {
		// Only now is it known who else may be writing the same.
		there, err := w.s.claim(w.ctx, d, true)
		if there || err != nil {
			return d, err
		}
		w.want.Digest = d
	} else if d != w.want.Digest {
		return "", fault.New(fault.Invalid, "blob has the digest %s, %s was announced", d, w.want.Digest)
	}
	if err := w.name(d); err != nil {
		return "", fault.In(err, "write blob %s", d)
	}
	w.done = true
	w.s.settle(d, true)
	return d, nil
}

func (w *Writer) name(d digest.Digest) error {
	if err := failpoint.Hit("blob/before-sync"); err != nil {
		return err
	}
	if err := atomicfile.Sync(w.f); err != nil {
		return err
	}
	if err := w.f.Close(); err != nil {
		return err
	}
	if err := failpoint.Hit("blob/before-name"); err != nil {
		return err
	}
	path := w.s.path(d)
	if err := os.Rename(w.f.Name(), path); err != nil {
		return err
	}
	return atomicfile.SyncDir(filepath.Dir(path))
}

// Abort drops a blob that was not committed. After Commit it does nothing.
func (w *Writer) Abort() {
	if w.f == nil {
		return
	}
	w.f.Close()
	if !w.done {
		os.Remove(w.f.Name())
		w.s.settle(w.want.Digest, false)
	}
	w.f = nil
}
