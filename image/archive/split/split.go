package split

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"
	"github.com/vbatts/tar-split/tar/storage"

	"berth/base/fault"
)

const (
	segmentMax = 64 << 10 // bytes of archive in one record
	lineMax    = 4 << 20  // longest line Rebuild reads: a segment in base64 or a name
)

// Record is one line: tar-split's entry, and where in its file a stretch begins.
type Record struct {
	storage.Entry
	Offset int64 `json:"offset,omitempty"`
}

// Writer writes records. It is not safe for concurrent use.
type Writer struct {
	zw       *zstd.Encoder
	buf      *bufio.Writer
	pending  []byte // archive bytes not yet written as a record
	line     []byte
	position int
}

// NewWriter starts writing to w.
func NewWriter(w io.Writer) (*Writer, error) {
	zw, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(256<<10), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, err
	}
	return &Writer{zw: zw, buf: bufio.NewWriterSize(zw, 64<<10)}, nil
}

// Bytes records bytes of the archive itself.
func (w *Writer) Bytes(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), segmentMax-len(w.pending))
		w.pending = append(w.pending, b[:n]...)
		b = b[n:]
		if len(w.pending) == segmentMax {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// File records that the next size bytes of the archive are those of the named file from offset on.
// It returns the position of the record, by which a later rename of the file can be told apart.
func (w *Writer) File(name string, offset, size int64) (position int, err error) {
	if err := w.flush(); err != nil {
		return 0, err
	}
	position = w.position
	b := append(w.line[:0], `{"type":1,`...)
	if utf8.ValidString(name) {
		quoted, err := json.Marshal(name)
		if err != nil {
			return 0, err
		}
		b = append(append(b, `"name":`...), quoted...)
	} else {
		b = append(b, `"name_raw":"`...)
		b = base64.StdEncoding.AppendEncode(b, []byte(name))
		b = append(b, '"')
	}
	b = append(b, `,"size":`...)
	b = strconv.AppendInt(b, size, 10)
	if offset != 0 {
		b = append(b, `,"offset":`...)
		b = strconv.AppendInt(b, offset, 10)
	}
	b = append(b, `,"payload":null`...)
	return position, w.end(b)
}

// Close ends the frame. The underlying writer is the caller's to close and sync.
func (w *Writer) Close() error {
	err := w.flush()
	if err == nil {
		err = w.buf.Flush()
	}
	return errors.Join(err, w.zw.Close())
}

func (w *Writer) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	b := append(w.line[:0], `{"type":2,"payload":"`...)
	b = base64.StdEncoding.AppendEncode(b, w.pending)
	b = append(b, '"')
	w.pending = w.pending[:0]
	return w.end(b)
}

func (w *Writer) end(b []byte) error {
	b = append(b, `,"position":`...)
	b = strconv.AppendInt(b, int64(w.position), 10)
	b = append(b, "}\n"...)
	w.line = b
	w.position++
	_, err := w.buf.Write(b)
	return err
}

// File is an unpacked file, as Rebuild reads it.
type File interface {
	io.ReaderAt
	io.Closer
}

// Rebuild writes the archive whose records r holds to w. open gives the file of a record; consecutive records
// of one file open it once. A file shorter than its record, or a damaged record, is an error.
func Rebuild(ctx context.Context, r io.Reader, open func(position int, name string) (File, error), w io.Writer) error {
	zr, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return err
	}
	defer zr.Close()
	lines := bufio.NewScanner(zr)
	lines.Buffer(make([]byte, 128<<10), lineMax)
	c := copier{w: w, open: open, buf: make([]byte, 256<<10)}
	defer c.close()
	for n := 0; lines.Scan(); n++ {
		if n%64 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		var rec Record
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return fault.Wrap(fault.Internal, err, "tar-split record %d", n)
		}
		if rec.Position != n {
			return fault.New(fault.Internal, "tar-split record %d says it is number %d", n, rec.Position)
		}
		if err := c.record(&rec); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return fault.Wrap(fault.Internal, err, "tar-split data")
	}
	return nil
}

// copier writes records and keeps the last file open, because sparse files come in many stretches.
type copier struct {
	w    io.Writer
	open func(position int, name string) (File, error)
	buf  []byte
	file File
	name string
}

func (c *copier) record(rec *Record) error {
	switch rec.Type {
	case storage.SegmentType:
		_, err := c.w.Write(rec.Payload)
		return err
	case storage.FileType:
		return c.stretch(rec)
	}
	return fault.New(fault.Internal, "tar-split record %d has type %d", rec.Position, rec.Type)
}

func (c *copier) stretch(rec *Record) error {
	name := rec.GetName()
	if c.file == nil || c.name != name || rec.Offset == 0 { // a new first stretch may be another file of that name
		c.close()
		f, err := c.open(rec.Position, name)
		if err != nil {
			return err
		}
		c.file, c.name = f, name
	}
	for at, left := rec.Offset, rec.Size; left > 0; {
		b := c.buf[:min(left, int64(len(c.buf)))]
		if n, err := c.file.ReadAt(b, at); n < len(b) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fault.Wrap(fault.Internal, err, "read %s back from its layer", name)
		}
		if _, err := c.w.Write(b); err != nil {
			return err
		}
		at += int64(len(b))
		left -= int64(len(b))
	}
	return nil
}

func (c *copier) close() {
	if c.file != nil {
		c.file.Close()
		c.file = nil
	}
}
