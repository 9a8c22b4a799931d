package layer

import (
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"

	"github.com/opencontainers/go-digest"

	"berth/base/atomicfile"
	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/image/archive/split"
	"berth/kernel/tree"
)

// Staged is an unpacked diff that is not part of the store yet. It must end in Commit or Drop.
type Staged struct {
	DiffID digest.Digest
	Kind   compress.Kind // how its tar came
	info   Info
	dir    string
	s      *Store
	since  mark
	input  func() int64
}

// Size is the bytes of the diff's files.
func (st *Staged) Size() int64 { return st.info.Size }

// Stage unpacks a layer's tar, compressed or not, to the reader's end. want, unless "", is the diff id it must
// have. Errors about the tar are Invalid; nothing is left of it then.
func (s *Store) Stage(ctx context.Context, r io.Reader, want digest.Digest) (*Staged, error) {
	return s.StageFrom(ctx, r, want, nil)
}

// StageFrom is Stage for a tar out of something that was compressed as a whole: input tells how many bytes of that have been
// read so far, for the limit of how much may grow out of how little. nil: what is read of r counts.
func (s *Store) StageFrom(ctx context.Context, r io.Reader, want digest.Digest, input func() int64) (*Staged, error) {
	st := &Staged{s: s, dir: s.path("tmp", newName()), since: s.disk.now(), input: input}
	if err := st.unpack(ctx, r, want); err != nil {
		st.Drop()
		return nil, err
	}
	return st, nil
}

func (st *Staged) unpack(ctx context.Context, r io.Reader, want digest.Digest) error {
	root, err := makeDir(st.dir, "fs")
	if err != nil {
		return fault.In(err, "stage layer")
	}
	defer root.Close()
	shadows, err := makeDir(st.dir, "shadow")
	if err != nil {
		return fault.In(err, "stage layer")
	}
	defer shadows.Close()
	alg := digest.SHA256
	if want != "" {
		if err := want.Validate(); err != nil {
			return fault.Wrap(fault.Invalid, err, "diff id %q", want)
		}
		alg = want.Algorithm()
	}
	stream, err := compress.NewStream(r, alg)
	if err != nil {
		return err
	}
	defer stream.Close()
	done, err := st.apply(ctx, root, shadows, stream)
	if err != nil {
		return err
	}
	d, size, err := stream.Digest()
	if err != nil {
		return err
	}
	if want != "" && d != want {
		return fault.New(fault.Invalid, "layer has the diff id %s, %s was announced", d, want)
	}
	st.s.flush.staged(done.Size)
	st.DiffID, st.Kind = d, stream.Kind()
	st.info = Info{Version: formatVersion, DiffID: d, Size: done.Size, TarSize: size, OpaqueRoot: done.OpaqueRoot, Implied: done.Implied, Shadows: done.Shadows, Marks: done.Marks}
	if done.Root {
		a, err := root.Stat("")
		if err != nil {
			return fault.In(err, "stage layer")
		}
		st.info.Root = &Attributes{Mode: a.Mode & tree.PermMask, UID: a.UID, GID: a.GID}
	}
	if len(done.Shadows) == 0 {
		os.Remove(filepath.Join(st.dir, "shadow"))
	}
	return fault.In(writeJSON(filepath.Join(st.dir, "layer.json"), &st.info), "stage layer")
}

// apply unpacks the stream and writes what rebuilds it.
func (st *Staged) apply(ctx context.Context, root, shadows *tree.Dir, stream *compress.Stream) (*archive.Applied, error) {
	f, err := os.OpenFile(filepath.Join(st.dir, "split.zst"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fault.In(err, "stage layer")
	}
	defer f.Close()
	w, err := split.NewWriter(f)
	if err != nil {
		return nil, err
	}
	input := st.input
	if input == nil {
		input = stream.Input
	}
	o := archive.ApplyOptions{Whiteouts: st.s.whiteouts(), Limits: st.s.cfg.Limits, Input: input, Record: w, Shadows: shadows}
	done, err := archive.Apply(ctx, root, stream, o)
	if cerr := w.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = f.Close()
	}
	return done, err
}

func (s *Store) whiteouts() archive.Whiteouts {
	if s.cfg.UserXattr {
		return archive.OverlayUserNS
	}
	return archive.Overlay
}

// Drop deletes a staged diff that was not committed. After Commit it does nothing.
func (st *Staged) Drop() {
	if st.dir == "" {
		return
	}
	if err := st.s.trash.take(st.dir); err != nil {
		st.s.log.Warn("delete staged layer; tried again at the next start", "err", err)
	}
	st.dir = ""
}

