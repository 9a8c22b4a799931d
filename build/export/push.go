package export

import (
	"bytes"
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/progress"
	"berth/build/session"
	"berth/image"
	"berth/image/remote"
)

// push brings an image to the repositories of its names. Layers go first, to the first repository, and are compressed on the way
// where nobody has them; from there the others take them. Then come the documents, and the tags at last.
type push struct {
	e       *Exporter
	m       *made
	targets []*target
	fixed   bool // the documents are made: layers must be the blobs that they name

	mu      sync.Mutex
	sources map[digest.Digest]image.Source // of layers: what the first repository has
}

// target is one repository with the tags that it gets.
type target struct {
	name ref.Ref
	repo *remote.Repository
	tags []ref.Ref
}

// uploads are the layers that go up at a time.
const uploads = 5

func (e *Exporter) newPush(m *made) *push {
	p := &push{e: e, m: m, sources: map[digest.Digest]image.Source{}}
	names := m.names
	if n := m.o.danglingName(m.names); n != "" {
		if d, err := ref.Parse(n); err == nil {
			names = append(slices.Clone(names), d)
		}
	}
	for _, n := range names {
		i := slices.IndexFunc(p.targets, func(t *target) bool { return t.name.Repository() == n.Repository() })
		if i < 0 {
			i = len(p.targets)
			p.targets = append(p.targets, &target{name: n})
		}
		p.targets[i].tags = append(p.targets[i].tags, n)
	}
	return p
}

// open signs in at a target, which costs nothing before something is asked.
func (p *push) open(ctx context.Context, t *target) error {
	if t.repo != nil {
		return nil
	}
	repo, err := p.e.repository(ctx, t.name, p.m.run.Session, p.m.o.insecure)
	t.repo = repo
	return err
}

// repository gives a repository as the session's client may use it.
func (e *Exporter) repository(ctx context.Context, n ref.Ref, sessionID string, insecure bool) (*remote.Repository, error) {
	var cred remote.Credentials
	if sessionID != "" && e.cfg.Sessions != nil {
		var err error
		if cred, err = e.cfg.Sessions.Credentials(ctx, session.NewGroup(sessionID), n.Domain); err != nil {
			return nil, fault.In(err, "credentials for %s", n.Domain)
		}
	}
	client := e.cfg.Remote
	if insecure {
		var err error
		if client, err = remote.New(remote.Config{Insecure: []string{n.Domain}, Log: e.log}); err != nil {
			return nil, err
		}
	}
	return client.Repository(n, cred), nil
}

// blobs brings the layers to the first repository, and learns which blobs they are.
func (p *push) blobs(ctx context.Context) error {
	if err := p.e.blobs(ctx, p.m, true); err != nil {
		return err
	}
	first := p.targets[0]
	return p.m.run.step("pushing layers", func() error {
		err := p.open(ctx, first)
		if err == nil {
			err = p.layers(ctx, first)
		}
		return fault.In(err, "failed to push %s", first.name)
	})
}

