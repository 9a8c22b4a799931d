package image

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/ref"
)

// dockerItem is an image in manifest.json.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
	Parent   digest.Digest
}

// planLoad decides which images an archive holds. It touches nothing.
func planLoad(a *incoming, w []wants) ([]planned, error) {
	p := &loadPlan{a: a, wants: w}
	if err := p.read(); err != nil {
		return nil, err
	}
	a.sources = p.origins()
	return p.images, nil
}

func (p *loadPlan) read() error {
	a := p.a
	docker, oci := a.lookup("manifest.json") != nil, a.lookup("index.json") != nil
	switch {
	case docker:
		if oci && p.ociSaysMore() {
			return nil
		}
		p.images = nil
		return p.docker()
	case oci:
		return p.oci()
	}
	return fault.New(fault.Invalid, "invalid image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)")
}

type loadPlan struct {
	a      *incoming
	wants  []wants // platforms that were asked for; empty: all that are there
	images []planned
}

// ociSaysMore plans the OCI layout of an archive that has manifest.json as well, and reports whether that is the better plan: it
// has all images and names of manifest.json, which cannot tell of platforms. What is wrong with the layout is no matter then.
func (p *loadPlan) ociSaysMore() bool {
	items, err := p.dockerItems()
	if err != nil || p.oci() != nil {
		return false
	}
	parents := map[digest.Digest]digest.Digest{}
	for _, item := range items {
		config, err := p.a.document(item.Config)
		if err != nil {
			return false
		}
		id := digest.FromBytes(config)
		at := slices.IndexFunc(p.images, func(g planned) bool { return g.has(id) })
		if at < 0 {
			return false
		}
		for _, tag := range item.RepoTags {
			n, err := ref.ParseTagged(tag)
			if err != nil || !slices.ContainsFunc(p.images, func(g planned) bool { return g.has(id) && slices.Contains(g.names, n) }) {
				return false
			}
		}
		parents[id] = item.Parent
	}
	for _, g := range p.images {
		for i := range g.images {
			g.images[i].parent = parents[digest.FromBytes(g.images[i].config)]
		}
	}
	p.validParents()
	return true
}

func (p *loadPlan) dockerItems() ([]dockerItem, error) {
	raw, err := p.a.document("manifest.json")
	if err != nil {
		return nil, err
	}
	var items []dockerItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid manifest.json")
	}
	if items == nil {
		return nil, fault.New(fault.Invalid, "invalid manifest, manifest cannot be null (but can be [])")
	}
	return items, nil
}

// docker reads manifest.json. Where the archive is an OCI layout too, the manifests it has are kept with the images.
func (p *loadPlan) docker() error {
	items, err := p.dockerItems()
	if err != nil {
		return err
	}
	manifests := p.manifestsByConfig()
	for _, item := range items {
		img, names, err := p.dockerImage(item)
		if err != nil {
			return err
		}
		if !p.wanted(img.doc.platform()) {
			continue
		}
		img.manifest = manifests[digest.FromBytes(img.config)]
		p.images = append(p.images, planned{names: names, images: []plannedImage{*img}})
	}
	if len(p.images) == 0 && len(items) > 0 {
		return fault.New(fault.NotFound, "no image for platform %s in the archive", p.wantedNames())
	}
	p.validParents()
	return nil
}

// wanted reports whether a platform was asked for, or none was.
func (p *loadPlan) wanted(at Platform) bool {
	return len(p.wants) == 0 || slices.ContainsFunc(p.wants, func(w wants) bool { return w.match.Match(at.oci()) })
}

func (p *loadPlan) wantedNames() string {
	var names []string
	for _, w := range p.wants {
		names = append(names, w.name)
	}
	return strings.Join(names, ", ")
}

func (p *loadPlan) dockerImage(item dockerItem) (*plannedImage, []ref.Ref, error) {
	config, err := p.a.document(item.Config)
	if err != nil {
		return nil, nil, err
	}
	img, err := p.image(config, item.Layers)
	if err != nil {
		return nil, nil, err
	}
	img.parent = item.Parent
	var names []ref.Ref
	for _, tag := range item.RepoTags {
		n, err := ref.Parse(tag)
		if err != nil {
			return nil, nil, err
		}
		if n.Tag == "" || n.Digest != "" {
			return nil, nil, fault.New(fault.Invalid, "invalid tag %q", tag)
		}
		names = union(names, []ref.Ref{n})
	}
	return img, names, nil
}

// image checks a configuration and its layers' number.
func (p *loadPlan) image(config []byte, layers []string) (*plannedImage, error) {
	doc, err := ParseDocument(config)
	if err != nil {
		return nil, err
	}
	if !runnable(doc.system()) {
		return nil, fault.New(fault.Invalid, "cannot load %s image on linux", doc.system())
	}
	if want, got := len(layers), len(doc.RootFS.DiffIDs); want != got {
		return nil, fault.New(fault.Invalid, "invalid manifest, layers length mismatch: expected %d, got %d", want, got)
	}
	return &plannedImage{config: config, doc: doc, layers: layers}, nil
}

// validParents keeps parents that are images of the same archive, as docker load does.
func (p *loadPlan) validParents() {
	for _, g := range p.images {
		for i := range g.images {
			img := &g.images[i]
			known := slices.ContainsFunc(p.images, func(o planned) bool { return o.has(img.parent) })
			if !known || img.parent == digest.FromBytes(img.config) {
				img.parent = ""
			}
		}
	}
}

