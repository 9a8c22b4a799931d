package transfer

import (
	"context"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/remote"
)

// PushPlan is what a push is going to do. Write prints it.
type PushPlan struct {
	Name    ref.Ref
	AllTags bool
	Images  []*PushImage // one, or one for each tag
}

// PushImage is the push of one tag.
type PushImage struct {
	Name      ref.Ref
	Root      ocispec.Descriptor // what the tag is to stand for; zero for an image made here, whose manifest is made when its layers are known
	Manifests []*PushManifest    // to be there before Root is
	// Index is set when the image came with an index that cannot be pushed, because of the manifests in Missing: the manifest of
	// one platform goes instead.
	Index   *ocispec.Descriptor
	Missing []ocispec.Descriptor

	id     digest.Digest // of the image that the name gives
	target *remote.Repository
	docs   *image.Documents
}

// PushManifest is one manifest with what it needs.
type PushManifest struct {
	image.ManifestDocs
	Layers  []*PushLayer
	Foreign bool                 // not here; everything it needs is in From, a repository of the same registry
	From    string               // path of that repository
	There   bool                 // the target has the manifest, and so all that it names
	blobs   []ocispec.Descriptor // of Foreign: what to mount
	raw     []byte               // of Foreign
}

// How is a way to get a layer's blob to the target.
type How int

// The ways, the cheapest first.
const (
	Exists  How = iota // it is there
	Mount              // the target's registry has it in another repository
	Kept               // the blob is here
	Stream             // from the repository it came from
	Rebuild            // from the unpacked layer, compressed anew
	Skip               // a layer that may not be distributed
)

// Way is one way of a layer, with the blob that comes of it.
type Way struct {
	How        How
	From       string             // path of the repository (Mount), repository with its host (Stream)
	Descriptor ocispec.Descriptor // zero for Rebuild: it is known when it is done
	Ask        bool               // of Exists: it was there once, compressed anew, and is asked for when nothing else is left
}

// PushLayer is a layer to be at the target. The first of its ways that works is taken.
type PushLayer struct {
	DiffID     digest.Digest      // "" for a part of an attestation
	Descriptor ocispec.Descriptor // as the manifest has it; zero for an image made here
	Ways       []Way
}

// id is what progress calls the layer.
func (l *PushLayer) id() string {
	if l.DiffID != "" {
		return short(l.DiffID)
	}
	return short(l.Descriptor.Digest)
}

// How many repositories of the target's registry are asked for a layer.
const mountsMax = 3

// PlanPush looks at what the image is made of and asks the target what it has. It changes nothing. Errors are in Docker's words.
func (t *Transfer) PlanPush(ctx context.Context, req PushRequest) (*PushPlan, error) {
	plan, err := t.gather(ctx, req)
	if err != nil {
		return nil, err
	}
	for _, p := range plan.Images {
		if err := t.ask(ctx, p, req); err != nil {
			return nil, err
		}
	}
	return plan, nil
}

