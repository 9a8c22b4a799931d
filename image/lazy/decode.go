package lazy

import (
	"bytes"
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// decoders keeps decompressors for the next chunk: to make one costs more than most chunks.
type decoders struct{ gzip, zstd sync.Pool }

// open gives a reader of a stream, and what gives it back.
func (d *decoders) open(f form, raw []byte) (io.Reader, func(), error) {
	if f == eStargz {
		z, _ := d.gzip.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		err := z.Reset(bytes.NewReader(raw))
		return z, func() { d.gzip.Put(z) }, err
	}
	z, _ := d.zstd.Get().(*zstd.Decoder)
	if z == nil {
		var err error
		// With one goroutine and no stream the decoder needs no closing.
		z, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(2*chunkMax))
		if err != nil {
			return nil, nil, err
		}
	}
	err := z.Reset(bytes.NewReader(raw))
	return z, func() {
		z.Reset(nil)
		d.zstd.Put(z)
	}, err
}

// chunk decompresses one chunk out of its stream.
func (d *decoders) chunk(f form, raw []byte, k *chunk) ([]byte, error) {
	src, done, err := d.open(f, raw)
	if done != nil {
		defer done()
	}
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyN(io.Discard, src, k.inner); err != nil {
		return nil, err
	}
	b := make([]byte, k.size)
	if _, err := io.ReadFull(src, b); err != nil {
		return nil, err
	}
	if sha256.Sum256(b) != k.sum {
		return nil, fmt.Errorf("the chunk's digest is not the one in the table of contents")
	}
	return b, nil
}

// memory keeps decompressed chunks, of all layers, the last used ones. Each is decompressed by one reader at a time.
type memory struct {
	mu    sync.Mutex // guards what follows
	max   int64
	size  int64
	index map[memoryKey]*list.Element
	order list.List // of *memoryEntry, the last used first
	busy  map[memoryKey]chan struct{}
}

type memoryKey struct {
	of    *content
	chunk int
}

type memoryEntry struct {
	key  memoryKey
	data []byte
}

func newMemory(max int64) *memory {
	return &memory{max: max, index: map[memoryKey]*list.Element{}, busy: map[memoryKey]chan struct{}{}}
}

// get gives a chunk's content, which must not be changed; load makes it where it is not kept.
func (m *memory) get(ctx context.Context, key memoryKey, load func() ([]byte, error)) ([]byte, error) {
	for {
		m.mu.Lock()
		if e := m.index[key]; e != nil {
			m.order.MoveToFront(e)
			m.mu.Unlock()
			return e.Value.(*memoryEntry).data, nil
		}
		busy := m.busy[key]
		if busy == nil {
			break
		}
		m.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	done := make(chan struct{})
	m.busy[key] = done
	m.mu.Unlock()
	b, err := load()
	m.mu.Lock()
	delete(m.busy, key)
	close(done)
	if err == nil {
		m.keep(key, b)
	}
	m.mu.Unlock()
	return b, err
}

// keep remembers a chunk and forgets others. mu is held.
func (m *memory) keep(key memoryKey, b []byte) {
	m.index[key] = m.order.PushFront(&memoryEntry{key, b})
	m.size += int64(len(b))
	for m.size > m.max && m.order.Len() > 1 {
		m.drop(m.order.Back())
	}
}

func (m *memory) drop(e *list.Element) {
	old := m.order.Remove(e).(*memoryEntry)
	delete(m.index, old.key)
	m.size -= int64(len(old.data))
}

// forget drops what is kept of a layer.
func (m *memory) forget(of *content) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, e := range m.index {
		if key.of == of {
			m.drop(e)
		}
	}
}
