package image

import (
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/ref"
)

// views is what follows from images, names and indexes and is asked for often. It is made when it is first needed after a change, and
// never changed.
type views struct {
	byManifest map[digest.Digest]*record   // images by the digests of their manifests
	names      map[digest.Digest][]ref.Ref // of each image: its own, and those that stand for an index it is in; sorted
	siblings   map[digest.Digest]bool      // images that stand under another one: of the same index, without a name of their own
	users      map[digest.Digest]int       // images of each layer
	parents    map[digest.Digest]bool      // images that have children
}

// views gives them; mu is held, or changing.
func (s *Store) views() *views {
	if v := s.derived.Load(); v != nil {
		return v
	}
	v := &views{
		byManifest: make(map[digest.Digest]*record, len(s.images)), names: make(map[digest.Digest][]ref.Ref, len(s.images)),
		siblings: map[digest.Digest]bool{}, users: map[digest.Digest]int{}, parents: map[digest.Digest]bool{},
	}
	for _, r := range s.images {
		for i := range r.Origins {
			v.byManifest[r.Origins[i].Manifest.Digest] = r
		}
		if r.Parent != "" {
			v.parents[r.Parent] = true
		}
	}
	s.viewNames(v)
	s.viewSiblings(v)
	s.viewUsers(v)
	s.derived.Store(v)
	return v
}

// changed forgets the views; mu is held for writing.
func (s *Store) changed() { s.derived.Store(nil) }

func (s *Store) viewNames(v *views) {
	for id, own := range s.byID {
		v.names[id] = own
	}
	shared := map[digest.Digest]bool{} // images that have more than their own, to be sorted
	for n, t := range s.names {
		ix := s.indexes[t.Root]
		if ix == nil {
			continue
		}
		for _, m := range ix.members {
			r := v.byManifest[m.Digest]
			if r == nil || r.id == t.ID {
				continue
			}
			list := v.names[r.id]
			if !shared[r.id] {
				list = slices.Clone(list) // its own, which stay as they are
			} else if list[len(list)-1] == n {
				continue // two manifests of one image
			}
			v.names[r.id] = append(list, n)
			shared[r.id] = true
		}
	}
	for id := range shared {
		slices.SortFunc(v.names[id], compareRefs)
	}
}

func (s *Store) viewSiblings(v *views) {
	if len(s.indexes) == 0 {
		return
	}
	named := map[digest.Digest]bool{} // indexes that a name stands for
	for _, t := range s.names {
		named[t.Root] = true
	}
	host := wantPlatform(nil).match
	for d, ix := range s.indexes {
		var first *record // of a nameless index: the one that stands for all
		var nameless []*record
		for _, m := range ix.members {
			r := v.byManifest[m.Digest]
			if r == nil || len(s.byID[r.id]) > 0 {
				continue
			}
			if named[d] {
				v.siblings[r.id] = true
				continue
			}
			if o := r.newest(); o.root().Digest != d {
				continue
			}
			nameless = append(nameless, r)
			if first == nil || host.Less(r.doc.platform().oci(), first.doc.platform().oci()) {
				first = r
			}
		}
		for _, r := range nameless {
			if r != first {
				v.siblings[r.id] = true
			}
		}
	}
}

func (s *Store) viewUsers(v *views) {
	for id, r := range s.images {
		if v.siblings[id] {
			continue
		}
		layers := map[digest.Digest]bool{}
		for _, m := range s.groupIn(v, r) {
			for _, d := range m.Layers {
				layers[d] = true
			}
		}
		for d := range layers {
			v.users[d]++
		}
	}
}

// groupIn gives an image and those that stand under it.
func (s *Store) groupIn(v *views, r *record) []*record {
	group := []*record{r}
	ix := s.indexes[s.rootOf(hit{r, s.shownRoot(r)})]
	if ix == nil {
		return group
	}
	for _, m := range ix.members {
		if o := v.byManifest[m.Digest]; o != nil && v.siblings[o.id] && !slices.Contains(group, o) {
			group = append(group, o)
		}
	}
	return group
}

// namesOf gives the names by which an image is found: its own, and those that stand for an index it is in. mu is held.
func (s *Store) namesOf(r *record) []ref.Ref { return s.views().names[r.id] }

// siblings are the images that stand under another one. mu is held.
func (s *Store) siblings() map[digest.Digest]bool { return s.views().siblings }

// byManifest finds images by the digests of their manifests; mu is held.
func (s *Store) byManifest() map[digest.Digest]*record { return s.views().byManifest }

// parents tells which images have children; mu is held.
func (s *Store) parents() map[digest.Digest]bool { return s.views().parents }

// layerUsers counts the images of each layer; mu is held.
func (s *Store) layerUsers() map[digest.Digest]int { return s.views().users }
