package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/platforms"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"berth/cli/build/hub"
)

func newImageTools(d *command.DockerCli) *cobra.Command {
	c := &cobra.Command{
		Use:                   "imagetools",
		Short:                 "Commands to work on images in registry",
		Example:               "  berth buildx imagetools inspect debian",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		DisableFlagsInUseLine: true,
	}
	c.AddCommand(newImageInspect(d), newImageCreate(d))
	return c
}

func newImageInspect(d *command.DockerCli) *cobra.Command {
	var raw bool
	var format string
	c := &cobra.Command{
		Use:     "inspect [OPTIONS] NAME",
		Short:   "Show details of an image in the registry",
		Example: "  berth buildx imagetools inspect debian\n  berth buildx imagetools inspect --raw debian",
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if raw && format != "" {
				return errors.New("--format and --raw cannot be used together")
			}
			return failure(d, inspectImage(cmd.Context(), d, args[0], raw, format), nil)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&format, "format", "", "Format the output using the given Go template")
	c.Flags().BoolVar(&raw, "raw", false, "Show original, unformatted JSON manifest")
	return c
}

func inspectImage(ctx context.Context, d *command.DockerCli, name string, raw bool, format string) error {
	h := hub.New(d.ConfigFile())
	img, err := h.Get(ctx, name)
	if err != nil {
		return err
	}
	switch {
	case raw:
		_, err := d.Out().Write(img.Text)
		return err
	case format != "":
		view, err := viewImage(ctx, img)
		if err != nil {
			return err
		}
		return printTemplate(d.Out(), format, view)
	}
	w := tabwriter.NewWriter(d.Out(), 0, 0, 1, ' ', 0)
	fmt.Fprintf(w, "Name:\t%s\nMediaType:\t%s\nDigest:\t%s\n", img.Name, img.Desc.MediaType, img.Desc.Digest)
	if !images.IsIndexType(img.Desc.MediaType) {
		return w.Flush()
	}
	var index ocispec.Index
	if err := json.Unmarshal(img.Text, &index); err != nil {
		return err
	}
	fmt.Fprintf(w, "\t\nManifests:\t\n")
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(d.Out(), 0, 0, 1, ' ', 0)
	for i, m := range index.Manifests {
		if i > 0 {
			fmt.Fprintf(w, "\t\n")
		}
		fmt.Fprintf(w, "  Name:\t%s@%s\n  MediaType:\t%s\n", img.Repository(), m.Digest, m.MediaType)
		if m.Platform != nil {
			fmt.Fprintf(w, "  Platform:\t%s\n", platforms.Format(*m.Platform))
		}
		if len(m.Annotations) > 0 {
			fmt.Fprintf(w, "  Annotations:\t\n")
			for _, k := range slices.Sorted(maps.Keys(m.Annotations)) {
				fmt.Fprintf(w, "    %s:\t%s\n", k, m.Annotations[k])
			}
		}
	}
	return w.Flush()
}

// A view is what templates of `imagetools inspect` see. Single is nil where several platforms have one each.
type view struct {
	Name       string
	Manifest   any
	Image      any
	Provenance any
	SBOM       any
}

// manifestView is a manifest or index with its descriptor's fields.
type manifestView struct {
	specs.Versioned
	MediaType   string               `json:"mediaType,omitempty"`
	Digest      digest.Digest        `json:"digest"`
	Size        int64                `json:"size"`
	Config      *ocispec.Descriptor  `json:"config,omitempty"`
	Layers      []ocispec.Descriptor `json:"layers,omitempty"`
	Manifests   []ocispec.Descriptor `json:"manifests,omitempty"`
	Annotations map[string]string    `json:"annotations,omitempty"`
}

