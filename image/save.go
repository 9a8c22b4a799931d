package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// Save writes images as one archive that is a docker archive and an OCI layout at once, as docker save does: every
// layer once, uncompressed, bit for bit what its diff id says. refs are names (without a tag: all tags of the
// repository) and ids. platform, unless nil, is what the images must be for. Nothing is written before all refs are found.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, platform *Platform) error {
	items, err := s.saveList(refs)
	if err != nil {
		return err
	}
	var held []digest.Digest
	defer func() { s.layers.Release(held...) }()
	for _, it := range items {
		want := wantPlatform(platform)
		if at := it.img.Config.platform(); platform != nil && !want.match.Match(at.oci()) {
			return fault.New(fault.NotFound, "image %s is for platform %s, not for %s", it.img.ID, at, want.name)
		}
		if err := s.layers.Retain(it.img.Layers...); err != nil {
			return err
		}
		held = append(held, it.img.Layers...)
	}
	sv := &saver{s: s, tw: tar.NewWriter(w), written: map[digest.Digest]bool{}}
	if err := sv.archive(ctx, items); err != nil {
		return err
	}
	for _, it := range items {
		s.emit(Event{Action: "save", ID: it.img.ID, Name: it.img.ID})
	}
	return nil
}

// saveItem is an image to save, with the names to save it under.
type saveItem struct {
	img   *Image
	names []ref.Ref
}

func (s *Store) saveList(refs []string) ([]*saveItem, error) {
	var items []*saveItem
	add := func(img *Image, names ...ref.Ref) {
		at := slices.IndexFunc(items, func(i *saveItem) bool { return i.img.ID == img.ID })
		if at < 0 {
			items = append(items, &saveItem{img: img})
			at = len(items) - 1
		}
		items[at].names = appendName(items[at].names, names...)
	}
	for _, text := range refs {
		if n, err := ref.Parse(text); err == nil && n.IsNameOnly() {
			found := s.repository(n)
			for _, f := range found {
				img, err := s.Resolve(f.String())
				if err != nil {
					return nil, err
				}
				add(img, f)
			}
			if len(found) > 0 {
				continue
			}
		}
		img, err := s.Resolve(text)
		if err != nil {
			return nil, err
		}
		if n, err := ref.Parse(text); err == nil && n.Tag != "" && slices.Contains(img.RepoTags, n.Familiar()) {
			add(img, n)
			continue
		}
		add(img)
	}
	return items, nil
}

// repository lists the tags that a repository has here, sorted.
func (s *Store) repository(n ref.Ref) (list []ref.Ref) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name := range s.names {
		if name.Digest == "" && name.Repository() == n.Repository() {
			list = append(list, name)
		}
	}
	slices.SortFunc(list, compareRefs)
	return list
}

type saver struct {
	s       *Store
	tw      *tar.Writer
	written map[digest.Digest]bool
}

