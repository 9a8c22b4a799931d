package blob

import (
	"context"
	"fmt"
	"hash"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/session/content"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image/remote"
	"berth/kernel/tree"
)

// Schemes of operations that name blobs.
const (
	SchemeImage  = "docker-image+blob"
	SchemeLayout = "oci-layout+blob"
)

// maxBytes is how large a blob may be.
const maxBytes = 256 << 30

// Config says what blobs are found with.
type Config struct {
	Remote    *remote.Client
	Snapshots *snapshot.Store
	Sessions  *session.Manager
}

// Blobs finds blobs. It is safe for concurrent use.
type Blobs struct{ cfg Config }

// New makes it. There is nothing to close.
func New(cfg Config) *Blobs { return &Blobs{cfg} }

// source is a blob as an operation names it.
type source struct {
	from           *Blobs
	layout         bool
	text           string
	repo           ref.Ref // of a registry
	digest         digest.Digest
	session, store string // of a layout
	name           string
	perm           uint32
	uid, gid       int
}

// Source reads an operation.
func (b *Blobs) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	scheme, text, _ := strings.Cut(op.GetIdentifier(), "://")
	where, d, ok := strings.Cut(text, "@")
	if !ok || scheme != SchemeImage && scheme != SchemeLayout {
		return nil, fault.New(fault.Invalid, "invalid image blob identifier %s", op.GetIdentifier())
	}
	s := &source{from: b, layout: scheme == SchemeLayout, text: text, perm: 0o600}
	var err error
	if s.digest, err = digest.Parse(d); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid reference digest")
	}
	if !s.layout {
		if s.repo, err = ref.Parse(where); err != nil {
			return nil, err
		}
	}
	s.name = s.digest.Encoded()
	for k, value := range op.GetAttrs() {
		if err := s.set(k, value); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "attribute %s of %s", k, op.GetIdentifier())
		}
	}
	if s.layout && s.store == "" {
		return nil, fault.New(fault.Invalid, "oci-layout blob source requires store id")
	}
	return s, nil
}

// Read gives use the bytes of the blob that an operation names, which nobody has verified.
func (b *Blobs) Read(ctx context.Context, op *pb.SourceOp, g session.Group, use func(body io.Reader) error) error {
	src, err := b.Source(&graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: op}}})
	if err != nil {
		return err
	}
	r := &solver.Run{Sessions: g, Manager: b.cfg.Sessions}
	return src.(*source).open(ctx, r, func(_ context.Context, body io.Reader, _ int64) error { return use(body) })
}

func (s *source) set(key, value string) error {
	number := func() (int, error) {
		n, err := strconv.ParseInt(value, 0, 32)
		if err == nil && n < 0 {
			err = strconv.ErrRange
		}
		return int(n), err
	}
	var n int
	var err error
	switch key {
	case pb.AttrHTTPFilename:
		if base := path.Base(strings.TrimSpace(value)); value != "" && base != "." && base != ".." && base != "/" && strings.IndexByte(base, 0) < 0 {
			s.name = base
		}
	case pb.AttrHTTPPerm:
		if n, err = number(); n != 0 {
			s.perm = uint32(n) & tree.PermMask
		}
	case pb.AttrHTTPUID:
		s.uid, err = number()
	case pb.AttrHTTPGID:
		s.gid, err = number()
	case pb.AttrOCILayoutSessionID:
		s.session = value
	case pb.AttrOCILayoutStoreID:
		s.store = value
	}
	return err
}

// Pin knows what the operation says: nobody is asked.
func (s *source) Pin(_ context.Context, r *solver.Run) (solver.Pinned, error) {
	where := s.repo.Repository()
	if s.layout {
		where = "layout"
	}
	key := fmt.Sprintf("berth blob 1 %q %s %q %o %d %d", where, s.digest, s.name, s.perm, s.uid, s.gid)
	return solver.Pinned{
		Pin:      string(s.digest),
		Cache:    digest.FromString(key),
		Material: solver.Material{Kind: s.scheme(), URI: s.text, Digest: s.digest},
		Snapshot: func(ctx context.Context) (*snapshot.Snapshot, error) {
			snap, err := s.fetch(ctx, r)
			return snap, fault.In(err, "blob %s", s.text)
		},
	}, nil
}

