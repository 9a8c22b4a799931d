package compress

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"berth/base/fault"
)

// Kind is a compression.
type Kind string

// The compressions.
const (
	None  Kind = ""
	Gzip  Kind = "gzip"
	Zstd  Kind = "zstd"
	Xz    Kind = "xz"
	Bzip2 Kind = "bzip2"
)

// MagicLen is how many bytes Detect wants to see.
const MagicLen = 10

// Windows larger than this are refused: a stream of a few bytes must not make us take gigabytes.
const maxWindow = 256 << 20

// Detect tells the compression by a stream's first bytes.
func Detect(b []byte) Kind {
	switch {
	case bytes.HasPrefix(b, []byte{0x1f, 0x8b, 0x08}):
		return Gzip
	case bytes.HasPrefix(b, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return Zstd
	case len(b) >= 4 && b[0]&0xf0 == 0x50 && bytes.Equal(b[1:4], []byte{0x2a, 0x4d, 0x18}): // a skippable frame in front
		return Zstd
	case bytes.HasPrefix(b, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return Xz
	case bytes.HasPrefix(b, []byte("BZh")) && len(b) >= MagicLen && (string(b[4:10]) == "1AY&SY" || string(b[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return Bzip2
	}
	return None
}

// NewReader detects and undoes the compression of r. Close the reader; r stays the caller's.
// Malformed input shows as Invalid errors of Read (or here, where a header is wrong at once).
func NewReader(r io.Reader) (io.ReadCloser, Kind, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(MagicLen)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, None, err
	}
	kind := Detect(magic)
	if kind == None {
		return io.NopCloser(br), kind, nil
	}
	rc, err := open(kind, br)
	if err != nil {
		return nil, kind, classify(kind, err)
	}
	return &reader{ReadCloser: rc, kind: kind}, kind, nil
}

func open(kind Kind, br *bufio.Reader) (io.ReadCloser, error) {
	switch kind {
	case Gzip:
		return openGzip(br)
	case Zstd:
		d, err := zstd.NewReader(br, zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderConcurrency(2))
		if err != nil {
			return nil, err
		}
		return d.IOReadCloser(), nil
	case Xz:
		return openXz(br)
	}
	return io.NopCloser(bzip2.NewReader(br)), nil
}

// reader gives decompression errors their kind.
type reader struct {
	io.ReadCloser
	kind Kind
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = classify(r.kind, err)
	}
	return n, err
}

// classify calls an error of the data Invalid; one that came from below (a fault, a cut-off connection) stays what it is.
func classify(kind Kind, err error) error {
	var f *fault.Error
	if errors.As(err, &f) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	return fault.Wrap(fault.Invalid, err, "%s data", kind)
}

// Gzip readers hold 40 KB of tables and window; images have many layers.
var gzipPool sync.Pool

type pooledGzip struct{ *gzip.Reader }

func openGzip(br *bufio.Reader) (io.ReadCloser, error) {
	if z, ok := gzipPool.Get().(*gzip.Reader); ok {
		if err := z.Reset(br); err != nil {
			return nil, err
		}
		return &pooledGzip{z}, nil
	}
	z, err := gzip.NewReader(br)
	if err != nil {
		return nil, err
	}
	return &pooledGzip{z}, nil
}

func (p *pooledGzip) Close() error {
	if p.Reader == nil {
		return nil
	}
	err := p.Reader.Close()
	gzipPool.Put(p.Reader)
	p.Reader = nil
	return err
}
