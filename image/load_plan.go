package image

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
)

// Media types of what nobody wrote an OCI constant for.
const (
	dockerManifestType = "application/vnd.docker.distribution.manifest.v2+json"
	dockerListType     = "application/vnd.docker.distribution.manifest.list.v2+json"
	dockerConfigType   = "application/vnd.docker.container.image.v1+json"
)

// dockerItem is an image in manifest.json.
type dockerItem struct {
	Config   string
	RepoTags []string
	Layers   []string
	Parent   digest.Digest
}

// ociManifest is a manifest or an index: which one the media type or the fields tell.
type ociManifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *Descriptor       `json:"config"`
	Layers       []Descriptor      `json:"layers"`
	Manifests    []Descriptor      `json:"manifests"`
	Annotations  map[string]string `json:"annotations"`
}

// planLoad decides which images an archive holds. It touches nothing.
func planLoad(a *incoming, w wants) ([]planned, error) {
	p := &loadPlan{a: a, want: w}
	var err error
	switch {
	case a.lookup("manifest.json") != nil:
		err = p.docker()
	case a.lookup("index.json") != nil:
		err = p.oci()
	default:
		err = fault.New(fault.Invalid, "invalid image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)")
	}
	return p.images, err
}

type loadPlan struct {
	a      *incoming
	want   wants
	images []planned
}

// docker reads manifest.json. Where the archive is an OCI layout too, the manifests it has are kept with the images.
func (p *loadPlan) docker() error {
	raw, err := p.a.document("manifest.json")
	if err != nil {
		return err
	}
	var items []dockerItem
	if err := json.Unmarshal(raw, &items); err != nil {
		return fault.Wrap(fault.Invalid, err, "invalid manifest.json")
	}
	if items == nil {
		return fault.New(fault.Invalid, "invalid manifest, manifest cannot be null (but can be [])")
	}
	manifests := p.manifestsByConfig()
	for _, item := range items {
		img, err := p.dockerImage(item)
		if err != nil {
			return err
		}
		if p.want.exact && !p.want.match.Match(img.doc.platform().oci()) {
			continue
		}
		img.manifest = manifests[digest.FromBytes(img.config)]
		p.images = append(p.images, *img)
	}
	if len(p.images) == 0 && len(items) > 0 {
		return fault.New(fault.NotFound, "no image for platform %s in the archive", p.want.name)
	}
	p.validParents()
	return nil
}

func (p *loadPlan) dockerImage(item dockerItem) (*planned, error) {
	config, err := p.a.document(item.Config)
	if err != nil {
		return nil, err
	}
	img, err := p.image(config, item.Layers)
	if err != nil {
		return nil, err
	}
	img.parent = item.Parent
	for _, tag := range item.RepoTags {
		n, err := ref.Parse(tag)
		if err != nil {
			return nil, err
		}
		if n.Tag == "" || n.Digest != "" {
			return nil, fault.New(fault.Invalid, "invalid tag %q", tag)
		}
		img.names = appendName(img.names, n)
	}
	return img, nil
}

// image checks a configuration and its layers' number.
func (p *loadPlan) image(config []byte, layers []string) (*planned, error) {
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
	return &planned{config: config, doc: doc, layers: layers}, nil
}

