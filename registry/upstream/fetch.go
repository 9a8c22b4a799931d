package upstream

import (
	"context"
	"io"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// fetch is a blob on its way from a source. It lies in an unlinked file; whoever wants it reads from there while it grows.
type fetch struct {
	file  *os.File
	ready chan struct{} // closed when the size is known, or the fetch has failed
	over  chan struct{} // closed when the storage has the blob, or the fetch has failed

	mu    sync.Mutex
	moved *sync.Cond
	size  int64
	at    int64 // bytes that have come
	good  bool  // all have come and have the digest
	err   error
	users int // the file is closed by the last
}

// fetchName is how the file is called for the moment before it is unlinked: so that a cache that is killed in that moment leaves only
// what atomicfile.Sweep removes when it is opened again.
const fetchName = ".tmp-blob-*"

func newFetch(dir string) (*fetch, error) {
	f, err := os.CreateTemp(dir, fetchName)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "a place for a blob")
	}
	if err := os.Remove(f.Name()); err != nil { // the kernel drops it when we are killed
		f.Close()
		return nil, fault.Wrap(fault.Internal, err, "a place for a blob")
	}
	x := &fetch{file: f, ready: make(chan struct{}), over: make(chan struct{}), users: 1}
	x.moved = sync.NewCond(&x.mu)
	return x, nil
}

// fill copies what a source sends into the file, and verifies it.
func (f *fetch) fill(r io.Reader, d digest.Digest) error {
	verifier := d.Verifier()
	buf := make([]byte, 128<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := f.file.WriteAt(buf[:n], f.at); err != nil {
				return fault.Wrap(fault.Internal, err, "keep blob %s", d)
			}
			_, _ = verifier.Write(buf[:n])
			f.mu.Lock()
			f.at += int64(n)
			f.mu.Unlock()
			f.moved.Broadcast()
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	if !verifier.Verified() {
		return fault.New(fault.Unavailable, "what the source sent is not blob %s", d)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.size >= 0 && f.at != f.size {
		return fault.New(fault.Unavailable, "the source sent %d bytes of blob %s, which has %d", f.at, d, f.size)
	}
	f.good, f.size = true, f.at
	f.moved.Broadcast()
	return nil
}

// fail ends the fetch for all who read.
func (f *fetch) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil && !f.good {
		f.err = err
	}
	f.moved.Broadcast()
}

// use takes part in the file; false when it is closed already.
func (f *fetch) use() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users == 0 {
		return false
	}
	f.users++
	return true
}

func (f *fetch) release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.users--; f.users == 0 {
		f.file.Close()
	}
}

// reader gives the blob from its beginning. verified holds the last byte back until all have the digest. The caller has called use and
// calls Close.
func (f *fetch) reader(ctx context.Context, verified bool) *fetchReader {
	r := &fetchReader{f: f, ctx: ctx, verified: verified}
	r.stop = context.AfterFunc(ctx, func() {
		f.mu.Lock() // whoever has looked at ctx waits by now
		defer f.mu.Unlock()
		f.moved.Broadcast()
	})
	return r
}

// fetchReader reads a blob that is being fetched. It can seek when the size is known.
type fetchReader struct {
	f        *fetch
	ctx      context.Context // of the request: the reader's life is the request's
	stop     func() bool
	pos      int64
	verified bool
}

// Read waits until there is something to read.
func (r *fetchReader) Read(p []byte) (int, error) {
	until, err := r.wait()
	if err != nil || until <= r.pos {
		return 0, err
	}
	n, err := r.f.file.ReadAt(p[:min(int64(len(p)), until-r.pos)], r.pos)
	r.pos += int64(n)
	if n > 0 {
		err = nil
	}
	return n, err
}

// wait gives up to where may be read: beyond the position, or there is an error.
func (r *fetchReader) wait() (int64, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		until := f.at
		if r.verified && !f.good {
			until--
		}
		switch {
		case r.pos < until:
			return until, nil
		case f.good:
			return until, io.EOF
		case f.err != nil:
			return until, f.err
		case r.ctx.Err() != nil:
			return until, r.ctx.Err()
		}
		f.moved.Wait()
	}
}

// Seek moves the position.
func (r *fetchReader) Seek(offset int64, whence int) (int64, error) {
	r.f.mu.Lock()
	size := r.f.size
	r.f.mu.Unlock()
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += size
	}
	if offset < 0 || size < 0 && whence == io.SeekEnd {
		return 0, fault.New(fault.Invalid, "no such place in a blob")
	}
	r.pos = offset
	return offset, nil
}

// Close ends the reader's part in the file.
func (r *fetchReader) Close() error {
	r.stop()
	r.f.release()
	return nil
}
