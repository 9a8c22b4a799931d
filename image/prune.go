package image

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
)

// PruneReport tells what Prune deleted.
type PruneReport struct {
	Deleted   []Removed
	Reclaimed int64 // bytes of layers that are gone
}

// PrunePlan is what a Prune would remove now.
type PrunePlan struct {
	Remove      []PruneItem
	Reclaimable int64 // bytes of layers that would be gone
}

// PruneItem is one reference that would be removed, and with an image's last one the image.
type PruneItem struct {
	Name  string   // a name as people write it, or an id
	ID    string   // of the image
	Size  int64    // bytes of the image's layers, also those that others have too
	Drops []string // ids of the images that would be gone with it: on the last item of each
}

// PlanPrune tells what Prune would do with the same filters. It changes nothing.
func (s *Store) PlanPrune(f Filters) (*PrunePlan, error) {
	names, err := s.pruneNames(f)
	if err != nil {
		return nil, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	plan := &PrunePlan{}
	taken := map[ref.Ref]bool{}
	gone := map[digest.Digest]bool{}
	for _, name := range names {
		h, err := s.resolve(name)
		if err != nil {
			continue // removed meanwhile
		}
		group := s.groupIn(s.views(), h.r)
		item := PruneItem{Name: name, ID: string(h.r.id), Size: h.r.size}
		if n, err := ref.Parse(name); err == nil {
			if _, ok := s.names[lookupForm(n)]; ok {
				taken[lookupForm(n)] = true
				item.Name = n.Familiar()
			}
		}
		for _, r := range group {
			if !gone[r.id] && !slices.ContainsFunc(s.namesOf(r), func(n ref.Ref) bool { return !taken[n] }) {
				gone[r.id] = true
				item.Drops = append(item.Drops, string(r.id))
			}
		}
		plan.Remove = append(plan.Remove, item)
	}
	plan.Reclaimable = s.freedBy(gone)
	return plan, nil
}

// freedBy gives the bytes of the layers that only some images have; mu is held.
func (s *Store) freedBy(gone map[digest.Digest]bool) (size int64) {
	stay, leave := map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for id, r := range s.images {
		for _, d := range r.Layers {
			if gone[id] {
				leave[d] = true
			} else {
				stay[d] = true
			}
		}
	}
	for d := range leave {
		if stay[d] {
			continue
		}
		if info, err := s.layers.Stat(d); err == nil {
			size += info.Size
		}
	}
	return size
}

// unusedOf leaves out the references whose images containers use, on any platform. They would be refused one by one, but for those
// that have several names: these would lose all but one.
func (s *Store) unusedOf(names []string) []string {
	groups := make([][]string, len(names))
	s.mu.RLock()
	for i, name := range names {
		if h, err := s.resolve(name); err == nil {
			groups[i] = s.groupOf(h.r)
		}
	}
	s.mu.RUnlock()
	var unused []string
	for i, name := range names {
		if !slices.ContainsFunc(groups[i], func(id string) bool { return len(s.usedBy(id)) > 0 }) {
			unused = append(unused, name)
		}
	}
	return unused
}

// Prune deletes images that nothing uses: those without a tag, or with the filter dangling=false all that no container
// uses. Further filters: until, label, label!. What is in the way of one image is no error, it stays.
func (s *Store) Prune(ctx context.Context, f Filters) (PruneReport, error) {
	report := PruneReport{}
	names, err := s.pruneNames(f)
	if err != nil {
		return report, err
	}
	sizes := map[string]int64{} // of layers that are there before and, in the end, not after
	for _, i := range s.layers.List() {
		sizes[string(i.DiffID)] = i.Size
	}
	for _, name := range names {
		if ctx.Err() != nil {
			break // what was deleted is told all the same
		}
		done, err := s.Remove(ctx, name, RemoveOptions{})
		report.Deleted = append(report.Deleted, done...)
		if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			s.log.Warn("prune image", "image", name, "err", err)
		}
	}
	for _, i := range s.layers.List() {
		delete(sizes, string(i.DiffID))
	}
	for _, size := range sizes {
		report.Reclaimed += size
	}
	s.emit(Event{Action: "prune", Attrs: map[string]string{"reclaimed": strconv.FormatInt(report.Reclaimed, 10)}})
	return report, nil
}

// pruneNames reads the filters of a prune and gives the references to remove.
func (s *Store) pruneNames(f Filters) ([]string, error) {
	if err := f.known("dangling", "label", "label!", "until"); err != nil {
		return nil, err
	}
	danglingOnly, _, err := f.flag("dangling", true)
	if err != nil {
		return nil, err
	}
	var until time.Time
	switch values := f["until"]; {
	case len(values) > 1:
		return nil, fault.New(fault.Invalid, "more than one until filter specified")
	case len(values) == 1:
		if until, err = moment(values[0], time.Now()); err != nil {
			return nil, err
		}
	}
	return s.unusedOf(s.prunable(danglingOnly, until, f)), nil
}

// prunable gives the references to remove.
func (s *Store) prunable(danglingOnly bool, until time.Time, f Filters) (names []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	parents := s.parents()
	siblings := s.siblings()
	for id, r := range s.images {
		if siblings[id] {
			continue // goes with the image of its index
		}
		refs := s.byID[id]
		if len(refs) == 0 && parents[id] || danglingOnly && parents[id] {
			continue
		}
		if !until.IsZero() && (r.doc.Created == nil || r.doc.Created.After(until)) {
			continue
		}
		if !f.labels("label", r.doc.Config.Labels) || len(f["label!"]) > 0 && f.labels("label!", r.doc.Config.Labels) {
			continue
		}
		tagged := len(s.snapshot(r, "").RepoTags) > 0
		switch {
		case len(refs) == 0:
			names = append(names, string(id))
		case !danglingOnly || !tagged:
			for _, n := range refs {
				names = append(names, n.String())
			}
		}
	}
	slices.Sort(names)
	return names
}
