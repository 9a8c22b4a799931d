package remotecache

import (
	"context"
	"encoding/json"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/export"
	"berth/build/solver"
)

// An image's configuration has BuildKit's list of records in a field of its own, moby.buildkit.cache.v0: JSON, in base64 as encoding/json
// has bytes. Ours is one record that BuildKit finds nothing under,
// with the table in it. The blobs are the image's layers.
type inlineRecord struct {
	Digest digest.Digest `json:"digest"`
	Berth  *table        `json:"berth,omitempty"`
}

// InlineCache gives what goes into an image's configuration: records of all steps that led to it. It fits export.Run.
func (c *Caches) InlineCache(_ context.Context, _ string, ref export.Ref, _ []digest.Digest, _ []ocispec.Descriptor) ([]byte, error) {
	r, ok := ref.(Ref)
	if !ok {
		return nil, nil
	}
	b := newBuilder()
	err := walk(r, func(o solver.Outcome) {
		b.record(record{Keys: o.Keys, Name: o.Vertex.Name, Created: o.Created}, o.Chains)
	})
	if err != nil || len(b.t.Records) == 0 {
		return nil, err
	}
	return json.Marshal([]inlineRecord{{Digest: b.t.Records[0].Keys[0], Berth: &b.t}})
}

// parseInline reads the table in an image's configuration, whose layers' blobs are told lowest first. NotFound: there is none.
func parseInline(config []byte, blobs []ocispec.Descriptor) (*document, error) {
	var img struct {
		Cache  []byte         `json:"moby.buildkit.cache.v0"`
		RootFS ocispec.RootFS `json:"rootfs"`
	}
	if err := json.Unmarshal(config, &img); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "image configuration")
	}
	if len(img.Cache) == 0 {
		return nil, fault.New(fault.NotFound, "the image has no inline cache")
	}
	var list []inlineRecord
	if err := json.Unmarshal(img.Cache, &list); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "inline cache")
	}
	if len(list) != 1 || list[0].Berth == nil {
		return nil, fault.New(fault.NotFound, "the inline cache was not written by Berth")
	}
	if len(blobs) != len(img.RootFS.DiffIDs) {
		return nil, fault.New(fault.Invalid, "an image of %d layers with %d blobs", len(img.RootFS.DiffIDs), len(blobs))
	}
	doc := &document{Berth: list[0].Berth}
	for i, d := range img.RootFS.DiffIDs {
		doc.Layers = append(doc.Layers, layer{Blob: blobs[i].Digest, Parent: -1, Annotations: &layerAnnotations{MediaType: blobs[i].MediaType, DiffID: d, Size: blobs[i].Size}})
	}
	return doc, doc.check()
}

// join adds another document to one: of the images of several platforms each has its own.
func (d *document) join(more *document) {
	off := len(d.Berth.Chains)
	for _, l := range more.Berth.Chains {
		if l.Parent >= 0 {
			l.Parent += off
		}
		d.Berth.Chains = append(d.Berth.Chains, l)
	}
	for _, r := range more.Berth.Records {
		outputs := make([]int, 0, len(r.Outputs))
		for _, o := range r.Outputs {
			if o >= 0 {
				o += off
			}
			outputs = append(outputs, o)
		}
		r.Outputs = outputs
		d.Berth.Records = append(d.Berth.Records, r)
	}
	d.Layers = append(d.Layers, more.Layers...)
}
