package export

import (
	"bytes"
	"compress/gzip"
	"testing"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/build/progress"
	"berth/image"
	blobstore "berth/image/blob"
)

// A compressed layer that an export found in the store is there until the export is over, whoever removes the image that it came with.
func TestKeptBlobsStayForTheExport(t *testing.T) {
	b := newBench(t)
	chain := b.step(nil, "etc/a", "1").(*fixed).s.Chain()
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	if err := b.images.Layers().Tar(t.Context(), chain[0], zw); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	d, err := b.images.Blobs().Put(t.Context(), blobstore.Want{}, &zipped)
	if err != nil {
		t.Fatal(err)
	}
	desc := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: d, Size: int64(zipped.Len())}
	if err := b.images.AddSource(chain[0], image.Source{Repository: "docker.io/library/base", Descriptor: desc}); err != nil {
		t.Fatal(err)
	}

	m := &made{
		o: &imageOptions{compression: compression{kind: gzipped, level: levelDefault}, oci: true, archive: true}, run: &Run{Status: func(progress.Status) {}},
		parts: []*part{{chain: chain}}, hold: b.images.Hold(),
	}
	if err := b.blobs(t.Context(), m, false); err != nil {
		t.Fatal(err)
	}
	b.images.Blobs().Release(d)
	if l := m.parts[0].layers[0]; !l.kept || l.desc.Digest != d || !b.images.Blobs().Has(d) {
		t.Errorf("%+v, and it is there: %v", l, b.images.Blobs().Has(d))
	}
	m.hold.Release()
	if b.images.Blobs().Has(d) {
		t.Error("it stays when the export is over")
	}
}
