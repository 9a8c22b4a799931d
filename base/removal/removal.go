package removal

import (
	"cmp"
	"slices"
	"time"
)

// Version of the plans that this package knows.
const Version = 1

// The kinds of things that are removed.
const (
	Container = "container"
	Image     = "image"
	Network   = "network"
	Volume    = "volume"
)

// Item is one thing in a plan.
type Item struct {
	Kind     string    `json:"kind"`
	ID       string    `json:"id"`             // the container, image or network; of volumes the name
	Name     string    `json:"name"`           // as people write it; of an image the reference that goes
	Look     string    `json:"look,omitempty"` // what it looked like: only what still looks like that is removed
	Size     int64     `json:"size"`           // bytes; -1 unknown
	Created  time.Time `json:"created,omitzero"`
	LastUsed time.Time `json:"lastUsed,omitzero"`
	Why      string    `json:"why,omitempty"`    // it goes, stays, or was skipped
	Drops    []string  `json:"drops,omitempty"`  // ids of the images that are gone with this reference
	Layers   []string  `json:"layers,omitempty"` // what an outcome tells as deleted beside it, in Docker's words
}

// Plan is what a removal would do.
type Plan struct {
	Version     int       `json:"version"`
	Made        time.Time `json:"made,omitzero"`
	Remove      []Item    `json:"remove"`
	Spare       []Item    `json:"spare"` // looked at and left, for a reason that a person may want to know
	Reclaimable int64     `json:"reclaimable"`
}

// Outcome is what was done of a plan.
type Outcome struct {
	Removed   []Item `json:"removed"`
	Skipped   []Item `json:"skipped"` // with Why
	Reclaimed int64  `json:"reclaimed"`
	Trashed   bool   `json:"trashed,omitempty"` // it can be restored
}

// Trashed is something that was removed and can be restored.
type Trashed struct {
	ID      string    `json:"id"`   // of the entry in the trash
	Kind    string    `json:"kind"` // Container, Image or Volume
	Name    string    `json:"name"` // that it had
	Names   []string  `json:"names,omitempty"`
	Of      string    `json:"of,omitempty"`   // what it was: the container's or image's id
	With    string    `json:"with,omitempty"` // the container that it was removed with
	Size    int64     `json:"size"`           // bytes; -1 unknown
	Removed time.Time `json:"removed"`
	Expires time.Time `json:"expires"`
}

// Restored says what became of a Trashed.
type Restored struct {
	Trashed
	Now   []string `json:"now"`             // the names that it has now
	Notes []string `json:"notes,omitempty"` // what is not as it was
}

// NewPlan begins a plan.
func NewPlan(now time.Time) *Plan {
	return &Plan{Version: Version, Made: now.UTC(), Remove: []Item{}, Spare: []Item{}}
}

// Done notes that an item was removed.
func (o *Outcome) Done(i Item) {
	o.Removed = append(o.Removed, i)
	o.Reclaimed += max(0, i.Size)
}

// Skip notes that an item was left, and why.
func (o *Outcome) Skip(i Item, why string) {
	i.Why = why
	o.Skipped = append(o.Skipped, i)
}

// Merge adds another outcome.
func (o *Outcome) Merge(other Outcome) {
	o.Removed = append(o.Removed, other.Removed...)
	o.Skipped = append(o.Skipped, other.Skipped...)
	o.Reclaimed += other.Reclaimed
	o.Trashed = o.Trashed || other.Trashed
}

// Of gives the items of one kind.
func Of(items []Item, kind string) (list []Item) {
	for _, i := range items {
		if i.Kind == kind {
			list = append(list, i)
		}
	}
	return list
}

// Sort orders items by name.
func Sort(items []Item) {
	slices.SortStableFunc(items, func(a, b Item) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID)) })
}
