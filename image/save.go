package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// SaveOptions say what to save of images.
type SaveOptions struct {
	Platforms []Platform // of images of several platforms only these; empty: all that are here
}

// Save is SaveWith for one platform, or with nil for all that are here.
func (s *Store) Save(ctx context.Context, w io.Writer, refs []string, platform *Platform) error {
	o := SaveOptions{}
	if platform != nil {
		o.Platforms = []Platform{*platform}
	}
	return s.SaveWith(ctx, w, refs, o)
}

// SaveWith writes images as one archive that is a docker archive and an OCI layout at once, as docker save does: every
// layer once. Where all compressed layers of an image are kept it has the image's own manifests, and so their digests; else the
// layers are uncompressed, bit for bit what their diff ids say, with manifests made for them, and the image's own
// documents lie beside them for a Berth that loads it. refs are names (without a tag: all tags of the
// repository) and ids. manifest.json, which knows no platforms, has the one that suits this machine best. Nothing is
// written before all refs are found.
func (s *Store) SaveWith(ctx context.Context, w io.Writer, refs []string, o SaveOptions) error {
	hold := s.Hold()
	defer hold.Release()
	items, err := s.saveList(refs, o, hold)
	if err != nil {
		return err
	}
	for _, it := range items {
		for _, i := range it.images {
			if err := s.layers.Whole(ctx, i.img.Layers...); err != nil {
				return err
			}
		}
	}
	sv := &saver{s: s, tw: tar.NewWriter(w), written: map[digest.Digest]bool{}, times: map[string]time.Time{}}
	if err := sv.archive(ctx, items); err != nil {
		return err
	}
	for _, it := range items {
		s.emit(Event{Action: "save", ID: it.first().img.ID, Name: it.first().img.ID})
	}
	return nil
}

// saveItem is what one reference stands for: an image, or those of several platforms, with the names to save it under.
type saveItem struct {
	root   digest.Digest // the index that they came with; "" for one image alone
	part   bool          // not all that are here of the index were asked for
	images []*saveImage
	names  []ref.Ref
}

// saveImage is one image and the manifest that stands for it in the archive.
type saveImage struct {
	img      *Image
	config   []byte
	manifest *Attached
	layers   []Descriptor // as the manifest has them
	own      bool         // the manifest is the one that the image came with
}

// first is the image that stands for the item where there is room for one only: what suits this machine.
func (it *saveItem) first() *saveImage {
	host := wantPlatform(nil).match
	best := it.images[0]
	for _, i := range it.images[1:] {
		if host.Less(i.img.Config.platform().oci(), best.img.Config.platform().oci()) {
			best = i
		}
	}
	return best
}

// saveList finds what references stand for, and holds it.
func (s *Store) saveList(refs []string, o SaveOptions, hold *Hold) ([]*saveItem, error) {
	var items []*saveItem
	add := func(text string, names ...ref.Ref) error {
		it, err := s.saveItem(text, o)
		if err != nil {
			return err
		}
		for _, i := range it.images {
			if err := hold.Image(digest.Digest(i.img.ID)); err != nil {
				return err
			}
		}
		if it.root != "" {
			if err := hold.Blob(it.root); fault.Is(err, fault.NotFound) {
				return fault.New(fault.NotFound, "No such image: %s", text) // removed since it was looked up, or lost: see Fsck
			} else if err != nil {
				return err
			}
		}
		at := slices.IndexFunc(items, func(i *saveItem) bool { return i.root == it.root && i.images[0].img.ID == it.images[0].img.ID })
		if at < 0 {
			items = append(items, it)
			at = len(items) - 1
		}
		items[at].names = union(items[at].names, names)
		return nil
	}
	for _, text := range refs {
		n, perr := ref.Parse(text)
		if perr == nil && n.IsNameOnly() {
			found := s.repository(n)
			for _, f := range found {
				if err := add(f.String(), f); err != nil {
					return nil, err
				}
			}
			if len(found) > 0 {
				continue
			}
		}
		s.mu.RLock()
		_, named := s.names[n]
		s.mu.RUnlock()
		var names []ref.Ref
		if perr == nil && n.Digest == "" && n.Tag != "" && named {
			names = []ref.Ref{n}
		}
		if err := add(text, names...); err != nil {
			return nil, err
		}
	}
	return items, nil
}

// saveItem finds the images of one reference.
func (s *Store) saveItem(text string, o SaveOptions) (*saveItem, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h, err := s.resolve(text)
	if err != nil {
		return nil, err
	}
	it := &saveItem{}
	records := []*record{h.r}
	root := s.rootOf(h)
	if ix := s.indexes[root]; ix != nil && !s.standsAlone(text, h) {
		records = union(s.members(root), records)
		it.root = root
	}
	for _, r := range records {
		if len(o.Platforms) > 0 && !slices.ContainsFunc(o.Platforms, func(p Platform) bool { return r.provides(p) }) {
			it.part = true
			continue
		}
		it.images = append(it.images, &saveImage{img: s.snapshot(r, root)})
	}
	for _, p := range o.Platforms {
		if slices.ContainsFunc(records, func(r *record) bool { return r.provides(p) }) {
			continue
		}
		if len(records) == 1 {
			return nil, fault.New(fault.NotFound, "image %s is for platform %s, not for %s", h.r.id, h.r.doc.platform(), p)
		}
		return nil, fault.New(fault.NotFound, "image with reference %s was found but does not provide the specified platform (%s)", text, p)
	}
	return it, nil
}

