package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
)

// RemoveOptions say how Remove treats what is in its way.
type RemoveOptions struct {
	Force     bool       // also images that stopped containers use or that have several names
	NoPrune   bool       // keep parents without names
	ForGood   bool       // not into the trash
	Reason    string     // why, told with the events; "" somebody asked
	Platforms []Platform // take only the images for these platforms, and names only where none is left; empty: all

	allNames bool            // by id: several names are no obstacle
	only     digest.Digest   // the reference must be one of this image; "" whichever it is
	planned  map[string]bool // ids of the images that a plan says are gone: no other is deleted; nil: there is no plan
}

// Removed is one line of what Remove did: a name taken, or an image or layer deleted.
type Removed struct {
	Untagged string
	Deleted  string // image id, or a layer's chain id, as Docker tells them
}

// Remove takes a name, and with an image's last one the image and those of other platforms that came with it; an id takes
// the image with all its names. What is in the way is Conflict in Docker's words: children and running containers
// always, stopped containers and further names unless forced.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	h, err := s.resolve(name)
	alone := err == nil && s.standsAlone(name, h)
	s.mu.RUnlock()
	if err != nil {
		if done, found, berr := s.removeBroken(name); found {
			return done, berr
		}
		return nil, err
	}
	if o.only != "" && h.r.id != o.only {
		return nil, fault.New(fault.NotFound, "%s is another image now", name)
	}
	rm := &removal{s: s, o: o}
	if s.cfg.Trash != nil && !o.ForGood {
		rm.window = s.cfg.Trash()
	}
	switch {
	case len(o.Platforms) > 0:
		err = rm.platforms(name, h)
	case alone:
		err = rm.one(h.r)
	case rm.byID(name, h.r):
		err = rm.image(h.r)
	default:
		err = rm.name(name, h.r)
	}
	for _, e := range rm.events {
		if o.Reason != "" {
			e.Attrs = map[string]string{"reason": o.Reason}
		}
		s.emit(e)
	}
	return rm.done, err
}

// removal is one Remove; changing is held.
type removal struct {
	s      *Store
	o      RemoveOptions
	done   []Removed
	events []Event
	window time.Duration // how long what goes can be restored; 0: not at all
	first  digest.Digest // the first image that went
}

// byID reports whether a reference speaks of the image rather than of one of its names: it is none of them.
func (rm *removal) byID(name string, r *record) bool {
	n, err := ref.Parse(name)
	return err != nil || rm.s.names[lookupForm(n)].ID != r.id
}

// name takes one name of an image.
func (rm *removal) name(text string, r *record) error {
	n, err := ref.Parse(text)
	if err != nil {
		return err
	}
	n = lookupForm(n)
	names := rm.s.namesOf(r)
	if user, used := rm.used(r, n); !rm.o.Force && oneName(names) && user != "" {
		return fault.New(fault.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			text, id.Short(user), id.Short(string(used)))
	}
	// With the last tag of a repository go its digests: nobody asked for them by name.
	taken := []ref.Ref{n}
	left := len(names) - 1
	if n.Digest == "" && !hasTagBeside(names, n) {
		for _, other := range names {
			if other.Digest != "" && other.Repository() == n.Repository() {
				taken = append(taken, other)
				left--
			}
		}
	}
	group := rm.group(taken)
	if left > 0 {
		if err := rm.untag(r, taken); err != nil {
			return err
		}
		return rm.nameless(group)
	}
	// That was the last name: the image goes with it, unless something needs it.
	if c := rm.conflict(r, !rm.o.Force, false); c != nil {
		if err := rm.untag(r, taken); err != nil {
			return err
		}
		if err := rm.nameless(group); err != nil {
			return err
		}
		if c.used || len(rm.s.children(r.id)) > 0 {
			return nil
		}
		return c.err(r)
	}
	if err := rm.delete(r, taken); err != nil {
		return err
	}
	return rm.nameless(group)
}

// used tells a container that uses an image, or one of another platform that would be without a name too.
func (rm *removal) used(r *record, n ref.Ref) (container string, image digest.Digest) {
	group := []*record{r}
	for _, m := range rm.group([]ref.Ref{n}) {
		if len(rm.s.byID[m.id]) == 0 {
			group = union(group, []*record{m})
		}
	}
	for _, m := range group {
		if uses := rm.s.usedBy(string(m.id)); len(uses) > 0 {
			return uses[0].ContainerID, m.id
		}
	}
	return "", ""
}