// validParents keeps parents that are images of the same archive, as docker load does.
func (p *loadPlan) validParents() {
	ids := map[digest.Digest]bool{}
	for _, img := range p.images {
		ids[digest.FromBytes(img.config)] = true
	}
	for i := range p.images {
		img := &p.images[i]
		if !ids[img.parent] || img.parent == digest.FromBytes(img.config) {
			img.parent = ""
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
	var all []choice
	for _, d := range top.Manifests {
		list, err := p.choices(d, nil, 0)
		if err == nil {
			all = append(all, list...)
		}
	}
	for _, c := range all {
		if c.m.Config != nil && found[c.m.Config.Digest] == nil {
			found[c.m.Config.Digest] = c.manifest
		}
	}
	return found
}

// oci reads index.json: each name, and each nameless descriptor, is an image; of several platforms one is taken.
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
	type group struct {
		name    ref.Ref
		choices []choice
	}
	var groups []*group
	for _, d := range top.Manifests {
		list, err := p.choices(d, nil, 0)
		if err != nil {
			return err
		}
		name := nameOf(d.Annotations)
		at := slices.IndexFunc(groups, func(g *group) bool { return !name.IsZero() && g.name == name })
		if at < 0 {
			groups = append(groups, &group{name: name})
			at = len(groups) - 1
		}
		groups[at].choices = append(groups[at].choices, list...)
	}
	for _, g := range groups {
		if len(g.choices) == 0 {
			continue // attestations alone
		}
		c, err := p.choose(g.choices)
		if err != nil {
			return err
		}
		if err := p.add(c, g.name); err != nil {
			return err
		}
	}
	if len(p.images) == 0 {
		return fault.New(fault.Invalid, "invalid image archive: index.json names no image")
	}
	return nil
}

// add plans the image of a manifest; where it is planned already it gets another name.
func (p *loadPlan) add(c choice, name ref.Ref) error {
	config, err := p.blob(*c.m.Config)
	if err != nil {
		return err
	}
	layers := make([]string, len(c.m.Layers))
	for i, l := range c.m.Layers {
		if l.Digest.Validate() != nil {
			return fault.New(fault.Invalid, "manifest %s: layer digest %q", c.manifest.Digest, l.Digest)
		}
		layers[i] = blobPath(l.Digest)
		if f := p.a.lookup(layers[i]); f != nil && f.isLayer && f.err == nil && (f.raw != l.Digest || f.size != l.Size) {
			return fault.New(fault.Invalid, "layer %d of manifest %s: the file has digest %s and %d bytes, %s and %d were announced",
				i, c.manifest.Digest, f.raw, f.size, l.Digest, l.Size)
		}
	}
	img, err := p.image(config, layers)
	if err != nil {
		return err
	}
	img.manifest, img.index = c.manifest, c.index
	if !name.IsZero() {
		img.names = appendName(nil, name)
	}
	for i := range p.images {
		if string(p.images[i].config) == string(config) {
			p.images[i].names = appendName(p.images[i].names, img.names...)
			return nil
		}
	}
	p.images = append(p.images, *img)
	return nil
}

func appendName(names []ref.Ref, more ...ref.Ref) []ref.Ref {
	for _, n := range more {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// choice is a manifest of an image, with its platform.
type choice struct {
	m        *ociManifest
	manifest *Attached
	index    *Attached
	platform *Platform
}

const indexDepth = 8

// choices gives the image manifests that a descriptor leads to, through nested indexes.
func (p *loadPlan) choices(d Descriptor, index *Attached, depth int) ([]choice, error) {
	if depth > indexDepth {
		return nil, fault.New(fault.Invalid, "indexes are nested more than %d deep", indexDepth)
	}
	if attestation(d) {
		return nil, nil
	}
	raw, err := p.blob(d)
	if err != nil {
		if index != nil && p.a.lookup(blobPath(d.Digest)) == nil {
			return nil, nil // an index may name platforms that were left out of the archive
		}
		return nil, err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return nil, fault.In(err, "manifest %s", d.Digest)
	}
	doc := &Attached{Descriptor: d, Content: raw}
	doc.Annotations = nil
	if doc.MediaType == "" {
		doc.MediaType = m.MediaType
	}
	if m.Manifests != nil {
		var list []choice
		for _, sub := range m.Manifests {
			top := index
			if top == nil {
				top = doc
			}
			more, err := p.choices(sub, top, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, more...)
		}
		return list, nil
	}
	if m.Config == nil || !isImageConfig(m.Config.MediaType) {
		return nil, nil // an artifact
	}
	return []choice{{m: m, manifest: doc, index: index, platform: p.platformOf(d, m)}}, nil
}

// platformOf is the manifest's platform: its descriptor's, else its configuration's.
func (p *loadPlan) platformOf(d Descriptor, m *ociManifest) *Platform {
	if d.Platform != nil && d.Platform.OS != "" {
		return d.Platform
	}
	raw, err := p.blob(*m.Config)
	if err != nil {
		return nil
	}
	doc, err := ParseDocument(raw)
	if err != nil {
		return nil
	}
	at := doc.platform()
	return &at
}

// choose takes the manifest that fits the wanted platform best.
func (p *loadPlan) choose(list []choice) (choice, error) {
	var best *choice
	var have []string
	for i := range list {
		c := &list[i]
		if c.platform == nil {
			continue
		}
		have = append(have, c.platform.String())
		if !p.want.match.Match(c.platform.oci()) {
			continue
		}
		if best == nil || p.want.match.Less(c.platform.oci(), best.platform.oci()) {
			best = c
		}
	}
	switch {
	case best != nil:
		return *best, nil
	case len(list) == 1 && !p.want.exact:
		return list[0], nil
	}
	return choice{}, fault.New(fault.NotFound, "no image for platform %s in the archive: it has %s", p.want.name, strings.Join(have, ", "))
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

func blobPath(d digest.Digest) string {
	return "blobs/" + d.Algorithm().String() + "/" + d.Encoded()
}

// nameOf reads an image's name from a descriptor's annotations: containerd's full one, or the OCI reference name where it
// is more than a tag.
func nameOf(annotations map[string]string) ref.Ref {
	for _, key := range []string{"io.containerd.image.name", ocispec.AnnotationRefName} {
		v := annotations[key]
		if key == ocispec.AnnotationRefName && !strings.ContainsAny(v, ":/") {
			continue
		}
		if n, err := ref.ParseTagged(v); v != "" && err == nil {
			return n
		}
	}
	return ref.Ref{}
}

// attestation reports descriptors of what buildx puts beside images: not for any platform.
func attestation(d Descriptor) bool {
	return d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" ||
		d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

func isImageConfig(mediaType string) bool {
	return mediaType == ocispec.MediaTypeImageConfig || mediaType == dockerConfigType || mediaType == ""
}

func parseManifest(raw []byte) (*ociManifest, error) {
	var m ociManifest
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "invalid manifest")
	}
	if m.MediaType == dockerListType || m.MediaType == ocispec.MediaTypeImageIndex {
		if m.Manifests == nil {
			m.Manifests = []Descriptor{}
		}
	} else if m.Config != nil && m.Manifests != nil {
		return nil, fault.New(fault.Invalid, "invalid manifest: both a manifest and an index")
	}
	return &m, nil
}
