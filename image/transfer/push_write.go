package transfer

import (
	"fmt"
	"io"
	"strings"
)

// Write prints the plan for people.
func (p *PushPlan) Write(w io.Writer) error {
	o := &lines{}
	what := p.Name.WithDefaultTag().String()
	if p.AllTags {
		what = fmt.Sprintf("all %d tags of %s", len(p.Images), p.Name)
	}
	o.add(0, "push %s", what)
	for _, img := range p.Images {
		img.write(o)
	}
	return o.to(w)
}

func (p *PushImage) write(o *lines) {
	o.add(1, "%s", p.Name.Tag)
	switch {
	case p.Index != nil:
		o.add(2, "root      %s %s", p.Root.Digest, docName(p.Root.MediaType))
		o.add(2, "          instead of the index %s: %s not here and not to be had from the same registry", p.Index.Digest, plural(len(p.Missing), "manifest"))
	case p.Root.Digest == "":
		o.add(2, "root      a manifest that is made when the layers are there")
	default:
		o.add(2, "root      %s %s", p.Root.Digest, docName(p.Root.MediaType))
	}
	for _, m := range p.Manifests {
		m.write(o, p)
	}
}

func (m *PushManifest) write(o *lines, p *PushImage) {
	switch {
	case m.There:
		o.add(2, "manifest  %s is there", m.Descriptor.Digest)
		return
	case m.Foreign:
		o.add(2, "manifest  %s from %s of the same registry, with %s", m.Descriptor.Digest, m.From, plural(len(m.blobs), "blob"))
		return
	case m.Attestation != "":
		o.add(2, "manifest  %s attests %s", m.Descriptor.Digest, m.Attestation)
	case m.Descriptor.Digest != "" && m.Descriptor.Digest != p.Root.Digest:
		o.add(2, "manifest  %s for %s", m.Descriptor.Digest, m.Platform)
	}
	for i, l := range m.Layers {
		if l.DiffID == "" {
			continue
		}
		var ways []string
		for _, w := range l.Ways {
			ways = append(ways, w.String())
		}
		o.add(2, "layer %-3d %s %s", i+1, l.DiffID, strings.Join(ways, ", else "))
	}
}

// String says what the way is, for plans.
func (w Way) String() string {
	what := ""
	if w.Descriptor.Digest != "" {
		what = fmt.Sprintf(" %s %s", short(w.Descriptor.Digest), size(w.Descriptor.Size))
	}
	switch w.How {
	case Exists:
		if w.Ask {
			return "take what was compressed anew before," + what
		}
		return "is there as" + what
	case Mount:
		return "mount" + what + " from " + w.From
	case Kept:
		return "send the kept" + what
	case Stream:
		return "pass on" + what + " from " + w.From
	case Rebuild:
		return "compress anew"
	case Skip:
		return "not distributed"
	}
	return fmt.Sprintf("way %d", int(w.How))
}
