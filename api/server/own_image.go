package server

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// The routes below /berth/v1 that belong to images. openapi.json describes them.

// plan answers with a plan as it prints itself.
func (c *call) plan(p interface{ Write(w io.Writer) error }) error {
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return fault.Wrap(fault.Internal, err, "print the plan")
	}
	return c.body(http.StatusOK, "text/plain; charset=utf-8", b.Bytes())
}

// imageSources is the answer to GET /berth/v1/images/NAME/sources.
type imageSourcesAnswer struct {
	ID          string        `json:"id"`
	RepoTags    []string      `json:"repoTags"`
	RepoDigests []string      `json:"repoDigests"`
	Tagged      *time.Time    `json:"tagged,omitempty"`   // when it got its newest name: how old the copy is
	LastUsed    *time.Time    `json:"lastUsed,omitempty"` // when a container of it was last made or started
	Layers      []layerOrigin `json:"layers"`             // the lowest first
}

type layerOrigin struct {
	DiffID  digest.Digest `json:"diffID"`
	Sources []blobAt      `json:"sources"` // the latest last; none: it can only be rebuilt
}

type blobAt struct {
	Repository string        `json:"repository"`
	Digest     digest.Digest `json:"digest"`
	MediaType  string        `json:"mediaType"`
	Size       int64         `json:"size"` // bytes, compressed
}

// imageSources says where each layer of an image can be had again in its compressed form.
func imageSources(s *Server, c *call) error {
	want, err := c.platform("platform", 48)
	if err != nil {
		return err
	}
	img, err := s.cfg.Images.ResolvePlatform(c.name, stored(want))
	if err != nil {
		return err
	}
	out := imageSourcesAnswer{ID: img.ID, RepoTags: nonNil(img.RepoTags), RepoDigests: nonNil(img.RepoDigests), Layers: []layerOrigin{}}
	if !img.Tagged.IsZero() {
		out.Tagged = &img.Tagged
	}
	if !img.LastUsed.IsZero() {
		out.LastUsed = &img.LastUsed
	}
	for _, d := range img.Layers {
		l := layerOrigin{DiffID: d, Sources: []blobAt{}}
		for _, src := range s.cfg.Images.Sources(d) {
			l.Sources = append(l.Sources, blobAt{src.Repository, src.Descriptor.Digest, src.Descriptor.MediaType, src.Descriptor.Size})
		}
		out.Layers = append(out.Layers, l)
	}
	return c.json(http.StatusOK, out)
}