// gather finds the images to push, with their documents.
func (t *Transfer) gather(ctx context.Context, req PushRequest) (*PushPlan, error) {
	plan := &PushPlan{Name: req.Name, AllTags: req.AllTags}
	if req.Name.Digest != "" {
		return nil, fault.New(fault.Invalid, "cannot push a digest reference")
	}
	tags, err := t.tags(ctx, req.Name)
	if err != nil {
		return nil, err
	}
	if len(tags) == 0 {
		return nil, fault.New(fault.NotFound, "An image does not exist locally with the tag: %s", req.Name.FamiliarName())
	}
	names := tags
	if !req.AllTags {
		names = []ref.Ref{req.Name.WithDefaultTag()}
		if !slices.Contains(tags, names[0]) {
			return nil, fault.New(fault.NotFound, "tag does not exist: %s", names[0].Familiar())
		}
	} else if req.Name.Tag != "" {
		return nil, fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	target := t.cfg.Remote.Repository(req.Name, req.Credentials)
	for _, n := range names {
		p := &PushImage{Name: n, target: target}
		if err := t.read(p, req.Platform); err != nil {
			return nil, err
		}
		plan.Images = append(plan.Images, p)
	}
	return plan, nil
}

// tags lists the tags that a repository has here, sorted.
func (t *Transfer) tags(ctx context.Context, name ref.Ref) (list []ref.Ref, err error) {
	all, err := t.cfg.Images.List(ctx, image.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, img := range all {
		for _, tag := range img.RepoTags {
			n, err := ref.Parse(tag)
			if err == nil && n.Repository() == name.Repository() && n.Tag != "" {
				list = append(list, n)
			}
		}
	}
	slices.SortFunc(list, func(a, b ref.Ref) int { return strings.Compare(a.String(), b.String()) })
	return list, nil
}

// read reads the documents of an image from the store.
func (t *Transfer) read(p *PushImage, platform *image.Platform) error {
	img, err := t.cfg.Images.ResolvePlatform(p.Name.String(), platform)
	if err != nil {
		return err
	}
	p.id = digest.Digest(img.ID)
	if p.docs, err = t.cfg.Images.ManifestOf(p.Name.String(), platform); err != nil {
		return err
	}
	if p.docs.Root != nil {
		p.Root = p.docs.Root.Descriptor.OCI()
	}
	for _, m := range p.docs.Manifests {
		x := &PushManifest{ManifestDocs: m}
		for _, l := range m.Layers {
			x.Layers = append(x.Layers, &PushLayer{DiffID: l.DiffID, Descriptor: l.Descriptor})
		}
		p.Manifests = append(p.Manifests, x)
	}
	return nil
}

// ask asks the target what it has, and says how the rest gets there.
func (t *Transfer) ask(ctx context.Context, p *PushImage, req PushRequest) error {
	if err := t.askForeign(ctx, p, req); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(t.cfg.MaxUploads)
	seen := map[digest.Digest]*PushLayer{}
	for _, m := range p.Manifests {
		for i, l := range m.Layers {
			if l.DiffID == "" {
				continue
			}
			if same := seen[l.DiffID]; same != nil && same.Descriptor.Digest == l.Descriptor.Digest {
				m.Layers[i] = same
				continue
			}
			seen[l.DiffID] = l
			g.Go(func() error { return t.ways(ctx, p, l) })
		}
	}
	for _, m := range p.Manifests {
		for _, l := range m.Layers {
			if l.DiffID == "" {
				l.Ways = []Way{{How: Kept, Descriptor: l.Descriptor}}
			}
		}
	}
	return g.Wait()
}

// askForeign decides about the manifests of an index that are not here. An index can only be pushed when the target has
// them, or gets them from another of its own repositories; else one platform's manifest goes, as Docker does it.
func (t *Transfer) askForeign(ctx context.Context, p *PushImage, req PushRequest) error {
	if len(p.Manifests) < 2 && (len(p.Manifests) == 0 || p.Manifests[0].Available) {
		return nil
	}
	origins := t.origins(p)
	for _, m := range p.Manifests {
		if m.Available {
			continue
		}
		there, err := p.target.HasManifest(ctx, m.Descriptor.Digest)
		if err != nil {
			return err
		}
		if m.There = there; there {
			continue
		}
		for _, from := range origins {
			if t.mountable(ctx, p, m, from, req) {
				break
			}
		}
		if !m.Foreign {
			p.Missing = append(p.Missing, m.Descriptor.OCI())
		}
	}
	if len(p.Missing) > 0 {
		return p.narrow(req.Platform)
	}
	return nil
}

// origins are the repositories of the target's registry from which the image's index came.
func (t *Transfer) origins(p *PushImage) (paths []string) {
	img, err := t.cfg.Images.Resolve(p.Name.String())
	if err != nil || p.docs.Root == nil {
		return nil
	}
	for _, rd := range img.RepoDigests {
		n, err := ref.Parse(rd)
		if err == nil && n.Domain == p.Name.Domain && n.Path != p.Name.Path && n.Digest == p.docs.Root.Digest {
			paths = append(paths, n.Path)
		}
	}
	return paths
}

// mountable looks whether a manifest that is not here can be had from another repository of the target's registry.
func (t *Transfer) mountable(ctx context.Context, p *PushImage, m *PushManifest, path string, req PushRequest) bool {
	from := t.cfg.Remote.Repository(ref.Ref{Domain: p.Name.Domain, Path: path}, req.Credentials)
	got, err := from.Manifest(ctx, string(m.Descriptor.Digest))
	if err != nil {
		return false
	}
	doc, err := parseDocument(m.Descriptor.OCI(), got.Content, p.Name)
	if err != nil || doc.Manifests != nil {
		return false
	}
	m.Foreign, m.From, m.raw = true, path, got.Content
	for _, d := range append([]ocispec.Descriptor{*doc.Config}, doc.Layers...) {
		if distributable(d.MediaType) {
			m.blobs = append(m.blobs, d)
		}
	}
	return true
}

// narrow leaves the manifest of one platform.
func (p *PushImage) narrow(platform *image.Platform) error {
	var list []candidate
	for _, m := range p.Manifests {
		if m.Available && m.ImageID != "" {
			d := m.Descriptor.OCI()
			if d.Platform == nil && m.Platform != nil {
				d.Platform = &ocispec.Platform{Architecture: m.Platform.Architecture, OS: m.Platform.OS, Variant: m.Platform.Variant}
			}
			list = append(list, candidate{d})
		}
	}
	best := want(platform).best(list)
	if best == nil && len(list) > 0 {
		best = &list[0]
	}
	if best == nil {
		return fault.New(fault.NotFound, "no manifest of %s is here with all that belongs to it", p.Name.Familiar())
	}
	index := p.Root
	p.Index, p.Root = &index, best.desc
	p.Manifests = slices.DeleteFunc(p.Manifests, func(m *PushManifest) bool { return m.Descriptor.Digest != best.desc.Digest })
	p.docs.Inner = nil
	return nil
}

// ways finds how a layer can get to the target.
func (t *Transfer) ways(ctx context.Context, p *PushImage, l *PushLayer) error {
	if l.Descriptor.Digest != "" && !distributable(l.Descriptor.MediaType) {
		l.Ways = []Way{{How: Skip, Descriptor: l.Descriptor}}
		return nil
	}
	sources := t.cfg.Images.Sources(l.DiffID)
	slices.Reverse(sources) // the latest first
	var blobs []ocispec.Descriptor
	add := func(d ocispec.Descriptor) {
		if !slices.ContainsFunc(blobs, func(o ocispec.Descriptor) bool { return o.Digest == d.Digest }) {
			blobs = append(blobs, d)
		}
	}
	var anew []Way // what an earlier push made of the layer
	if l.Descriptor.Digest != "" {
		add(l.Descriptor) // no other blob will do: the manifest says which
		for _, s := range sources {
			if !s.Claimed && s.Descriptor.Digest != l.Descriptor.Digest && s.Repository == p.Name.Repository() {
				anew = append(anew, Way{How: Exists, Descriptor: plain(s.Descriptor), Ask: true})
			}
		}
		sources = slices.DeleteFunc(sources, func(s image.Source) bool { return s.Descriptor.Digest != l.Descriptor.Digest })
	}
	sources = slices.DeleteFunc(sources, func(s image.Source) bool { return s.Claimed && s.Descriptor.Digest != l.Descriptor.Digest })
	for _, s := range sources {
		if distributable(s.Descriptor.MediaType) {
			add(plain(s.Descriptor))
		}
	}
	for _, d := range blobs[:min(len(blobs), mountsMax)] {
		_, there, err := p.target.HasBlob(ctx, d.Digest)
		if err != nil {
			return err
		}
		if there {
			l.Ways = []Way{{How: Exists, Descriptor: d}}
			return nil
		}
	}
	l.Ways = append(l.Ways, elsewhere(p.Name, sources)...)
	for _, d := range blobs {
		if t.cfg.Images.Blobs().Has(d.Digest) {
			l.Ways = append(l.Ways, Way{How: Kept, Descriptor: d})
		}
	}
	for _, s := range sources {
		if distributable(s.Descriptor.MediaType) && s.Repository != p.Name.Repository() {
			l.Ways = append(l.Ways, Way{How: Stream, From: s.Repository, Descriptor: plain(s.Descriptor)})
		}
	}
	l.Ways = append(append(l.Ways, anew...), Way{How: Rebuild})
	return nil
}

// elsewhere lists the repositories of the target's registry that have, or had, a layer.
func elsewhere(target ref.Ref, sources []image.Source) (ways []Way) {
	for _, s := range sources {
		n, err := ref.Parse(s.Repository)
		if err == nil && n.Domain == target.Domain && n.Path != target.Path && distributable(s.Descriptor.MediaType) && len(ways) < mountsMax {
			ways = append(ways, Way{How: Mount, From: n.Path, Descriptor: plain(s.Descriptor)})
		}
	}
	return ways
}

// plain is a blob's descriptor without what only its old manifest said of it.
func plain(d ocispec.Descriptor) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size}
}
