package server

import (
	"context"
	"net/http"
	"time"

	"berth/base/fault"
	"berth/base/removal"
	"berth/image"
	"berth/image/gc"
)

// Trash is what was removed and can be restored.
type Trash interface {
	List() []removal.Trashed
	// Restore brings back an entry, found by id or name, and what went with it: the one asked for is the first of the answer.
	Restore(ctx context.Context, ref string) ([]removal.Restored, error)
	// Empty deletes one entry for good, or with "" all.
	Empty(ctx context.Context, ref string) (removal.Outcome, error)
}

// Collector deletes images that nobody uses when the disk is too full.
type Collector interface {
	Plan(now bool) (*gc.Plan, error)
	Apply(ctx context.Context, plan *removal.Plan) removal.Outcome
}

func needTrash(h handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Trash == nil {
			return fault.New(fault.NotImplemented, "there is no trash in this build of Berth")
		}
		return h(s, c)
	}
}

func needCollector(h handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Collector == nil {
			return fault.New(fault.NotImplemented, "there is no collection of images in this build of Berth")
		}
		return h(s, c)
	}
}

// trashList is the answer to GET /berth/v1/trash.
type trashAnswer struct {
	Window string            `json:"window"` // how long what is removed now stays; "" while it is deleted at once
	Items  []removal.Trashed `json:"items"`
	Size   int64             `json:"size"` // bytes
}

func trashList(s *Server, c *call) error {
	return c.json(http.StatusOK, s.trashAnswer())
}

func (s *Server) trashAnswer() trashAnswer {
	out := trashAnswer{Items: s.cfg.Trash.List()}
	if w := s.trashWindow(); w > 0 {
		out.Window = w.String()
	}
	for _, i := range out.Items {
		out.Size += max(0, i.Size)
	}
	return out
}

func (s *Server) trashWindow() time.Duration {
	if s.cfg.TrashWindow == nil {
		return 0
	}
	return s.cfg.TrashWindow()
}

func trashRestore(s *Server, c *call) error {
	all, err := s.cfg.Trash.Restore(c.ctx(), c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, struct {
		Restored []removal.Restored `json:"restored"`
	}{all})
}

func trashEmpty(s *Server, c *call) error {
	out, err := s.cfg.Trash.Empty(c.ctx(), c.name)
	if err != nil {
		return err
	}
	out.Removed, out.Skipped = nonNil(out.Removed), nonNil(out.Skipped)
	return c.json(http.StatusOK, out)
}

// collectPlan is the answer to GET /berth/v1/images/gc.
type collectPlan struct {
	*removal.Plan
	Due  bool    `json:"due"`  // the disk is fuller than the high watermark
	High string  `json:"high"` // the watermarks in words; "off"
	Low  string  `json:"low"`
	Used float64 `json:"used"` // of the disk, percent
	Free int64   `json:"free"` // bytes
	Disk string  `json:"disk"` // both in words
}

func imageCollectPlan(s *Server, c *call) error {
	p, err := s.cfg.Collector.Plan(c.flag("now"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, collectPlan{
		Plan: p.Plan, Due: p.Due, High: p.High.String(), Low: p.Low.String(), Used: p.Disk.Used(), Free: p.Disk.Free, Disk: p.State(),
	})
}

func imageCollect(s *Server, c *call) error {
	var plan collectPlan // what GET gave, whole
	if err := c.strict(&plan); err != nil {
		return err
	}
	if plan.Plan == nil || plan.Version != removal.Version {
		return fault.New(fault.Invalid, "that is no plan of this engine")
	}
	for _, i := range plan.Remove {
		if i.Kind != removal.Image || i.ID == "" || i.Look == "" {
			return fault.New(fault.Invalid, "only a plan of images that the engine made can be applied")
		}
	}
	out := s.cfg.Collector.Apply(c.ctx(), plan.Plan)
	out.Removed, out.Skipped = nonNil(out.Removed), nonNil(out.Skipped)
	return c.json(http.StatusOK, out)
}

// imageUse is an image with what Docker does not tell of it.
type imageUse struct {
	ID         string    `json:"id"`
	RepoTags   []string  `json:"repoTags"`
	Size       int64     `json:"size"` // bytes
	Created    time.Time `json:"created,omitzero"`
	Tagged     time.Time `json:"tagged,omitzero"`   // when it got its newest name
	LastUsed   time.Time `json:"lastUsed,omitzero"` // when a container of it was last made or started
	Containers int       `json:"containers"`
}

// imageUses lists images with when they were last used.
func imageUses(s *Server, c *call) error {
	all, err := s.cfg.Images.List(c.ctx(), image.ListOptions{Containers: true})
	if err != nil {
		return err
	}
	out := []imageUse{}
	for _, i := range all {
		out = append(out, imageUse{ID: i.ID, RepoTags: nonNil(i.RepoTags), Size: i.Size, Created: i.Created, Tagged: i.Tagged, LastUsed: i.LastUsed, Containers: i.Containers})
	}
	return c.json(http.StatusOK, struct {
		Images []imageUse `json:"images"`
	}{out})
}