// image removes an image by its id, and those that stand under it.
func (rm *removal) image(r *record) error {
	names := rm.s.byID[r.id]
	if oneName(names) || len(names) == 0 {
		if c := rm.conflict(r, !rm.o.Force, false); c != nil {
			return c.err(r)
		}
	} else if c := rm.conflict(r, !rm.o.Force, !rm.o.Force && !rm.o.allNames); c != nil {
		return c.err(r)
	}
	group := rm.group(names)
	if o := r.newest(); o != nil && len(names) == 0 {
		rm.s.mu.RLock()
		group = rm.s.members(o.root().Digest)
		rm.s.mu.RUnlock()
	}
	if err := rm.delete(r, names); err != nil {
		return err
	}
	return rm.nameless(group)
}

// one removes an image that stands under another: the names stay with that.
func (rm *removal) one(r *record) error {
	if c := rm.conflict(r, !rm.o.Force, false); c != nil {
		return c.err(r)
	}
	return rm.delete(r, nil)
}

// platforms removes an image for some platforms only.
func (rm *removal) platforms(name string, h hit) error {
	var victims []*record
	for i := range rm.o.Platforms {
		rm.s.mu.RLock()
		v, err := rm.s.resolvePlatform(name, &rm.o.Platforms[i])
		rm.s.mu.RUnlock()
		if err != nil {
			return err
		}
		victims = union(victims, []*record{v.r})
	}
	for _, r := range victims {
		if c := rm.conflict(r, !rm.o.Force, false); c != nil {
			return c.err(r)
		}
	}
	for _, r := range victims {
		if err := rm.platform(r); err != nil {
			return err
		}
	}
	return nil
}

// platform removes one image; its names go on standing for what else is here of their index.
func (rm *removal) platform(r *record) error {
	var lost []ref.Ref
	moved := map[ref.Ref]target{}
	rm.s.mu.RLock()
	for _, n := range rm.s.byID[r.id] {
		t := rm.s.names[n]
		var rest *record
		host := wantPlatform(nil).match
		for _, m := range rm.s.members(t.Root) {
			if m != r && (rest == nil || host.Less(m.doc.platform().oci(), rest.doc.platform().oci())) {
				rest = m
			}
		}
		if rest == nil {
			lost = append(lost, n)
			continue
		}
		moved[n] = target{ID: rest.id, Root: t.Root}
	}
	rm.s.mu.RUnlock()
	if len(moved) > 0 {
		c := newChange()
		c.set = moved
		if err := rm.s.apply(c); err != nil {
			return err
		}
	}
	return rm.delete(r, lost)
}

// group is the images that names stand for. Not all have to be without names once these are taken.
func (rm *removal) group(names []ref.Ref) (list []*record) {
	rm.s.mu.RLock()
	defer rm.s.mu.RUnlock()
	for _, n := range names {
		list = union(list, rm.s.members(rm.s.names[n].Root))
	}
	return list
}

// nameless deletes those of a group that have no name any more and that nothing needs.
func (rm *removal) nameless(group []*record) error {
	for _, r := range group {
		r = rm.s.images[r.id]
		if r == nil || len(rm.s.namesOf(r)) > 0 || rm.conflict(r, true, true) != nil {
			continue
		}
		if err := rm.delete(r, nil); err != nil {
			return err
		}
	}
	return nil
}

// oneName reports whether an image has just one tag, and digests of no other repository.
func oneName(names []ref.Ref) bool {
	if len(names) <= 1 {
		return len(names) == 1
	}
	tags := 0
	for _, n := range names {
		if n.Digest == "" {
			tags++
		}
		if n.Repository() != names[0].Repository() {
			return false
		}
	}
	return tags <= 1
}

func hasTagBeside(names []ref.Ref, n ref.Ref) bool {
	for _, other := range names {
		if other != n && other.Digest == "" && other.Repository() == n.Repository() {
			return true
		}
	}
	return false
}

// conflict is why an image cannot be deleted.
type conflict struct {
	hard bool
	used bool // by a container
	why  string
}

func (c *conflict) err(r *record) error {
	force := "must be forced"
	if c.hard {
		force = "cannot be forced"
	}
	return fault.New(fault.Conflict, "conflict: unable to delete %s (%s) - %s", id.Short(string(r.id)), force, c.why)
}

