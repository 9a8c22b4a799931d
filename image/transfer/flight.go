package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/image/blob"
	"berth/image/layer"
	"berth/image/remote"
)

// flightKey names what a flight brings. The diff id is in it because it is only a manifest's and a configuration's word for
// it that the blob has it.
type flightKey struct{ blob, diffID digest.Digest }

// flight is one layer on its way into the staging area, for everybody who wants it.
//
//	take off   the first who joins starts it, from his repository
//	landed     staged, or failed: done is closed
//	over       the last one has left: what was not committed is dropped
type flight struct {
	t      *Transfer
	key    flightKey
	d      ocispec.Descriptor
	repo   *remote.Repository
	cancel context.CancelFunc
	done   chan struct{}

	// Written before done is closed.
	staged *layer.Staged
	kept   bool // the blob is in the blob store, held once for the flight
	err    error

	// Guarded by Transfer.mu.
	interest int
	pinned   bool // the flight holds the committed layer

	mu       sync.Mutex // guards what follows
	watchers map[*watcher]bool
	last     Progress
}

// watcher is somebody who is told how a flight goes.
type watcher struct {
	board *board
	id    string // what he calls the layer
}

// join gives the flight of a layer, started where there is none.
func (t *Transfer) join(repo *remote.Repository, d ocispec.Descriptor, diffID digest.Digest, w *watcher) *flight {
	key := flightKey{d.Digest, diffID}
	t.mu.Lock()
	f := t.flights[key]
	if f == nil {
		// A flight belongs to all who wait for it and ends with the last of them: it has no one request's context.
		ctx, cancel := context.WithCancel(context.Background())
		f = &flight{t: t, key: key, d: d, repo: repo, cancel: cancel, done: make(chan struct{}), watchers: map[*watcher]bool{}}
		t.flights[key] = f
		go f.fly(ctx)
	}
	f.interest++
	t.mu.Unlock()
	f.mu.Lock()
	f.watchers[w] = true
	last := f.last
	f.mu.Unlock()
	if last.Status != "" {
		last.ID = w.id
		w.board.say(last)
	}
	return f
}

// leave gives one's interest in a flight up. With the last one it ends, and what it staged and nobody committed is deleted.
func (f *flight) leave(w *watcher) {
	f.mu.Lock()
	delete(f.watchers, w)
	f.mu.Unlock()
	f.t.mu.Lock()
	f.interest--
	last := f.interest == 0
	if last && f.t.flights[f.key] == f {
		delete(f.t.flights, f.key)
	}
	f.t.mu.Unlock()
	if !last {
		return
	}
	f.cancel()
	<-f.done
	if f.staged != nil {
		f.staged.Drop()
	}
	if f.kept {
		f.t.cfg.Images.Blobs().Release(f.d.Digest)
	}
	if f.pinned {
		f.t.cfg.Images.Layers().Release(f.key.diffID)
	}
}

// pin holds a layer that was just committed for those who are going to commit it as well. The caller holds it.
func (f *flight) pin() {
	f.t.mu.Lock()
	defer f.t.mu.Unlock()
	if !f.pinned && f.t.cfg.Images.Layers().Retain(f.key.diffID) == nil {
		f.pinned = true
	}
}

// wait waits until the layer is staged.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *flight) say(p Progress) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last = p
	for w := range f.watchers {
		p.ID = w.id
		w.board.say(p)
	}
}

// fly brings the layer. A flight that failed is forgotten at once: who comes now starts another.
func (f *flight) fly(ctx context.Context) {
	defer close(f.done)
	f.err = f.turn(ctx)
	if f.err != nil {
		f.t.mu.Lock()
		if f.t.flights[f.key] == f {
			delete(f.t.flights, f.key)
		}
		f.t.mu.Unlock()
	}
}

