package page

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/catalog"
	"berth/registry/storage"
)

// show shows a repository, or an image of it: NAME, NAME:TAG, NAME@DIGEST.
func (p *Pages) show(w http.ResponseWriter, r *http.Request) {
	name, reference := r.PathValue("name"), ""
	if before, d, ok := strings.Cut(name, "@"); ok {
		name, reference = before, d
	} else if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name, reference = name[:i], name[i+1:]
	}
	name = strings.TrimSuffix(name, "/")
	if storage.CheckName(name) != nil {
		p.fail(w, r, notFound(name))
		return
	}
	who, _ := p.visitor(r)
	if err := p.may(r, who, name, access.Pull); err != nil {
		p.fail(w, r, err)
		return
	}
	e, err := p.cfg.Catalog.Entry(name)
	if fault.Is(err, fault.NotFound) {
		err = notFound(name)
	}
	switch {
	case err != nil:
		p.fail(w, r, err)
	case reference == "":
		p.repository(w, r, who, e)
	default:
		p.image(w, r, e, reference)
	}
}

// repositoryView is the view of a repository.
type repositoryView struct {
	catalog.Entry
	Org, Leaf string // team and web of team/web; Org may be ""
	About     template.HTML
	Tags      []tagRow
	Total     int
	Pages     pager
	Starred   bool
	MayStar   bool
	MayEdit   bool
	Pull      string
	Private   bool   // not everybody may pull it
	Links     []link // where the image says that it comes from
}

// tagRow is one tag.
type tagRow struct {
	Name      string
	Digest    digest.Digest
	At        time.Time
	Size      int64
	Platforms []string
	Kind      string
	Bar       int // size as a share of the largest on the page, in percent
}

// link is an address out of a label.
type link struct{ Label, To string }

// repository shows what is known of a repository, and its tags.
func (p *Pages) repository(w http.ResponseWriter, r *http.Request, who access.Subject, e catalog.Entry) {
	v := repositoryView{Entry: e, MayStar: !who.Anonymous(), Starred: p.cfg.Catalog.Starred(who.Name, e.Name)}
	v.Org, v.Leaf = parts(e.Name)
	if e.Long != "" {
		v.About = p.rendered.markdown(e.Long)
	}
	v.Pull = pullCommand(e.Kind, p.host(r)+"/"+e.Name, e.Newest.Tag, string(e.Newest.Digest))
	v.MayEdit = !who.Anonymous() && p.may(r, who, e.Name, access.Admin) == nil
	everybody, err := p.cfg.Access.Allowed(r.Context(), access.Subject{}, e.Name, access.Pull)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v.Private = !everybody
	v.Links = linksOf(e.Labels)
	tags, err := catalog.TagsOf(r.Context(), p.cfg.Storage, e.Name)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v.Total = len(tags)
	var shown []storage.Tag
	shown, v.Pages = pageOf(tags, r.URL)
	largest := int64(1)
	for _, t := range shown {
		row := p.row(r.Context(), e.Name, t)
		largest = max(largest, row.Size)
		v.Tags = append(v.Tags, row)
	}
	for i := range v.Tags {
		v.Tags[i].Bar = int(v.Tags[i].Size * 100 / largest)
	}
	p.render(w, r, http.StatusOK, "repository", e.Shown(), v)
}

// pullCommand is what people type to get something, by tag or, without one, by digest. What is no image is not for docker.
func pullCommand(kind, name, tag, digest string) string {
	reference := name + ":" + tag
	if tag == "" {
		reference = name + "@" + digest
	}
	switch {
	case strings.Contains(kind, "helm") && tag != "":
		return "helm pull oci://" + name + " --version " + tag
	case kind != "" && kind != "image" && kind != "index":
		return "oras pull " + reference
	}
	return "docker pull " + reference
}

// row looks at one tag. What cannot be read is left out of it.
func (p *Pages) row(ctx context.Context, repository string, t storage.Tag) tagRow {
	row := tagRow{Name: t.Name, Digest: t.Digest, At: t.At}
	d, err := catalog.Inspect(ctx, p.cfg.Storage, repository, string(t.Digest), "")
	if err != nil {
		return row
	}
	row.Size, row.Kind = d.Size, d.Kind
	for _, pl := range d.Platforms {
		row.Platforms = append(row.Platforms, pl.Name)
	}
	return row
}

