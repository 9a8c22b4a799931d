package tarstream

import (
	"errors"
	"io"
)

// Source gives the archive's bytes in pieces. A piece stays valid until the next call. The last piece is followed by io.EOF;
// a piece and an error never come together.
type Source interface {
	Next() ([]byte, error)
}

// FromReader makes a Source of a reader, with one buffer of its own.
func FromReader(r io.Reader) Source {
	return &readerSource{r: r, buf: make([]byte, 128<<10)}
}

type readerSource struct {
	r   io.Reader
	buf []byte
}

func (s *readerSource) Next() ([]byte, error) {
	for {
		n, err := s.r.Read(s.buf)
		if n > 0 {
			return s.buf[:n], nil // an error that came along comes again
		}
		if err != nil {
			return nil, err
		}
	}
}

// input is a Source with a position, a rest of the current piece, and block reads.
type input struct {
	src  Source
	rest []byte
	err  error // sticky
	pos  int64
}

// take gives up to max bytes without copying. At the end it gives io.EOF.
func (in *input) take(max int64) ([]byte, error) {
	for len(in.rest) == 0 {
		if in.err != nil {
			return nil, in.err
		}
		in.rest, in.err = in.src.Next()
	}
	b := in.rest
	if int64(len(b)) > max {
		b = b[:max]
	}
	in.rest = in.rest[len(b):]
	in.pos += int64(len(b))
	return b, nil
}

// full fills b. io.EOF means that there was nothing, io.ErrUnexpectedEOF that there was too little.
func (in *input) full(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		p, err := in.take(int64(len(b) - n))
		if err != nil {
			if errors.Is(err, io.EOF) && n > 0 {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
		n += copy(b[n:], p)
	}
	return n, nil
}