// Commit makes staged diffs durable and part of the store, each with a hold for the caller. Those that the store
// has already are dropped, and held likewise. On an error none is held; the caller Drops them.
func (s *Store) Commit(staged ...*Staged) error {
	if len(staged) == 0 {
		return nil
	}
	if err := failpoint.Hit("layer/before-sync"); err != nil {
		return err
	}
	if s.anyNew(staged) {
		since := staged[0].since
		for _, st := range staged {
			since = min(since, st.since)
		}
		if err := s.disk.sync(since); err != nil {
			return fault.In(err, "commit layer")
		}
	}
	renamed := false
	var ids []digest.Digest
	for i, st := range staged {
		ids = append(ids, st.DiffID)
		isNew, err := s.admit(st)
		if err != nil {
			s.Release(ids[:i]...)
			return fault.In(err, "commit layer %s", st.DiffID)
		}
		renamed = renamed || isNew
	}
	if renamed {
		if err := atomicfile.SyncDir(s.path("d")); err != nil {
			s.Release(ids...)
			return fault.In(err, "commit layer")
		}
	}
	if err := s.Durable(context.Background(), ids...); err != nil { // some may have been sealed a moment ago
		s.Release(ids...)
		return err
	}
	return nil
}

func (s *Store) anyNew(staged []*Staged) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range staged {
		if l := s.diffs[st.DiffID]; l == nil || l.info.Lazy || l.soft {
			return true
		}
	}
	return false
}

// admit gives one staged diff its name, or drops it where the store has it.
func (s *Store) admit(st *Staged) (isNew bool, err error) {
	if err := failpoint.Hit("layer/before-rename"); err != nil {
		return false, err
	}
	short := shortName(st.DiffID)
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Retain(st.DiffID) == nil {
		// One that is only shown is better unpacked.
		if err := s.complete(st); err != nil {
			s.Release(st.DiffID)
			return false, err
		}
		return false, nil
	}
	if err := s.clearName(st.DiffID, short); err != nil {
		return false, err
	}
	if err := os.Rename(st.dir, s.path("d", short)); err != nil {
		return false, err
	}
	st.dir = ""
	s.mu.Lock()
	s.diffs[st.DiffID] = &diff{info: st.info, short: short, holds: 1}
	s.mu.Unlock()
	return true, failpoint.Hit("layer/after-rename")
}

// clearName takes away what stands at a diff's name without belonging to the store: damage that recover left alone.
func (s *Store) clearName(d digest.Digest, short string) error {
	s.mu.Lock()
	for other, l := range s.diffs {
		if l.short == short {
			s.mu.Unlock()
			return fault.New(fault.Conflict, "layers %s and %s share a short name", d, other)
		}
	}
	s.mu.Unlock()
	return s.trash.take(s.path("d", short))
}

// Add stages and commits one diff and gives it with a hold for the caller.
func (s *Store) Add(ctx context.Context, r io.Reader, want digest.Digest) (Info, error) {
	st, err := s.Stage(ctx, r, want)
	if err != nil {
		return Info{}, err
	}
	defer st.Drop()
	if err := s.Commit(st); err != nil {
		return Info{}, err
	}
	return st.info, nil
}

// Tar writes a diff's exact tar, uncompressed, whose digest is its id. A result that differs is an error, after the
// bytes have been written.
func (s *Store) Tar(ctx context.Context, d digest.Digest, w io.Writer) error {
	s.mu.Lock()
	l := s.diffs[d]
	if l == nil {
		s.mu.Unlock()
		return missing(d)
	}
	l.holds++
	s.mu.Unlock()
	defer s.Release(d)
	if err := s.whole(ctx, d); err != nil {
		return fault.In(err, "read layer")
	}
	s.mu.Lock()
	info, dir := l.info, s.path("d", l.short)
	s.mu.Unlock()
	root, err := tree.OpenDir(filepath.Join(dir, "fs"))
	if err != nil {
		return fault.In(err, "read layer")
	}
	defer root.Close()
	var shadows *tree.Dir
	if len(info.Shadows) > 0 {
		if shadows, err = tree.OpenDir(filepath.Join(dir, "shadow")); err != nil {
			return fault.In(err, "read layer")
		}
		defer shadows.Close()
	}
	f, err := os.Open(filepath.Join(dir, "split.zst"))
	if err != nil {
		return fault.In(err, "read layer")
	}
	defer f.Close()
	v := compress.NewDigester(d.Algorithm())
	defer v.Close()
	if err := split.Rebuild(ctx, f, archive.Opener(root, shadows, info.Shadows), io.MultiWriter(v, w)); err != nil {
		return fault.In(err, "rebuild the tar of layer %s", d)
	}
	if got := v.Digest(); got != d {
		return fault.New(fault.Internal, "layer %s is damaged on disk: its tar has the digest %s", d, got)
	}
	return nil
}

// makeDir makes and opens a directory of a new staging directory.
func makeDir(parent, name string) (*tree.Dir, error) {
	p := filepath.Join(parent, name)
	if err := os.MkdirAll(p, 0o755); err != nil {
		return nil, err
	}
	d, err := tree.OpenDir(p)
	if err != nil {
		return nil, err
	}
	if err := d.Chmod("", 0o755); err != nil { // whatever the umask
		d.Close()
		return nil, err
	}
	return d, nil
}

func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o600)
}
