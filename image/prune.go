package image

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	words "berth/base/removal"
)

// PruneReport tells what Prune deleted.
type PruneReport struct {
	Deleted   []Removed
	Reclaimed int64        // bytes of layers that are gone
	Skipped   []words.Item // of the plan: what has changed since
	Trashed   bool         // it can be restored; nothing is reclaimed before its time is over
}

// PlanPrune tells what Prune would do with these filters: those images go that nothing uses and that have no tag, or with the filter
// dangling=false all that no container uses; of the tags of one that is used the last stays, as in Docker. Further filters: until, label, label!. It changes nothing. Each item is one reference, and
// with an image's last one the image; Look is the image's id and names.
func (s *Store) PlanPrune(f Filters) (*words.Plan, error) {
	return s.PlanPruneWithout(f, nil)
}

// PlanPruneWithout is PlanPrune as if some containers were gone.
func (s *Store) PlanPruneWithout(f Filters, gone func(containerID string) bool) (*words.Plan, error) {
	now := time.Now()
	sel, err := readPrune(f, now)
	if err != nil {
		return nil, err
	}
	names, spared := s.unusedOf(s.prunable(sel, f), gone)
	plan := s.planOf(names, now)
	for i, item := range plan.Remove {
		if slices.ContainsFunc(spared, func(stays words.Item) bool { return stays.ID == item.ID }) {
			plan.Remove[i].Why = "the image is used and keeps another name"
		}
	}
	s.planParents(plan, gone)
	plan.Spare = append(plan.Spare, spared...)
	words.Sort(plan.Spare)
	return plan, nil
}

// planOf makes a plan of references that are to go.
func (s *Store) planOf(names []string, now time.Time) *words.Plan {
	s.mu.RLock()
	defer s.mu.RUnlock()
	plan := words.NewPlan(now)
	taken := map[ref.Ref]bool{}
	gone := map[digest.Digest]bool{}
	for _, name := range names {
		h, err := s.resolve(name)
		if err != nil {
			continue // removed meanwhile
		}
		group := []*record{h.r}
		item := words.Item{
			Kind: words.Image, ID: string(h.r.id), Name: name, Look: s.look(h.r), Size: h.r.size, LastUsed: s.used.at(h.r.id), Why: s.whyPrune(h.r),
		}
		if h.r.doc.Created != nil {
			item.Created = *h.r.doc.Created
		}
		if n, err := ref.Parse(name); err == nil {
			if t, ok := s.names[lookupForm(n)]; ok {
				taken[lookupForm(n)] = true
				item.Name = n.Familiar()
				group = union(group, s.members(t.Root))
			}
		}
		if len(group) == 1 {
			group = s.groupIn(s.views(), h.r)
		}
		for _, r := range group {
			if !gone[r.id] && !slices.ContainsFunc(s.namesOf(r), func(n ref.Ref) bool { return !taken[n] }) {
				gone[r.id] = true
				item.Drops = append(item.Drops, string(r.id))
			}
		}
		plan.Remove = append(plan.Remove, item)
	}
	return plan
}

// planParents adds to a plan the parents without names that go with the last of their children, and what becomes free.
func (s *Store) planParents(plan *words.Plan, goneUser func(string) bool) {
	gone := dropped(plan)
	for i := range plan.Remove {
		for n := 0; n < len(plan.Remove[i].Drops); n++ { // the list grows: parents have parents
			if p := s.lastParent(plan.Remove[i].Drops[n], gone); p != "" && !s.usedBeside(p, goneUser) {
				gone[p] = true
				plan.Remove[i].Drops = append(plan.Remove[i].Drops, p)
			}
		}
	}
	ids := map[digest.Digest]bool{}
	for id := range gone {
		ids[digest.Digest(id)] = true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	plan.Reclaimable = s.freedBy(ids)
}

// lastParent gives the nameless parent of an image all of whose children are gone then; "" where there is none.
func (s *Store) lastParent(child string, gone map[string]bool) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.images[digest.Digest(child)]
	if r == nil || s.images[r.Parent] == nil || len(s.byID[r.Parent]) > 0 || gone[string(r.Parent)] {
		return ""
	}
	for _, other := range s.children(r.Parent) {
		if !gone[string(other)] {
			return ""
		}
	}
	return string(r.Parent)
}

