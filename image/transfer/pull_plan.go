package transfer

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image"
	"berth/image/layer"
	"berth/image/remote"
)

// PullPlan is what a pull is going to do. Write prints it.
type PullPlan struct {
	Name    ref.Ref
	AllTags bool
	Images  []*PullImage // one, or one for each tag
	Skipped []SkippedTag // tags of AllTags that are no images
}

// SkippedTag is a tag that a pull of all tags leaves alone: a signature, a chart.
type SkippedTag struct {
	Tag string
	Err error
}

// PullImage is the pull of one name.
type PullImage struct {
	Name         ref.Ref // with a tag or a digest
	From         string  // host that answered
	Age          time.Duration
	Root         ocispec.Descriptor
	Manifest     ocispec.Descriptor
	Platform     image.Platform
	Why          string // why this manifest of the index
	Config       ocispec.Descriptor
	Layers       []PullLayer // the lowest first
	Attestations []ocispec.Descriptor
	Names        []ref.Ref // to be set
	UpToDate     bool      // nothing is to be done
	Stale        *Stale    // the registry could not be asked: nothing else is set but Name
	Rule         string    // of the policy
	Warning      string    // about the platform

	stale     func(error) *Stale // the copy to use when the registry fails later; nil: none is allowed
	repo      *remote.Repository
	root      *document
	manifest  *document
	inner     []*document // indexes in the root
	rawConfig []byte
}

// Stale is the copy that is used instead of what the registry might have.
type Stale struct {
	ID     digest.Digest
	Digest digest.Digest // repository digest, "" when it has none
	Age    time.Duration // since it was got or confirmed
	Err    error         // of asking the registry
}

// Action is what is done about a layer.
type Action int

// The actions of a pull.
const (
	Here   Action = iota // it is in the store
	Fetch                // from the repository
	Repeat               // the same as an earlier layer of the image
	Remote               // served from the registry, fetched in the background
)

// PullLayer is one layer of an image to pull.
type PullLayer struct {
	ocispec.Descriptor // of the compressed blob
	DiffID             digest.Digest
	Do                 Action
}

// PlanPull asks the registry and looks at the store. It changes nothing. Errors are in Docker's words.
func (t *Transfer) PlanPull(ctx context.Context, req PullRequest) (*PullPlan, error) {
	return t.planPull(ctx, req, nil)
}

// planPull is PlanPull with somebody who watches: what the name stands for is told as soon as it is known.
func (t *Transfer) planPull(ctx context.Context, req PullRequest, b *board) (*PullPlan, error) {
	name := req.Name
	if name.Digest != "" {
		name = name.WithDigest(name.Digest) // a tag beside a digest says nothing
	}
	plan := &PullPlan{Name: name, AllTags: req.AllTags}
	repo := t.cfg.Remote.Repository(name, req.Credentials)
	if !req.AllTags {
		img, err := t.planImage(ctx, repo, name.WithDefaultTag(), req, b)
		if err != nil {
			return nil, err
		}
		plan.Images = []*PullImage{img}
		return plan, nil
	}
	if !name.IsNameOnly() {
		return nil, fault.New(fault.Invalid, "tag can't be used with --all-tags/-a")
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return nil, err
	}
	for _, tag := range tags {
		tagged, err := name.WithTag(tag)
		if err != nil {
			return nil, err
		}
		img, err := t.planImage(ctx, repo, tagged, req, nil)
		switch {
		case fault.Is(err, fault.Invalid), fault.Is(err, fault.NotFound):
			plan.Skipped = append(plan.Skipped, SkippedTag{tag, err})
			continue
		case err != nil:
			return nil, err
		}
		plan.Images = append(plan.Images, img)
	}
	if len(plan.Images) == 0 && len(plan.Skipped) > 0 {
		return nil, plan.Skipped[0].Err
	}
	return plan, nil
}

// planImage plans one name; where the registry cannot be asked and a copy will do, the plan is to use that.
func (t *Transfer) planImage(ctx context.Context, repo *remote.Repository, name ref.Ref, req PullRequest, b *board) (*PullImage, error) {
	p := &PullImage{Name: name, repo: repo}
	if req.StaleIfError || t.cfg.StaleIfError {
		p.stale = func(cause error) *Stale { return t.stale(name, req.Platform, cause) }
	}
	err := t.observe(ctx, p, req, b)
	if err == nil {
		return p, nil
	}
	if s := p.instead(err); s != nil {
		b.status(tagOrDigest(name), "Pulling from "+name.Path)
		return &PullImage{Name: name, Stale: s}, nil
	}
	return nil, err
}