// provides reports whether an image is what somebody wants who asks for a platform.
func (r *record) provides(p Platform) bool {
	at := r.doc.platform().oci()
	return at.Architecture == p.oci().Architecture && wantPlatform(&p).match.Match(at)
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
	docs    []Attached           // documents to write, each once
	times   map[string]time.Time // of configurations and layers, by path: when their image was made; others have the epoch
}

// archive writes the documents first and the layers behind them, so that a reader knows what a layer is for when
// it comes.
func (v *saver) archive(ctx context.Context, items []*saveItem) error {
	var docker []map[string]any
	top := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	legacy := map[string]map[string]string{}
	aside := originsFile{Version: 1}
	for _, it := range items {
		for _, i := range it.images {
			if err := v.prepare(i); err != nil {
				return err
			}
		}
		root, err := v.root(it)
		if err != nil {
			return err
		}
		top.Manifests = append(top.Manifests, descriptors(it, root)...)
		docker = append(docker, dockerEntry(it, items))
		if err := v.aside(&aside, it); err != nil {
			return err
		}
		for _, n := range it.names {
			layers := it.first().img.Layers
			if len(layers) == 0 {
				continue
			}
			tags := legacy[n.FamiliarName()]
			if tags == nil {
				tags = map[string]string{}
				legacy[n.FamiliarName()] = tags
			}
			tags[n.Tag] = layers[len(layers)-1].Encoded()
		}
	}
	files := []struct {
		name string
		v    any
	}{{"oci-layout", ocispec.ImageLayout{Version: ocispec.ImageLayoutVersion}}, {"index.json", top}, {"manifest.json", docker}}
	if len(legacy) > 0 {
		files = append(files, struct {
			name string
			v    any
		}{"repositories", legacy})
	}
	if !aside.empty() {
		files = append(files, struct {
			name string
			v    any
		}{originsName, aside})
	}
	for _, d := range files {
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
	for _, d := range v.docs {
		if err := v.blob(d.Digest, d.Content); err != nil {
			return err
		}
	}
	for _, it := range items {
		for _, i := range it.images {
			for k, l := range i.layers {
				if err := v.layer(ctx, l, i.img.Layers[k]); err != nil {
					return err
				}
			}
		}
	}
	return v.tw.Close()
}

// prepare finds the manifest that stands for an image, and notes its documents.
func (v *saver) prepare(i *saveImage) (err error) {
	if i.config, err = v.s.Raw(i.img.ID); err != nil {
		return err
	}
	if err := v.manifest(i); err != nil {
		return err
	}
	v.docs = append(v.docs, Attached{Descriptor: Descriptor{Digest: digest.Digest(i.img.ID)}, Content: i.config}, *i.manifest)
	v.date(i)
	return nil
}

// date gives an image's configuration and layers its time in the archive, as in Docker. A layer of several has that of the first.
func (v *saver) date(i *saveImage) {
	made := i.img.Config.Created
	if made == nil || made.Unix() < 0 || made.Year() > 9999 {
		return
	}
	paths := []string{blobPath(digest.Digest(i.img.ID))}
	for _, l := range i.layers {
		paths = append(paths, blobPath(l.Digest))
	}
	for _, p := range paths {
		if _, ok := v.times[p]; !ok {
			v.times[p] = made.Truncate(time.Second).UTC()
		}
	}
}

// root gives the document that stands for an item in index.json: its own index where all manifests are, the only manifest, or an
// index made for the manifests.
func (v *saver) root(it *saveItem) (ocispec.Descriptor, error) {
	own := !slices.ContainsFunc(it.images, func(i *saveImage) bool { return !i.own })
	if it.root != "" && own && !it.part {
		docs, err := v.s.indexDocuments(it.root)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		v.docs = append(v.docs, docs...)
		d := docs[0].OCI()
		d.Annotations, d.Platform = nil, nil
		return d, nil
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	for _, i := range it.images {
		platform := i.img.Config.platform().oci()
		d := ocispec.Descriptor{MediaType: i.manifest.MediaType, Digest: i.manifest.Digest, Size: i.manifest.Size, Platform: &platform}
		if len(it.images) == 1 {
			return d, nil
		}
		index.Manifests = append(index.Manifests, d)
	}
	raw, err := json.Marshal(index)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d := Descriptor{MediaType: index.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	v.docs = append(v.docs, Attached{Descriptor: d, Content: raw})
	return d.OCI(), nil
}

// dockerEntry is an item in manifest.json. A parent is named when it is in the archive too.
func dockerEntry(it *saveItem, items []*saveItem) map[string]any {
	first := it.first()
	tags := []string{}
	for _, n := range it.names {
		tags = append(tags, n.Familiar())
	}
	layers := []string{}
	for _, l := range first.layers {
		layers = append(layers, blobPath(l.Digest))
	}
	entry := map[string]any{"Config": blobPath(digest.Digest(first.img.ID)), "RepoTags": tags, "Layers": layers}
	if slices.ContainsFunc(items, func(o *saveItem) bool { return o.first().img.ID == first.img.Parent }) {
		entry["Parent"] = first.img.Parent
	}
	return entry
}

// descriptors are an item's entries in index.json: one for each name, or one without.
func descriptors(it *saveItem, root ocispec.Descriptor) (list []ocispec.Descriptor) {
	if len(it.names) == 0 {
		return []ocispec.Descriptor{root}
	}
	for _, n := range it.names {
		named := root
		named.Annotations = map[string]string{"io.containerd.image.name": n.String(), ocispec.AnnotationRefName: n.Tag}
		list = append(list, named)
	}
	return list
}

// manifest finds the manifest for an image's layers as they can be written: its own if its blobs are here or are the tars
// themselves, else a new one for uncompressed layers.
func (v *saver) manifest(i *saveImage) error {
	if i.img.Manifest != nil {
		raw, err := v.s.blobs.Read(i.img.Manifest.Digest, maxDocument)
		if err == nil {
			if layers, ok := v.writable(raw, i.img.Layers); ok {
				i.manifest, i.layers, i.own = &Attached{Descriptor: *i.img.Manifest, Content: raw}, layers, true
				return nil
			}
		}
	}
	platform := i.img.Config.platform().oci()
	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.Digest(i.img.ID), Size: int64(len(i.config)), Platform: &platform},
		Layers: []ocispec.Descriptor{},
	}
	for _, l := range i.img.Layers {
		info, err := v.s.layers.Stat(l)
		if err != nil {
			return err
		}
		d := ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: l, Size: info.TarSize}
		m.Layers = append(m.Layers, d)
		i.layers = append(i.layers, DescriptorOf(d))
	}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	i.manifest = &Attached{Descriptor: Descriptor{MediaType: m.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}, Content: raw}
	return nil
}

