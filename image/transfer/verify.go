package transfer

import (
	"context"
	"errors"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/remote"
)

// checked reads a blob and gives io.EOF only if it was just what its descriptor says: no byte more or less, and the
// digest. Whoever unpacks while reading must read to the end, and drop what he has made when the end is an error.
type checked struct {
	r    io.Reader
	d    ocispec.Descriptor
	hash hash.Hash
	got  int64
	err  error
	bad  bool        // the end was reached and the digest is another one
	pass func(n int) // told about each piece; or nil
}

func newChecked(r io.Reader, d ocispec.Descriptor, pass func(int)) *checked {
	return &checked{r: r, d: d, hash: d.Digest.Algorithm().Hash(), pass: pass}
}

func (c *checked) Read(p []byte) (int, error) {
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p)
	if left := c.d.Size - c.got; int64(n) > left {
		c.err = fault.New(fault.Invalid, "blob %s is longer than the %d bytes announced", c.d.Digest, c.d.Size)
		return 0, c.err
	}
	c.hash.Write(p[:n])
	c.got += int64(n)
	if c.pass != nil && n > 0 {
		c.pass(n)
	}
	if err == nil {
		return n, nil
	}
	c.err = c.end(err)
	return n, c.err
}

// end is what the reader's end means.
func (c *checked) end(err error) error {
	if !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return err
	}
	if c.got != c.d.Size {
		return fault.New(fault.Invalid, "blob %s has %d bytes, %d were announced", c.d.Digest, c.got, c.d.Size)
	}
	if got := digest.NewDigest(c.d.Digest.Algorithm(), c.hash); got != c.d.Digest {
		c.bad = true
		return fault.New(fault.Invalid, "filesystem layer verification failed for digest %s: what was sent has %s", c.d.Digest, got)
	}
	return io.EOF
}

// rest reads to the end and tells whether it is a good one. Trailing bytes are the blob's, whatever a decompressor thinks.
func (c *checked) rest() error {
	_, err := io.Copy(io.Discard, c)
	return err
}

// readBlob reads a small blob whole and verifies it.
func readBlob(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor) ([]byte, error) {
	body, err := repo.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(newChecked(body, d, nil))
}
