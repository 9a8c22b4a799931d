package compress

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/ulikunitz/xz"
)

// openXz undoes xz. The decoder takes, for every block and unasked, the memory of the dictionary that the block's header names, up to 4 GiB; so
// headers are looked at on their way to it.
func openXz(r io.Reader) (io.ReadCloser, error) {
	w := &xzWatch{r: r}
	w.expect(xzMagicLen, (*xzWatch).stream)
	x, err := xz.NewReader(bufio.NewReaderSize(w, 32<<10)) // it asks for single bytes
	if err == nil {
		return io.NopCloser(x), nil
	}
	return nil, err
}

// xzWatch passes an xz file (version 1.2.1 of its format) on and follows how it is divided, which needs no decompression. What is not as the
// format has it ends there.
type xzWatch struct {
	r   io.Reader
	err error

	skip int64                // bytes that say nothing
	head []byte               // of what is looked at, so far
	want int                  // its length
	next func(*xzWatch) error // looks at it

	check  int64  // bytes of the checksum behind each block of the stream
	length uint64 // of the block's data, or of the index, so far
	number uint64 // of the index that is being read
	digits uint
	left   uint64 // numbers in the index
}

const xzMagicLen = 6

var (
	errXz           = errors.New("malformed stream")
	errXzDictionary = errors.New("dictionary larger than 256 MiB")
)

// Read reads, and looks.
func (w *xzWatch) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.r.Read(p)
	if w.err = w.look(p[:n]); w.err != nil {
		return 0, w.err
	}
	return n, err
}

func (w *xzWatch) look(b []byte) error {
	for len(b) > 0 {
		if w.skip > 0 {
			n := min(w.skip, int64(len(b)))
			w.skip -= n
			b = b[n:]
			continue
		}
		n := min(w.want-len(w.head), len(b))
		w.head = append(w.head, b[:n]...)
		if b = b[n:]; len(w.head) == w.want {
			if err := w.next(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// expect has next look at the following n bytes.
func (w *xzWatch) expect(n int, next func(*xzWatch) error) {
	w.head, w.want, w.next = w.head[:0], n, next
}

// stream is at a stream's magic number.
func (w *xzWatch) stream() error {
	if !bytes.Equal(w.head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}) {
		return errXz
	}
	w.expect(6, (*xzWatch).flags)
	return nil
}

// flags is at a stream's flags and their checksum.
func (w *xzWatch) flags() error {
	sizes := [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
	w.check = sizes[w.head[1]&0x0f]
	w.expect(1, (*xzWatch).block)
	return nil
}

// block is at the first byte of a block, which is its header's length, or at that of the index, which is 0.
func (w *xzWatch) block() error {
	if n := int(w.head[0]); n > 0 {
		w.expect(n*4+3, (*xzWatch).blockHeader)
		return nil
	}
	w.length = 1
	w.digit((*xzWatch).records)
	return nil
}

// blockHeader is behind that byte: flags, perhaps the sizes of the data, filters (id, length, properties), a checksum.
func (w *xzWatch) blockHeader() error {
	flags, rest := w.head[0], w.head[1:]
	for _, present := range []byte{0x40, 0x80} {
		if flags&present != 0 {
			_, n := binary.Uvarint(rest)
			rest = rest[max(n, 0):]
		}
	}
	// LZMA2 alone; the decoder knows nothing else either. Its dictionary's size is 2 or 3 shifted by the property: 40 means 4 GiB.
	if flags&3 != 0 || len(rest) < 3 || rest[0] != 0x21 || rest[1] != 1 {
		return errXz
	}
	if code := uint64(rest[2]); code > 40 || (2|code&1)<<(code/2+11) > maxWindow {
		return errXzDictionary
	}
	w.length = 0
	w.expect(1, (*xzWatch).chunk)
	return nil
}

// chunk is at the first byte of a chunk of LZMA2.
func (w *xzWatch) chunk() error {
	w.length++
	switch control := w.head[0]; {
	case control == 0: // behind the last one
		w.skip = int64(-w.length&3) + w.check
		w.expect(1, (*xzWatch).block)
	case control >= 0xc0: // with properties
		w.expect(5, (*xzWatch).chunkSize)
	case control >= 0x80:
		w.expect(4, (*xzWatch).chunkSize)
	case control <= 2: // as it is
		w.expect(2, (*xzWatch).chunkSize)
	default:
		return errXz
	}
	return nil
}

// chunkSize is at a chunk's sizes, of which that of what follows is the last.
func (w *xzWatch) chunkSize() error {
	at := 0
	if len(w.head) > 2 {
		at = 2
	}
	w.skip = int64(binary.BigEndian.Uint16(w.head[at:])) + 1
	w.length += uint64(len(w.head)) + uint64(w.skip)
	w.expect(1, (*xzWatch).chunk)
	return nil
}

// digit reads a number of the index, seven bits a byte, and goes on with then.
func (w *xzWatch) digit(then func(*xzWatch) error) {
	w.number, w.digits = 0, 0
	w.expect(1, func(w *xzWatch) error {
		b := w.head[0]
		w.length++
		w.number |= uint64(b&0x7f) << (7 * w.digits)
		if w.digits++; b&0x80 == 0 {
			return then(w)
		}
		if w.digits == 9 {
			return errXz
		}
		w.head = w.head[:0]
		return nil
	})
}

// records has read how many records the index has, each of two numbers.
func (w *xzWatch) records() error {
	if w.number >= 1<<62 {
		return errXz
	}
	w.left = w.number * 2
	return w.record()
}

// record goes on to the next number, or behind the index: padding, its checksum, the stream's end of 12 bytes.
func (w *xzWatch) record() error {
	if w.left > 0 {
		w.left--
		w.digit((*xzWatch).record)
		return nil
	}
	w.skip = int64(-w.length&3) + 4 + 12
	w.expect(4, (*xzWatch).between)
	return nil
}

// between is between streams, where zeros may be, or at the first bytes of another one.
func (w *xzWatch) between() error {
	if binary.BigEndian.Uint32(w.head) == 0 {
		w.head = w.head[:0]
		return nil
	}
	w.want, w.next = xzMagicLen, (*xzWatch).stream
	return nil
}