// writable reports whether all layers of a manifest can be written as it has them.
func (v *saver) writable(raw []byte, diffIDs []digest.Digest) ([]Descriptor, bool) {
	m, err := parseManifest(raw)
	if err != nil || len(m.Layers) != len(diffIDs) {
		return nil, false
	}
	for i, l := range m.Layers {
		if l.Digest != diffIDs[i] && !v.s.blobs.Has(l.Digest) {
			return nil, false
		}
	}
	return m.Layers, true
}

// directories writes the directories of the layout, for readers that want them.
func (v *saver) directories(items []*saveItem) error {
	names := []string{"blobs/"}
	add := func(d digest.Digest) { names = union(names, []string{"blobs/" + d.Algorithm().String() + "/"}) }
	for _, d := range v.docs {
		add(d.Digest)
	}
	for _, it := range items {
		for _, i := range it.images {
			for _, l := range i.layers {
				add(l.Digest)
			}
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
	at, dated := v.times[name]
	if !dated {
		at = time.Unix(0, 0)
	}
	return v.tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: at})
}

func (v *saver) file(name string, raw []byte) error {
	if err := v.header(name, int64(len(raw))); err != nil {
		return err
	}
	_, err := io.Copy(v.tw, bytes.NewReader(raw))
	return err
}

// blob writes a document once.
func (v *saver) blob(d digest.Digest, raw []byte) error {
	if v.written[d] {
		return nil
	}
	v.written[d] = true
	return v.file(blobPath(d), raw)
}

// layer writes a layer once: the kept blob, or its tar, rebuilt while it is written.
func (v *saver) layer(ctx context.Context, l Descriptor, diffID digest.Digest) error {
	if v.written[l.Digest] {
		return nil
	}
	v.written[l.Digest] = true
	if l.Digest != diffID {
		return v.kept(ctx, l)
	}
	info, err := v.s.layers.Stat(diffID)
	if err != nil {
		return err
	}
	if err := v.header(blobPath(diffID), info.TarSize); err != nil {
		return err
	}
	return v.s.layers.Tar(ctx, diffID, v.tw)
}

// kept writes a kept blob, verified as it passes.
func (v *saver) kept(ctx context.Context, l Descriptor) error {
	r, size, err := v.s.OpenBlob(ctx, l.Digest)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := v.header(blobPath(l.Digest), size); err != nil {
		return err
	}
	check := l.Digest.Verifier()
	if _, err := io.Copy(io.MultiWriter(v.tw, check), &cancelReader{ctx, r}); err != nil {
		return err
	}
	if !check.Verified() {
		return fault.New(fault.Internal, "kept layer %s is damaged on disk", l.Digest)
	}
	return nil
}

// cancelReader ends reading with its context.
type cancelReader struct {
	ctx context.Context // of the save: the reader lives no longer
	r   io.Reader
}

func (c *cancelReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
