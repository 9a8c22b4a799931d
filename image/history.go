package image

import (
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// Step is one line of an image's history, the newest first.
type Step struct {
	ID        string // of the image that the step made, "<missing>" where there is none
	Created   time.Time
	CreatedBy string
	Tags      []string
	Size      int64
	Comment   string
}

// History tells how an image was made.
func (s *Store) History(name string) ([]Step, error) { return s.HistoryFor(name, nil) }

// HistoryFor is History of the image for a platform; nil is the one that Resolve gives.
func (s *Store) HistoryFor(name string, p *Platform) ([]Step, error) {
	img, err := s.ResolvePlatform(name, p)
	if err != nil {
		return nil, err
	}
	lines, err := s.history(digest.Digest(img.ID))
	if err != nil {
		return nil, err
	}
	steps := make([]Step, 0, len(lines))
	next := 0
	for _, l := range lines {
		st := Step{ID: "<missing>", CreatedBy: l.CreatedBy, Comment: l.Comment, Tags: nil}
		if l.Created != nil {
			st.Created = *l.Created
		}
		if !l.EmptyLayer {
			if next >= len(img.Layers) {
				return nil, fault.New(fault.Internal, "too many non-empty layers in History section")
			}
			info, err := s.layers.Stat(img.Layers[next])
			if err != nil {
				return nil, err
			}
			st.Size = info.Size
			next++
		}
		steps = append([]Step{st}, steps...)
	}
	s.nameSteps(steps, digest.Digest(img.ID))
	return steps, nil
}

// nameSteps gives the steps that are images of their own their ids and tags: the image itself and its parents.
func (s *Store) nameSteps(steps []Step, id digest.Digest) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for i := range steps {
		r := s.images[id]
		if r == nil {
			return
		}
		steps[i].ID = string(id)
		steps[i].Tags = s.snapshot(r, "").RepoTags
		if id = r.Parent; id == "" {
			return
		}
	}
}

func (s *Store) history(id digest.Digest) ([]HistoryLine, error) {
	raw, err := s.blobs.Read(id, maxDocument)
	if err != nil {
		return nil, err
	}
	doc, err := ParseDocument(raw)
	if err != nil {
		return nil, err
	}
	return doc.History, nil
}
