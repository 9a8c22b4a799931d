package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"

	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
)

// Images is what the door asks of the image store, in the parts that its files use.
type Images interface {
	shelves
	transfers
}

// shelves are the verbs on images that are here.
type shelves interface {
	Resolve(name string) (*image.Image, error)
	ResolvePlatform(name string, p *image.Platform) (*image.Image, error)
	Manifests(name string) ([]image.Manifest, error)
	OpenBlob(ctx context.Context, d digest.Digest) (io.ReadCloser, int64, error)
	Sources(diffID digest.Digest) []image.Source
	List(ctx context.Context, o image.ListOptions) ([]image.Summary, error)
	HistoryFor(name string, p *image.Platform) ([]image.Step, error)
	Tag(name, newName string) error
	Remove(ctx context.Context, name string, o image.RemoveOptions) ([]image.Removed, error)
	prunesImages
	Count() int
	DiskUsage(ctx context.Context) (*image.DiskUsage, error)
	checks
}

func (s *Server) countImages() int {
	if s.cfg.Images == nil {
		return 0
	}
	return s.cfg.Images.Count()
}

func imageList(s *Server, c *call) error {
	filters, err := c.filters("dangling", "label", "before", "since", "until", "reference")
	if err != nil {
		return err
	}
	// Before 1.25 a pattern for names had a value of its own.
	if old := c.text("filter"); old != "" && c.v < 25 && len(filters["reference"]) == 0 {
		if filters == nil {
			filters = map[string][]string{}
		}
		filters["reference"] = []string{old}
	}
	if c.flag("identity") && c.v >= 54 && !c.flag("manifests") {
		return fault.New(fault.Invalid, "conflicting options: identity requires manifests=1")
	}
	all, err := s.cfg.Images.List(c.ctx(), image.ListOptions{
		All: c.flag("all"), Filters: filters, SharedSize: c.flag("shared-size") && c.v >= 42, Containers: c.v >= 51,
		Manifests: c.flag("manifests") && c.v >= 47,
	})
	if err != nil {
		return err
	}
	out := make([]any, len(all))
	for i := range all {
		out[i] = wire.ImageSummary(&all[i], c.v)
	}
	return c.json(http.StatusOK, out)
}

func imageInspect(s *Server, c *call) error {
	want, err := c.platform("platform", 49)
	if err != nil {
		return err
	}
	manifests := c.flag("manifests") && c.v >= 48
	if want != nil && manifests {
		return fault.New(fault.Invalid, "conflicting options: manifests and platform options cannot both be set")
	}
	img, err := s.cfg.Images.ResolvePlatform(c.name, stored(want))
	if err != nil {
		return err
	}
	var parts []image.Manifest
	if manifests {
		if parts, err = s.cfg.Images.Manifests(c.name); err != nil {
			return err
		}
	}
	return c.json(http.StatusOK, wire.ImageInspect(img, parts, want != nil, c.v))
}

func imageHistory(s *Server, c *call) error {
	want, err := c.platform("platform", 48)
	if err != nil {
		return err
	}
	steps, err := s.cfg.Images.HistoryFor(c.name, stored(want))
	if err != nil {
		return err
	}
	out := make([]imagetypes.HistoryResponseItem, len(steps))
	for i, st := range steps {
		out[i] = imagetypes.HistoryResponseItem{ID: st.ID, CreatedBy: st.CreatedBy, Tags: st.Tags, Size: st.Size, Comment: st.Comment}
		if !st.Created.IsZero() {
			out[i].Created = st.Created.Unix()
		}
	}
	return c.json(http.StatusOK, out)
}

func imageTag(s *Server, c *call) error {
	name, err := c.reference()
	if err != nil {
		return err
	}
	if name == "" {
		return fault.New(fault.Invalid, "repo: the new name is missing")
	}
	if r, err := ref.Parse(name); err == nil && r.FamiliarName() == "sha256" {
		return fault.New(fault.Invalid, "refusing to create an ambiguous tag using digest algorithm as name")
	}
	if err := s.cfg.Images.Tag(c.name, name); err != nil {
		return err
	}
	return c.done(http.StatusCreated)
}

func imageRemove(s *Server, c *call) error {
	if strings.TrimSpace(c.name) == "" {
		return fault.New(fault.Invalid, "image name cannot be blank")
	}
	o := image.RemoveOptions{Force: c.flag("force"), NoPrune: c.flag("noprune")}
	if c.v >= 50 {
		var err error
		if o.Platforms, err = decodePlatforms(c.q["platforms"]); err != nil {
			return err
		}
	}
	done, err := s.cfg.Images.Remove(c.ctx(), c.name, o)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, deleted(done))
}

func deleted(in []image.Removed) (out []imagetypes.DeleteResponse) {
	for _, r := range in {
		out = append(out, imagetypes.DeleteResponse{Untagged: r.Untagged, Deleted: r.Deleted})
	}
	return out
}

// reference joins the query values repo and tag to a name; "" where no repo is given.
func (c *call) reference() (string, error) {
	repo, tag := c.text("repo"), c.text("tag")
	if repo == "" {
		return "", nil
	}
	r, err := ref.Parse(repo)
	if err != nil {
		return "", err
	}
	if r.Digest != "" {
		return "", fault.New(fault.Invalid, "cannot import digest reference")
	}
	if tag != "" {
		if r, err = r.WithTag(tag); err != nil {
			return "", err
		}
	}
	return r.WithDefaultTag().String(), nil
}

// platform reads a platform in JSON from a query value that API since has; nil where none is asked for. Of several the first counts.
func (c *call) platform(key string, since wire.Version) (*ocispec.Platform, error) {
	if c.v < since || c.text(key) == "" {
		return nil, nil
	}
	return decodePlatform(c.text(key))
}

// platforms reads any number of platforms, of which versions before 1.52 take one.
func (c *call) platforms(key string, since wire.Version) ([]image.Platform, error) {
	if c.v < since {
		return nil, nil
	}
	if c.v < 52 && len(c.q[key]) > 1 {
		return nil, fault.New(fault.Invalid, "multiple platform parameters not supported")
	}
	return decodePlatforms(c.q[key])
}

func decodePlatforms(texts []string) (list []image.Platform, err error) {
	var errs []error
	for _, text := range texts {
		if text == "" {
			continue
		}
		p, err := decodePlatform(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, *stored(p))
	}
	return list, errors.Join(errs...)
}

func decodePlatform(text string) (*ocispec.Platform, error) {
	var p ocispec.Platform
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "failed to parse platform")
	}
	switch {
	case p.OS != "" && p.Architecture != "":
		return &p, nil
	case p.OS == "" && p.Architecture == "" && (p.Variant != "" || p.OSVersion != "" || len(p.OSFeatures) > 0):
		return nil, fault.New(fault.Invalid, "optional platform fields provided, but OS and Architecture are missing")
	}
	return nil, fault.New(fault.Invalid, "both OS and Architecture must be provided")
}
