package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive/compress"
	"berth/image/layer"
)

// LoadOptions say what to load.
type LoadOptions struct {
	Platform  *Platform      // like Platforms, with one
	Platforms []Platform     // of images for several platforms only these; empty: all that the archive has
	Progress  func(Progress) // told about layers as they are read; nil: nobody
}

// Progress is how far a layer is.
type Progress struct {
	ID      string // short, of the layer
	Action  string // "Loading layer"
	Current int64  // bytes of the archive
	Total   int64
}

// Loaded is one line of what Load did.
type Loaded struct {
	ID       string
	Name     string // "" for an image without names
	Replaced string // id of the image that had the name until now
}

// Messages gives the lines that docker load prints.
func (l Loaded) Messages() []string {
	var lines []string
	if l.Replaced != "" {
		lines = append(lines, fmt.Sprintf("The image %s already exists, renaming the old one with ID %s to empty string", l.Name, l.Replaced))
	}
	if l.Name != "" {
		return append(lines, "Loaded image: "+l.Name)
	}
	return append(lines, "Loaded image ID: "+l.ID)
}

// Load reads an archive of images as docker save, podman save, skopeo, buildx and others write them: a docker archive
// (manifest.json), an OCI layout (index.json) or both, compressed or not. The archive is read once, from front to
// back. Layers are unpacked while they pass, before it is known what they belong to; those that turn out not to
// be needed are deleted. Everything is verified: documents against the digests that name them, layers against their
// image's configuration. Malformed archives are Invalid, and nothing of them stays.
func (s *Store) Load(ctx context.Context, r io.Reader, o LoadOptions) ([]Loaded, error) {
	in := &meter{r: r}
	rc, kind, err := compress.NewReader(in)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	var input func() int64
	if kind != compress.None {
		input = in.n.Load
	}
	a := &incoming{input: input, s: s, o: o, hold: s.Hold(), files: map[string]*found{}}
	defer a.drop()
	if err := a.read(ctx, rc); err != nil {
		return nil, err
	}
	plan, err := planLoad(a, o.wants())
	if err != nil {
		return nil, err
	}
	if err := a.commit(plan); err != nil {
		return nil, err
	}
	var all []Loaded
	for _, p := range plan {
		lines, err := a.register(ctx, p)
		all = append(all, lines...)
		if err != nil {
			return all, err
		}
	}
	if err := a.joinFamilies(ctx, plan); err != nil {
		return all, err
	}
	return all, s.addAll(a.sources)
}

// joinFamilies notes the parents that came after their children in the archive.
func (a *incoming) joinFamilies(ctx context.Context, plan []planned) error {
	for _, p := range plan {
		for _, i := range p.images {
			id := digest.FromBytes(i.config)
			if a.s.known(i.parent) == "" || a.s.descends(i.parent, id) {
				continue
			}
			if _, _, err := a.s.Register(ctx, Registration{Config: i.config, Parent: i.parent}); err != nil {
				return err
			}
		}
	}
	return nil
}

// descends reports whether an image is another one or comes from it: an archive may tell of circles.
func (s *Store) descends(id, from digest.Digest) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for seen := map[digest.Digest]bool{}; id != "" && !seen[id]; {
		if id == from {
			return true
		}
		seen[id] = true
		r := s.images[id]
		if r == nil {
			return false
		}
		id = r.Parent
	}
	return false
}

// meter counts what is read.
type meter struct {
	r io.Reader
	n atomic.Int64
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.n.Add(int64(n))
	return n, err
}

// wants are the platforms that were asked for.
func (o *LoadOptions) wants() (list []wants) {
	if o.Platform != nil {
		list = append(list, wantPlatform(o.Platform))
	}
	for i := range o.Platforms {
		list = append(list, wantPlatform(&o.Platforms[i]))
	}
	return list
}

// commit makes the layers of a plan part of the store, with one sync for all.
func (a *incoming) commit(plan []planned) error {
	needed := map[digest.Digest]*layer.Staged{}
	for _, g := range plan {
		for k := range g.images {
			if err := a.need(&g.images[k], needed); err != nil {
				return err
			}
		}
	}
	list := make([]*layer.Staged, 0, len(needed))
	for _, st := range needed {
		list = append(list, st)
	}
	if err := a.s.layers.Commit(list...); err != nil {
		return err
	}
	for _, st := range list {
		if err := a.hold.AdoptLayers(st.DiffID); err != nil {
			return err
		}
	}
	return nil
}

// need notes the layers of an image that are to become part of the store.
func (a *incoming) need(img *plannedImage, needed map[digest.Digest]*layer.Staged) error {
	for i, path := range img.layers {
		f, err := a.layer(path)
		want := img.doc.RootFS.DiffIDs[i]
		switch {
		case errors.Is(err, errAbsent) && a.hold.Layers(want) == nil:
			if info, err := a.s.layers.Stat(want); err != nil || info.Lazy { // what is shown of it is another image's word
				return fault.New(fault.Unavailable, "layer %d: %s is not in the archive and not here to its end: try again when it is", i, want)
			}
			continue // not in the archive, but here: as docker load has it
		case err != nil:
			return fault.In(err, "layer %d", i)
		}
		if f.diffID != want {
			return fault.New(fault.Invalid, "invalid diffID for layer %d: expected %q, got %q", i, want, f.diffID)
		}
		if f.staged != nil {
			needed[f.diffID] = f.staged
		}
		if f.kept != "" && img.manifest != nil {
			img.blobs = union(img.blobs, []digest.Digest{f.kept})
		}
	}
	return nil
}

// register makes the images of one name, or of none.
func (a *incoming) register(ctx context.Context, p planned) ([]Loaded, error) {
	var last *Image
	replaced := map[ref.Ref]digest.Digest{}
	for _, i := range p.images {
		img, moved, err := a.s.Register(ctx, Registration{
			Config: i.config, Manifest: i.manifest, Index: i.index, Documents: i.documents, Blobs: i.blobs, Names: p.names, Parent: a.s.known(i.parent),
		})
		if err != nil {
			return nil, err
		}
		for n, was := range moved {
			if replaced[n] == "" {
				replaced[n] = was
			}
		}
		last = img
	}
	a.s.emit(Event{Action: "load", ID: last.ID, Name: last.ID})
	if len(p.names) == 0 {
		return []Loaded{{ID: last.ID}}, nil
	}
	var lines []Loaded
	for _, n := range p.names {
		lines = append(lines, Loaded{ID: last.ID, Name: n.Familiar(), Replaced: string(replaced[n])})
	}
	return lines, nil
}

// known gives the id if there is such an image, else "".
func (s *Store) known(id digest.Digest) digest.Digest {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.images[id] == nil {
		return ""
	}
	return id
}

// planned is what an archive has under one root document, or in one entry of manifest.json: an image, or those of several
// platforms, the one that suits this machine last.
type planned struct {
	root   digest.Digest // "" without an OCI layout
	names  []ref.Ref
	images []plannedImage
}

// has reports whether one of the images has the id.
func (p *planned) has(id digest.Digest) bool {
	for i := range p.images {
		if digest.FromBytes(p.images[i].config) == id {
			return true
		}
	}
	return false
}

// plannedImage is an image to be made of what an archive has.
type plannedImage struct {
	config    []byte
	doc       *Document
	layers    []string // paths in the archive, the lowest first, as many as diff ids
	manifest  *Attached
	index     *Attached
	documents []Attached
	blobs     []digest.Digest // compressed layers to keep
	parent    digest.Digest
}