// usedBeside reports whether a container uses an image that is not to be taken for gone.
func (s *Store) usedBeside(image string, gone func(string) bool) bool {
	return slices.ContainsFunc(s.usedBy(image), func(u Use) bool { return gone == nil || !gone(u.ContainerID) })
}

// dropped are the images that are gone after a plan.
func dropped(plan *words.Plan) map[string]bool {
	gone := map[string]bool{}
	for _, i := range words.Of(plan.Remove, words.Image) {
		for _, id := range i.Drops {
			gone[id] = true
		}
	}
	return gone
}

// look is what a plan remembers of an image: whether it is the same and has the same names; mu is held.
func (s *Store) look(r *record) string {
	var list []string
	for _, n := range s.namesOf(r) {
		list = append(list, n.String())
	}
	return string(r.id) + " " + strings.Join(list, " ")
}

func (s *Store) whyPrune(r *record) string {
	if len(s.snapshot(r, "").RepoTags) == 0 {
		return "it has no tag"
	}
	return "no container uses it"
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

// unusedOf leaves out the references whose images containers use, on any platform, and says who does. Of several tags that lead to the same
// only the last, in the order of their texts, is left out.
func (s *Store) unusedOf(names []string, gone func(string) bool) (unused []string, spared []words.Item) {
	groups := make([][]string, len(names))
	items := make([]words.Item, len(names))
	tagOf := make([]target, len(names))
	last := map[target]int{} // the tag of each image that stays where it is used
	s.mu.RLock()
	for i, name := range names {
		if h, err := s.resolve(name); err == nil {
			groups[i] = s.groupOf(h.r)
			items[i] = words.Item{Kind: words.Image, ID: string(h.r.id), Name: name, Size: h.r.size, LastUsed: s.used.at(h.r.id)}
			if n, err := ref.Parse(name); err == nil && s.names[lookupForm(n)].ID != "" {
				items[i].Name = n.Familiar()
				if n.Digest == "" {
					tagOf[i] = s.names[lookupForm(n)]
					last[tagOf[i]] = i
				}
			}
		}
	}
	s.mu.RUnlock()
	for i, name := range names {
		var users []string
		for _, image := range groups[i] {
			for _, u := range s.usedBy(image) {
				if gone != nil && gone(u.ContainerID) {
					continue
				}
				who := "stopped container " + id.Short(u.ContainerID)
				if u.Running {
					who = "running container " + id.Short(u.ContainerID)
				}
				users = append(users, who)
			}
		}
		if len(users) == 0 || tagOf[i].ID != "" && last[tagOf[i]] != i {
			unused = append(unused, name)
			continue
		}
		items[i].Why = "used by " + some(users)
		spared = append(spared, items[i])
	}
	return unused, spared
}

// some names the first of many.
func some(all []string) string {
	if len(all) <= 3 {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:3], ", "), len(all)-3)
}

// Prune plans with these filters, and does it. What is in the way of one image is no error, it stays.
func (s *Store) Prune(ctx context.Context, f Filters) (PruneReport, error) {
	plan, err := s.PlanPrune(f)
	if err != nil {
		return PruneReport{}, err
	}
	return s.ApplyPrune(ctx, plan)
}

// ApplyPrune removes what a plan says, as far as it still looks as it did then, and nothing else.
func (s *Store) ApplyPrune(ctx context.Context, plan *words.Plan) (PruneReport, error) {
	report := s.removePlanned(ctx, plan, RemoveOptions{})
	s.emit(Event{Action: "prune", Attrs: map[string]string{"reclaimed": strconv.FormatInt(report.Reclaimed, 10)}})
	return report, nil
}

func (s *Store) removePlanned(ctx context.Context, plan *words.Plan, o RemoveOptions) PruneReport {
	o.planned = dropped(plan)
	untagged := map[string]bool{}
	report := s.removeItems(ctx, plan, "prune", func(item words.Item) ([]Removed, error) {
		if untagged[item.Name] { // a repository's digests go with its last tag
			return nil, nil
		}
		done, err := s.removeLooking(ctx, item, o)
		for _, d := range done {
			untagged[d.Untagged] = true
		}
		return done, err
	})
	report.Trashed = s.cfg.Trash != nil && s.cfg.Trash() > 0 && !o.ForGood
	return report
}

