package image

import (
	"strings"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

// choice is a manifest of an image, with its platform.
type choice struct {
	m        *ociManifest
	manifest *Attached
	index    *Attached
	platform *Platform
}

// manifestTree is what one descriptor of index.json leads to.
type manifestTree struct {
	root      digest.Digest
	choices   []choice
	documents []Attached // attestations with their parts, indexes below the first
}

// platforms lists them for messages.
func (t *manifestTree) platforms() string {
	var have []string
	for _, c := range t.choices {
		if c.platform != nil {
			have = append(have, c.platform.String())
		}
	}
	return strings.Join(have, ", ")
}

// indexDepth is how deep indexes may be nested.
const indexDepth = 8

// tree reads what a descriptor leads to, through nested indexes.
func (p *loadPlan) tree(d Descriptor) (*manifestTree, error) {
	w := &treeWalk{p: p, t: &manifestTree{root: d.Digest}, seen: map[digest.Digest]bool{}}
	return w.t, w.visit(d, nil, 0)
}

type treeWalk struct {
	p    *loadPlan
	t    *manifestTree
	seen map[digest.Digest]bool // each document counts once: a diamond of indexes could name one a million times
}

func (w *treeWalk) visit(d Descriptor, index *Attached, depth int) error {
	if depth > indexDepth {
		return fault.New(fault.Invalid, "indexes are nested more than %d deep", indexDepth)
	}
	if w.seen[d.Digest] {
		return nil
	}
	if w.seen[d.Digest] = true; len(w.seen) > indexMembersMax {
		return fault.New(fault.Invalid, "index %s leads to more than %d manifests", w.t.root, indexMembersMax)
	}
	if attestation(d) {
		w.attestation(d)
		return nil
	}
	raw, err := w.p.blob(d)
	if err != nil {
		if index != nil && w.p.a.lookup(blobPath(d.Digest)) == nil {
			return nil // an index may name platforms that were left out of the archive
		}
		return err
	}
	m, err := parseManifest(raw)
	if err != nil {
		return fault.In(err, "manifest %s", d.Digest)
	}
	doc := &Attached{Descriptor: d, Content: raw}
	if index == nil {
		doc.Annotations = nil // they are index.json's, not the document's
	}
	if doc.MediaType == "" {
		doc.MediaType = m.MediaType
	}
	if m.Manifests != nil {
		top := index
		if top == nil {
			top = doc
		} else {
			w.t.documents = append(w.t.documents, *doc)
		}
		for _, sub := range m.Manifests {
			if err := w.visit(sub, top, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	if m.Config == nil || !isImageConfig(m.Config.MediaType) {
		if index != nil {
			w.keep(doc, m) // an artifact beside the images
		}
		return nil
	}
	w.t.choices = append(w.t.choices, choice{m: m, manifest: doc, index: index, platform: w.p.platformOf(d, m)})
	return nil
}

// attestation keeps an attestation's documents where they are in the archive and whole.
func (w *treeWalk) attestation(d Descriptor) {
	raw, err := w.p.blob(d)
	if err != nil {
		return
	}
	if m, err := parseManifest(raw); err == nil {
		w.keep(&Attached{Descriptor: d, Content: raw}, m)
	}
}

func (w *treeWalk) keep(doc *Attached, m *ociManifest) {
	parts := m.Layers
	if m.Config != nil {
		parts = append([]Descriptor{*m.Config}, parts...)
	}
	list := []Attached{*doc}
	for _, d := range parts {
		raw, err := w.p.blob(d)
		if err != nil {
			return // half an attestation is none
		}
		list = append(list, Attached{Descriptor: d, Content: raw})
	}
	w.t.documents = append(w.t.documents, list...)
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

// chooseTree takes, of several manifests or indexes under one name, the one with the platform that is wanted most.
func (p *loadPlan) chooseTree(list []*manifestTree) (*manifestTree, error) {
	if len(list) == 1 {
		return list[0], nil
	}
	want := wantPlatform(nil)
	if len(p.wants) > 0 {
		want = p.wants[0]
	}
	var best *manifestTree
	var bestAt *Platform
	var have []string
	for _, t := range list {
		have = append(have, t.platforms())
		for _, c := range t.choices {
			if c.platform == nil || !want.match.Match(c.platform.oci()) {
				continue
			}
			if bestAt == nil || want.match.Less(c.platform.oci(), bestAt.oci()) {
				best, bestAt = t, c.platform
			}
		}
	}
	if best == nil {
		return nil, fault.New(fault.NotFound, "no image for platform %s in the archive: it has %s", want.name, strings.Join(have, ", "))
	}
	return best, nil
}
