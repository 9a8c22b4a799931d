package image

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/base/ref"
	words "berth/base/removal"
)

// Images in the trash have left the images and names of the database for a bucket of their own, in one transaction; they go on holding
// their layers and documents. Restoring is the same way back, deleting gives the holds up.

// trashed is an image in the trash, as the database has it.
type trashed struct {
	Version int               `json:"version"`
	Image   stored            `json:"image"`
	Names   map[string]target `json:"names,omitempty"` // that went with it
	With    digest.Digest     `json:"with,omitempty"`  // the image whose removal took this one along
	Removed time.Time         `json:"removed"`
	Expires time.Time         `json:"expires"`

	record *record
}

const trashVersion = 1

// trashed describes what of an image goes into the trash.
func (rm *removal) trashed(r *record, names []ref.Ref) *trashed {
	now := time.Now().UTC()
	t := &trashed{Version: trashVersion, Image: r.stored, Names: map[string]target{}, With: rm.first, Removed: now, Expires: now.Add(rm.window)}
	for _, n := range names {
		t.Names[n.String()] = rm.s.names[n]
	}
	return t
}

func putTrashed(tx *bolt.Tx, id digest.Digest, t *trashed) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return tx.Bucket(bucketTrash).Put([]byte(id), b)
}

// readTrash brings the trash into memory and holds what is in it. An entry that is damaged cannot be restored: it stays in the database,
// and its content goes.
func (s *Store) readTrash() error {
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketTrash).ForEach(func(k, v []byte) error {
			id := digest.Digest(k)
			t := &trashed{}
			err := json.Unmarshal(v, t)
			if err == nil && t.Version != trashVersion {
				err = fault.New(fault.Invalid, "format %d is not known", t.Version)
			}
			if err == nil {
				t.record, err = s.readRecord(id, t.Image)
			}
			if err != nil {
				s.log.Error("an image in the trash cannot be restored", "image", id, "err", err)
				return nil
			}
			s.trashed[id] = t
			return nil
		})
	})
}

// throwAway forgets an entry and gives up what it holds. changing is held, and the database has it no longer.
func (s *Store) throwAway(id digest.Digest) {
	t := s.trashed[id]
	if t == nil {
		return
	}
	delete(s.trashed, id)
	s.forgetSources(s.release(t.record))
}

// Trashed lists the images in the trash, the latest first.
func (s *Store) Trashed() []words.Trashed {
	s.changing.Lock()
	defer s.changing.Unlock()
	list := []words.Trashed{}
	for id, t := range s.trashed {
		list = append(list, s.describeTrashed(id, t))
	}
	slices.SortFunc(list, func(a, b words.Trashed) int { return cmp.Or(b.Removed.Compare(a.Removed), cmp.Compare(a.ID, b.ID)) })
	return list
}

func (s *Store) describeTrashed(id digest.Digest, t *trashed) words.Trashed {
	d := words.Trashed{ID: string(id), Kind: words.Image, Of: string(id), Removed: t.Removed, Expires: t.Expires}
	if t.With != id {
		d.With = string(t.With)
	}
	for text := range t.Names {
		if n, err := ref.Parse(text); err == nil {
			d.Names = append(d.Names, n.Familiar())
		}
	}
	slices.Sort(d.Names)
	if len(d.Names) > 0 {
		d.Name = d.Names[0]
	}
	// What would be free without it: the layers that it alone holds.
	for _, diff := range t.record.doc.RootFS.DiffIDs {
		if s.layers.Holds(diff) > 1 {
			continue
		}
		if info, err := s.layers.Stat(diff); err == nil {
			d.Size += info.Size
		}
	}
	return d
}