func viewImage(ctx context.Context, img *hub.Image) (*view, error) {
	m := manifestView{Digest: img.Desc.Digest, Size: img.Desc.Size}
	if err := json.Unmarshal(img.Text, &m); err != nil {
		return nil, err
	}
	if m.MediaType == "" {
		m.MediaType = img.Desc.MediaType
	}
	v := &view{Name: img.Name, Manifest: m}
	if !images.IsIndexType(img.Desc.MediaType) {
		config, err := img.JSON(ctx, *m.Config)
		v.Image = config
		return v, err
	}
	configs, provenance, sbom := map[string]any{}, map[string]any{}, map[string]any{}
	byDigest := map[string]string{}
	for _, child := range m.Manifests {
		if child.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
			continue
		}
		name := ""
		if child.Platform != nil {
			name = platforms.Format(platforms.Normalize(*child.Platform))
		}
		byDigest[child.Digest.String()] = name
		var man ocispec.Manifest
		if err := img.Decode(ctx, child, &man); err != nil {
			return nil, err
		}
		config, err := img.JSON(ctx, man.Config)
		if err != nil {
			return nil, err
		}
		configs[name] = config
	}
	for _, child := range m.Manifests {
		name, ok := byDigest[child.Annotations["vnd.docker.reference.digest"]]
		if !ok || child.Annotations["vnd.docker.reference.type"] != "attestation-manifest" {
			continue
		}
		var man ocispec.Manifest
		if err := img.Decode(ctx, child, &man); err != nil {
			return nil, err
		}
		for _, l := range man.Layers {
			predicate := l.Annotations["in-toto.io/predicate-type"]
			var into map[string]any
			key := ""
			switch {
			case strings.HasPrefix(predicate, "https://slsa.dev/provenance/"):
				into, key = provenance, "SLSA"
			case strings.HasPrefix(predicate, "https://spdx.dev/"):
				into, key = sbom, "SPDX"
			default:
				continue
			}
			var statement struct {
				Predicate any `json:"predicate"`
			}
			if err := img.Decode(ctx, l, &statement); err != nil {
				return nil, err
			}
			into[name] = map[string]any{key: statement.Predicate}
		}
	}
	v.Image, v.Provenance, v.SBOM = single(configs), single(provenance), single(sbom)
	return v, nil
}

// single is the one value of a map that has one, else the map.
func single(m map[string]any) any {
	if len(m) == 1 {
		for _, v := range m {
			return v
		}
	}
	return m
}

// createOptions are the flags of imagetools create.
type createOptions struct {
	tags, files, annotations, platforms []string
	dryRun, grow, preferIndex           bool
	metadata, progress                  string
}

func newImageCreate(d *command.DockerCli) *cobra.Command {
	o := &createOptions{}
	c := &cobra.Command{
		Use:     "create [OPTIONS] [SOURCE...]",
		Short:   "Create a new image based on source images",
		Example: "  berth buildx imagetools create -t example.com/app:1 example.com/app:amd64 \\\n    example.com/app:arm64",
		RunE: func(cmd *cobra.Command, args []string) error {
			return failure(d, o.run(cmd.Context(), d, args), nil)
		},
		DisableFlagsInUseLine: true,
	}
	f := c.Flags()
	f.StringArrayVar(&o.annotations, "annotation", nil, "Add annotation to the image")
	f.BoolVar(&o.grow, "append", false, "Append to existing manifest")
	f.BoolVar(&o.dryRun, "dry-run", false, "Show final image instead of pushing")
	f.StringArrayVarP(&o.files, "file", "f", nil, "Read source descriptor from file")
	f.StringVar(&o.metadata, "metadata-file", "", "Write create result metadata to a file")
	f.StringArrayVarP(&o.platforms, "platform", "p", nil, "Filter specified platforms of target image")
	f.BoolVar(&o.preferIndex, "prefer-index", true, "When only a single source is specified, prefer outputting an image index or manifest list instead of performing a carbon copy")
	f.StringVar(&o.progress, "progress", "auto", `Set type of progress output ("auto", "none", "plain", "rawjson", "tty"). Use plain to show container output`)
	f.StringArrayVarP(&o.tags, "tag", "t", nil, "Set reference for new image")
	return c
}

func (o *createOptions) run(ctx context.Context, d *command.DockerCli, names []string) error {
	if len(names) == 0 && len(o.files) == 0 {
		return errors.New("no sources specified")
	}
	if !o.dryRun && len(o.tags) == 0 {
		return errors.New("can't push with no tags specified, please set --tag or --dry-run")
	}
	for _, f := range o.files {
		text, err := os.ReadFile(f)
		if err != nil {
			return err
		}
		name := strings.TrimSpace(string(text))
		var desc ocispec.Descriptor
		if json.Unmarshal(text, &desc) == nil && desc.Digest != "" {
			if len(o.tags) == 0 {
				return fmt.Errorf("the descriptor in %s needs a --tag, whose repository has it", f)
			}
			name = hub.Repository(o.tags[0]) + "@" + desc.Digest.String()
		}
		names = append(names, name)
	}
	if o.grow {
		names = append(slices.Clone(o.tags[:min(1, len(o.tags))]), names...)
	}
	h := hub.New(d.ConfigFile())
	var sources []*hub.Image
	for _, n := range names {
		img, err := h.Get(ctx, n)
		if err != nil {
			return err
		}
		sources = append(sources, img)
	}
	text, desc, children, err := o.combine(sources)
	if err != nil {
		return err
	}
	if o.dryRun {
		_, err := d.Out().Write(append(text, '\n'))
		return err
	}
	for _, tag := range o.tags {
		for _, c := range children {
			if err := h.Copy(ctx, c.from, c.desc, tag); err != nil {
				return err
			}
		}
		if err := h.Put(ctx, tag, desc, text); err != nil {
			return err
		}
		fmt.Fprintf(d.Err(), "pushed %s to %s\n", desc.Digest, hub.Canonical(tag))
	}
	if o.metadata != "" {
		return writeMetadata(o.metadata, map[string]any{"containerimage.descriptor": desc, "containerimage.digest": desc.Digest, "image.name": strings.Join(o.tags, ",")})
	}
	return nil
}

