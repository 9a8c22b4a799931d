package image

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/ref"
)

// ListOptions select images.
type ListOptions struct {
	All        bool // also images that exist only as parents of others
	Filters    Filters
	SharedSize bool // find out how much of each image others have too
	Containers bool // count each image's containers
	Manifests  bool // tell each image's manifests: platforms and attestations
}

// Summary is an image in a list.
type Summary struct {
	*Image
	SharedSize int64      // bytes of layers that other images have too; -1 when not asked for
	Containers int        // -1 when not asked for
	Manifests  []Manifest // nil when not asked for
}

// List gives the images that fit, the newest first, with the filters of docker images: dangling, label, before,
// since, until, reference. With a reference filter only the names that fit are shown.
func (s *Store) List(ctx context.Context, o ListOptions) ([]Summary, error) {
	sel, err := s.selection(o)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	var list []Summary
	members := map[string][]Descriptor{}
	groups := map[string][]string{}
	var byManifest map[digest.Digest]*record
	if o.Manifests {
		byManifest = s.byManifest()
	}
	var layerUsers map[digest.Digest]int
	if o.SharedSize {
		layerUsers = s.layerUsers() // also by images that are not selected
	}
	parents := s.parents()
	siblings := s.siblings()
	for id, r := range s.images {
		if siblings[id] {
			continue // shown under the image of its index
		}
		img, ok, err := s.selected(r, sel, parents[id])
		if err != nil {
			s.mu.RUnlock()
			return nil, err
		}
		if !ok {
			continue
		}
		sum := Summary{Image: img, SharedSize: -1, Containers: -1}
		if o.SharedSize {
			sum.SharedSize = s.sharedSize(r, layerUsers)
		}
		if o.Containers {
			groups[img.ID] = s.groupOf(r)
		}
		if o.Manifests {
			members[img.ID] = s.membersOf(r, s.rootOf(hit{r, s.shownRoot(r)}))
		}
		list = append(list, sum)
	}
	s.mu.RUnlock()
	if o.Manifests {
		for i := range list {
			list[i].Manifests = s.describe(members[list[i].ID], byManifest)
		}
	}
	if o.Containers {
		for i := range list {
			list[i].Containers = 0
			for _, id := range groups[list[i].ID] {
				list[i].Containers += len(s.usedBy(id))
			}
		}
	}
	slices.SortFunc(list, func(a, b Summary) int {
		if c := b.Created.Compare(a.Created); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return list, ctx.Err()
}

// groupOf gives the ids of an image and of those that stand under it; mu is held.
func (s *Store) groupOf(r *record) (ids []string) {
	for _, m := range s.groupIn(s.views(), r) {
		ids = append(ids, string(m.id))
	}
	return ids
}

// selection is a ListOptions whose filters have been read.
type selection struct {
	all           bool
	dangling      bool // only images without tags
	danglingGiven bool
	before, since time.Time
	labels        Filters
	references    []string
}

func (s *Store) selection(o ListOptions) (*selection, error) {
	f := o.Filters
	if err := f.known("dangling", "label", "before", "since", "until", "reference"); err != nil {
		return nil, err
	}
	sel := &selection{all: o.All, labels: f, references: f["reference"]}
	var err error
	if sel.dangling, sel.danglingGiven, err = f.flag("dangling", false); err != nil {
		return nil, err
	}
	for _, p := range sel.references {
		if _, err := (ref.Ref{}).Match(p); err != nil {
			return nil, err
		}
	}
	// Several values are all to hold: the oldest "before" and the newest "since" count.
	earlier := func(t time.Time) {
		if sel.before.IsZero() || t.Before(sel.before) {
			sel.before = t
		}
	}
	for _, v := range f["before"] {
		img, err := s.Resolve(v)
		if err != nil {
			return nil, err
		}
		if !img.Created.IsZero() {
			earlier(img.Created)
		}
	}
	for _, v := range f["until"] {
		t, err := moment(v, time.Now())
		if err != nil {
			return nil, err
		}
		earlier(t)
	}
	for _, v := range f["since"] {
		img, err := s.Resolve(v)
		if err != nil {
			return nil, err
		}
		if img.Created.After(sel.since) {
			sel.since = img.Created
		}
	}
	return sel, nil
}

// selected gives the image as the list shows it, if it does; mu is held.
func (s *Store) selected(r *record, sel *selection, hasChildren bool) (*Image, bool, error) {
	created := r.doc.Created
	if !sel.before.IsZero() && (created == nil || !created.Before(sel.before)) {
		return nil, false, nil
	}
	if !sel.since.IsZero() && (created == nil || !created.After(sel.since)) {
		return nil, false, nil
	}
	if !sel.labels.labels("label", r.doc.Config.Labels) {
		return nil, false, nil
	}
	if sel.dangling && hasChildren {
		return nil, false, nil
	}
	img := s.snapshot(r, s.shownRoot(r))
	if len(sel.references) > 0 {
		if err := s.onlyMatching(img, r.id, sel.references); err != nil {
			return nil, false, err
		}
	}
	named := len(img.RepoTags)+len(img.RepoDigests) > 0
	switch {
	case !named && hasChildren && !sel.all:
		return nil, false, nil
	case !named && (sel.danglingGiven && !sel.dangling || len(sel.references) > 0):
		return nil, false, nil
	case named && sel.dangling && len(img.RepoTags) > 0:
		return nil, false, nil
	}
	return img, true, nil
}

// shownRoot is the document that a list shows an image by: that of its first tag, else of its first name.
func (s *Store) shownRoot(r *record) digest.Digest {
	names := s.byID[r.id]
	for _, n := range names {
		if n.Digest == "" {
			return s.names[n].Root
		}
	}
	if len(names) > 0 {
		return s.names[names[0]].Root
	}
	return ""
}

// onlyMatching leaves the names that one of the patterns fits.
func (s *Store) onlyMatching(img *Image, id digest.Digest, patterns []string) error {
	img.RepoTags, img.RepoDigests = []string{}, []string{}
	for _, n := range s.byID[id] {
		for _, p := range patterns {
			ok, err := n.Match(p)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			if n.Digest != "" {
				img.RepoDigests = append(img.RepoDigests, n.Familiar())
			} else {
				img.RepoTags = append(img.RepoTags, n.Familiar())
			}
			break
		}
	}
	return nil
}

func (s *Store) sharedSize(r *record, users map[digest.Digest]int) (size int64) {
	for _, d := range r.doc.RootFS.DiffIDs {
		if users[d] < 2 {
			continue
		}
		if info, err := s.layers.Stat(d); err == nil {
			size += info.Size
		}
	}
	return size
}