// RestoreTrashed brings an image back, with those that went with it. Names that others have by now get "-restored" behind their tag.
func (s *Store) RestoreTrashed(ctx context.Context, id string) (words.Restored, error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	main := digest.Digest(id)
	t := s.trashed[main]
	if t == nil {
		return words.Restored{}, fault.New(fault.NotFound, "no image %s in the trash", id)
	}
	if err := ctx.Err(); err != nil {
		return words.Restored{}, err
	}
	out := words.Restored{Trashed: s.describeTrashed(main, t), Now: []string{}}
	all := []digest.Digest{main}
	for other, o := range s.trashed {
		if other != main && o.With == main {
			all = append(all, other)
		}
	}
	names, notes := s.namesBack(all)
	out.Notes = notes
	if err := failpoint.Hit("image/before-restore"); err != nil {
		return out, err
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, id := range all {
			if err := tx.Bucket(bucketTrash).Delete([]byte(id)); err != nil {
				return err
			}
			if s.images[id] == nil {
				if err := putImage(tx, s.trashed[id].record); err != nil {
					return err
				}
			}
		}
		for n, t := range names {
			if err := putName(tx, n, t); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return out, fault.In(err, "write image database")
	}
	var twice []*record // came anew meanwhile
	s.mu.Lock()
	s.changed()
	for _, id := range all {
		t := s.trashed[id]
		delete(s.trashed, id)
		if s.images[id] != nil {
			twice = append(twice, t.record)
			continue
		}
		s.images[id] = t.record
	}
	for n, t := range names {
		s.setName(n, t)
		out.Now = append(out.Now, n.Familiar())
	}
	s.mu.Unlock()
	for _, id := range all {
		if r := s.images[id]; r != nil {
			for _, o := range r.Origins {
				if o.Index != nil {
					s.mu.Lock()
					s.knowIndex(*o.Index)
					s.mu.Unlock()
				}
			}
		}
	}
	s.settle()
	for _, r := range twice {
		s.release(r)
	}
	slices.Sort(out.Now)
	for _, n := range out.Now {
		s.emit(Event{Action: "tag", ID: id, Name: n})
	}
	s.emit(Event{Action: "restore", ID: id, Name: id})
	return out, nil
}

// namesBack gives the names that images in the trash get again. mu need not be held: changing is.
func (s *Store) namesBack(ids []digest.Digest) (names map[ref.Ref]target, notes []string) {
	names = map[ref.Ref]target{}
	for _, id := range ids {
		for text, t := range s.trashed[id].Names {
			n, err := ref.Parse(text)
			if err != nil {
				continue
			}
			now, taken := s.names[n]
			switch {
			case taken && now.ID == t.ID:
				continue // it came anew
			case taken && n.Digest != "":
				continue // the same content by another way
			case taken:
				free, ok := s.freeTag(n)
				if !ok {
					notes = append(notes, n.Familiar()+" belongs to another image now")
					continue
				}
				notes = append(notes, n.Familiar()+" belongs to another image now: restored as "+free.Familiar())
				n = free
			}
			names[n] = t
		}
	}
	slices.Sort(notes)
	return names, notes
}

func (s *Store) freeTag(n ref.Ref) (ref.Ref, bool) {
	for i := range 100 {
		suffix := "-restored"
		if i > 0 {
			suffix += "-" + string(rune('0'+i/10)) + string(rune('0'+i%10))
		}
		free, err := n.WithTag(n.Tag + suffix)
		if err != nil {
			return n, false
		}
		if _, taken := s.names[free]; !taken {
			return free, true
		}
	}
	return n, false
}

// DeleteTrashed deletes an image that is in the trash, for good, and tells how many bytes of layers went.
func (s *Store) DeleteTrashed(_ context.Context, id string) (freed int64, err error) {
	s.changing.Lock()
	defer s.changing.Unlock()
	d := digest.Digest(id)
	t := s.trashed[d]
	if t == nil {
		return 0, fault.New(fault.NotFound, "no image %s in the trash", id)
	}
	freed = s.describeTrashed(d, t).Size
	if err := failpoint.Hit("image/before-empty"); err != nil {
		return 0, err
	}
	err = s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketTrash).Delete([]byte(id)) })
	if err != nil {
		return 0, fault.In(err, "write image database")
	}
	s.throwAway(d)
	return freed, nil
}
