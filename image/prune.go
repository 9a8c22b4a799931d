package image

import (
	"context"
	"slices"
	"strconv"
	"time"

	"berth/base/fault"
)

// PruneReport tells what Prune deleted.
type PruneReport struct {
	Deleted   []Removed
	Reclaimed int64 // bytes of layers that are gone
}

// Prune deletes images that nothing uses: those without a tag, or with the filter dangling=false all that no container
// uses. Further filters: until, label, label!. What is in the way of one image is no error, it stays.
func (s *Store) Prune(ctx context.Context, f Filters) (PruneReport, error) {
	report := PruneReport{}
	if err := f.known("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	danglingOnly, _, err := f.flag("dangling", true)
	if err != nil {
		return report, err
	}
	var until time.Time
	switch values := f["until"]; {
	case len(values) > 1:
		return report, fault.New(fault.Invalid, "more than one until filter specified")
	case len(values) == 1:
		if until, err = moment(values[0], time.Now()); err != nil {
			return report, err
		}
	}
	sizes := map[string]int64{} // of layers that are there before and, in the end, not after
	for _, i := range s.layers.List() {
		sizes[string(i.DiffID)] = i.Size
	}
	for _, name := range s.prunable(danglingOnly, until, f) {
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
