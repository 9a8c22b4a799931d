package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	"berth/image/blob"
	"berth/image/remote"
	"berth/kernel/tree"
)

// Verifier decides whether what a name points at may be installed; the same policy as for images (package image/policy).
type Verifier interface {
	Verify(ctx context.Context, name ref.Ref, root ocispec.Descriptor, at *remote.Repository) error
}

// ManagerConfig says where plugins live and with whom the manager works.
type ManagerConfig struct {
	Root, Run string         // directories of the manager alone; Run need not outlive a reboot
	Remote    *remote.Client // nil: nothing can be pulled or pushed
	Verify    Verifier       // nil: everything may be installed
	InUse     func(name string) int
	Emit      func(action, id, name string)
	Log       *slog.Logger
}

// Manager owns the managed plugins. It is safe for concurrent use.
type Manager struct {
	cfg   ManagerConfig
	log   *slog.Logger
	blobs *blob.Store

	changing sync.Mutex // held over each change of a plugin; taken before mu
	runner   Runner     // nil before Attach; guarded by changing

	mu      sync.Mutex // guards plugins; held for memory only
	plugins map[string]*Plugin
}

// Plugin is an installed plugin as plugin.json has it. It is not changed once others see it.
type Plugin struct {
	Version   int           `json:"version"`
	ID        string        `json:"id"`
	Name      string        `json:"name"`   // familiar, with tag
	Remote    string        `json:"remote"` // reference it was pulled by; "" made here
	RawConfig []byte        `json:"config"` // byte for byte: it has a digest
	Blobs     []Blob        `json:"blobs"`  // its layers as they came, the lowest first
	Settings  Settings      `json:"settings"`
	Enabled   bool          `json:"enabled"`
	Container string        `json:"container,omitempty"` // id of the container that runs it
	Manifest  digest.Digest `json:"manifest,omitempty"`

	Config *Config `json:"-"`
}

