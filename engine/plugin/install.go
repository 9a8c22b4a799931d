package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/base/id"
	"berth/base/ref"
	"berth/image/archive"
	"berth/image/archive/compress"
	"berth/image/blob"
	"berth/image/remote"
	"berth/kernel/tree"
)

// Media types of a plugin's parts, as Docker writes them.
const (
	manifestType = "application/vnd.docker.distribution.manifest.v2+json"
	layerType    = "application/vnd.docker.image.rootfs.diff.tar.gzip"
)

// Progress is a line of an installation or a push, as Docker's stream has it.
type Progress struct {
	ID, Status     string
	Current, Total int64
}

// Offer is a plugin in a registry.
type offer struct {
	name     ref.Ref // as asked for
	repo     *remote.Repository
	root     ocispec.Descriptor
	manifest ocispec.Manifest
	raw      []byte // the configuration
	config   *Config
}

// look reads what a registry has under a name.
func (m *Manager) look(ctx context.Context, name string, cred remote.Credentials) (*offer, error) {
	if m.cfg.Remote == nil {
		return nil, fault.New(fault.NotImplemented, "this engine has no client for registries")
	}
	r, err := ref.Parse(name)
	if err != nil {
		return nil, err
	}
	o := &offer{name: r.WithDefaultTag(), repo: m.cfg.Remote.Repository(r, cred)}
	at := o.name.Tag
	if o.name.Digest != "" {
		at = string(o.name.Digest)
	}
	doc, err := o.repo.Manifest(ctx, at)
	if err != nil {
		return nil, err
	}
	o.root = doc.Descriptor
	if err := json.Unmarshal(doc.Content, &o.manifest); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "reading the manifest of plugin %s", name)
	}
	if t := o.manifest.Config.MediaType; t != MediaType {
		what := "unknown"
		if strings.Contains(t, "image") {
			what = "image"
		}
		return nil, fault.New(fault.Invalid, "did not find plugin config for specified reference %s: encountered remote %q (%s) when fetching", o.name, t, what)
	}
	if o.raw, err = readBlob(ctx, o.repo, o.manifest.Config, maxConfig); err != nil {
		return nil, err
	}
	o.config, err = ParseConfig(o.raw)
	return o, err
}

// readBlob gives a small blob, verified.
func readBlob(ctx context.Context, at *remote.Repository, d ocispec.Descriptor, limit int64) ([]byte, error) {
	if d.Size > limit {
		return nil, fault.New(fault.Invalid, "blob %s has %d bytes, more than the %d allowed", d.Digest, d.Size, limit)
	}
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "digest %q", d.Digest)
	}
	r, err := at.Blob(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(io.LimitReader(r, d.Size+1))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest || int64(len(raw)) != d.Size {
		return nil, fault.New(fault.Invalid, "blob has the digest %s, %s was announced", got, d.Digest)
	}
	return raw, nil
}

// PrivilegesOf tells what a plugin in a registry asks for.
func (m *Manager) PrivilegesOf(ctx context.Context, name string, cred remote.Credentials) ([]Privilege, error) {
	o, err := m.look(ctx, name, cred)
	if err != nil {
		return nil, err
	}
	return o.config.Privileges(), nil
}

// PullRequest asks for a plugin.
type PullRequest struct {
	Remote      string // reference in a registry
	Name        string // name it gets here; "" that of Remote
	Privileges  []Privilege
	Credentials remote.Credentials
	Upgrade     string // the plugin that it replaces; "" a new one
	Progress    func(Progress)
}

// LocalName is the name that the plugin gets.
func (r PullRequest) LocalName() string {
	if r.Name == "" {
		return tagged(r.Remote)
	}
	return tagged(r.Name)
}

// Pull installs a plugin, disabled, or replaces the content of one. What is granted must be exactly what it asks for.
func (m *Manager) Pull(ctx context.Context, r PullRequest) error {
	if r.Progress == nil {
		r.Progress = func(Progress) {}
	}
	m.changing.Lock()
	defer m.changing.Unlock()
	var old *Plugin
	var err error
	name := r.LocalName()
	if r.Upgrade != "" {
		if old, err = m.Get(r.Upgrade); err != nil {
			return err
		}
		if old.Enabled {
			return fault.New(fault.Conflict, "plugin %s is enabled: disable it before upgrading", old.Name)
		}
		name = old.Name
	} else if err := m.free(name); err != nil {
		return err
	}
	o, err := m.look(ctx, r.Remote, r.Credentials)
	if err != nil {
		return err
	}
	r.Progress(Progress{ID: o.name.Tag, Status: "Pulling from " + o.name.Path})
	if m.cfg.Verify != nil {
		if err := m.cfg.Verify.Verify(ctx, o.name, o.root, o.repo); err != nil {
			return err
		}
	}
	if err := o.config.granted(r.Privileges); err != nil {
		return err
	}
	b := m.begin(name)
	defer b.drop()
	b.p.Remote, b.p.Manifest = o.name.String(), o.root.Digest
	for i, d := range o.manifest.Layers {
		if err := b.fetch(ctx, i, d, o.repo, r.Progress); err != nil {
			return err
		}
	}
	if err := b.configure(o.raw); err != nil {
		return err
	}
	if err := b.finish(old); err != nil {
		return err
	}
	m.emit("pull", b.p)
	r.Progress(Progress{Status: "Digest: " + string(o.root.Digest)})
	r.Progress(Progress{Status: "Status: Downloaded newer image for " + o.name.String()})
	return nil
}