// manifestsByConfig finds the manifests of an archive that is an OCI layout as well. What is wrong with them is no
// matter: manifest.json says what to load.
func (p *loadPlan) manifestsByConfig() map[digest.Digest]*Attached {
	found := map[digest.Digest]*Attached{}
	raw, err := p.a.document("index.json")
	if err != nil {
		return found
	}
	top, err := parseManifest(raw)
	if err != nil {
		return found
	}
	for _, d := range top.Manifests {
		t, err := p.tree(d)
		if err != nil {
			continue
		}
		for _, c := range t.choices {
			if found[c.m.Config.Digest] == nil {
				found[c.m.Config.Digest] = c.manifest
			}
		}
	}
	return found
}

// oci reads index.json: each name, and each nameless descriptor, stands for a manifest or an index with its platforms.
func (p *loadPlan) oci() error {
	raw, err := p.a.document("index.json")
	if err != nil {
		return err
	}
	top, err := parseManifest(raw)
	if err != nil {
		return fault.In(err, "index.json")
	}
	if len(top.Manifests) == 0 {
		return fault.New(fault.Invalid, "invalid image archive: index.json names no manifest")
	}
	if len(top.Manifests) > indexMembersMax {
		return fault.New(fault.Invalid, "index.json names more than %d manifests", indexMembersMax)
	}
	type group struct {
		name  ref.Ref
		trees []*manifestTree
	}
	var groups []*group
	for _, d := range top.Manifests {
		t, err := p.tree(d)
		if err != nil {
			return err
		}
		if len(t.choices) == 0 {
			continue // attestations and artifacts alone
		}
		name := nameOf(d.Annotations)
		at := slices.IndexFunc(groups, func(g *group) bool { return !name.IsZero() && g.name == name })
		if at < 0 {
			groups = append(groups, &group{name: name})
			at = len(groups) - 1
		}
		groups[at].trees = append(groups[at].trees, t)
	}
	for _, g := range groups {
		t, err := p.chooseTree(g.trees)
		if err != nil {
			return err
		}
		if err := p.add(t, g.name); err != nil {
			return err
		}
	}
	if len(p.images) == 0 {
		return fault.New(fault.Invalid, "invalid image archive: index.json names no image")
	}
	return nil
}

// add plans the images of a tree; where it is planned already they get another name.
func (p *loadPlan) add(t *manifestTree, name ref.Ref) error {
	var names []ref.Ref
	if !name.IsZero() {
		names = []ref.Ref{name}
	}
	for i := range p.images {
		if p.images[i].root == t.root {
			p.images[i].names = union(p.images[i].names, names)
			return nil
		}
	}
	g := planned{root: t.root, names: names}
	have := t.platforms()
	several := len(t.choices) > 1
	for _, c := range t.choices {
		switch {
		case c.platform == nil && (several || len(p.wants) > 0), c.platform != nil && !p.wanted(*c.platform):
			continue
		case several && c.platform != nil && !runnable(c.platform.OS):
			continue // of another system, beside ours
		}
		img, err := p.choice(c)
		if err != nil {
			return err
		}
		if several && len(p.wants) == 0 && !p.complete(img) {
			continue // an archive may be of some platforms only
		}
		img.documents = t.documents
		g.images = append(g.images, *img)
	}
	switch {
	case len(g.images) > 0:
	case len(p.wants) > 0:
		return fault.New(fault.NotFound, "no image for platform %s in the archive: it has %s", p.wantedNames(), have)
	default:
		return fault.New(fault.Invalid, "invalid image archive: of %s no platform has all its layers in it: %s", t.root, have)
	}
	// The one that suits this machine comes last: it is the one that a name gives.
	host := wantPlatform(nil).match
	slices.SortStableFunc(g.images, func(a, b plannedImage) int {
		x, y := a.doc.platform().oci(), b.doc.platform().oci()
		switch {
		case host.Less(x, y):
			return 1
		case host.Less(y, x):
			return -1
		}
		return 0
	})
	p.images = append(p.images, g)
	return nil
}

// choice plans the image of one manifest.
func (p *loadPlan) choice(c choice) (*plannedImage, error) {
	config, err := p.blob(*c.m.Config)
	if err != nil {
		return nil, err
	}
	layers := make([]string, len(c.m.Layers))
	for i, l := range c.m.Layers {
		if l.Digest.Validate() != nil {
			return nil, fault.New(fault.Invalid, "manifest %s: layer digest %q", c.manifest.Digest, l.Digest)
		}
		layers[i] = blobPath(l.Digest)
		if f := p.a.lookup(layers[i]); f != nil && f.isLayer && f.err == nil && (f.raw != l.Digest || f.size != l.Size) {
			return nil, fault.New(fault.Invalid, "layer %d of manifest %s: the file has digest %s and %d bytes, %s and %d were announced",
				i, c.manifest.Digest, f.raw, f.size, l.Digest, l.Size)
		}
	}
	img, err := p.image(config, layers)
	if err != nil {
		return nil, err
	}
	img.manifest, img.index = c.manifest, c.index
	return img, nil
}

// complete reports whether all layers of an image are in the archive or here.
func (p *loadPlan) complete(img *plannedImage) bool {
	for i, path := range img.layers {
		if p.a.lookup(path) == nil && !p.a.stored(img.doc.RootFS.DiffIDs[i]) {
			return false
		}
	}
	return true
}

// blob finds a document by its descriptor and verifies it.
func (p *loadPlan) blob(d Descriptor) ([]byte, error) {
	if err := d.Digest.Validate(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "digest %q", d.Digest)
	}
	raw, err := p.a.document(blobPath(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest || d.Size != int64(len(raw)) {
		return nil, fault.New(fault.Invalid, "%s in the archive has digest %s and %d bytes, %d were announced", blobPath(d.Digest), got, len(raw), d.Size)
	}
	return raw, nil
}
