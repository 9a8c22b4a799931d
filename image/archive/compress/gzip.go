package compress

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/flate"
)

// The stream of one gzip member is cut into blocks that are compressed beside each other, each with the end of the one before as its
// dictionary, and put together in order. Where it is cut depends on the bytes alone, so the result is the same on
// every machine.
//
//	Write ──block──▶ workers (at most gzipWorkers) ──▶ put together, in order ──▶ w
const (
	gzipBlock   = 512 << 10 // of which a few for each processor are in memory
	gzipWindow  = 32 << 10  // as far back as deflate can refer
	gzipWorkers = 4         // of one stream: several layers are pushed at the same time
)

// gzipWriter is a gzip stream in the making.
type gzipWriter struct {
	w     io.Writer
	now   *gzipPiece
	tail  []byte // the last bytes of the block before
	crc   uint32
	size  uint32
	order chan *gzipPiece // on their way, in order
	slots chan struct{}   // one for each piece that is being compressed
	done  chan error      // what the goroutine that writes ended with

	mu     sync.Mutex
	failed error // of w: nothing more is written
	closed bool
}

// gzipPiece is a block on its way.
type gzipPiece struct {
	in    []byte
	dict  []byte
	last  bool
	out   bytes.Buffer
	ready chan error
}

var (
	piecePool  = sync.Pool{New: func() any { return &gzipPiece{in: make([]byte, 0, gzipBlock)} }}
	gzipHeader = []byte{0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255} // no name, no time, no system
)

func newGzipWriter(w io.Writer) *gzipWriter {
	n := max(1, min(gzipWorkers, runtime.GOMAXPROCS(0)))
	g := &gzipWriter{w: w, order: make(chan *gzipPiece, n), slots: make(chan struct{}, n), done: make(chan error, 1)}
	go g.run()
	return g
}

// Write takes bytes; errors of the writer below come with a later Write or with Close.
func (g *gzipWriter) Write(p []byte) (int, error) {
	n := len(p)
	g.crc = crc32.Update(g.crc, crc32.IEEETable, p)
	g.size += uint32(n) // modulo 2³², as the format has it
	for len(p) > 0 {
		if g.now == nil {
			g.now = piecePool.Get().(*gzipPiece)
		}
		k := min(len(p), gzipBlock-len(g.now.in))
		g.now.in = append(g.now.in, p[:k]...)
		p = p[k:]
		if len(g.now.in) == gzipBlock {
			if err := g.send(false); err != nil {
				return n - len(p), err
			}
		}
	}
	return n, nil
}

// send has the block compressed that is full, or the last.
func (g *gzipWriter) send(last bool) error {
	p := g.now
	g.now = nil
	if p == nil {
		p = piecePool.Get().(*gzipPiece)
	}
	p.last, p.ready = last, make(chan error, 1)
	p.dict = append(p.dict[:0], g.tail...)
	g.tail = append(g.tail[:0], p.in[max(0, len(p.in)-gzipWindow):]...)
	g.slots <- struct{}{}
	g.order <- p
	go func() {
		p.ready <- p.compress()
		<-g.slots
	}()
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

var flatePool sync.Pool

// compress makes a block's part of the deflate stream, which ends at a byte.
func (p *gzipPiece) compress() (err error) {
	p.out.Reset()
	fw, ok := flatePool.Get().(*flate.Writer)
	if ok {
		fw.ResetDict(&p.out, p.dict)
	} else if fw, err = flate.NewWriterDict(&p.out, gzipLevel, p.dict); err != nil {
		return err
	}
	defer flatePool.Put(fw)
	if _, err := fw.Write(p.in); err != nil {
		return err
	}
	if p.last {
		return fw.Close()
	}
	return fw.Flush()
}

// run puts the blocks together.
func (g *gzipWriter) run() {
	_, err := g.w.Write(gzipHeader)
	for p := range g.order {
		if perr := <-p.ready; err == nil {
			err = perr
		}
		if err == nil {
			_, err = g.w.Write(p.out.Bytes())
		}
		if err != nil {
			g.mu.Lock()
			g.failed = err
			g.mu.Unlock()
		}
		p.in = p.in[:0]
		piecePool.Put(p)
	}
	g.done <- err
}

// Close writes what is left and the end of the stream, and waits for all.
func (g *gzipWriter) Close() error {
	if g.closed {
		return nil
	}
	g.closed = true
	_ = g.send(true) // the same error comes from run
	close(g.order)
	if err := <-g.done; err != nil {
		return err
	}
	var end [8]byte
	binary.LittleEndian.PutUint32(end[:4], g.crc)
	binary.LittleEndian.PutUint32(end[4:], g.size)
	_, err := g.w.Write(end[:])
	return err
}