// parts gives a repository's organisation and the rest of its name.
func parts(name string) (org, leaf string) {
	if before, after, ok := strings.Cut(name, "/"); ok {
		return before, after
	}
	return "", name
}

// Labels that hold an address, with what to call it.
var addresses = []link{
	{"Source", "org.opencontainers.image.source"},
	{"Home page", "org.opencontainers.image.url"},
	{"Documentation", "org.opencontainers.image.documentation"},
}

// linksOf gives the addresses that an image's labels name and that may be linked.
func linksOf(labels map[string]string) []link {
	var out []link
	for _, a := range addresses {
		if to := labels[a.To]; linkable(to) && strings.HasPrefix(strings.ToLower(to), "http") {
			out = append(out, link{a.Label, to})
		}
	}
	return out
}

// imageView is the view of one image.
type imageView struct {
	*catalog.Detail
	Shown, Org, Leaf string
	Reference        string // as it was asked for: a tag or a digest
	Tag              string // "" when it was asked for by digest
	Others           []string
	PullTag, PullAt  string // pull commands by tag and by digest
	Steps            []step
	Settings         []setting
	LabelRows        []setting
	Attachments      []attachment
	Official         bool
	Certified        string
}

// step is one step of an image's history with the layer that it made, if it made one.
type step struct {
	Number  int
	Command string
	Created *time.Time
	Digest  digest.Digest // "": it made none
	Size    int64
	Bar     int // share of the image, in percent
	Comment string
}

// setting is a name with a value.
type setting struct{ Name, Value string }

// attachment is something that is about an image: a signature, an SBOM.
type attachment struct {
	Kind      string // for people
	Type      string // as it calls itself
	Digest    digest.Digest
	Size      int64
	By        string // how it is attached
	Reference string // where to look at it
}

