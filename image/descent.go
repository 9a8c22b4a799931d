package image

import (
	"slices"

	"github.com/opencontainers/go-digest"
)

// Descendants gives the ids of the images that were made from one: committed or loaded with it as their parent, or with layers and a history
// that begin with all of its and go on, as those of what is built on it do. An image without layers has only those of which it is the parent.
func (s *Store) Descendants(id digest.Digest) (list []digest.Digest) {
	s.mu.RLock()
	from := s.images[id]
	var built []*record
	for other, r := range s.images {
		switch {
		case from == nil || other == id:
		case s.hasParent(r, id):
			list = append(list, other)
		case len(from.Layers) > 0 && len(r.Layers) >= len(from.Layers) && slices.Equal(from.Layers, r.Layers[:len(from.Layers)]):
			built = append(built, r)
		}
	}
	s.mu.RUnlock()
	if len(built) > 0 {
		mine, err := s.history(id)
		for _, r := range built {
			its, other := s.history(r.id)
			if err == nil && other == nil && goesOn(mine, its, len(r.Layers) > len(from.Layers)) {
				list = append(list, r.id)
			}
		}
	}
	slices.Sort(list)
	return list
}

// hasParent reports whether id is among an image's parents; mu is held.
func (s *Store) hasParent(r *record, id digest.Digest) bool {
	for range len(s.images) { // what archives claim may go round in circles
		if r == nil || r.Parent == "" {
			return false
		}
		if r.Parent == id {
			return true
		}
		r = s.images[r.Parent]
	}
	return false
}

// goesOn reports whether a history begins with all of another one and, unless the layers do already, goes on.
func goesOn(begin, all []HistoryLine, longer bool) bool {
	if len(all) < len(begin) || len(all) == len(begin) && !longer {
		return false
	}
	return slices.EqualFunc(begin, all[:len(begin)], HistoryLine.same)
}

func (l HistoryLine) same(o HistoryLine) bool {
	if (l.Created == nil) != (o.Created == nil) || l.Created != nil && !l.Created.Equal(*o.Created) {
		return false
	}
	return l.CreatedBy == o.CreatedBy && l.EmptyLayer == o.EmptyLayer && l.Comment == o.Comment
}
