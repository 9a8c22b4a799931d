package export

import (
	"strings"
	"testing"

	"github.com/containerd/stargz-snapshotter/estargz"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/result"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/ref"
	"berth/image/archive/compress"
)

// A push compresses layers once, on the way, and a second one sends nothing that is there.
func TestPush(t *testing.T) {
	b, host := newBench(t), newRegistry(t)
	tree := b.step(b.step(nil, "etc/a", strings.Repeat("1", 100000)), "etc/b", "3")
	done := b.export(Image, 0, result1(tree, 2), "name="+host+"/app:1,"+host+"/other/app:2", "push=true")
	for _, n := range []string{host + "/app:1", host + "/other/app:2"} {
		r, err := name.ParseReference(n)
		if err != nil {
			t.Fatal(err)
		}
		img, err := remote.Image(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Image(img); err != nil {
			t.Error(err)
		}
		if d, _ := img.Digest(); d.String() != done.Response[exptypes.ExporterImageDigestKey] {
			t.Errorf("%s is %s, not %s", n, d, done.Response[exptypes.ExporterImageDigestKey])
		}
		local, err := b.images.Resolve(n)
		if err != nil {
			t.Fatal(err)
		}
		if c, _ := img.ConfigName(); c.String() != local.ID || len(local.RepoDigests) != 2 {
			t.Errorf("%s here, %s there; %v", local.ID, c, local.RepoDigests)
		}
	}
	again := b.export(Image, 0, result1(b.step(tree, "etc/c", "4"), 3), "name="+host+"/app:3", "push=true")
	if again.Descriptor.MediaType != ocispec.MediaTypeImageManifest {
		t.Errorf("%+v", again.Descriptor)
	}
	for _, id := range b.said {
		if strings.HasPrefix(id, "pushing sha256:") {
			t.Error(id)
		}
	}
}

// Each way of compressing gives layers that everybody reads, with their media types.
func TestPushCompressed(t *testing.T) {
	b, host := newBench(t), newRegistry(t)
	tree := b.step(nil, "etc/a", strings.Repeat("1", 100000))
	for i, c := range []struct{ attrs, mediaType string }{
		{"compression=estargz", ocispec.MediaTypeImageLayerGzip}, {"compression=zstd", ocispec.MediaTypeImageLayerZstd}, {"compression=uncompressed,force-compression=true", ocispec.MediaTypeImageLayer},
		{"compression=gzip,compression-level=9,force-compression=true", ocispec.MediaTypeImageLayerGzip}, {"compression=gzip,force-compression=true,oci-mediatypes=false", dockerLayerGzip},
	} {
		n := host + "/kinds:" + string(rune('a'+i))
		b.export(Image, 0, result1(tree, 1), append(strings.Split(c.attrs, ","), "name="+n, "push=true", "store=false")...)
		r, _ := name.ParseReference(n)
		img, err := remote.Image(r)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := img.Manifest()
		cf, _ := img.ConfigFile()
		if i == 0 && m.Layers[0].Annotations[estargz.TOCJSONDigestAnnotation] == "" {
			t.Errorf("%+v", m.Layers[0])
		}
		layer, err := remote.Layer(r.Context().Digest(m.Layers[0].Digest.String()))
		if err != nil {
			t.Fatal(err)
		}
		body, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		zr, _, err := compress.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := digest.FromReader(zr); err != nil || string(d) != cf.RootFS.DiffIDs[0].String() {
			t.Errorf("%s: %s, %v", c.attrs, d, err)
		}
		if i != 1 && string(m.Layers[0].MediaType) != c.mediaType {
			t.Errorf("%s: %s", c.attrs, m.Layers[0].MediaType)
		}
		if _, err := b.images.Resolve(n); err == nil {
			t.Error("store=false stores")
		}
	}
}

func TestPushByDigest(t *testing.T) {
	b, host := newBench(t), newRegistry(t)
	done := b.export(Image, 0, result1(b.step(nil, "a", "1"), 1), "name="+host+"/app", "push=true", "push-by-digest=true", "name-canonical=true")
	d := done.Response[exptypes.ExporterImageDigestKey]
	r, _ := name.ParseReference(host + "/app@" + d)
	if _, err := remote.Image(r); err != nil {
		t.Error(err)
	}
	if tags, _ := remote.List(r.Context()); len(tags) != 0 {
		t.Errorf("tags %v", tags)
	}
	if _, err := b.images.Resolve(host + "/app@" + d); err != nil {
		t.Error(err)
	}
}

// Attestations travel as a manifest of their own, and are in the store, too, where they are asked for.
func TestAttested(t *testing.T) {
	b, host := newBench(t), newRegistry(t)
	res := result1(b.step(nil, "a", "1"), 1)
	res.AddAttestation("linux/amd64", Attestation{
		Kind: gatewaypb.AttestationKind_InToto, Ref: b.step(nil, "out/sbom.json", `{"x":1,"files":[{"fileName":"/a"},{"fileName":"b"},{"fileName":"a","comment":"mine"}]}`), Path: "out/sbom.json",
		InToto: result.InTotoAttestation{PredicateType: "https://spdx.dev/Document"}, Metadata: map[string][]byte{result.AttestationSBOMCore: []byte("sbom")},
	})
	res.AddAttestation("linux/amd64", Attestation{
		Kind: gatewaypb.AttestationKind_Bundle, Ref: b.step(nil, "bundle/one.json", `{"_type":"https://in-toto.io/Statement/v1","predicateType":"https://x/y","subject":[{"name":"n","digest":{"sha256":"`+strings.Repeat("a", 64)+`"}}],"predicate":{"z":2}}`), Path: "bundle",
	})
	for _, attrs := range [][]string{{"push=true"}, {"push=true", "oci-artifact=false"}} {
		done := b.export(Image, 0, res, append(attrs, "name="+host+"/app:1")...)
		r, _ := name.ParseReference(host + "/app:1")
		index, err := remote.Index(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate.Index(index); err != nil && len(attrs) > 1 {
			t.Error(err)
		}
		m, _ := index.IndexManifest()
		if len(m.Manifests) != 2 || m.Manifests[1].Annotations["vnd.docker.reference.digest"] != m.Manifests[0].Digest.String() || m.Manifests[1].Platform.OS != "unknown" {
			t.Fatalf("%+v", m)
		}
		docs, err := b.images.ManifestOf(host+"/app:1", nil)
		if err != nil || string(docs.Root.Digest) != done.Response[exptypes.ExporterImageDigestKey] {
			t.Fatalf("%+v, %v", docs, err)
		}
		if len(docs.Manifests) != 2 || !docs.Manifests[1].Available || docs.Manifests[1].Attestation != docs.Manifests[0].Descriptor.Digest {
			t.Errorf("%+v", docs.Manifests)
		}
		layers := decode[ocispec.Manifest](t, docs.Manifests[1].Content).Layers
		raw, err := b.images.Blobs().Read(layers[0].Digest, 1<<20)
		if err != nil || strings.Count(string(raw), `"comment":"layerID: sha256:`) != 1 || !strings.Contains(string(raw), `"comment":"mine"`) {
			t.Errorf("%s, %v", raw, err)
		}
		if len(layers) != 2 || layers[1].Annotations["in-toto.io/predicate-type"] != "https://x/y" {
			t.Errorf("%+v", layers)
		}
	}
	done := b.export(Moby, 0, res, "name=local:1")
	if done.Descriptor.MediaType != ocispec.MediaTypeImageIndex {
		t.Errorf("%+v", done.Descriptor)
	}
	// What nobody asked for stays off an image that stays here.
	plain := result1(b.step(nil, "a", "1"), 1)
	plain.AddAttestation("linux/amd64", Attestation{
		Kind: gatewaypb.AttestationKind_InToto, Path: "provenance.json", Ref: b.step(nil, "provenance.json", "{}"),
		InToto: result.InTotoAttestation{PredicateType: "https://x/y"}, Metadata: map[string][]byte{result.AttestationInlineOnlyKey: []byte("true")},
	})
	if done := b.export(Moby, 0, plain, "name=local:2"); done.Response[exptypes.ExporterImageDigestKey] != done.Response[exptypes.ExporterImageConfigDigestKey] {
		t.Errorf("%v", done.Response)
	}
	forged := result1(b.step(nil, "a", "1"), 1)
	forged.AddAttestation("linux/amd64", Attestation{Kind: gatewaypb.AttestationKind_InToto, Path: "p", Ref: b.step(nil, "p", "{}"), InToto: result.InTotoAttestation{PredicateType: "https://slsa.dev/provenance/v1"}})
	if _, err := b.try(Moby, 0, forged, "name=local:3"); err == nil {
		t.Error("a frontend may say where the result comes from")
	}
}

func TestDanglingName(t *testing.T) {
	b := newBench(t)
	done := b.export(Image, 0, result1(b.step(nil, "a", "1"), 1), "dangling-name-prefix=moby-dangling")
	n, _ := ref.Parse("moby-dangling")
	if _, err := b.images.Resolve(n.Repository() + "@" + done.Response[exptypes.ExporterImageDigestKey]); err != nil {
		t.Error(err)
	}
}

func TestStargzInTheStore(t *testing.T) {
	b := newBench(t)
	tree := b.step(b.step(nil, "etc/a", "1"), "etc/b", "2")
	b.export(Image, 0, result1(tree, 2), "name=lazy:1", "compression=estargz")
	img, err := b.images.Resolve("lazy:1")
	if err != nil || len(img.Layers) != 2 || img.Layers[0] == tree.(*fixed).s.Chain()[0] {
		t.Fatalf("%+v, %v", img, err)
	}
	if check, err := b.images.Check(t.Context()); err != nil || !check.OK() {
		t.Errorf("%+v, %v", check, err)
	}
	if done := b.export(OCI, 0, result1(tree, 2), "compression=estargz"); done.Descriptor.Digest == "" || len(b.files()) != 8 {
		t.Errorf("%+v", b.files())
	}
	if usage, err := b.images.DiskUsage(t.Context()); err != nil || usage.Kept.Count != 2 {
		t.Errorf("%+v, %v", usage, err)
	}
}