// removeItems lets remove take away each image of a plan that still looks as it did, and reports it: what is in the way of one image is no
// error, it is skipped and said.
func (s *Store) removeItems(ctx context.Context, plan *words.Plan, what string, remove func(words.Item) ([]Removed, error)) (report PruneReport) {
	sizes := map[string]int64{} // of layers that are there before and, in the end, not after
	for _, i := range s.layers.List() {
		sizes[string(i.DiffID)] = i.Size
	}
	changed := s.changedSince(plan)
	for _, item := range words.Of(plan.Remove, words.Image) {
		if ctx.Err() != nil {
			break // what was deleted is told all the same
		}
		why := changed[item.ID]
		if why == "" {
			done, err := remove(item)
			report.Deleted = append(report.Deleted, done...)
			if err != nil {
				why = err.Error()
			}
			if err != nil && !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
				s.log.Warn("an image of a plan stays", "plan", what, "image", item.Name, "err", err)
			}
		}
		if why != "" {
			item.Why = why
			report.Skipped = append(report.Skipped, item)
		}
	}
	for _, i := range s.layers.List() {
		delete(sizes, string(i.DiffID))
	}
	for _, size := range sizes {
		report.Reclaimed += size
	}
	return report
}

// changedSince says why images of a plan are left: they do not look as they did. An image of which several references are to go is
// looked at once, before the first goes.
func (s *Store) changedSince(plan *words.Plan) map[string]string {
	why := map[string]string{}
	looked := map[string]bool{}
	gone := dropped(plan)
	for _, item := range words.Of(plan.Remove, words.Image) {
		if looked[item.ID] {
			continue
		}
		looked[item.ID] = true
		s.mu.RLock()
		r := s.images[digest.Digest(item.ID)]
		var group []string
		now := ""
		if r != nil {
			now = s.look(r)
			group = s.groupOf(r)
		}
		s.mu.RUnlock()
		switch {
		case r == nil:
			why[item.ID] = "it is gone already"
		case now != item.Look:
			why[item.ID] = "its names have changed"
		}
		for _, id := range group {
			if u := s.usedBy(id); gone[id] && len(u) > 0 && why[item.ID] == "" {
				why[item.ID] = "a container uses it now"
			}
		}
	}
	return why
}

// removeLooking removes one reference of a plan if it is still one of that image.
func (s *Store) removeLooking(ctx context.Context, item words.Item, o RemoveOptions) ([]Removed, error) {
	o.only = digest.Digest(item.ID)
	return s.Remove(ctx, item.Name, o)
}

// pruning are the filters of a prune as they were read.
type pruning struct {
	dangling bool // only images without a tag
	until    time.Time
}

// readPrune reads the filters of a prune.
func readPrune(f Filters, now time.Time) (p pruning, err error) {
	if err := f.known("dangling", "label", "label!", "until"); err != nil {
		return p, err
	}
	if p.dangling, _, err = f.flag("dangling", true); err != nil {
		return p, err
	}
	switch values := f["until"]; {
	case len(values) > 1:
		return p, fault.New(fault.Invalid, "more than one until filter specified")
	case len(values) == 1:
		if p.until, err = moment(values[0], now); err != nil {
			return p, err
		}
	}
	return p, nil
}

// prunable gives the references to remove, those of images in use among them.
func (s *Store) prunable(p pruning, f Filters) (names []string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	parents := s.parents()
	siblings := s.siblings()
	for id, r := range s.images {
		if siblings[id] {
			continue // goes with the image of its index
		}
		refs := s.byID[id]
		if len(refs) == 0 && parents[id] || p.dangling && parents[id] {
			continue
		}
		if !p.until.IsZero() && (r.doc.Created == nil || r.doc.Created.After(p.until)) {
			continue
		}
		if !f.labels("label", r.doc.Config.Labels) || len(f["label!"]) > 0 && f.labels("label!", r.doc.Config.Labels) {
			continue
		}
		tagged := len(s.snapshot(r, "").RepoTags) > 0
		switch {
		case len(refs) == 0:
			names = append(names, string(id))
		case !p.dangling || !tagged:
			for _, n := range refs {
				names = append(names, n.String())
			}
		}
	}
	slices.Sort(names)
	return names
}