// image shows one image.
func (p *Pages) image(w http.ResponseWriter, r *http.Request, e catalog.Entry, reference string) {
	d, err := catalog.Inspect(r.Context(), p.cfg.Storage, e.Name, reference, r.URL.Query().Get("platform"))
	if kind := fault.KindOf(err); err != nil && (kind == fault.NotFound || kind == fault.Invalid) {
		err = fault.New(fault.NotFound, "There is no image %s in %s.", reference, e.Name)
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v := imageView{Detail: d, Shown: e.Shown(), Reference: reference, Official: e.Official, PullAt: pullCommand(d.Kind, p.host(r)+"/"+e.Name, "", string(d.Digest))}
	v.Org, v.Leaf = parts(e.Name)
	if d.Digest == e.Newest.Digest {
		v.Certified = e.Certified
	}
	if !storage.IsDigest(reference) {
		v.Tag, v.PullTag = reference, pullCommand(d.Kind, p.host(r)+"/"+e.Name, reference, "")
	}
	if v.Others, v.Attachments, err = p.around(r.Context(), d, v.Tag); err != nil {
		p.fail(w, r, err)
		return
	}
	v.Steps, v.Settings = steps(d), settings(d.Config)
	labels := d.Labels()
	for _, k := range sorted(labels) {
		v.LabelRows = append(v.LabelRows, setting{k, labels[k]})
	}
	p.render(w, r, http.StatusOK, "image", e.Shown()+":"+reference, v)
}

// around gives the other tags of an image, and what is attached to it: in the index, as referrers, by tags.
func (p *Pages) around(ctx context.Context, d *catalog.Detail, tag string) (others []string, attached []attachment, err error) {
	for t, err := range p.cfg.Storage.TagsOf(ctx, d.Repository) {
		if err != nil {
			return nil, nil, err
		}
		subject, bound := catalog.BoundTag(t.Name)
		switch {
		case bound && (subject == d.Digest || subject == d.Chosen.Digest):
			attached = append(attached, attachment{Kind: boundKind(t.Name), Digest: t.Digest, By: "tag", Reference: t.Name})
		case !bound && t.Digest == d.Digest && t.Name != tag:
			others = append(others, t.Name)
		}
	}
	for _, a := range d.Attached {
		if a.Of == "" || a.Of == d.Chosen.Digest {
			attached = append(attached, attachment{Kind: artifactKind(a.Kind), Type: a.Kind, Digest: a.Digest, By: "index", Reference: string(a.Digest)})
		}
	}
	subjects := []digest.Digest{d.Digest}
	if d.Chosen.Digest != "" && d.Chosen.Digest != d.Digest {
		subjects = append(subjects, d.Chosen.Digest)
	}
	for _, s := range subjects {
		all, err := p.cfg.Storage.Referrers(ctx, d.Repository, s, "")
		if err != nil {
			return nil, nil, err
		}
		for _, a := range all {
			attached = append(attached, attachment{Kind: artifactKind(a.ArtifactType), Type: a.ArtifactType, Digest: a.Digest, Size: a.Size, By: "referrer", Reference: string(a.Digest)})
		}
	}
	slices.Sort(others)
	return others, attached, nil
}

// steps joins history and layers. Without a history that fits, the layers alone.
func steps(d *catalog.Detail) []step {
	var out []step
	bar := func(size int64) int {
		if d.Size == 0 {
			return 0
		}
		return int(size * 100 / d.Size)
	}
	made := 0
	for _, h := range d.History {
		if !h.EmptyLayer {
			made++
		}
	}
	if made != len(d.Layers) {
		for i, l := range d.Layers {
			out = append(out, step{Number: i + 1, Digest: l.Digest, Size: l.Size, Bar: bar(l.Size), Comment: l.MediaType})
		}
		return out
	}
	i := 0
	for n, h := range d.History {
		s := step{Number: n + 1, Command: command(h), Created: h.Created, Comment: h.Comment}
		if !h.EmptyLayer {
			l := d.Layers[i]
			i++
			s.Digest, s.Size, s.Bar = l.Digest, l.Size, bar(l.Size)
		}
		out = append(out, s)
	}
	return out
}

// command makes a history entry readable: builders write what they ran with their own shell around it.
func command(h ocispec.History) string {
	c := strings.TrimSpace(h.CreatedBy)
	if rest, ok := strings.CutPrefix(c, "/bin/sh -c #(nop)"); ok {
		return strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(c, "/bin/sh -c "); ok {
		return "RUN " + strings.TrimSpace(rest)
	}
	c = strings.TrimSuffix(c, " # buildkit")
	return strings.Replace(c, "RUN /bin/sh -c ", "RUN ", 1)
}

// settings lists what a container of the image runs with.
func settings(img *ocispec.Image) []setting {
	if img == nil {
		return nil
	}
	c := img.Config
	var out []setting
	add := func(name string, values ...string) {
		if v := strings.Join(values, "\n"); v != "" {
			out = append(out, setting{name, v})
		}
	}
	words := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		var quoted []string
		for _, s := range list {
			if s == "" || strings.ContainsAny(s, " \t\n\"'\\$") {
				s = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
			}
			quoted = append(quoted, s)
		}
		return strings.Join(quoted, " ")
	}
	add("Entrypoint", words(c.Entrypoint))
	add("Command", words(c.Cmd))
	add("User", c.User)
	add("Directory", c.WorkingDir)
	add("Ports", sorted(c.ExposedPorts)...)
	add("Volumes", sorted(c.Volumes)...)
	add("Stop signal", c.StopSignal)
	add("Environment", c.Env...)
	if img.Created != nil && !img.Created.IsZero() {
		add("Created", img.Created.UTC().Format("2006-01-02 15:04 MST"))
	}
	add("Author", img.Author)
	return out
}

// boundKind says what a tag of the form sha256-HEX.KIND stands for.
func boundKind(tag string) string {
	switch {
	case strings.HasSuffix(tag, ".sig"):
		return "Signature"
	case strings.HasSuffix(tag, ".att"):
		return "Attestation"
	case strings.HasSuffix(tag, ".sbom"):
		return "SBOM"
	}
	return "Referrers"
}

// artifactKind says what an artifact type means, as far as it is known.
func artifactKind(t string) string {
	for _, k := range []struct{ part, kind string }{
		{"cosign.artifact.sig", "Signature"}, {"sigstore.bundle", "Signature"}, {"notary.signature", "Signature"}, {"signature", "Signature"},
		{"spdx", "SBOM"}, {"cyclonedx", "SBOM"}, {"sbom", "SBOM"}, {"syft", "SBOM"},
		{"attestation", "Attestation"}, {"in-toto", "Attestation"}, {"provenance", "Attestation"},
		{"vex", "VEX"}, {"sarif", "Scan"}, {"helm", "Helm chart"}, {"wasm", "WebAssembly"},
	} {
		if strings.Contains(strings.ToLower(t), k.part) {
			return k.kind
		}
	}
	return "Artifact"
}