func (s *source) scheme() string {
	if s.layout {
		return SchemeLayout
	}
	return SchemeImage
}

// fetch makes the tree.
func (s *source) fetch(ctx context.Context, r *solver.Run) (*snapshot.Snapshot, error) {
	base := s.from.cfg.Snapshots.Scratch()
	defer base.Release()
	draft, err := s.from.cfg.Snapshots.Draft(ctx, base)
	if err != nil {
		return nil, err
	}
	err = s.open(ctx, r, func(ctx context.Context, body io.Reader, size int64) error {
		return draft.Do(ctx, func(root *tree.Dir) error { return s.write(root, body, size, r) })
	})
	if err != nil {
		draft.Drop()
		return nil, err
	}
	snap, err := draft.Seal(ctx)
	if err != nil {
		draft.Drop()
	}
	return snap, err
}

// open gives use the blob's bytes, which nobody has verified.
func (s *source) open(ctx context.Context, r *solver.Run, use func(ctx context.Context, body io.Reader, size int64) error) error {
	if !s.layout {
		cred, err := r.Manager.Credentials(ctx, r.Sessions, s.repo.Domain)
		if err != nil {
			return err
		}
		body, err := s.from.cfg.Remote.Repository(s.repo, cred).Blob(ctx, ocispec.Descriptor{Digest: s.digest}, 0)
		if err != nil {
			return err
		}
		defer body.Close()
		return use(ctx, body, 0)
	}
	group := r.Sessions
	if s.session != "" {
		group = session.NewGroup(s.session)
	}
	return r.Manager.Any(ctx, group, func(ctx context.Context, _ string, c session.Caller) error {
		store := content.NewCallerStore(c, "oci:"+s.store)
		info, err := store.Info(ctx, s.digest)
		if err != nil {
			return err
		}
		at, err := store.ReaderAt(ctx, ocispec.Descriptor{Digest: s.digest, Size: info.Size})
		if err != nil {
			return err
		}
		defer at.Close()
		return use(ctx, io.NewSectionReader(at, 0, at.Size()), at.Size())
	})
}

// write writes the file and verifies it. Another try finds what an earlier one left, and begins anew.
func (s *source) write(root *tree.Dir, body io.Reader, size int64, r *solver.Run) error {
	if err := root.RemoveAll(s.name); err != nil {
		return err
	}
	f, err := root.Create(s.name, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	w := &teller{f: f, sum: s.digest.Algorithm().Hash(), tell: func(n int64) { r.Status(string(s.digest), "downloading", n, size, false) }}
	if _, err := io.Copy(w, io.LimitReader(body, maxBytes)); err != nil {
		return err
	}
	if got := digest.NewDigest(s.digest.Algorithm(), w.sum); got != s.digest {
		return fault.New(fault.Invalid, "blob digest mismatch: expected %s, got %s", s.digest, got)
	}
	r.Status(string(s.digest), "downloading", w.n, w.n, true)
	if err := f.Chown(s.uid, s.gid); err != nil {
		return err
	}
	if err := f.Chmod(s.perm); err != nil {
		return err
	}
	return f.Chtimes(tree.Time{}, tree.Time{})
}

// teller writes, hashes, and tells how much now and then.
type teller struct {
	f    io.Writer
	sum  hash.Hash
	n    int64
	at   time.Time
	tell func(int64)
}

// Write writes.
func (t *teller) Write(p []byte) (int, error) {
	n, err := t.f.Write(p)
	t.sum.Write(p[:n])
	t.n += int64(n)
	if now := time.Now(); now.Sub(t.at) > 100*time.Millisecond {
		t.at = now
		t.tell(t.n)
	}
	return n, err
}