// instead gives the copy to use after an error, nil where none is here or may be used.
func (p *PullImage) instead(err error) *Stale {
	if p.stale == nil || !fault.Is(err, fault.Unavailable) {
		return nil
	}
	return p.stale(err)
}

// stale finds the copy that is here, if it is for the platform wanted.
func (t *Transfer) stale(name ref.Ref, want *image.Platform, cause error) *Stale {
	img, err := t.cfg.Images.ResolvePlatform(name.String(), want)
	if err != nil {
		return nil
	}
	s := &Stale{ID: digest.Digest(img.ID), Age: time.Since(img.Tagged), Err: cause}
	if img.Tagged.IsZero() {
		s.Age = 0
	}
	if root := rootOf(img); root != nil {
		s.Digest = root.Digest
	}
	return s
}

// rootOf is the document that an image's name stands for at its registry, or nil.
func rootOf(img *image.Image) *image.Descriptor {
	if img.Index != nil {
		return img.Index
	}
	return img.Manifest
}

// observe reads what the name stands for and what of it is here.
func (t *Transfer) observe(ctx context.Context, p *PullImage, req PullRequest, b *board) error {
	p.Names = []ref.Ref{p.Name}
	if r, ok := t.cfg.Verify.(Ruler); ok {
		p.Rule = r.Rule(p.Name)
	}
	old, err := t.cfg.Images.ResolvePlatform(p.Name.String(), req.Platform)
	if err != nil {
		old, _ = t.cfg.Images.Resolve(p.Name.String()) // for another platform: it may still be all that there is
	}
	if p.root, err = t.readRoot(ctx, p, old); err != nil {
		return err
	}
	b.status(tagOrDigest(p.Name), "Pulling from "+p.Name.Path)
	p.Root = p.root.desc
	if p.Name.Digest == "" {
		p.Names = append(p.Names, p.Name.WithDigest(p.Root.Digest))
	}
	if err := t.chooseManifest(ctx, p, req.Platform); err != nil {
		return err
	}
	if err := p.manifest.checkImage(); err != nil {
		return err
	}
	p.Manifest, p.Config = p.manifest.desc, *p.manifest.Config
	if p.rawConfig, err = t.readConfig(ctx, p.repo, p.Config); err != nil {
		return fault.In(err, "error pulling image configuration")
	}
	doc, err := image.ParseDocument(p.rawConfig)
	if err != nil {
		return err
	}
	if err := p.checkPlatform(doc, req.Platform); err != nil {
		return err
	}
	if err := t.observeLayers(p, doc, req.Lazy); err != nil {
		return err
	}
	p.UpToDate = old != nil && t.upToDate(p, old)
	return nil
}

// readRoot reads the document that the name stands for. An image that is here already costs one small question: its
// documents are here too.
func (t *Transfer) readRoot(ctx context.Context, p *PullImage, old *image.Image) (*document, error) {
	if d := p.Name.Digest; d != "" {
		if root := t.keptRoot(old, d); root != nil {
			// Content that is named by its digest cannot have changed; the registry is asked all the same whether this caller may have it.
			if _, err := p.repo.Resolve(ctx, string(d)); err != nil {
				return nil, err
			}
			return root, nil
		}
		return p.readManifest(ctx, ocispec.Descriptor{Digest: d})
	}
	if old != nil && rootOf(old) != nil {
		d, err := p.repo.Resolve(ctx, p.Name.Tag)
		if err != nil {
			return nil, err
		}
		if root := t.keptRoot(old, d.Digest); root != nil {
			return root, nil
		}
	}
	return p.readManifest(ctx, ocispec.Descriptor{})
}

// keptRoot gives the root document of an image that is here, if it has the digest.
func (t *Transfer) keptRoot(old *image.Image, d digest.Digest) *document {
	if old == nil {
		return nil
	}
	root := rootOf(old)
	if root == nil || root.Digest != d {
		return nil
	}
	raw, err := t.cfg.Images.Blobs().Read(d, configMax)
	if err != nil {
		return nil
	}
	doc, err := parseDocument(ocispec.Descriptor{MediaType: root.MediaType, Digest: d, Size: int64(len(raw))}, raw, ref.Ref{})
	if err != nil {
		return nil
	}
	return doc
}