// A part is a manifest that a new image needs, and where it is.
type part struct {
	from *hub.Image
	desc ocispec.Descriptor
}

// combine makes the new image's manifest: the only source's own where it says all, else an index of all that the sources have, each once.
func (o *createOptions) combine(sources []*hub.Image) ([]byte, ocispec.Descriptor, []part, error) {
	first := sources[0]
	if len(sources) == 1 && len(o.annotations) == 0 && len(o.platforms) == 0 && (images.IsIndexType(first.Desc.MediaType) || !o.preferIndex) {
		parts, err := childrenOf(first)
		return first.Text, first.Desc, parts, err
	}
	index := ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	var parts []part
	docker := true
	for _, s := range sources {
		list := []part{{s, s.Desc}}
		if images.IsIndexType(s.Desc.MediaType) {
			var err error
			if list, err = childrenOf(s); err != nil {
				return nil, ocispec.Descriptor{}, nil, err
			}
		} else if s.Desc.Platform == nil {
			list[0].desc.Platform = s.Platform
		}
		for _, p := range list {
			docker = docker && strings.HasPrefix(p.desc.MediaType, "application/vnd.docker.")
			i := slices.IndexFunc(parts, func(have part) bool { return have.desc.Digest == p.desc.Digest })
			if i < 0 {
				parts = append(parts, p)
				continue
			}
			notes := maps.Clone(parts[i].desc.Annotations)
			if notes == nil {
				notes = p.desc.Annotations
			} else {
				maps.Copy(notes, p.desc.Annotations)
			}
			parts[i].desc.Annotations = notes
			if p.desc.Platform != nil {
				parts[i].desc.Platform = p.desc.Platform
			}
		}
	}
	parts = o.choose(parts)
	if docker {
		index.MediaType = images.MediaTypeDockerSchema2ManifestList
	}
	for _, p := range parts {
		index.Manifests = append(index.Manifests, p.desc)
	}
	if len(sources) == 1 && images.IsIndexType(first.Desc.MediaType) {
		var was ocispec.Index
		if err := json.Unmarshal(first.Text, &was); err != nil {
			return nil, ocispec.Descriptor{}, nil, err
		}
		index.Annotations = was.Annotations
	}
	for _, a := range o.annotations {
		k, v, ok := strings.Cut(strings.TrimPrefix(a, "index:"), "=")
		if !ok {
			return nil, ocispec.Descriptor{}, nil, fmt.Errorf("invalid annotation %q, expected key=value", a)
		}
		if index.Annotations == nil {
			index.Annotations = map[string]string{}
		}
		index.Annotations[k] = v
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	if err := enc.Encode(index); err != nil {
		return nil, ocispec.Descriptor{}, nil, err
	}
	text := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	return text, ocispec.Descriptor{MediaType: index.MediaType, Size: int64(len(text)), Digest: digest.FromBytes(text)}, parts, nil
}

// choose leaves the wanted platforms, with their attestations.
func (o *createOptions) choose(parts []part) []part {
	if len(o.platforms) == 0 {
		return parts
	}
	kept := map[string]bool{}
	for _, p := range parts {
		if p.desc.Platform == nil || p.desc.Annotations["vnd.docker.reference.digest"] != "" {
			continue
		}
		for _, want := range o.platforms {
			for one := range strings.SplitSeq(want, ",") {
				if platforms.Format(platforms.Normalize(*p.desc.Platform)) == one {
					kept[p.desc.Digest.String()] = true
				}
			}
		}
	}
	return slices.DeleteFunc(parts, func(p part) bool {
		return !kept[p.desc.Digest.String()] && !kept[p.desc.Annotations["vnd.docker.reference.digest"]]
	})
}

func childrenOf(img *hub.Image) ([]part, error) {
	if !images.IsIndexType(img.Desc.MediaType) {
		return []part{{img, img.Desc}}, nil
	}
	var index ocispec.Index
	if err := json.Unmarshal(img.Text, &index); err != nil {
		return nil, err
	}
	var parts []part
	for _, m := range index.Manifests {
		parts = append(parts, part{img, m})
	}
	return parts, nil
}
