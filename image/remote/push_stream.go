package remote

import (
	"context"
	"io"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// PushStream gives the registry a blob that is being made: what write writes. Its digest and size are known when write has
// ended, and write tells them. When the upload breaks, write is called again and what the registry has of it is left out, so
// it must write the same bytes each time.
func (r *Repository) PushStream(ctx context.Context, write func(w io.Writer) (ocispec.Descriptor, error)) (ocispec.Descriptor, error) {
	e, err := r.home()
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	u := &upload{r: r, e: e}
	var made ocispec.Descriptor
	u.open = func(offset int64) (io.ReadCloser, error) {
		pr, pw := io.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			d, err := write(&skipping{w: pw, left: offset})
			if err == nil {
				made = d
				u.d.Digest = d.Digest // finish names the blob by it; the end of the pipe comes before
			}
			pw.CloseWithError(err)
		}()
		return &making{pr, done}, nil
	}
	err = u.run(ctx)
	switch {
	case err == nil:
		return made, nil
	case refusalOf(err) != nil:
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{}, fault.In(err, "push of a new blob")
}

// making reads what is being written on the other side. Close waits for the writer.
type making struct {
	*io.PipeReader
	done chan struct{}
}

func (m *making) Close() error {
	err := m.PipeReader.Close()
	<-m.done
	return err
}

// skipping leaves out the first bytes.
type skipping struct {
	w    io.Writer
	left int64
}

func (s *skipping) Write(p []byte) (int, error) {
	if s.left >= int64(len(p)) {
		s.left -= int64(len(p))
		return len(p), nil
	}
	n, err := s.w.Write(p[s.left:])
	n += int(s.left)
	s.left = 0
	return n, err
}
