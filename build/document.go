package build

import (
	"bytes"
	"context"
	"io"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/history"
)

// maxDocument bounds a document of the image store that is given to a client in whole.
const maxDocument = 64 << 20

// Document is a document that a build record names, open for reading.
type Document struct {
	io.ReaderAt
	Size  int64
	close func() error
}

// Close gives it back.
func (d *Document) Close() error {
	if d.close == nil {
		return nil
	}
	return d.close()
}

// OpenDocument opens a document of a record: a log, an attestation; or of the image store: a manifest. NotFound: it is in neither.
func (b *Builder) OpenDocument(ctx context.Context, d digest.Digest) (*Document, error) {
	f, err := b.history.OpenBlob(d)
	if err == nil {
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, err
		}
		return &Document{ReaderAt: f, Size: st.Size(), close: f.Close}, nil
	}
	if !fault.Is(err, fault.NotFound) || b.cfg.Images == nil {
		return nil, err
	}
	data, err := b.cfg.Images.Blobs().Read(d, maxDocument)
	if err != nil {
		return nil, fault.Wrap(fault.NotFound, err, "content %s: not found", d)
	}
	return &Document{ReaderAt: bytes.NewReader(data), Size: int64(len(data))}, nil
}

// keepDocument copies what describes a build's image to its record, which may outlive the image. It is false where the image store has no such
// document, as of an image that went to the client: clients that export a record want all that it names.
func (b *Builder) keepDocument(build string, d ocispec.Descriptor) (history.Blob, bool) {
	if b.cfg.Images == nil {
		return history.Blob{}, false
	}
	data, err := b.cfg.Images.Blobs().Read(d.Digest, maxDocument)
	if err != nil {
		return history.Blob{}, false
	}
	kept, err := b.history.PutBlob(build, d.MediaType, data)
	if err != nil {
		b.log.Warn("a part of a build's record is not kept", "id", build, "part", "document", "err", err)
		return history.Blob{}, false
	}
	kept.Annotations = d.Annotations
	return kept, true
}
