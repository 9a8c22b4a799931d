package engine

import (
	"context"
	"slices"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/engine/container"
	"berth/image"
	"berth/image/layer"
)

// FromStore lets the engine use the image room. It is the one place where the engine knows how images are described there.
func FromStore(s *image.Store) Images { return storeImages{s} }

type storeImages struct{ s *image.Store }

// Resolve finds an image.
func (i storeImages) Resolve(ref string) (Image, error) {
	img, err := i.s.Resolve(ref)
	if err != nil {
		return Image{}, err
	}
	c := &img.Config.Config
	d := container.ImageDefaults{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, ArgsEscaped: c.ArgsEscaped, WorkingDir: c.WorkingDir, Labels: c.Labels,
		StopSignal: c.StopSignal, Volumes: c.Volumes, OnBuild: c.OnBuild, Shell: c.Shell,
	}
	for p := range c.ExposedPorts {
		d.ExposedPorts = append(d.ExposedPorts, p)
	}
	slices.Sort(d.ExposedPorts)
	if h := c.Healthcheck; h != nil {
		d.Healthcheck = &container.Healthcheck{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return Image{ID: img.ID, Defaults: d, OS: img.Config.OS, Architecture: img.Config.Architecture, Size: img.Size}, nil
}

// Descendants gives the ids of the images that were made from one.
func (i storeImages) Descendants(image string) (ids []string) {
	for _, d := range i.s.Descendants(digest.Digest(image)) {
		ids = append(ids, string(d))
	}
	return ids
}

// CreateLayer makes the container's writable layer.
func (i storeImages) CreateLayer(ctx context.Context, containerID string, img Image) error {
	full, err := i.s.Get(digest.Digest(img.ID))
	if err != nil {
		return err
	}
	_, err = i.s.Layers().Create(ctx, containerID, full.Layers, layer.CreateOptions{ImageID: digest.Digest(img.ID)})
	return err
}

// Layer gives the directories of a container's file system.
func (i storeImages) Layer(containerID string) (Layer, error) {
	m, err := i.s.Layers().Get(containerID)
	return Layer{Lower: m.Lower, Upper: m.Upper, Work: m.Work}, err
}

// RemoveLayer gives the writable layer up.
func (i storeImages) RemoveLayer(containerID string) error {
	if err := i.s.Layers().Remove(containerID); err != nil && !fault.Is(err, fault.NotFound) {
		return err
	}
	return nil
}

// LayerSize measures the writable layer.
func (i storeImages) LayerSize(containerID string) (int64, error) {
	return i.s.Layers().Usage(context.Background(), containerID)
}

// Lower gives the directories of an image.
func (i storeImages) Lower(ref string) ([]string, error) {
	img, err := i.s.Resolve(ref)
	if err != nil {
		return nil, err
	}
	return i.s.Layers().Lower(img.Layers)
}

// Changes compares a container with its image.
func (i storeImages) Changes(ctx context.Context, containerID string) ([]layer.Change, error) {
	return i.s.Layers().Changes(ctx, containerID)
}

// Commit makes an image of a container.
func (i storeImages) Commit(ctx context.Context, o image.CommitOptions) (string, error) {
	return i.s.Commit(ctx, o)
}

// Layers lists every container layer there is.
func (i storeImages) Layers() []string { return i.s.Layers().Containers() }

// ImageUses tells the image room which containers use an image, those that are being made among them: to fill their volumes may take long.
func (e *Engine) ImageUses(imageID string) []image.Use {
	var uses []image.Use
	making := map[string]bool{} // looked at before the index, into which they come
	e.creating.Range(func(cid, of any) bool {
		if of == imageID {
			making[cid.(string)] = true
		}
		return true
	})
	for _, c := range e.index.all() {
		if s := c.snapshot(); s.ImageID == imageID || mountsImage(c.record(), imageID) {
			uses = append(uses, image.Use{ContainerID: s.ID, Running: s.State.Running})
			delete(making, s.ID)
		}
	}
	for cid := range making {
		uses = append(uses, image.Use{ContainerID: cid})
	}
	return uses
}

// mountsImage reports whether a container has an image among its mounts.
func mountsImage(r *container.Record, imageID string) bool {
	return slices.ContainsFunc(r.AllMounts(), func(m container.Mount) bool { return m.Type == "image" && m.Path == imageID })
}

// imageUsed tells that a container of its image is being made or started.
func (e *Engine) imageUsed(r *container.Record) {
	if e.cfg.ImageUsed != nil && r.Spec.Plugin == "" {
		e.cfg.ImageUsed(r.ImageID)
	}
}