// conflict looks for what needs an image: children and running containers always, stopped containers and names when asked.
func (rm *removal) conflict(r *record, stopped, names bool) *conflict {
	if len(rm.s.children(r.id)) > 0 {
		return &conflict{hard: true, why: "image has dependent child images"}
	}
	uses := rm.s.usedBy(string(r.id))
	for _, u := range uses {
		if u.Running {
			return &conflict{hard: true, used: true, why: "image is being used by running container " + id.Short(u.ContainerID)}
		}
	}
	if names && len(rm.s.byID[r.id]) > 0 {
		return &conflict{why: "image is referenced in multiple repositories"}
	}
	if stopped && len(uses) > 0 {
		return &conflict{used: true, why: "image is being used by stopped container " + id.Short(uses[0].ContainerID)}
	}
	return nil
}

// untag takes names from an image that stays.
func (rm *removal) untag(r *record, names []ref.Ref) error {
	c := newChange()
	c.drop = names
	if err := rm.s.apply(c); err != nil {
		return err
	}
	rm.tellUntagged(r, names)
	return nil
}

func (rm *removal) tellUntagged(r *record, names []ref.Ref) {
	for _, n := range names {
		rm.done = append(rm.done, Removed{Untagged: n.Familiar()})
		rm.events = append(rm.events, Event{Action: "untag", ID: string(r.id), Name: string(r.id)})
	}
}

// delete deletes an image with its names, then its parent if nothing else needs that.
func (rm *removal) delete(r *record, names []ref.Ref) error {
	s := rm.s
	if r = s.images[r.id]; r == nil { // as it is now: what this removal has done before may have changed it
		return nil
	}
	if rm.o.planned != nil && !rm.o.planned[string(r.id)] {
		if len(names) == 0 {
			return nil
		}
		return rm.untag(r, names)
	}
	if err := failpoint.Hit("image/before-delete"); err != nil {
		return err
	}
	c := newChange()
	c.drop = names
	c.gone[r.id] = r
	gone := s.goneChains(r)
	if rm.window > 0 {
		c.trash = map[digest.Digest]*trashed{r.id: rm.trashed(r, names)}
		gone = nil // nothing is deleted yet
	}
	if rm.first == "" {
		rm.first = r.id
	}
	if err := s.apply(c); err != nil {
		return err
	}
	rm.tellUntagged(r, names)
	rm.done = append(rm.done, Removed{Deleted: string(r.id)})
	for _, c := range gone {
		rm.done = append(rm.done, Removed{Deleted: string(c)})
	}
	rm.events = append(rm.events, Event{Action: "delete", ID: string(r.id), Name: string(r.id)})
	if rm.o.NoPrune || r.Parent == "" {
		return nil
	}
	parent := s.images[r.Parent]
	if parent == nil || len(s.byID[parent.id]) > 0 || rm.conflict(parent, true, true) != nil {
		return nil
	}
	return rm.delete(parent, nil)
}

// goneChains gives the chain ids that no image will have without this one, the topmost first. changing is held, so that the
// map stays as it is. Chains that containers keep are not gone.
func (s *Store) goneChains(r *record) (gone []digest.Digest) {
	kept := map[digest.Digest]bool{}
	keep := func(diffIDs []digest.Digest) {
		for _, c := range chainIDs(diffIDs) {
			kept[c] = true
		}
	}
	for _, other := range s.images {
		if other.id == r.id {
			continue
		}
		keep(other.doc.RootFS.DiffIDs)
	}
	for _, u := range s.layers.Containers() {
		if chain, _, err := s.layers.Chain(u); err == nil {
			keep(chain)
		}
	}
	chains := chainIDs(r.doc.RootFS.DiffIDs)
	for i := len(chains) - 1; i >= 0; i-- {
		if kept[chains[i]] {
			break
		}
		gone = append(gone, chains[i])
	}
	return gone
}

// chainIDs gives the id of each beginning of a chain, as the OCI image spec computes it.
func chainIDs(diffIDs []digest.Digest) []digest.Digest {
	list := make([]digest.Digest, len(diffIDs))
	for i, d := range diffIDs {
		if i == 0 {
			list[i] = d
			continue
		}
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %s", list[i-1], d))
		list[i] = digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(sum[:]))
	}
	return list
}