// archive writes the documents first and the layers behind them, so that a reader knows what a layer is for when
// it comes.
func (v *saver) archive(ctx context.Context, items []*saveItem) error {
	var docker []map[string]any
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	legacy := map[string]map[string]string{}
	type document struct {
		name string
		raw  []byte
	}
	var documents []document
	for _, it := range items {
		config, err := v.s.Raw(it.img.ID)
		if err != nil {
			return err
		}
		manifest, err := v.manifest(it.img, config)
		if err != nil {
			return err
		}
		documents = append(documents, document{blobPath(digest.Digest(it.img.ID)), config}, document{blobPath(manifest.Digest), manifest.Content})
		index.Manifests = append(index.Manifests, descriptors(it, manifest)...)
		docker = append(docker, dockerEntry(it, items))
		for _, n := range it.names {
			if len(it.img.Layers) == 0 {
				continue
			}
			tags := legacy[n.FamiliarName()]
			if tags == nil {
				tags = map[string]string{}
				legacy[n.FamiliarName()] = tags
			}
			tags[n.Tag] = it.img.Layers[len(it.img.Layers)-1].Encoded()
		}
	}
	for _, d := range []struct {
		name string
		v    any
	}{{"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}, {"index.json", index}, {"manifest.json", docker}, {"repositories", legacy}} {
		if d.name == "repositories" && len(legacy) == 0 {
			continue
		}
		raw, err := json.Marshal(d.v)
		if err != nil {
			return err
		}
		if err := v.file(d.name, append(raw, '\n')); err != nil {
			return err
		}
	}
	if err := v.directories(items); err != nil {
		return err
	}
	for _, d := range documents {
		if err := v.blob(d.name, d.raw); err != nil {
			return err
		}
	}
	for _, it := range items {
		for _, l := range it.img.Layers {
			if err := v.layer(ctx, l); err != nil {
				return err
			}
		}
	}
	return v.tw.Close()
}

// dockerEntry is an image in manifest.json. A parent is named when it is in the archive too.
func dockerEntry(it *saveItem, items []*saveItem) map[string]any {
	tags := []string{}
	for _, n := range it.names {
		tags = append(tags, n.Familiar())
	}
	layers := []string{}
	for _, l := range it.img.Layers {
		layers = append(layers, blobPath(l))
	}
	entry := map[string]any{"Config": blobPath(digest.Digest(it.img.ID)), "RepoTags": tags, "Layers": layers}
	if slices.ContainsFunc(items, func(o *saveItem) bool { return o.img.ID == it.img.Parent }) {
		entry["Parent"] = it.img.Parent
	}
	return entry
}

// descriptors are an image's entries in index.json: one for each name, or one without.
func descriptors(it *saveItem, manifest *Attached) (list []ocispec.Descriptor) {
	platform := it.img.Config.platform().oci()
	d := ocispec.Descriptor{MediaType: manifest.MediaType, Digest: manifest.Digest, Size: manifest.Size, Platform: &platform}
	if len(it.names) == 0 {
		return []ocispec.Descriptor{d}
	}
	for _, n := range it.names {
		named := d
		named.Annotations = map[string]string{"io.containerd.image.name": n.String(), ocispec.AnnotationRefName: n.Tag}
		list = append(list, named)
	}
	return list
}

// manifest gives the manifest that fits uncompressed layers: the image's own if it is such a one, else a new one.
func (v *saver) manifest(img *Image, config []byte) (*Attached, error) {
	if img.Manifest != nil {
		raw, err := v.s.blobs.Read(img.Manifest.Digest, maxDocument)
		if err == nil && uncompressed(raw, img.Layers) {
			return &Attached{Descriptor: *img.Manifest, Content: raw}, nil
		}
	}
	platform := img.Config.platform().oci()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(img.ID), Size: int64(len(config)), Platform: &platform},
		Layers: []ocispec.Descriptor{},
	}
	for _, l := range img.Layers {
		info, err := v.s.layers.Stat(l)
		if err != nil {
			return nil, err
		}
		m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l, Size: info.TarSize})
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &Attached{Descriptor: Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Content: raw}, nil
}

// uncompressed reports whether a manifest's layers are the tars themselves.
func uncompressed(raw []byte, diffIDs []digest.Digest) bool {
	m, err := parseManifest(raw)
	if err != nil || len(m.Layers) != len(diffIDs) || m.MediaType != ocispec.MediaTypeImageManifest {
		return false
	}
	for i, l := range m.Layers {
		if l.Digest != diffIDs[i] {
			return false
		}
	}
	return true
}

// directories writes the directories of the layout, for readers that want them.
func (v *saver) directories(items []*saveItem) error {
	names := []string{"blobs/"}
	add := func(d digest.Digest) {
		if n := "blobs/" + d.Algorithm().String() + "/"; !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, it := range items {
		add(digest.Digest(it.img.ID))
		for _, l := range it.img.Layers {
			add(l)
		}
	}
	for _, n := range names {
		if err := v.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: n, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	return nil
}

func (v *saver) header(name string, size int64) error {
	return v.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)})
}

func (v *saver) file(name string, raw []byte) error {
	if err := v.header(name, int64(len(raw))); err != nil {
		return err
	}
	_, err := io.Copy(v.tw, bytes.NewReader(raw))
	return err
}

// blob writes a document once.
func (v *saver) blob(name string, raw []byte) error {
	d := digest.Digest(strings.Replace(strings.TrimPrefix(name, "blobs/"), "/", ":", 1))
	if v.written[d] {
		return nil
	}
	v.written[d] = true
	return v.file(name, raw)
}

// layer writes a layer's tar once, rebuilt while it is written.
func (v *saver) layer(ctx context.Context, d digest.Digest) error {
	if v.written[d] {
		return nil
	}
	v.written[d] = true
	info, err := v.s.layers.Stat(d)
	if err != nil {
		return err
	}
	if err := v.header(blobPath(d), info.TarSize); err != nil {
		return err
	}
	return v.s.layers.Tar(ctx, d, v.tw)
}
