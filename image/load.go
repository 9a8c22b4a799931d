package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/archive/compress"
	"berth/image/layer"
)

// LoadOptions say what to load.
type LoadOptions struct {
	Platform *Platform      // of images for several platforms; nil: this machine's, and whatever there is where there is only one
	Progress func(Progress) // told about layers as they are read; nil: nobody
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
	rc, _, err := compress.NewReader(r)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	a := &incoming{s: s, o: o, files: map[string]*found{}}
	defer a.drop()
	if err := a.read(ctx, rc); err != nil {
		return nil, err
	}
	plan, err := planLoad(a, wantPlatform(o.Platform))
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
	return all, nil
}

// commit makes the layers of a plan part of the store, with one sync for all.
func (a *incoming) commit(plan []planned) error {
	needed := map[digest.Digest]*layer.Staged{}
	for _, p := range plan {
		for i, path := range p.layers {
			f, err := a.layer(path)
			want := p.doc.RootFS.DiffIDs[i]
			switch {
			case errors.Is(err, errAbsent) && a.s.layers.Retain(want) == nil:
				a.held = append(a.held, want) // not in the archive, but here: as docker load has it
				continue
			case err != nil:
				return fault.In(err, "layer %d", i)
			}
			if f.diffID != want {
				return fault.New(fault.Invalid, "invalid diffID for layer %d: expected %q, got %q", i, want, f.diffID)
			}
			if f.staged != nil {
				needed[f.diffID] = f.staged
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
		a.held = append(a.held, st.DiffID)
	}
	return nil
}

func (a *incoming) register(ctx context.Context, p planned) ([]Loaded, error) {
	img, moved, err := a.s.Register(ctx, Registration{Config: p.config, Manifest: p.manifest, Index: p.index, Names: p.names, Parent: a.s.known(p.parent)})
	if err != nil {
		return nil, err
	}
	a.s.emit(Event{Action: "load", ID: img.ID, Name: img.ID})
	if len(p.names) == 0 {
		return []Loaded{{ID: img.ID}}, nil
	}
	var lines []Loaded
	for _, n := range p.names {
		lines = append(lines, Loaded{ID: img.ID, Name: n.Familiar(), Replaced: string(moved[n])})
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

// planned is an image to be made of what an archive has.
type planned struct {
	config   []byte
	doc      *Document
	layers   []string // paths in the archive, the lowest first, as many as diff ids
	names    []ref.Ref
	manifest *Attached
	index    *Attached
	parent   digest.Digest
}
