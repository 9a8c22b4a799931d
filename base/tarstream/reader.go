package tarstream

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"berth/base/fault"
)

const blockSize = 512

// Recorder receives, in order, the bytes of the archive that are not payload handed out by Payload.
type Recorder interface {
	Bytes(b []byte) error // b is valid during the call
}

// Limits bound what an archive may ask for. Zero means the default.
type Limits struct {
	Entries     int64 // number of entries; default 16 Mi
	SpecialSize int64 // bytes of one PAX or GNU long-name record; default 1 MiB, as archive/tar has it
	Fragments   int   // stretches of one sparse file; default 1 Mi
}

// Defaults gives the limits with every zero replaced.
func (l Limits) Defaults() Limits {
	if l.Entries == 0 {
		l.Entries = 16 << 20
	}
	if l.SpecialSize == 0 {
		l.SpecialSize = 1 << 20
	}
	if l.Fragments == 0 {
		l.Fragments = 1 << 20
	}
	return l
}

// ErrHeader is the cause of errors about malformed headers.
var ErrHeader = errors.New("archive/tar: invalid tar header") // the text that Docker shows

// Reader reads one archive. It is not safe for concurrent use.
type Reader struct {
	in      input
	rec     Recorder
	limits  Limits
	entries int64
	hdr     Header
	left    int64 // payload not yet taken
	pad     int64 // padding after it
	blk     [blockSize]byte
	err     error // sticky
	comment string
}

// NewReader starts reading. rec may be nil.
func NewReader(src Source, rec Recorder, limits Limits) *Reader {
	return &Reader{in: input{src: src}, rec: rec, limits: limits.Defaults()}
}

// Position is the number of bytes of the archive read so far.
func (r *Reader) Position() int64 { return r.in.pos }

// Comment is the comment of the last global header read so far, such as one at the archive's end.
func (r *Reader) Comment() string { return r.comment }

// Next goes to the next entry. The header is valid until the call after. At the end of the archive (two zero
// blocks, or no more bytes) it gives io.EOF; Rest then reads what follows. Malformed input is Invalid and
// errors.Is(err, ErrHeader); an archive that breaks off is io.ErrUnexpectedEOF.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	hdr, err := r.next()
	if err != nil {
		if errors.Is(err, ErrHeader) {
			err = fault.Wrap(fault.Invalid, err, "tar at byte %d", r.in.pos)
		}
		r.err = err
		return nil, err
	}
	return hdr, nil
}

// Payload gives the next piece of the entry's stored bytes, at most max, without copying: it is valid until the
// next call of any method. io.EOF ends the entry.
func (r *Reader) Payload(max int64) ([]byte, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	b, err := r.in.take(min(max, r.left))
	if err != nil {
		return nil, r.fail(unexpected(err))
	}
	r.left -= int64(len(b))
	return b, nil
}

// Discard gives what is left of the entry's payload to the recorder.
func (r *Reader) Discard() error {
	for r.left > 0 {
		b, err := r.in.take(r.left)
		if err != nil {
			return r.fail(unexpected(err))
		}
		r.left -= int64(len(b))
		if err := r.record(b); err != nil {
			return r.fail(err)
		}
	}
	return nil
}

// Rest records everything after the archive's end, so that the source has been read whole.
func (r *Reader) Rest() error {
	for {
		b, err := r.in.take(1 << 20)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := r.record(b); err != nil {
			return err
		}
	}
}