// Blob is a layer as it came.
type Blob struct {
	MediaType string        `json:"mediaType"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

const recordVersion = 1

// Open reads the plugins that are installed. Nothing is started before Attach.
func Open(cfg ManagerConfig) (*Manager, error) {
	m := &Manager{cfg: cfg, log: cfg.Log, plugins: map[string]*Plugin{}}
	if m.log == nil {
		m.log = slog.New(slog.DiscardHandler)
	}
	left, err := os.ReadDir(m.tmp()) // the directory itself stays: on a full disk it could not be made again
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.In(err, "open plugins")
	}
	for _, n := range left {
		if err := os.RemoveAll(filepath.Join(m.tmp(), n.Name())); err != nil {
			return nil, fault.In(err, "open plugins")
		}
	}
	for _, dir := range []string{m.tmp(), m.dir("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.In(err, "open plugins")
		}
	}
	if m.blobs, err = blob.Open(filepath.Join(cfg.Root, "blob")); err != nil {
		return nil, err
	}
	names, err := os.ReadDir(m.dir(""))
	if err != nil {
		return nil, fault.In(err, "open plugins")
	}
	for _, n := range names {
		p, err := m.read(n.Name())
		if err != nil {
			m.log.Error("plugin is unreadable and left alone", "plugin", n.Name(), "err", err)
			continue
		}
		m.plugins[p.ID] = p
		for _, b := range p.Blobs {
			if err := m.blobs.Retain(context.Background(), b.Digest); err != nil {
				m.log.Warn("a layer of the plugin is missing: it runs, but cannot be pushed", "plugin", p.Name, "err", err)
			}
		}
	}
	m.blobs.Sweep()
	return m, nil
}

func (m *Manager) tmp() string          { return filepath.Join(m.cfg.Root, "tmp") }
func (m *Manager) dir(id string) string { return filepath.Join(m.cfg.Root, "p", id) }

func (m *Manager) record(dir string) string    { return filepath.Join(dir, "plugin.json") }
func (m *Manager) propagated(p *Plugin) string { return filepath.Join(m.dir(p.ID), "propagated") }

// runDir is where a plugin's socket is. An address of a socket has at most 107 bytes (unix(7)), so it is the beginning of the id only.
func (m *Manager) runDir(id string) string { return filepath.Join(m.cfg.Run, id[:min(len(id), 16)]) }

func (m *Manager) read(name string) (*Plugin, error) {
	raw, err := os.ReadFile(m.record(m.dir(name)))
	if err != nil {
		return nil, err
	}
	var p Plugin
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, err
	}
	if p.Version != recordVersion || p.ID != name {
		return nil, errors.New("not a plugin of this format")
	}
	if p.Config, err = ParseConfig(p.RawConfig); err != nil {
		return nil, err
	}
	return &p, nil
}

// write makes a plugin's record durable and visible.
func (m *Manager) write(p *Plugin) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := atomicfile.Write(m.record(m.dir(p.ID)), append(raw, '\n'), 0o600); err != nil {
		return fault.In(err, "write plugin %s", p.Name)
	}
	m.mu.Lock()
	m.plugins[p.ID] = p
	m.mu.Unlock()
	return nil
}

// Get finds a plugin by name (without a tag: latest), id, or an unambiguous beginning of its id.
func (m *Manager) Get(name string) (*Plugin, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	full := tagged(name)
	var found []*Plugin
	for _, p := range m.plugins {
		if p.Name == full || p.ID == name {
			return p, nil
		}
		if id.IsHex(name) && strings.HasPrefix(p.ID, name) {
			found = append(found, p)
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return nil, fault.New(fault.NotFound, "plugin %q not found", name)
	}
	return nil, fault.New(fault.Invalid, "plugin %q matches several: write more of its id", name)
}

// tagged gives a plugin's name as it is kept; what is no name stays.
func tagged(name string) string {
	r, err := ref.Parse(name)
	if err != nil || r.Digest != "" {
		return name
	}
	return r.WithDefaultTag().Familiar()
}

// List gives the plugins with these capabilities (all of them: any), sorted by name. enabled nil: in either state.
func (m *Manager) List(capabilities []string, enabled *bool) (list []*Plugin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.plugins {
		if enabled != nil && p.Enabled != *enabled {
			continue
		}
		if slices.ContainsFunc(capabilities, func(c string) bool { return !p.Config.Has(c) }) {
			continue
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *Plugin) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// Set changes settings of a plugin that is disabled, all of them or none.
func (m *Manager) Set(name string, changes []string) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	p, err := m.Get(name)
	if err != nil {
		return err
	}
	if p.Enabled {
		return fault.New(fault.Conflict, "cannot set on an active plugin, disable plugin before setting")
	}
	next := *p
	for _, c := range changes {
		if next.Settings, err = next.Settings.Set(p.Config, c); err != nil {
			return err
		}
	}
	return m.write(&next)
}

// Remove takes a plugin away; force also one that is enabled.
func (m *Manager) Remove(ctx context.Context, name string, force bool) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	p, err := m.Get(name)
	if err != nil {
		return err
	}
	if p.Enabled {
		if !force {
			return fault.New(fault.Conflict, "plugin %s is enabled", p.Name)
		}
		if p, err = m.disable(ctx, p, true); err != nil {
			return err
		}
	}
	if err := m.forget(p); err != nil {
		return err
	}
	m.emit("remove", p)
	return nil
}

func (m *Manager) emit(action string, p *Plugin) {
	if m.cfg.Emit != nil {
		m.cfg.Emit(action, p.ID, p.Name)
	}
}

// Find tells base/plugin where an enabled plugin listens and what it serves.
func (m *Manager) Find(name string) (socket string, serves []string, ok bool) {
	p, err := m.Get(name)
	if err != nil || !p.Enabled || p.Config.Interface.Socket == "" || p.Name != tagged(name) {
		return "", nil, false
	}
	return filepath.Join(m.runDir(p.ID), p.Config.Interface.Socket), p.Config.Serves(), true
}

// Names lists the enabled plugins, sorted.
func (m *Manager) Names() (names []string) {
	on := true
	for _, p := range m.List(nil, &on) {
		names = append(names, p.Name)
	}
	return names
}

// HostPath gives the place on the host of a path that a plugin speaks of. Links on the way are followed as the plugin sees them: its
// word for "/v" must not become the host's /etc because it made a link of that name.
func (m *Manager) HostPath(name, path string) string {
	p, err := m.Get(name)
	if err != nil || p.Name != tagged(name) || path == "" {
		return path
	}
	if rest, ok := strings.CutPrefix(path, p.Config.PropagatedMount); ok && p.Config.PropagatedMount != "" && (rest == "" || rest[0] == '/') {
		return within(m.propagated(p), rest)
	}
	// Anything else lies in the plugin's own file system.
	return within(filepath.Join(m.dir(p.ID), "c", "fs"), path)
}

// within gives the place below base that a path leads to with base as the root; of what is not there, the place where it would be. What the
// path's last part names is not opened, unless it is a link: it may be mounted from a server that does not answer.
func within(base, path string) string {
	clean := strings.Trim(filepath.Join("/", path), "/")
	root, err := tree.OpenDir(base)
	if err != nil || clean == "" {
		return filepath.Join(base, clean)
	}
	defer root.Close()
	parent, name := filepath.Split(clean)
	dir, linked, err := root.Open(strings.Trim(parent, "/"))
	if err == nil {
		_, no := dir.Readlink(name)
		real, rerr := dir.Real(root)
		dir.Close()
		if no != nil && rerr == nil {
			return filepath.Join(base, real, name)
		}
		dir, linked, err = root.Open(clean)
	}
	if err == nil {
		defer dir.Close()
		if real, err := dir.Real(root); err == nil {
			return filepath.Join(base, real)
		}
	}
	if tree.Missing(err) && !linked {
		return filepath.Join(base, clean)
	}
	return filepath.Join(base, ".no-such-place") // a link to what is not here is never what the host has there
}
