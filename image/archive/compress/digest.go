package compress

import (
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/opencontainers/go-digest"
)

// Digester hashes what is written to it on a goroutine of its own, so that hashing goes on beside whatever produces the bytes.
// Close it, after Digest too.
type Digester struct {
	alg    digest.Algorithm
	hash   hash.Hash
	full   chan *chunk
	free   chan *chunk
	done   chan struct{}
	now    *chunk // being filled
	closed bool
}

// NewDigester starts a digester: sha256 where alg is "" or unknown, or sha512.
func NewDigester(alg digest.Algorithm) *Digester {
	const depth = 4
	d := &Digester{alg: digest.SHA256, hash: sha256.New(), full: make(chan *chunk, depth), free: make(chan *chunk, depth), done: make(chan struct{})}
	if alg == digest.SHA512 {
		d.alg, d.hash = alg, sha512.New()
	}
	for range depth {
		d.free <- nil // taken from the pool when first needed
	}
	go d.run()
	return d
}

func (d *Digester) run() {
	defer close(d.done)
	for c := range d.full {
		d.hash.Write(c.buf[:c.n])
		d.free <- c
	}
}

// Write takes a copy of p. It never fails.
func (d *Digester) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		if d.now == nil {
			if d.now = <-d.free; d.now == nil {
				d.now = chunkPool.Get().(*chunk)
			}
			d.now.n = 0
		}
		k := copy(d.now.buf[d.now.n:], p)
		d.now.n += k
		p = p[k:]
		if d.now.n == len(d.now.buf) {
			d.flush()
		}
	}
	return n, nil
}

func (d *Digester) flush() {
	if d.now != nil {
		d.full <- d.now // never blocks: there are no more chunks than places
		d.now = nil
	}
}

// Digest waits for what is still to be hashed and gives the digest. Nothing may be written any more.
func (d *Digester) Digest() digest.Digest {
	d.Close()
	return digest.NewDigest(d.alg, d.hash)
}

// Close ends the goroutine and waits for it.
func (d *Digester) Close() {
	if d.closed {
		return
	}
	d.closed = true
	d.flush()
	close(d.full)
	<-d.done
	for len(d.free) > 0 {
		if c := <-d.free; c != nil {
			chunkPool.Put(c)
		}
	}
}
