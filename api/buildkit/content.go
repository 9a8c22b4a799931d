package buildkit

import (
	"context"
	"errors"
	"io"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build"
)

// content is containerd's content service, as far as clients use it on documents of build records: to read them.
type content struct {
	contentapi.UnimplementedContentServer
	builder *build.Builder
}

// readChunk is how much goes in one message.
const readChunk = 1 << 20

// Info tells the size of a document.
func (c *content) Info(ctx context.Context, req *contentapi.InfoRequest) (*contentapi.InfoResponse, error) {
	doc, err := c.builder.OpenDocument(ctx, digest.Digest(req.Digest))
	if err != nil {
		return nil, err
	}
	defer doc.Close()
	return &contentapi.InfoResponse{Info: &contentapi.Info{Digest: req.Digest, Size: doc.Size}}, nil
}

// Read sends a document, or a part of it.
func (c *content) Read(req *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	doc, err := c.builder.OpenDocument(stream.Context(), digest.Digest(req.Digest))
	if err != nil {
		return err
	}
	defer doc.Close()
	if req.Offset < 0 || req.Size < 0 || req.Offset > doc.Size {
		return fault.New(fault.Invalid, "read past object length %d bytes", doc.Size)
	}
	end := doc.Size
	if req.Size > 0 && req.Size < end-req.Offset {
		end = req.Offset + req.Size
	}
	buf := make([]byte, min(readChunk, end-req.Offset))
	for at := req.Offset; at < end; {
		n, err := doc.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if n > 0 {
			if err := stream.Send(&contentapi.ReadContentResponse{Offset: at, Data: buf[:n]}); err != nil {
				return err
			}
			at += int64(n)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return fault.In(err, "read content %s", req.Digest)
		}
		if n == 0 {
			return fault.New(fault.Internal, "content %s is shorter than it was", req.Digest)
		}
	}
	return nil
}

// List lists nothing: what there is belongs to records and images, which are listed elsewhere, and is not to be told from here
// what could be removed.
func (c *content) List(_ *contentapi.ListContentRequest, stream contentapi.Content_ListServer) error {
	return stream.Send(&contentapi.ListContentResponse{})
}
