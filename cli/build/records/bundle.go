package records

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Words of Docker Desktop's bundles.
const (
	recordType     = "application/vnd.buildkit.historyrecord.v0" // of a manifest's config
	typeAnnotation = "vnd.export-build.descriptor.mediatype"     // of a layer: what it is, where its media type says less
	refAnnotation  = "vnd.buildkit.history.reference"            // of a manifest in an index
)

// A Blobs reads what belongs to records.
type Blobs func(desc ocispec.Descriptor) ([]byte, error)

// An exported is a record as a bundle has it.
type exported struct {
	*control.BuildHistoryRecord
	DefaultPlatform string
}

// A bundle is what goes into one.
type bundle struct {
	blobs map[digest.Digest][]byte
	read  Blobs
}

// Bundle writes records with all that belongs to them. platform is the engine's own.
func Bundle(out io.Writer, list []*control.BuildHistoryRecord, platform string, read Blobs) error {
	b := &bundle{blobs: map[digest.Digest][]byte{}, read: read}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, r := range list {
		desc, err := b.record(r, platform)
		if err != nil {
			return fmt.Errorf("export the record %s: %w", r.Ref, err)
		}
		index.Manifests = append(index.Manifests, desc)
	}
	if len(list) > 1 { // one index for all of them, and one for that
		for i, r := range list {
			index.Manifests[i].Annotations = map[string]string{refAnnotation: r.Ref}
		}
		desc, err := b.addJSON(index.MediaType, index)
		if err != nil {
			return err
		}
		index.Manifests = []ocispec.Descriptor{desc}
	}
	return b.write(out, index)
}

func (b *bundle) record(r *control.BuildHistoryRecord, platform string) (ocispec.Descriptor, error) {
	r = r.CloneVT()
	withoutKeys(r.FrontendAttrs)
	m := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	if r.Trace != nil {
		text, err := b.read(descriptor(r.Trace))
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		desc := b.add(r.Trace.MediaType, masked(text))
		r.Trace.Digest, r.Trace.Size = desc.Digest.String(), desc.Size
		m.Layers = append(m.Layers, desc)
	}
	seen := map[string]bool{}
	layer := func(d *control.Descriptor, image bool) error {
		if d == nil || seen[d.Digest] {
			return nil
		}
		seen[d.Digest] = true
		desc := descriptor(d)
		text, err := b.read(desc)
		if err != nil {
			return err
		}
		b.blobs[desc.Digest] = text
		if image { // readers would look for what an image refers to
			desc.Annotations = maps.Clone(desc.Annotations)
			if desc.Annotations == nil {
				desc.Annotations = map[string]string{}
			}
			desc.Annotations[typeAnnotation], desc.MediaType = desc.MediaType, "application/json"
		}
		m.Layers = append(m.Layers, desc)
		return nil
	}
	results := func(r *control.BuildResultInfo) error {
		if r == nil {
			return nil
		}
		for _, a := range r.Attestations {
			if err := layer(a, false); err != nil {
				return err
			}
		}
		for _, k := range slices.Sorted(maps.Keys(r.Results)) {
			if err := layer(r.Results[k], true); err != nil {
				return err
			}
		}
		return nil
	}
	steps := []func() error{
		func() error { return layer(r.Logs, false) },
		func() error { return results(r.Result) },
		func() error { return layer(r.ExternalError, false) },
	}
	for _, k := range slices.Sorted(maps.Keys(r.Results)) {
		steps = append(steps, func() error { return results(r.Results[k]) })
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return ocispec.Descriptor{}, err
		}
	}
	var err error
	if m.Config, err = b.addJSON(recordType, exported{r, platform}); err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.addJSON(m.MediaType, m)
}

func descriptor(d *control.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: digest.Digest(d.Digest), Size: d.Size, Annotations: d.Annotations}
}

func (b *bundle) add(mediaType string, text []byte) ocispec.Descriptor {
	desc := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(text), Size: int64(len(text))}
	b.blobs[desc.Digest] = text
	return desc
}

func (b *bundle) addJSON(mediaType string, v any) (ocispec.Descriptor, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return b.add(mediaType, text), nil
}

// write writes the layout, whose index index is.
func (b *bundle) write(out io.Writer, index ocispec.Index) error {
	z := gzip.NewWriter(out)
	w := tar.NewWriter(z)
	file := func(name string, text []byte) error {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: int64(len(text))}); err != nil {
			return err
		}
		_, err := w.Write(text)
		return err
	}
	layout, err := json.Marshal(ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion})
	if err != nil {
		return err
	}
	text, err := json.Marshal(index)
	if err != nil {
		return err
	}
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, d := range slices.Sorted(maps.Keys(b.blobs)) {
		if err := file("blobs/"+d.Algorithm().String()+"/"+d.Encoded(), b.blobs[d]); err != nil {
			return err
		}
	}
	if err := file("index.json", text); err != nil {
		return err
	}
	if err := file(ocispec.ImageLayoutFile, layout); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return z.Close()
}

// withoutKeys takes out of a record's attributes what may open somebody's cache: of its imports only names stay.
func withoutKeys(attrs map[string]string) {
	text, ok := attrs["cache-imports"]
	if !ok {
		return
	}
	var imports []struct {
		Type  string
		Attrs map[string]string
	}
	attrs["cache-imports"] = ""
	if json.Unmarshal([]byte(text), &imports) != nil {
		return
	}
	for _, i := range imports {
		maps.DeleteFunc(i.Attrs, func(k, _ string) bool { return k != "scope" && k != "ref" })
	}
	if clean, err := json.Marshal(imports); err == nil {
		attrs["cache-imports"] = string(clean)
	}
}

// Attributes of spans have commands in them, and those at times keys.
var (
	keyed  = regexp.MustCompile(`(?i)((?:gh)?token|access_key_id|secret_access_key|session_token)=[^ ,"\\]+`)
	github = regexp.MustCompile(`(?:gh[us]_[A-Za-z0-9]{36}|github_pat_\w{82})`)
)

func masked(text []byte) []byte {
	text = keyed.ReplaceAll(text, []byte("${1}=xxxxx"))
	return github.ReplaceAll(bytes.Clone(text), []byte("xxxxx"))
}
