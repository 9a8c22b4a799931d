package compress

import (
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"hash"
	"io"
	"sync"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

const (
	chunkSize  = 256 << 10
	chunkCount = 8 // buffers of one stream: what its three goroutines may be apart
)

// Chunks of all streams; a stream takes chunkCount of them as it needs them.
var chunkPool = sync.Pool{New: func() any { return &chunk{buf: make([]byte, chunkSize)} }}

// chunk is a buffer on its way: back to the free ones when its last user is done.
type chunk struct {
	buf   []byte
	n     int
	users atomic.Int32
}

// Stream reads r, undoes its compression, hashes the result and gives it in pieces. It is a tarstream.Source.
//
//	produce ──chunk──▶ hash
//	        └─chunk──▶ Next (the consumer)
//
// Close it; it waits for its goroutines, and so for a read of r that is under way.
type Stream struct {
	kind      Kind
	in        *meter
	unmetered int64 // bytes that are decompressed whatever they came from
	rc        io.ReadCloser
	hash      hash.Hash
	alg       digest.Algorithm
	out       chan *chunk
	toHash    chan *chunk
	free      chan *chunk
	stop      chan struct{}
	once      sync.Once
	wg        sync.WaitGroup
	held      *chunk // the consumer's current piece
	err       error  // of reading; written before out is closed
	size      int64  // likewise
	ended     bool   // the consumer has seen the end
}

// NewStream starts reading. alg is the digest's algorithm: sha256 where "" or unknown, or sha512.
func NewStream(r io.Reader, alg digest.Algorithm) (*Stream, error) {
	return newStream(r, alg, ratioFrom)
}

func newStream(r io.Reader, alg digest.Algorithm, free int64) (*Stream, error) {
	in := &meter{r: r}
	rc, kind, err := NewReader(in)
	if err != nil {
		return nil, err
	}
	s := &Stream{
		kind: kind, in: in, unmetered: free, rc: rc, alg: digest.SHA256, hash: sha256.New(),
		out: make(chan *chunk, chunkCount), toHash: make(chan *chunk, chunkCount), free: make(chan *chunk, chunkCount),
		stop: make(chan struct{}),
	}
	if alg == digest.SHA512 {
		s.alg, s.hash = alg, sha512.New()
	}
	for range chunkCount {
		s.free <- nil // taken from the pool when first needed
	}
	s.wg.Add(2)
	go s.produce()
	go s.digest()
	return s, nil
}

// Kind is the compression found.
func (s *Stream) Kind() Kind { return s.kind }

// Input tells how many bytes of the compressed data have been read so far.
func (s *Stream) Input() int64 { return s.in.n.Load() }

// meter counts what is read.
type meter struct {
	r io.Reader
	n atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// Of a compressed stream at most ratioMax times its input is decompressed, beyond the first ratioFrom bytes: a zstd stream of
// a few megabytes can stand for terabytes of zeros. gzip cannot go beyond 1032 by its nature.
const (
	ratioMax  = 1100
	ratioFrom = 4 << 30
)

// bomb reports whether the output has grown out of all proportion to the input.
func (s *Stream) bomb() error {
	if s.kind == None || s.size <= s.unmetered || s.size/ratioMax <= s.in.n.Load() {
		return nil
	}
	return fault.New(fault.Invalid, "%d bytes of %s data decompress to more than %d: that is more than %d times as much", s.in.n.Load(), s.kind, s.size, ratioMax)
}

// Next gives the next piece, valid until the call after. io.EOF is the end.
func (s *Stream) Next() ([]byte, error) {
	s.release(s.held)
	s.held = nil
	c, ok := <-s.out
	if !ok {
		s.ended = true
		if s.err != nil {
			return nil, s.err
		}
		return nil, io.EOF
	}
	s.held = c
	return c.buf[:c.n], nil
}

// Digest gives the digest and size of the uncompressed bytes. It is an error to ask before Next gave io.EOF.
func (s *Stream) Digest() (digest.Digest, int64, error) {
	if !s.ended {
		return "", 0, errors.New("the stream has not been read to its end")
	}
	if s.err != nil {
		return "", 0, s.err
	}
	s.wg.Wait()
	return digest.NewDigest(s.alg, s.hash), s.size, nil
}

// Close stops the goroutines and waits for them.
func (s *Stream) Close() error {
	s.once.Do(func() {
		close(s.stop)
		s.wg.Wait()
		s.release(s.held)
		s.held = nil
		for c := range s.out { // produce has closed it
			s.release(c)
		}
		for len(s.free) > 0 {
			if c := <-s.free; c != nil {
				chunkPool.Put(c)
			}
		}
	})
	return nil
}

func (s *Stream) produce() {
	defer s.wg.Done()
	defer s.rc.Close()
	defer close(s.toHash)
	defer close(s.out)
	for {
		var c *chunk
		select {
		case c = <-s.free:
		case <-s.stop:
			return
		}
		if c == nil {
			c = chunkPool.Get().(*chunk)
		}
		n, err := fill(s.rc, c.buf)
		if n == 0 {
			s.free <- c
		} else {
			c.n = n
			c.users.Store(2)
			s.size += int64(n)
			s.toHash <- c // never blocks: there are no more chunks than places
			s.out <- c
		}
		if err == nil {
			err = s.bomb()
		}
		if err != nil {
			if err != io.EOF {
				s.err = err
			}
			return
		}
	}
}

// fill reads until b is full or the reader has an error, which it passes on unchanged: io.ReadFull has one
// word for data that ends here and data that broke off.
func fill(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var m int
		m, err = r.Read(b[n:])
		n += m
	}
	return n, err
}

func (s *Stream) digest() {
	defer s.wg.Done()
	for c := range s.toHash {
		s.hash.Write(c.buf[:c.n])
		s.release(c)
	}
}

func (s *Stream) release(c *chunk) {
	if c != nil && c.users.Add(-1) == 0 {
		s.free <- c
	}
}
