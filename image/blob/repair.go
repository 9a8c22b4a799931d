package blob

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/fault"
)

// Verify reads a blob and compares it with its digest; it tells how many bytes it read. NotFound when it is not there, Internal
// when it is damaged.
func (s *Store) Verify(ctx context.Context, d digest.Digest) (int64, error) {
	b, err := s.Open(d)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	v := d.Algorithm().Digester()
	var read int64
	buf := make([]byte, 128<<10)
	for {
		if err := ctx.Err(); err != nil {
			return read, err
		}
		n, err := b.Read(buf)
		v.Hash().Write(buf[:n])
		read += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return read, fault.In(err, "read blob")
		}
	}
	if got := v.Digest(); got != d {
		return read, fault.New(fault.Internal, "damaged: its content has the digest %s", got)
	}
	return read, nil
}

// Replace puts whole bytes in the place of a damaged blob, or of one that is lost. Its holds stay as they are: one that was lost has
// none, and the caller who knows who needs it takes them. Readers that have the damaged one open go on reading that.
func (s *Store) Replace(ctx context.Context, want Want, r io.Reader) error {
	if err := check(want.Digest); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.tmp(), "")
	if err != nil {
		return fault.In(err, "write blob")
	}
	// Not claimed: nobody waits for this writer, the name is there all the time or the rename makes it.
	w := &Writer{s: s, ctx: ctx, want: want, f: f, alg: want.Digest.Algorithm(), hash: want.Digest.Algorithm().Hash()}
	defer func() {
		w.f.Close()
		os.Remove(f.Name()) // renamed by now, or good for nothing
	}()
	if _, err := io.Copy(w, r); err != nil {
		return err
	}
	if want.Size > 0 && w.size != want.Size {
		return fault.New(fault.Invalid, "blob has %d bytes, %d were announced", w.size, want.Size)
	}
	if d := digest.NewDigest(w.alg, w.hash); d != want.Digest {
		return fault.New(fault.Invalid, "blob has the digest %s, %s was announced", d, want.Digest)
	}
	if err := w.name(want.Digest); err != nil {
		return fault.In(err, "write blob %s", want.Digest)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.blobs[want.Digest]; st == nil {
		s.blobs[want.Digest] = &state{there: true}
	} else if st.busy == nil {
		st.there = true
	}
	return nil
}

// Holds tells how often a blob is held.
func (s *Store) Holds(d digest.Digest) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.blobs[d]; st != nil {
		return st.holds
	}
	return 0
}

// Unknown lists what lies where blobs do and is none: paths below the store.
func (s *Store) Unknown() (list []string, err error) {
	for _, alg := range algorithms {
		names, err := os.ReadDir(filepath.Join(s.root, alg.String()))
		if err != nil {
			return nil, fault.In(err, "list blobs")
		}
		for _, n := range names {
			d := digest.NewDigestFromEncoded(alg, n.Name())
			s.mu.Lock()
			known := s.blobs[d] != nil
			s.mu.Unlock()
			if !known || !n.Type().IsRegular() {
				list = append(list, alg.String()+"/"+n.Name())
			}
		}
	}
	return list, nil
}

// RemoveUnknown deletes what Unknown told.
func (s *Store) RemoveUnknown(path string) error {
	if strings.Count(path, "/") != 1 || !filepath.IsLocal(path) {
		return fault.New(fault.Invalid, "%q is no place of a blob", path)
	}
	list, err := s.Unknown()
	if err != nil {
		return err
	}
	for _, p := range list {
		if p == path {
			if err := os.RemoveAll(filepath.Join(s.root, path)); err != nil {
				return err
			}
			return atomicfile.SyncDir(filepath.Dir(filepath.Join(s.root, path)))
		}
	}
	return nil
}
