package storage

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"iter"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
)

// ErrDigest is in the chain of an error about bytes that have not the digest they were said to have.
var ErrDigest = errors.New("the content has another digest")

// RangeError is in the chain of an error about bytes that were offered at another place than where the upload stands.
type RangeError struct {
	Size int64 // what has arrived so far
}

// Error says where the upload stands.
func (e *RangeError) Error() string { return fmt.Sprintf("the upload stands at byte %d", e.Size) }

// Upload is a blob that is arriving. It survives restarts. One change at a time goes through; another waits for its turn.
type Upload struct {
	store *Store
	id    string
	repo  string
	turn  chan struct{} // one token: whoever has it uses what follows

	staged Staged
	alg    digest.Algorithm
	hasher hash.Hash
	gone   bool // committed or cancelled

	mu      sync.Mutex // guards what follows, for Size and Idle
	size    int64
	touched time.Time
}

// session is what the driver keeps for us with the bytes: whose they are, and the hasher, so that they need not be read
// again after a restart.
type session struct {
	Repository string           `json:"repository"`
	Algorithm  digest.Algorithm `json:"algorithm"`
	Hash       []byte           `json:"hash,omitempty"` // the hasher, marshalled
}

// StartUpload begins an upload to a repository. The bytes are hashed with the algorithm while they arrive ("": sha256); a
// commit under another one is possible and reads them again.
func (s *Store) StartUpload(ctx context.Context, repository string, alg digest.Algorithm) (*Upload, error) {
	if err := CheckName(repository); err != nil {
		return nil, err
	}
	if alg == "" {
		alg = digest.Canonical
	}
	if !alg.Available() {
		return nil, fault.New(fault.Invalid, "digest algorithm %q is not known", shorten(string(alg)))
	}
	u := s.newUpload(id.New()[:32], repository)
	staged, err := s.driver.StartUpload(ctx, u.id)
	if err != nil {
		return nil, err
	}
	u.staged, u.alg, u.hasher = staged, alg, alg.Hash()
	if err := u.save(ctx); err != nil {
		staged.Cancel(context.WithoutCancel(ctx))
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[u.id] = u
	return u, nil
}

func (s *Store) newUpload(id, repo string) *Upload {
	u := &Upload{store: s, id: id, repo: repo, turn: make(chan struct{}, 1), touched: time.Now()}
	u.turn <- struct{}{}
	return u
}

// ResumeUpload gives an upload of the repository that was started earlier, perhaps by a process that is gone. NotFound when
// there is none.
func (s *Store) ResumeUpload(ctx context.Context, repository, id string) (*Upload, error) {
	unknown := fault.New(fault.NotFound, "there is no upload %q to repository %s", shorten(id), shorten(repository))
	if !validUpload(id) {
		return nil, unknown
	}
	s.mu.Lock()
	u := s.sessions[id]
	s.mu.Unlock()
	if u != nil {
		if u.repo != repository {
			return nil, unknown
		}
		return u, nil
	}
	u = s.newUpload(id, repository)
	staged, err := s.driver.ResumeUpload(ctx, id)
	if fault.Is(err, fault.NotFound) || err == nil && u.restore(staged) != repository {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.sessions[id]; other != nil {
		return other, nil
	}
	s.sessions[id] = u
	return u, nil
}

// restore takes over the bytes and brings the hasher back to where it was; where that is not possible there is none, and Commit
// reads the bytes. It gives the repository that the upload is for.
func (u *Upload) restore(staged Staged) (repository string) {
	u.staged, u.size = staged, staged.Size()
	var p session
	saved, size := staged.State()
	if json.Unmarshal(saved, &p) != nil || !p.Algorithm.Available() {
		return p.Repository
	}
	u.alg = p.Algorithm
	h := p.Algorithm.Hash()
	if m, ok := h.(encoding.BinaryUnmarshaler); size == u.size && ok && m.UnmarshalBinary(p.Hash) == nil {
		u.hasher = h
	}
	return p.Repository
}

func validUpload(id string) bool {
	if len(id) != 32 {
		return false
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// ID gives the upload's name, safe in a URL.
func (u *Upload) ID() string { return u.id }

// Size gives how many bytes have arrived.
func (u *Upload) Size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.size
}

// take waits for the upload's turn.
func (u *Upload) take(ctx context.Context) error {
	select {
	case <-u.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	if u.gone {
		u.turn <- struct{}{}
		return fault.New(fault.NotFound, "upload %s has ended", u.id)
	}
	return nil
}

func (u *Upload) leave() {
	u.mu.Lock()
	u.size, u.touched = u.staged.Size(), time.Now()
	u.mu.Unlock()
	u.turn <- struct{}{}
}

// Append adds the bytes of r, which are said to begin at offset; -1 means where the upload stands. It gives how many were taken,
// also when r failed: a client can go on from there. An offset that is wrong is Conflict with a RangeError in the chain.
func (u *Upload) Append(ctx context.Context, offset int64, r io.Reader) (int64, error) {
	if err := u.take(ctx); err != nil {
		return 0, err
	}
	defer u.leave()
	at := u.staged.Size()
	if offset >= 0 && offset != at {
		return 0, fault.Wrap(fault.Conflict, &RangeError{Size: at}, "bytes from %d are out of order", offset)
	}
	if u.hasher != nil {
		r = io.TeeReader(r, u.hasher)
	}
	n, err := u.staged.Append(ctx, r)
	if err == nil && n == 0 {
		return 0, nil
	}
	if errors.As(err, new(*ShortError)) {
		u.hasher = nil // it has seen bytes that were not taken
	}
	if Full(err) {
		// Half an upload would keep everybody's disk full until it is collected, a day later. Whoever pushes begins again when there is room.
		return n, errors.Join(err, u.end(context.WithoutCancel(ctx), u.staged.Cancel))
	}
	// Also after a client that went away in the middle: it may come back, perhaps after a restart.
	return n, errors.Join(err, u.save(context.WithoutCancel(ctx)))
}

// Full reports whether an error says that the place where the content lies has no room.
func Full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// save keeps what a later process needs to go on.
func (u *Upload) save(ctx context.Context) error {
	p := session{Repository: u.repo, Algorithm: u.alg}
	if m, ok := u.hasher.(encoding.BinaryMarshaler); ok {
		h, err := m.MarshalBinary()
		if err != nil {
			return fault.Wrap(fault.Internal, err, "keeping the state of upload %s", u.id)
		}
		p.Hash = h
	}
	data, err := json.Marshal(p)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "keeping the state of upload %s", u.id)
	}
	return u.staged.Save(ctx, data)
}

// Commit gives the bytes their name and makes the repository hold them. When they have another digest the error is Invalid with
// ErrDigest in its chain, and the upload has ended.
func (u *Upload) Commit(ctx context.Context, d digest.Digest) (ocispec.Descriptor, error) {
	if err := check(u.repo, d); err != nil {
		return ocispec.Descriptor{}, err
	}
	if err := u.take(ctx); err != nil {
		return ocispec.Descriptor{}, err
	}
	defer u.leave()
	s := u.store
	defer s.leases.hold(d)()

	desc := ocispec.Descriptor{MediaType: "application/octet-stream", Digest: d, Size: u.staged.Size()}
	got, err := u.digest(ctx, d.Algorithm())
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if got != d {
		err := fault.Wrap(fault.Invalid, ErrDigest, "provided digest %s, content has %s", d, got)
		return ocispec.Descriptor{}, errors.Join(err, u.end(ctx, u.staged.Cancel))
	}
	failpoint.Hit("registry/before-blob")
	there, err := s.stored(ctx, d, desc.Size)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	if there {
		if err := s.link(ctx, u.repo, desc); err != nil {
			return ocispec.Descriptor{}, err // the client may try again
		}
		return desc, u.end(ctx, u.staged.Cancel)
	}
	if err := u.staged.Finish(ctx, blobKey(d)); err != nil {
		return ocispec.Descriptor{}, err
	}
	failpoint.Hit("registry/before-link")
	// From here on there is no upload any more, whatever becomes of the link: without it the bytes are garbage.
	return desc, errors.Join(s.link(ctx, u.repo, desc), u.end(ctx, nil))
}

// digest gives the digest of all bytes.
func (u *Upload) digest(ctx context.Context, alg digest.Algorithm) (digest.Digest, error) {
	if u.hasher != nil && u.alg == alg {
		return digest.NewDigest(alg, u.hasher), nil
	}
	r, err := u.staged.Bytes(ctx)
	if err != nil {
		return "", err
	}
	defer r.Close()
	return alg.FromReader(r)
}

// Cancel drops the upload.
func (u *Upload) Cancel(ctx context.Context) error {
	if err := u.take(ctx); err != nil {
		return err
	}
	defer u.leave()
	return u.end(ctx, u.staged.Cancel)
}

// end lets the driver do the last thing, if there is one, and forgets the upload. What a driver fails to remove the collector finds.
func (u *Upload) end(ctx context.Context, last func(context.Context) error) error {
	u.gone = true
	s := u.store
	s.mu.Lock()
	delete(s.sessions, u.id)
	s.mu.Unlock()
	if last == nil {
		return nil
	}
	if err := last(ctx); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// Arriving gives the bytes of all uploads to a repository that have not ended, as far as this process has seen them.
func (s *Store) Arriving(repository string) int64 {
	n := int64(0)
	for _, u := range s.arriving(repository) {
		n += u.Size()
	}
	return n
}

// DropIdle cancels the uploads to a repository that nobody has added to for that long.
func (s *Store) DropIdle(ctx context.Context, repository string, idle time.Duration) error {
	var errs []error
	for _, u := range s.arriving(repository) {
		if u.idle() >= idle {
			_, err := s.DropUpload(ctx, u.id, idle)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (s *Store) arriving(repository string) (all []*Upload) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.sessions {
		if u.repo == repository {
			all = append(all, u)
		}
	}
	return all
}

// Pending is an upload that has not ended.
type Pending struct {
	ID   string
	Size int64
	Idle time.Duration // since the last byte
}

// Uploads gives all uploads that have not ended.
func (s *Store) Uploads(ctx context.Context) iter.Seq2[Pending, error] {
	return func(yield func(Pending, error) bool) {
		for e, err := range s.driver.Uploads(ctx) {
			if err != nil {
				yield(Pending{}, err)
				return
			}
			p := Pending{ID: e.Key, Size: e.Size, Idle: time.Since(e.Modified)}
			s.mu.Lock()
			u := s.sessions[e.Key]
			s.mu.Unlock()
			if u != nil {
				p.Idle = u.idle()
			}
			if !yield(p, nil) {
				return
			}
		}
	}
}

func (u *Upload) idle() time.Duration {
	u.mu.Lock()
	defer u.mu.Unlock()
	return time.Since(u.touched)
}

// DropUpload cancels an upload that nobody has added to for that long. It reports whether it did.
func (s *Store) DropUpload(ctx context.Context, id string, idle time.Duration) (bool, error) {
	s.mu.Lock()
	u := s.sessions[id]
	s.mu.Unlock()
	if u == nil {
		staged, err := s.driver.ResumeUpload(ctx, id)
		if fault.Is(err, fault.NotFound) {
			return true, nil
		}
		if err != nil {
			return false, err
		}
		return true, staged.Cancel(ctx)
	}
	select {
	case <-u.turn:
	default:
		return false, nil // in use
	}
	defer u.leave()
	if u.gone || u.idle() < idle {
		return false, nil
	}
	return true, u.end(ctx, u.staged.Cancel)
}