// readManifest reads a document of the repository: by its digest, or where that is "" by the name's tag.
func (p *PullImage) readManifest(ctx context.Context, d ocispec.Descriptor) (*document, error) {
	what := string(d.Digest)
	if what == "" {
		what = p.Name.Tag
	}
	got, err := p.repo.Manifest(ctx, what)
	if fault.Is(err, fault.NotImplemented) && strings.Contains(err.Error(), "schema 1") {
		return nil, schema1(p.Name)
	}
	if err != nil {
		return nil, err
	}
	if d.Size > 0 && d.Size != int64(len(got.Content)) {
		return nil, fault.New(fault.Invalid, "manifest %s has %d bytes, %d were announced", d.Digest, len(got.Content), d.Size)
	}
	p.From, p.Age = got.From, max(p.Age, got.Age)
	desc := got.Descriptor
	desc.Size = int64(len(got.Content))
	if known(d.MediaType) {
		desc.MediaType = d.MediaType
	}
	doc, err := parseDocument(desc, got.Content, p.Name)
	if err == nil {
		doc.desc.Platform, doc.desc.ArtifactType, doc.desc.Annotations = d.Platform, d.ArtifactType, d.Annotations
	}
	return doc, err
}

// member reads a document that an index names: from the store when it is there.
func (t *Transfer) member(ctx context.Context, p *PullImage, d ocispec.Descriptor) (*document, error) {
	if t.cfg.Images.Blobs().Has(d.Digest) {
		if raw, err := t.cfg.Images.Blobs().Read(d.Digest, configMax); err == nil && int64(len(raw)) == d.Size {
			return parseDocument(d, raw, p.Name)
		}
	}
	if d.Data != nil && d.Digest.Algorithm().FromBytes(d.Data) == d.Digest && int64(len(d.Data)) == d.Size {
		return parseDocument(d, d.Data, p.Name)
	}
	return p.readManifest(ctx, d)
}

// readConfig reads an image's configuration: from the store, from its descriptor, or from the repository.
func (t *Transfer) readConfig(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor) ([]byte, error) {
	if d.Size > configMax {
		return nil, fault.New(fault.Invalid, "configuration %s has %d bytes, more than %d", d.Digest, d.Size, configMax)
	}
	if t.cfg.Images.Blobs().Has(d.Digest) {
		if raw, err := t.cfg.Images.Blobs().Read(d.Digest, configMax); err == nil {
			return raw, nil
		}
	}
	if d.Data != nil && d.Digest.Algorithm().FromBytes(d.Data) == d.Digest && int64(len(d.Data)) == d.Size {
		return d.Data, nil
	}
	return readBlob(ctx, repo, d)
}

// observeLayers says for each layer what there is to do.
func (t *Transfer) observeLayers(p *PullImage, doc *image.Document, lazy bool) error {
	if len(p.manifest.Layers) != len(doc.RootFS.DiffIDs) {
		return fault.New(fault.Invalid, "layers from manifest don't match image configuration: %d and %d", len(p.manifest.Layers), len(doc.RootFS.DiffIDs))
	}
	if len(p.manifest.Layers) > layer.MaxDepth {
		return fault.New(fault.Invalid, "max depth exceeded")
	}
	seen := map[digest.Digest]bool{}
	for i, d := range p.manifest.Layers {
		if !layerType(d.MediaType) {
			return fault.New(fault.Invalid, "layer %d of manifest %s: unsupported layer media type %q", i, p.Manifest.Digest, d.MediaType)
		}
		l := PullLayer{Descriptor: d, DiffID: doc.RootFS.DiffIDs[i], Do: Fetch}
		switch {
		case seen[l.DiffID]:
			l.Do = Repeat
		case t.cfg.Images.Layers().Has(l.DiffID):
			if l.Do = Here; !t.good(&l) {
				l.Do = Fetch
			}
		case lazy && t.cfg.Lazy != nil && t.cfg.Lazy.Can(l.Descriptor):
			l.Do = Remote
		}
		seen[l.DiffID] = true
		p.Layers = append(p.Layers, l)
	}
	return nil
}

// upToDate reports whether the name stands for just this, with all that a pull would record.
func (t *Transfer) upToDate(p *PullImage, old *image.Image) bool {
	root := rootOf(old)
	if old.ID != string(p.Config.Digest) || root == nil || root.Digest != p.Root.Digest {
		return false
	}
	for _, n := range p.Names {
		if n.Digest != "" && !slices.Contains(old.RepoDigests, n.Familiar()) {
			return false
		}
		if n.Digest == "" && !slices.Contains(old.RepoTags, n.Familiar()) {
			return false
		}
	}
	return true
}

// Bytes gives how much of the plan's layers is fetched, in all and by how many layers.
func (p *PullImage) Bytes() (bytes int64, layers int) {
	for _, l := range p.Layers {
		if l.Do == Fetch {
			bytes += l.Size
			layers++
		}
	}
	return bytes, layers
}