// free refuses a name that is no plugin's name, or taken.
func (m *Manager) free(name string) error {
	r, err := ref.ParseTagged(name)
	if err != nil {
		return err
	}
	if _, err := m.Get(r.Familiar()); err == nil {
		return fault.New(fault.Conflict, "plugin %q already exists", r.Familiar())
	}
	return nil
}

// building is a plugin that is being installed in a directory of its own below tmp.
type building struct {
	m    *Manager
	p    *Plugin
	dir  string
	held []digest.Digest // blobs

	diffIDs []digest.Digest // of the layers that were unpacked
	done    bool
}

func (m *Manager) begin(name string) *building {
	p := &Plugin{Version: recordVersion, ID: id.New(), Name: name}
	return &building{m: m, p: p, dir: filepath.Join(m.tmp(), p.ID)}
}

func (b *building) drop() {
	if b.done {
		return
	}
	for _, d := range b.held {
		b.m.blobs.Release(d)
	}
	if err := os.RemoveAll(b.dir); err != nil {
		b.m.log.Warn("remove half a plugin; tried again at the next start", "err", err)
	}
}

// fetch brings a layer from a registry, keeps it as it is and unpacks it.
func (b *building) fetch(ctx context.Context, i int, d ocispec.Descriptor, from *remote.Repository, tell func(Progress)) error {
	short := d.Digest.Encoded()[:min(12, len(d.Digest.Encoded()))]
	tell(Progress{ID: short, Status: "Pulling fs layer"})
	w, err := b.m.blobs.Writer(ctx, blob.Want{Digest: d.Digest, Size: d.Size, Max: maxLayerSize})
	if err != nil {
		return err
	}
	if w != nil { // else it is here
		defer w.Abort()
		r, err := from.Blob(ctx, d, 0)
		if err != nil {
			return err
		}
		defer r.Close()
		if _, err := io.Copy(w, r); err != nil {
			return err
		}
		if _, err := w.Commit(); err != nil {
			return err
		}
	}
	b.held = append(b.held, d.Digest)
	b.p.Blobs = append(b.p.Blobs, Blob{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	tell(Progress{ID: short, Status: "Download complete"})
	f, err := b.m.blobs.Open(d.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.unpack(ctx, i, f); err != nil {
		return err
	}
	tell(Progress{ID: short, Status: "Pull complete"})
	return nil
}

// maxLayerSize bounds a compressed layer of a plugin.
const maxLayerSize = 4 << 30

// unpack makes a layer's directory. What it is made of must be what the configuration says, which is read later: see verify.
func (b *building) unpack(ctx context.Context, i int, r io.Reader) error {
	stream, err := compress.NewStream(r, digest.SHA256)
	if err != nil {
		return err
	}
	defer stream.Close()
	dir := filepath.Join(b.dir, "l"+strconv.Itoa(i))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	root, err := tree.OpenDir(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := archive.Apply(ctx, root, stream, archive.ApplyOptions{Whiteouts: archive.Overlay}); err != nil {
		return err
	}
	d, _, err := stream.Digest()
	b.diffIDs = append(b.diffIDs, d)
	return err
}

// verify refuses layers that are not those of the configuration.
func (b *building) verify() error {
	if want := b.p.Config.Rootfs.DiffIDs; !slices.Equal(want, b.diffIDs) {
		return fault.New(fault.Invalid, "the plugin's layers are %v, its configuration announces %v", b.diffIDs, want)
	}
	return nil
}

func (b *building) configure(raw []byte) (err error) {
	b.p.RawConfig = raw
	if b.p.Config, err = ParseConfig(raw); err != nil {
		return err
	}
	b.p.Settings = b.p.Config.defaults()
	return nil
}

// finish makes the plugin durable under its name, in the place of old if there is one, whose settings it keeps where they fit.
func (b *building) finish(old *Plugin) error {
	m := b.m
	if err := b.verify(); err != nil {
		return err
	}
	if old != nil {
		b.p.Settings = carry(b.p.Config, old)
	}
	raw, err := json.MarshalIndent(b.p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return err
	}
	if err := atomicfile.Write(m.record(b.dir), append(raw, '\n'), 0o600); err != nil {
		return err
	}
	lock, err := tree.OpenDir(b.dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := lock.SyncFS(); err != nil {
		return fault.In(err, "write plugin")
	}
	if old != nil {
		// One moment without the plugin cannot be had in one rename; the old one goes first, so that never two have the name.
		if err := m.forget(old); err != nil {
			return err
		}
	}
	if err := atomicfile.Rename(b.dir, m.dir(b.p.ID)); err != nil {
		return fault.In(err, "write plugin")
	}
	b.done = true
	m.mu.Lock()
	m.plugins[b.p.ID] = b.p
	m.mu.Unlock()
	return nil
}

// carry gives an upgraded plugin's settings: what was set on the old one, as far as it may still be set.
func carry(c *Config, old *Plugin) Settings {
	s, was := c.defaults(), old.Config.defaults()
	set := func(change string) {
		if next, err := s.Set(c, change); err == nil {
			s = next
		}
	}
	had := map[string]bool{}
	for _, e := range was.Env {
		had[e] = true
	}
	for _, e := range old.Settings.Env {
		if !had[e] {
			set(e)
		}
	}
	for i, x := range old.Settings.Mounts {
		if i < len(was.Mounts) && x.Source != was.Mounts[i].Source {
			set(x.Name + ".source=" + x.Source)
		}
	}
	for i, x := range old.Settings.Devices {
		if i < len(was.Devices) && x.Path != was.Devices[i].Path {
			set(x.Name + ".path=" + x.Path)
		}
	}
	if a := strings.Join(old.Settings.Args, " "); a != strings.Join(was.Args, " ") {
		set(c.Args.Name + "=" + a)
	}
	return s
}

// forget takes a plugin's directory away. Under another name it is no plugin any more, whatever happens next: Open clears tmp.
func (m *Manager) forget(p *Plugin) error {
	gone := filepath.Join(m.tmp(), p.ID)
	if err := atomicfile.Rename(m.dir(p.ID), gone); err != nil {
		return fault.In(err, "remove plugin %s", p.Name)
	}
	m.mu.Lock()
	delete(m.plugins, p.ID)
	m.mu.Unlock()
	for _, b := range p.Blobs {
		m.blobs.Release(b.Digest)
	}
	if err := errors.Join(os.RemoveAll(gone), os.RemoveAll(m.runDir(p.ID))); err != nil {
		m.log.Warn("remove plugin; tried again at the next start", "plugin", p.Name, "err", err)
	}
	return nil
}

// Push sends a plugin to the registry that its name is for.
func (m *Manager) Push(ctx context.Context, name string, cred remote.Credentials, tell func(Progress)) error {
	p, err := m.Get(name)
	if err != nil {
		return err
	}
	if m.cfg.Remote == nil {
		return fault.New(fault.NotImplemented, "this engine has no client for registries")
	}
	r, err := ref.ParseTagged(p.Name)
	if err != nil {
		return err
	}
	tell(Progress{Status: "The push refers to repository [" + r.Repository() + "]"})
	to := m.cfg.Remote.Repository(r, cred)
	manifest := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: manifestType,
		Config: ocispec.Descriptor{MediaType: MediaType, Digest: digest.FromBytes(p.RawConfig), Size: int64(len(p.RawConfig))},
	}
	for _, b := range p.Blobs {
		d := ocispec.Descriptor{MediaType: b.MediaType, Digest: b.Digest, Size: b.Size}
		manifest.Layers = append(manifest.Layers, d)
		short := d.Digest.Encoded()[:12]
		if _, there, err := to.HasBlob(ctx, d.Digest); err == nil && there {
			tell(Progress{ID: short, Status: "Layer already exists"})
			continue
		}
		tell(Progress{ID: short, Status: "Pushing"})
		err := to.PushBlob(ctx, d, func(offset int64) (io.ReadCloser, error) {
			f, err := m.blobs.Open(d.Digest)
			if err != nil {
				return nil, err
			}
			if _, err := f.Seek(offset, io.SeekStart); err != nil {
				f.Close()
				return nil, err
			}
			return f, nil
		})
		if err != nil {
			return err
		}
		tell(Progress{ID: short, Status: "Pushed"})
	}
	err = to.PushBlob(ctx, manifest.Config, func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(p.RawConfig[offset:])), nil
	})
	if err != nil {
		return err
	}
	raw, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	d, err := to.PushManifest(ctx, r.Tag, manifestType, raw)
	if err != nil {
		return err
	}
	tell(Progress{Status: r.Tag + ": digest: " + string(d) + " size: " + strconv.Itoa(len(raw))})
	return nil
}