// layers brings each layer to a repository once.
func (p *push) layers(ctx context.Context, t *target) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(uploads)
	begun := map[digest.Digest]bool{}
	for _, part := range p.m.parts {
		for i := range part.layers {
			b := &part.layers[i]
			if begun[b.diffID] {
				continue
			}
			begun[b.diffID] = true
			g.Go(session.Safe(func() error { return fault.In(p.layer(ctx, t, b), "push layer %s", b.diffID) }))
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	done := map[digest.Digest]blob{}
	for _, part := range p.m.parts {
		for i, b := range part.layers {
			if _, ok := done[b.diffID]; !ok {
				done[b.diffID] = b
			}
			part.layers[i] = done[b.diffID]
		}
	}
	return nil
}

// layer brings one layer to a repository by the cheapest way: it is there, the registry has it elsewhere, the blob is kept here,
// another registry has it, or it is compressed anew.
func (p *push) layer(ctx context.Context, t *target, b *blob) error {
	if b.desc.Digest != "" {
		_, there, err := t.repo.HasBlob(ctx, b.desc.Digest)
		if err != nil {
			return err
		}
		if there || p.mount(ctx, t, b) {
			p.note(t, b)
			return nil
		}
		if done, err := p.passOn(ctx, t, b); done || err != nil {
			p.note(t, b)
			return err
		}
	}
	c := b.as
	if !c.ours() {
		if err := p.e.measure(ctx, p.m, b); err != nil {
			return err
		}
		err := p.kept(ctx, t, b)
		p.note(t, b)
		return err
	}
	begun, id := time.Now(), "pushing "+short(b.diffID)
	d, err := t.repo.PushStream(ctx, func(w io.Writer) (ocispec.Descriptor, error) {
		return p.e.compress(ctx, b.diffID, c, p.m.o.oci, &told{w: w, run: p.m.run, id: id, begun: begun})
	})
	end := time.Now()
	p.m.run.status(progress.Status{ID: id, Current: d.Size, Total: d.Size, Timestamp: end, Started: &begun, Completed: &end})
	if err != nil {
		return err
	}
	if p.fixed && d.Digest != b.desc.Digest {
		return fault.New(fault.Unavailable, "blob %s cannot be had again, and compressed anew the layer is %s", b.desc.Digest, d.Digest)
	}
	b.desc, b.from, b.kept = d, nil, false
	p.note(t, b)
	return nil
}

// mount has the registry take a blob from another of its repositories.
func (p *push) mount(ctx context.Context, t *target, b *blob) bool {
	for _, s := range b.from {
		n, err := ref.Parse(s.Repository)
		if err != nil || n.Domain != t.name.Domain || n.Path == t.name.Path {
			continue
		}
		if ok, err := t.repo.Mount(ctx, b.desc.Digest, n.Path); ok && err == nil {
			return true
		}
	}
	return false
}

// passOn sends a blob as it is: from the blob store, or from the registry that it came from. What goes wrong at the other end is
// no failure: the layer is compressed anew then.
func (p *push) passOn(ctx context.Context, t *target, b *blob) (bool, error) {
	if b.kept {
		return true, p.kept(ctx, t, b)
	}
	for _, s := range b.from {
		n, err := ref.Parse(s.Repository)
		if err != nil || n.Repository() == t.name.Repository() {
			continue
		}
		from, err := p.e.repository(ctx, n, p.m.run.Session, false)
		if err != nil {
			continue
		}
		if first, err := from.Blob(ctx, s.Descriptor, 0); err != nil {
			continue
		} else {
			first.Close()
		}
		err = t.repo.PushBlob(ctx, plain(b.desc), func(offset int64) (io.ReadCloser, error) { return from.Blob(ctx, s.Descriptor, offset) })
		if err == nil {
			return true, nil
		}
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		p.e.log.Debug("a layer cannot be passed on", "layer", b.diffID, "from", s.Repository, "err", err)
	}
	return false, nil
}

// kept sends a blob of the blob store.
func (p *push) kept(ctx context.Context, t *target, b *blob) error {
	return t.repo.PushBlob(ctx, plain(b.desc), func(offset int64) (io.ReadCloser, error) {
		f, err := p.e.cfg.Images.Blobs().Open(b.desc.Digest)
		if err != nil {
			return nil, err
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			f.Close()
			return nil, err
		}
		return f, nil
	})
}

func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}

// note remembers that a repository has a layer's blob.
func (p *push) note(t *target, b *blob) {
	if b.desc.Digest == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := image.Source{Repository: t.name.Repository(), Descriptor: plain(b.desc)}
	p.sources[b.diffID] = s
	if !slices.ContainsFunc(b.from, func(o image.Source) bool { return o.Repository == s.Repository }) {
		b.from = append(b.from, s)
	}
}

