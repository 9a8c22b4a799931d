package transfer

import (
	"fmt"
	"io"
	"strings"

	"github.com/docker/go-units"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Write prints the plan for people.
func (p *PullPlan) Write(w io.Writer) error {
	o := &lines{}
	what := p.Name.WithDefaultTag().String()
	if p.AllTags {
		what = fmt.Sprintf("all %d tags of %s", len(p.Images)+len(p.Skipped), p.Name)
	}
	o.add(0, "pull %s", what)
	for _, img := range p.Images {
		img.write(o)
	}
	for _, s := range p.Skipped {
		o.add(1, "skip %s: %v", s.Tag, s.Err)
	}
	return o.to(w)
}

func (p *PullImage) write(o *lines) {
	if s := p.Stale; s != nil {
		o.add(1, "use the copy of %s that is here: image %s, %s old", p.Name.Familiar(), s.ID, age(s.Age))
		o.add(2, "because the registry cannot be asked: %v", s.Err)
		return
	}
	o.add(1, "%s", tagOrDigest(p.Name))
	from := ""
	if p.From != "" {
		from = ", from " + p.From
	}
	if p.Age > 0 {
		from += fmt.Sprintf(", whose copy is %s old", age(p.Age))
	}
	o.add(2, "root      %s %s %s%s", p.Root.Digest, docName(p.Root.MediaType), size(p.Root.Size), from)
	if p.Manifest.Digest != p.Root.Digest {
		o.add(2, "manifest  %s for %s: %s", p.Manifest.Digest, p.Platform, p.Why)
	} else {
		o.add(2, "platform  %s: %s", p.Platform, p.Why)
	}
	o.add(2, "image     %s", p.Config.Digest)
	for i, l := range p.Layers {
		o.add(2, "layer %-3d %s %-4s %9s  %s", i+1, l.Digest, compression(l.MediaType), size(l.Size), l.Do)
	}
	for _, d := range p.Attestations {
		o.add(2, "beside    %s attestations, kept if they can be had", d.Digest)
	}
	if p.Warning != "" {
		o.add(2, "%s", p.Warning)
	}
	if p.Rule != "" {
		o.add(2, "verify    %s", p.Rule)
	}
	if p.UpToDate {
		o.add(2, "up to date: nothing to do")
		return
	}
	for _, n := range p.Names {
		o.add(2, "name      %s", n.Familiar())
	}
	bytes, layers := p.Bytes()
	o.add(2, "fetch     %s in %s", size(bytes), plural(layers, "layer"))
}

// String says what is done, for plans.
func (a Action) String() string {
	switch a {
	case Here:
		return "here"
	case Fetch:
		return "fetch"
	case Repeat:
		return "the same as before"
	case Remote:
		return "serve from the registry, fetch in the background"
	}
	return fmt.Sprintf("action %d", int(a))
}

func docName(mediaType string) string {
	switch mediaType {
	case ocispec.MediaTypeImageIndex:
		return "OCI index"
	case typeDockerList:
		return "Docker manifest list"
	case ocispec.MediaTypeImageManifest:
		return "OCI manifest"
	case typeDockerManifest:
		return "Docker manifest"
	}
	return mediaType
}

func size(n int64) string { return units.HumanSize(float64(n)) }

// lines are indented lines of text.
type lines struct{ b strings.Builder }

func (o *lines) add(depth int, format string, args ...any) {
	o.b.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(&o.b, format, args...)
	o.b.WriteByte('\n')
}

func (o *lines) to(w io.Writer) error {
	_, err := io.WriteString(w, o.b.String())
	return err
}
