package image

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	words "berth/base/removal"
)

// CollectOptions say which images may be collected, and how many.
type CollectOptions struct {
	Free   int64         // bytes that are wanted; negative: all that may go
	Keep   []string      // patterns of names, "label=KEY[=VALUE]", ids and digests: off limits
	MinAge time.Duration // what was used or named within this time stays
	Now    time.Time
}

// CheckKeep refuses a pattern of CollectOptions.Keep that means nothing.
func CheckKeep(pattern string) error {
	if rest, ok := strings.CutPrefix(pattern, "label="); ok {
		if rest == "" || strings.HasPrefix(rest, "=") {
			return fault.New(fault.Invalid, "%q names no label", pattern)
		}
		return nil
	}
	if pattern == "" {
		return fault.New(fault.Invalid, "an empty pattern keeps nothing")
	}
	_, err := (ref.Ref{}).Match(pattern)
	return err
}

// PlanCollect says which images would go, those first that were not used for longest, until as much is free as is wanted. An image that
// a container uses, whether it runs or not, never goes, nor one with children. It changes nothing. Each item is an image with all its
// names; Look is its id and names.
func (s *Store) PlanCollect(o CollectOptions) *words.Plan {
	plan := words.NewPlan(o.Now)
	type candidate struct {
		item  words.Item
		group []string
	}
	var all []candidate
	s.mu.RLock()
	parents, siblings := s.parents(), s.siblings()
	for id, r := range s.images {
		if siblings[id] || parents[id] {
			continue // goes with the image of its index, or after its children
		}
		item := words.Item{Kind: words.Image, ID: string(id), Name: s.called(r), Look: s.look(r), Size: r.size}
		if r.doc.Created != nil {
			item.Created = *r.doc.Created
		}
		var group []string
		for _, m := range s.alongWith(r) { // one platform that was used or is off limits keeps them all
			group = append(group, string(m.id))
			if at := s.lastNeeded(m); at.After(item.LastUsed) {
				item.LastUsed = at
			}
			if p := s.keptBy(m, o.Keep); p != "" && item.Why == "" {
				item.Why = "off limits: " + p
			}
		}
		if age := o.Now.Sub(item.LastUsed); age < o.MinAge && item.Why == "" {
			item.Why = "used or fetched less than " + o.MinAge.String() + " ago"
		}
		all = append(all, candidate{item, group})
	}
	s.mu.RUnlock()
	slices.SortFunc(all, func(a, b candidate) int {
		if c := a.item.LastUsed.Compare(b.item.LastUsed); c != 0 {
			return c
		}
		return strings.Compare(a.item.ID, b.item.ID)
	})
	gone := map[digest.Digest]bool{}
	for _, c := range all {
		if c.item.Why == "" {
			for _, image := range c.group {
				if users := s.usedBy(image); len(users) > 0 {
					c.item.Why = fmt.Sprintf("used by container %s", id.Short(users[0].ContainerID))
					break
				}
			}
		}
		if c.item.Why == "" && o.Free >= 0 && plan.Reclaimable >= o.Free {
			c.item.Why = "enough is free without it"
		}
		if c.item.Why != "" {
			plan.Spare = append(plan.Spare, c.item)
			continue
		}
		for _, image := range c.group {
			gone[digest.Digest(image)] = true
		}
		c.item.Drops = c.group
		c.item.Why = "least recently used"
		plan.Remove = append(plan.Remove, c.item)
		s.mu.RLock()
		plan.Reclaimable = s.freedBy(gone)
		s.mu.RUnlock()
	}
	return plan
}

// ApplyCollect removes the images of a plan that still look as they did and that nothing uses, for good: it is done to have room. Events
// of it have the attribute reason=gc.
func (s *Store) ApplyCollect(ctx context.Context, plan *words.Plan) PruneReport {
	planned := dropped(plan)
	return s.removeItems(ctx, plan, "gc", func(item words.Item) ([]Removed, error) {
		return s.Remove(ctx, item.ID, RemoveOptions{ForGood: true, Reason: "gc", allNames: true, planned: planned})
	})
}

// alongWith gives the images that go when one goes with all its names: itself, and those that no name stands for then. mu is held.
func (s *Store) alongWith(r *record) []*record {
	own := s.byID[r.id]
	var roots []digest.Digest
	for _, n := range own {
		roots = append(roots, s.names[n].Root)
	}
	if o := r.newest(); o != nil && len(own) == 0 {
		roots = append(roots, o.root().Digest)
	}
	list := []*record{r}
	for _, root := range roots {
		for _, m := range s.members(root) {
			kept := slices.ContainsFunc(s.namesOf(m), func(n ref.Ref) bool { return !slices.Contains(own, n) })
			if !kept && !s.parents()[m.id] {
				list = union(list, []*record{m})
			}
		}
	}
	return list
}

// lastNeeded is when an image was last used or got a name; mu is held.
func (s *Store) lastNeeded(r *record) time.Time {
	used := s.used.at(r.id)
	if r.Tagged.After(used) {
		used = r.Tagged
	}
	if used.IsZero() && r.doc.Created != nil {
		return *r.doc.Created
	}
	return used
}

// called is what people call an image; mu is held.
func (s *Store) called(r *record) string {
	for _, n := range s.namesOf(r) {
		return n.Familiar()
	}
	return id.Short(string(r.id))
}

// keptBy gives the pattern that makes an image off limits; mu is held.
func (s *Store) keptBy(r *record, patterns []string) string {
	for _, p := range patterns {
		if rest, ok := strings.CutPrefix(p, "label="); ok {
			key, want, valued := strings.Cut(rest, "=")
			if got, there := r.doc.Config.Labels[key]; there && (!valued || got == want) {
				return p
			}
			continue
		}
		if string(r.id) == p || len(p) >= id.ShortLen && strings.HasPrefix(strings.TrimPrefix(string(r.id), "sha256:"), strings.TrimPrefix(p, "sha256:")) {
			return p
		}
		for _, n := range s.namesOf(r) {
			if ok, err := n.Match(p); err == nil && ok {
				return p
			}
			if n.Digest != "" && string(n.Digest) == p {
				return p
			}
		}
	}
	return ""
}

// Settle waits until what was deleted so far is off the disk.
func (s *Store) Settle(ctx context.Context) error { return s.layers.WaitTrash(ctx) }