// documents brings configurations, manifests and the index everywhere, and sets the tags.
func (p *push) documents(ctx context.Context) error {
	p.fixed = true
	for i, t := range p.targets {
		if i > 0 {
			if err := p.open(ctx, t); err != nil {
				return err
			}
			if err := p.layers(ctx, t); err != nil {
				return fault.In(err, "failed to push %s", t.name)
			}
		}
		for _, n := range t.tags {
			id := "pushing manifest for " + n.String() + "@" + string(p.m.root.Digest)
			err := p.m.run.step(id, func() error { return p.tag(ctx, t, n) })
			if err != nil {
				return fault.In(err, "failed to push %s", n)
			}
		}
	}
	p.remember()
	return nil
}

// tag brings all documents to a repository, the root under a tag, or only by its digest.
func (p *push) tag(ctx context.Context, t *target, n ref.Ref) error {
	for _, part := range p.m.parts {
		if err := smallBlob(ctx, t.repo, attached(configType(p.m.o.oci), part.config)); err != nil {
			return err
		}
		if part.attest != nil {
			for _, d := range append([]*image.Attached{part.attest.config}, part.attest.statements...) {
				if err := smallBlob(ctx, t.repo, d); err != nil {
					return err
				}
			}
		}
		if part.manifest != p.m.root {
			if err := byDigest(ctx, t.repo, part.manifest); err != nil {
				return err
			}
		}
		if part.attest != nil {
			if err := byDigest(ctx, t.repo, part.attest.manifest); err != nil {
				return err
			}
		}
	}
	if p.m.o.byDigest || n.Tag == "" {
		return byDigest(ctx, t.repo, p.m.root)
	}
	_, err := t.repo.PushManifest(ctx, n.Tag, p.m.root.MediaType, p.m.root.Content)
	return err
}

// smallBlob brings a small blob to a repository unless it is there.
func smallBlob(ctx context.Context, repo *remote.Repository, d *image.Attached) error {
	_, there, err := repo.HasBlob(ctx, d.Digest)
	if err != nil || there {
		return err
	}
	return repo.PushBlob(ctx, plain(d.OCI()), func(offset int64) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(d.Content[min(offset, int64(len(d.Content))):])), nil
	})
}

func byDigest(ctx context.Context, repo *remote.Repository, d *image.Attached) error {
	_, err := repo.PushManifest(ctx, string(d.Digest), d.MediaType, d.Content)
	return err
}

// remember records what the registries have now: where layers can be had again, and the digest by which they know the image. The
// push is done: what fails here is only logged.
func (p *push) remember() {
	images := p.e.cfg.Images
	if err := images.AddSources(p.sources); err != nil {
		p.e.log.Warn("where layers were pushed to is not recorded", "err", err)
	}
	if !p.m.o.store {
		return
	}
	for _, t := range p.targets {
		digested := ref.Ref{Domain: t.name.Domain, Path: t.name.Path, Digest: p.m.root.Digest}
		if err := images.Point(p.m.best(), p.m.root.Digest, digested); err != nil {
			p.e.log.Warn("what was pushed is not recorded", "image", t.name.Familiar(), "err", err)
		}
		images.Emit(image.Event{Action: "push", ID: t.name.Familiar(), Name: t.name.FamiliarName()})
	}
}

// told is a writer whose bytes are told to progress, a few times a second.
type told struct {
	w     io.Writer
	run   *Run
	id    string
	begun time.Time
	last  time.Time
	n     int64
}

func (t *told) Write(b []byte) (int, error) {
	n, err := t.w.Write(b)
	t.n += int64(n)
	if now := time.Now(); now.Sub(t.last) > 200*time.Millisecond {
		t.last = now
		t.run.status(progress.Status{ID: t.id, Current: t.n, Timestamp: now, Started: &t.begun})
	}
	return n, err
}

// short is a digest as people see it.
func short(d digest.Digest) string {
	if e := d.Encoded(); len(e) > 12 {
		return e[:12]
	}
	return string(d)
}
