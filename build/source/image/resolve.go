package image

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/platforms"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/session"
	"berth/image"
	"berth/image/transfer"
)

// resolved is what a name stands for.
type resolved struct {
	name     ref.Ref
	platform ocispec.Platform
	digest   digest.Digest       // of the root: what the tag names at the registry; "" for an image made here
	config   []byte              // byte for byte
	chain    []digest.Digest     // the lowest first
	plan     *transfer.PullImage // how to fetch the layers; nil: they were here
	by       string              // the sessions that had it resolved, and whose clients are asked when the layers come
}

// resolve finds an image.
func (m *Images) resolve(ctx context.Context, name ref.Ref, p ocispec.Platform, mode Mode, group session.Group) (*resolved, error) {
	if mode != Pull || name.Digest != "" { // what a digest names does not change
		res, err := m.local(name, p)
		if err == nil {
			return res, nil
		}
		if !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	return m.remote(ctx, name, p, group)
}

// local finds it in the engine's store. NotFound means that it is not there for this platform.
func (m *Images) local(name ref.Ref, p ocispec.Platform) (*resolved, error) {
	want := storePlatform(p)
	text := name.String()
	if name.Digest != "" {
		text = name.WithDigest(name.Digest).String()
	}
	img, err := m.cfg.Images.ResolvePlatform(text, &want)
	if name.Digest != "" && fault.Is(err, fault.NotFound) {
		img, err = m.cfg.Images.ResolvePlatform(string(name.Digest), &want)
		if err == nil && !called(img, name) {
			// A digest is no password: who names it must name where it is to be had.
			return nil, fault.New(fault.NotFound, "No such image: %s", name.Familiar())
		}
	}
	if err != nil {
		return nil, err
	}
	res := &resolved{name: name, platform: p, chain: img.Layers}
	switch {
	case name.Digest != "":
		res.digest = name.Digest
	case img.Index != nil:
		res.digest = img.Index.Digest
	case img.Manifest != nil:
		res.digest = img.Manifest.Digest
	}
	res.config, err = m.cfg.Images.Raw(img.ID)
	return res, err
}

// called reports whether an image has a name in the repository.
func called(img *image.Image, name ref.Ref) bool {
	return slices.ContainsFunc(slices.Concat(img.RepoTags, img.RepoDigests), func(s string) bool {
		r, err := ref.Parse(s)
		return err == nil && r.Repository() == name.Repository()
	})
}

// remote asks the registry.
func (m *Images) remote(ctx context.Context, name ref.Ref, p ocispec.Platform, group session.Group) (*resolved, error) {
	key := name.String() + " " + platforms.FormatAll(p) + " " + names(group)
	if res := m.memo.get(key); res != nil {
		return res, nil
	}
	res, err := m.ask(ctx, name, p, group)
	if err == nil && len(session.IDs(group)) > 0 {
		m.memo.put(key, res)
	}
	return res, err
}

func (m *Images) ask(ctx context.Context, name ref.Ref, p ocispec.Platform, group session.Group) (*resolved, error) {
	cred, err := m.cfg.Sessions.Credentials(ctx, group, name.Domain)
	if err != nil {
		// A public image needs none; a private one is refused by its registry, in words that say so.
		m.log.Warn("a build's client does not tell credentials", "registry", name.Domain, "err", err)
	}
	want := storePlatform(p)
	plan, err := m.cfg.Transfer.PlanPull(ctx, transfer.PullRequest{Name: name, Platform: &want, Credentials: cred})
	if err != nil {
		return nil, fault.In(err, "%s", name)
	}
	img := plan.Images[0]
	if img.Stale != nil {
		m.log.Warn("registry cannot be asked; the image that is here is used", "image", name.Familiar(), "age", img.Stale.Age, "err", img.Stale.Err)
		return m.byID(name, p, img.Stale)
	}
	return &resolved{name: name, platform: p, digest: img.Root.Digest, config: img.RawConfig(), chain: img.Chain(), plan: img, by: names(group)}, nil
}

// names tells groups apart.
func names(g session.Group) string { return strings.Join(session.IDs(g), " ") }

func (m *Images) byID(name ref.Ref, p ocispec.Platform, s *transfer.Stale) (*resolved, error) {
	img, err := m.cfg.Images.Get(s.ID)
	if err != nil {
		return nil, err
	}
	raw, err := m.cfg.Images.Raw(img.ID)
	if err != nil {
		return nil, err
	}
	return &resolved{name: name, platform: p, digest: s.Digest, config: raw, chain: img.Layers}, nil
}

func sameChain(a, b []digest.Digest) bool { return slices.Equal(a, b) }

func platformOf(p *ocispec.Platform) ocispec.Platform {
	if p == nil {
		return platforms.Normalize(platforms.DefaultSpec())
	}
	return platforms.Normalize(*p)
}

func storePlatform(p ocispec.Platform) image.Platform {
	return image.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
}

// memo remembers what was resolved for the length of a build or so.
type memo struct {
	mu   sync.Mutex // guards list
	list map[string]remembered
}

type remembered struct {
	res *resolved
	at  time.Time
}

const (
	memoTime = 10 * time.Minute
	memoSize = 256
)

func (m *memo) get(key string) *resolved {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.list[key]
	if !ok || time.Since(r.at) > memoTime {
		return nil
	}
	return r.res
}

func (m *memo) put(key string, res *resolved) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.list == nil {
		m.list = map[string]remembered{}
	}
	for k, r := range m.list {
		if time.Since(r.at) > memoTime || len(m.list) >= memoSize {
			delete(m.list, k)
		}
	}
	m.list[key] = remembered{res, time.Now()}
}