func (f *flight) turn(ctx context.Context) error {
	places := f.t.down.Load()
	if !places.TryAcquire(1) {
		f.say(Progress{Status: "Waiting"})
		if err := places.Acquire(ctx, 1); err != nil {
			return err
		}
	}
	defer places.Release(1)
	from, err := f.bring(ctx)
	if from != "" {
		// The bytes were not the blob's: where there are mirrors, another one may have the right ones.
		f.t.log.Warn("a registry sent a layer that is not what its digest says", "layer", f.d.Digest, "host", from, "err", err)
		f.repo.Distrust(from)
		_, err = f.bring(ctx)
	}
	return err
}

// bring fetches, verifies, decompresses and unpacks the layer in one go. liar is the host whose bytes were not the blob's,
// together with the error.
func (f *flight) bring(ctx context.Context) (liar string, err error) {
	body, err := f.repo.Blob(ctx, f.d, 0)
	if err != nil {
		return "", err
	}
	defer body.Close()
	src, err := f.unpack(ctx, body)
	if b, ok := body.(*remote.BlobReader); ok && err != nil && src.bad {
		liar = b.From()
	}
	return liar, err
}

// unpack does with the blob's bytes what there is to do.
func (f *flight) unpack(ctx context.Context, body io.Reader) (*checked, error) {
	m := &meter{say: f.say, status: "Downloading", total: f.d.Size}
	middle := f.d.Size / 2
	src := newChecked(body, f.d, func(n int) {
		if m.now <= middle && m.now+int64(n) > middle {
			_ = failpoint.Hit("transfer/mid-layer") // only dying and waiting make sense here
		}
		m.add(n)
	})
	w, err := f.keeper(ctx)
	if err != nil {
		return src, err
	}
	in := &arrival{r: src, arrived: f.arrived}
	if w != nil {
		defer w.Abort()
		in.r = io.TeeReader(src, w)
	}
	st, err := f.t.cfg.Images.Layers().Stage(ctx, in, f.key.diffID)
	if err != nil {
		return src, f.explain(ctx, src, err)
	}
	if _, err := io.Copy(io.Discard, in); err != nil { // what follows the compressed data is part of the blob
		st.Drop()
		return src, err
	}
	if w != nil {
		if _, err := w.Commit(); err != nil {
			st.Drop()
			return src, err
		}
		f.kept = true
	}
	f.staged = st
	return src, nil
}

// keeper gives where the compressed blob is kept, or nil where it is not to be, or is there already.
func (f *flight) keeper(ctx context.Context) (*blob.Writer, error) {
	if !f.t.cfg.KeepBlobs || f.kept {
		return nil, nil
	}
	w, err := f.t.cfg.Images.Blobs().Writer(ctx, blob.Want{Digest: f.d.Digest, Size: f.d.Size})
	if err == nil && w == nil {
		f.kept = true
	}
	return w, err
}

// explain finds out why unpacking failed: a blob that is not what it should be explains whatever a decompressor or a tar reader
// stumbled over. The rest of it is read for that, but not for ever.
func (f *flight) explain(ctx context.Context, src *checked, err error) error {
	if ctx.Err() != nil || !fault.Is(err, fault.Invalid) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	stop := time.AfterFunc(explainMax, f.cancel)
	defer stop.Stop()
	if bad := src.rest(); fault.Is(bad, fault.Invalid) {
		return bad
	}
	return fault.In(err, "layer %s", f.d.Digest)
}

const explainMax = 30 * time.Second

// arrived tells that the last byte is here.
func (f *flight) arrived() {
	f.say(Progress{Status: "Verifying Checksum"})
	f.say(Progress{Status: "Download complete"})
	f.say(Progress{Status: "Extracting", Current: f.d.Size, Total: f.d.Size})
}

// arrival tells once when a reader has come to a good end.
type arrival struct {
	r       io.Reader
	arrived func()
}

func (a *arrival) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err == io.EOF && a.arrived != nil {
		a.arrived()
		a.arrived = nil
	}
	return n, err
}