func (r *Reader) next() (*Header, error) {
	if err := r.Discard(); err != nil {
		return nil, err
	}
	var pax map[string]string
	var gnuName, gnuLink string
	for {
		if err := r.padding(); err != nil {
			return nil, err
		}
		format, err := r.block()
		if err != nil {
			return nil, err
		}
		h := &r.hdr
		*h = Header{}
		if err := parseBlock(&r.blk, format, h); err != nil {
			return nil, err
		}
		if err := r.section(h); err != nil {
			return nil, err
		}
		// Headers about headers count as entries too, or an endless row of them would never be refused.
		if r.entries++; r.entries > r.limits.Entries {
			return nil, fault.New(fault.Invalid, "tar has more than %d entries", r.limits.Entries)
		}
		switch h.Type {
		case extended:
			b, err := r.special()
			if err != nil {
				return nil, err
			}
			if pax, err = parsePAX(b, r.limits.Fragments); err != nil {
				return nil, err
			}
			continue
		case global:
			b, err := r.special()
			if err != nil {
				return nil, err
			}
			g, err := parsePAX(b, r.limits.Fragments)
			if err != nil {
				return nil, err
			}
			if err := mergePAX(h, g); err != nil { // checked as archive/tar does, then forgotten
				return nil, err
			}
			r.comment = h.Comment
			pax, gnuName, gnuLink = nil, "", ""
			continue
		case longName, longLink:
			b, err := r.special()
			if err != nil {
				return nil, err
			}
			if h.Type == longName {
				gnuName = cString(b)
			} else {
				gnuLink = cString(b)
			}
			continue
		}
		return h, r.finish(h, pax, gnuName, gnuLink, format)
	}
}

// finish merges what the headers before said into the entry's own.
func (r *Reader) finish(h *Header, pax map[string]string, gnuName, gnuLink string, format format) error {
	if err := mergePAX(h, pax); err != nil {
		return err
	}
	if gnuName != "" {
		h.Name = gnuName
	}
	if gnuLink != "" {
		h.Linkname = gnuLink
	}
	switch {
	case h.Type == 0 && strings.HasSuffix(h.Name, "/"):
		h.Type = Directory
	case h.Type == 0 || h.Type == '7': // '7', contiguous, is regular to everybody
		h.Type = Regular
	}
	if err := r.section(h); err != nil {
		return err
	}
	if err := r.sparse(h, pax, format); err != nil {
		return err
	}
	if h.Type == GNUSparse {
		h.Type = Regular
	}
	h.Stored = r.left
	if headerOnly(h.Type) {
		h.Size = 0
	}
	return nil
}

// section sets up the payload that follows a header.
func (r *Reader) section(h *Header) error {
	size := h.Size
	if headerOnly(h.Type) {
		size = 0
	}
	if size < 0 {
		return malformed("negative size")
	}
	r.left = size
	r.pad = -size & (blockSize - 1)
	return nil
}

// block reads the next header block. io.EOF is the archive's end.
func (r *Reader) block() (format, error) {
	if _, err := r.readBlock(); err != nil {
		return 0, err
	}
	if r.blk == [blockSize]byte{} {
		if _, err := r.readBlock(); err != nil {
			return 0, err
		}
		if r.blk == [blockSize]byte{} {
			return 0, io.EOF
		}
		return 0, malformed("one zero block before another entry")
	}
	f := detect(&r.blk)
	if f == unknown {
		return 0, malformed("wrong checksum")
	}
	return f, nil
}

func (r *Reader) readBlock() (int, error) {
	n, err := r.in.full(r.blk[:])
	if n > 0 {
		if rerr := r.record(r.blk[:n]); rerr != nil {
			return n, rerr
		}
	}
	return n, err
}

// padding skips to the next block. An archive that ends within the padding is taken as whole.
func (r *Reader) padding() error {
	for r.pad > 0 {
		b, err := r.in.take(r.pad)
		if errors.Is(err, io.EOF) {
			r.pad = 0
			return nil
		}
		if err != nil {
			return err
		}
		r.pad -= int64(len(b))
		if err := r.record(b); err != nil {
			return err
		}
	}
	return nil
}

// special reads the payload of a header about a header.
func (r *Reader) special() ([]byte, error) {
	if r.left > r.limits.SpecialSize {
		return nil, fault.New(fault.Invalid, "tar at byte %d: extended header of %d bytes, more than the limit of %d", r.in.pos, r.left, r.limits.SpecialSize)
	}
	b := make([]byte, r.left)
	n, err := r.in.full(b)
	if err != nil && n < len(b) {
		return nil, unexpected(err)
	}
	r.left = 0
	return b, r.record(b)
}

func (r *Reader) record(b []byte) error {
	if r.rec == nil {
		return nil
	}
	return r.rec.Bytes(b)
}

func (r *Reader) fail(err error) error {
	r.err = err
	return err
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrHeader, what) }

// cString gives the text before the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
