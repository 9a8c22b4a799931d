package plugin

import (
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/engine"
)

// prefix of references to plugins: no client can write it, since an image's name has no blank.
const prefix = "plugin "

func reference(id string) string { return prefix + id }

// Over gives the engine images and, by references that only the manager writes, plugins.
func (m *Manager) Over(images engine.Images) engine.Images { return &both{images, m} }

type both struct {
	engine.Images
	m *Manager
}

// Resolve finds an image or a plugin.
func (b *both) Resolve(ref string) (engine.Image, error) {
	id, ok := strings.CutPrefix(ref, prefix)
	if !ok {
		return b.Images.Resolve(ref)
	}
	if _, err := b.m.Get(id); err != nil {
		return engine.Image{}, err
	}
	return engine.Image{ID: ref, OS: "linux", Architecture: runtime.GOARCH}, nil
}

// CreateLayer makes the writable layer of a container; a plugin's lies beside its layers. One plugin has one container at a time.
func (b *both) CreateLayer(ctx context.Context, containerID string, img engine.Image) error {
	id, ok := strings.CutPrefix(img.ID, prefix)
	if !ok {
		return b.Images.CreateLayer(ctx, containerID, img)
	}
	dir := filepath.Join(b.m.dir(id), "c")
	for _, d := range []string{"fs", "work"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fault.In(err, "make the layer of plugin %s", id)
		}
	}
	return fault.In(os.WriteFile(filepath.Join(b.m.cfg.Root, "c-"+containerID), []byte(id), 0o600), "make the layer of plugin %s", id)
}

// plugin gives the id of the plugin that a container runs, "" for others.
func (b *both) plugin(containerID string) string {
	raw, err := os.ReadFile(filepath.Join(b.m.cfg.Root, "c-"+containerID))
	if err != nil {
		return ""
	}
	return string(raw)
}

// Layer gives the directories of a container's file system.
func (b *both) Layer(containerID string) (engine.Layer, error) {
	id := b.plugin(containerID)
	if id == "" {
		return b.Images.Layer(containerID)
	}
	p, err := b.m.Get(id)
	if err != nil {
		return engine.Layer{}, err
	}
	l := engine.Layer{Upper: filepath.Join(b.m.dir(id), "c", "fs"), Work: filepath.Join(b.m.dir(id), "c", "work")}
	for i := len(p.Blobs) - 1; i >= 0; i-- {
		l.Lower = append(l.Lower, filepath.Join(b.m.dir(id), "l"+strconv.Itoa(i)))
	}
	return l, nil
}

// RemoveLayer gives the writable layer up. What a plugin wrote stays with it, as its state often is there.
func (b *both) RemoveLayer(containerID string) error {
	if b.plugin(containerID) == "" {
		return b.Images.RemoveLayer(containerID)
	}
	return os.Remove(filepath.Join(b.m.cfg.Root, "c-"+containerID))
}

// LayerSize measures a writable layer; that of a plugin is not asked for.
func (b *both) LayerSize(containerID string) (int64, error) {
	if b.plugin(containerID) == "" {
		return b.Images.LayerSize(containerID)
	}
	return 0, nil
}

// Layers lists the containers that have a writable layer.
func (b *both) Layers() []string {
	all := b.Images.Layers()
	names, err := filepath.Glob(filepath.Join(b.m.cfg.Root, "c-*"))
	if err != nil {
		return all
	}
	for _, n := range names {
		all = append(all, strings.TrimPrefix(filepath.Base(n), "c-"))
	}
	return all
}
