package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
)

// RemoveOptions say how Remove treats what is in its way.
type RemoveOptions struct {
	Force   bool // also images that stopped containers use or that have several names
	NoPrune bool // keep parents without names
}

// Removed is one line of what Remove did: a name taken, or an image or layer deleted.
type Removed struct {
	Untagged string
	Deleted  string // image id, or a layer's chain id, as Docker tells them
}

// Remove takes a name, and with an image's last one the image; an id takes the image with all its names. What is in the way
// is Conflict in Docker's words: children and running containers always, stopped containers and further names
// unless forced.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]Removed, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s.mu.RLock()
	r, err := s.resolve(name)
	s.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	rm := &removal{s: s, o: o}
	if rm.byID(name, r) {
		err = rm.image(r)
	} else {
		err = rm.name(name, r)
	}
	for _, e := range rm.events {
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
}

// byID reports whether a reference speaks of the image rather than of one of its names: it is none of them.
func (rm *removal) byID(name string, r *record) bool {
	n, err := ref.Parse(name)
	return err != nil || rm.s.names[lookupForm(n)] != r.id
}

// name takes one name of an image.
func (rm *removal) name(text string, r *record) error {
	n, err := ref.Parse(text)
	if err != nil {
		return err
	}
	n = lookupForm(n)
	names := rm.s.byID[r.id]
	if uses := rm.s.usedBy(string(r.id)); !rm.o.Force && oneName(names) && len(uses) > 0 {
		return fault.New(fault.Conflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s",
			text, id.Short(uses[0].ContainerID), id.Short(string(r.id)))
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
	if left > 0 {
		return rm.untag(r, taken)
	}
	// That was the last name: the image goes with it, unless something needs it.
	if c := rm.conflict(r, !rm.o.Force, false); c != nil {
		if err := rm.untag(r, taken); err != nil {
			return err
		}
		if c.used || len(rm.s.children(r.id)) > 0 {
			return nil
		}
		return c.err(r)
	}
	return rm.delete(r, taken)
}

// image removes an image by its id.
func (rm *removal) image(r *record) error {
	names := rm.s.byID[r.id]
	if oneName(names) || len(names) == 0 {
		if c := rm.conflict(r, !rm.o.Force, false); c != nil {
			return c.err(r)
		}
	} else if c := rm.conflict(r, !rm.o.Force, !rm.o.Force); c != nil {
		return c.err(r)
	}
	return rm.delete(r, names)
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
	err := rm.s.db.Update(func(tx *bolt.Tx) error {
		for _, n := range names {
			if err := deleteName(tx, n); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fault.In(err, "write image database")
	}
	rm.s.mu.Lock()
	for _, n := range names {
		rm.s.dropName(n)
	}
	rm.s.mu.Unlock()
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
	if err := failpoint.Hit("image/before-delete"); err != nil {
		return err
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, n := range names {
			if err := deleteName(tx, n); err != nil {
				return err
			}
		}
		return deleteImage(tx, r.id)
	})
	if err != nil {
		return fault.In(err, "write image database")
	}
	s.mu.Lock()
	for _, n := range names {
		s.dropName(n)
	}
	delete(s.images, r.id)
	s.mu.Unlock()
	gone := s.goneChains(r)
	s.release(r)
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

// goneChains gives the chain ids that no image has any more, the topmost first. The image is out of the map already, and
// changing is held, so the map stays as it is. Chains that containers keep are not gone.
func (s *Store) goneChains(r *record) (gone []digest.Digest) {
	kept := map[digest.Digest]bool{}
	keep := func(diffIDs []digest.Digest) {
		for _, c := range chainIDs(diffIDs) {
			kept[c] = true
		}
	}
	for _, other := range s.images {
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
