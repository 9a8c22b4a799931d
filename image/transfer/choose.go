package transfer

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image"
)

// wanted is the platform that an image must be for.
type wanted struct {
	spec  ocispec.Platform
	match platforms.MatchComparer
	asked bool // by the user; else it is this machine's
}

func want(p *image.Platform) wanted {
	if p == nil {
		return wanted{spec: platforms.DefaultSpec(), match: platforms.Default()}
	}
	spec := platforms.Normalize(ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant})
	if spec.OS == "" {
		spec.OS = runtime.GOOS
	}
	return wanted{spec: spec, match: platforms.Only(spec), asked: true}
}

func (w wanted) String() string { return platforms.FormatAll(w.spec) }

// candidate is a manifest that an index leads to.
type candidate struct{ desc ocispec.Descriptor }

// chooseManifest sets the plan's manifest: the root itself, or the one of the index that fits the wanted platform best.
func (t *Transfer) chooseManifest(ctx context.Context, p *PullImage, platform *image.Platform) error {
	if p.root.Manifests == nil {
		p.manifest, p.Why = p.root, "there is only this one"
		return nil
	}
	w := want(platform)
	list, err := t.candidates(ctx, p)
	if err != nil {
		return err
	}
	best := w.best(list)
	if best == nil {
		return fault.New(fault.NotFound, "no matching manifest for %s in the manifest list entries", w)
	}
	if p.manifest, err = t.member(ctx, p, best.desc); err != nil {
		return err
	}
	if p.manifest.Manifests != nil {
		return fault.New(fault.Invalid, "manifest %s was announced as an image and is an index", best.desc.Digest)
	}
	p.Why = fmt.Sprintf("of %d platforms the best for %s", countPlatforms(list), w)
	for _, c := range list {
		if isAttestation(c.desc) && c.desc.Annotations[annotationReferenceDigest] == string(best.desc.Digest) {
			p.Attestations = append(p.Attestations, c.desc)
		}
	}
	return nil
}

// best is the image that fits best; among equals the first.
func (w wanted) best(list []candidate) *candidate {
	var best *candidate
	for i := range list {
		c := &list[i]
		if isAttestation(c.desc) || c.desc.Platform == nil || !w.match.Match(*c.desc.Platform) {
			continue
		}
		if best == nil || w.match.Less(*c.desc.Platform, *best.desc.Platform) {
			best = c
		}
	}
	if best != nil {
		return best
	}
	// Indexes that do not say what their only image is for.
	for i := range list {
		c := &list[i]
		if isAttestation(c.desc) {
			continue
		}
		if c.desc.Platform != nil || best != nil {
			return nil
		}
		best = c
	}
	return best
}

// candidates lists the manifests of an index, through the indexes in it, which the plan keeps: without them the image could not be
// pushed as it came.
func (t *Transfer) candidates(ctx context.Context, p *PullImage) (list []candidate, err error) {
	seen := map[digest.Digest]bool{p.root.desc.Digest: true}
	var walk func(doc *document, depth int) error
	walk = func(doc *document, depth int) error {
		if depth > indexDepth {
			return fault.New(fault.Invalid, "indexes are nested more than %d deep", indexDepth)
		}
		for _, d := range doc.Manifests {
			if seen[d.Digest] {
				continue
			}
			seen[d.Digest] = true
			if !isIndex(d) {
				list = append(list, candidate{d})
				continue
			}
			if len(p.inner) >= indexReadsMax {
				return fault.New(fault.Invalid, "index %s has more than %d indexes in it", p.root.desc.Digest, indexReadsMax)
			}
			sub, err := t.member(ctx, p, d)
			if err != nil {
				return err
			}
			p.inner = append(p.inner, sub)
			if err := walk(sub, depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	return list, walk(p.root, 0)
}

func countPlatforms(list []candidate) (n int) {
	for _, c := range list {
		if !isAttestation(c.desc) {
			n++
		}
	}
	return n
}

// checkPlatform looks at what the configuration says the image is for, which nobody promised for a manifest alone.
func (p *PullImage) checkPlatform(doc *image.Document, platform *image.Platform) error {
	p.Platform = doc.Platform
	if p.Platform.OS == "" {
		p.Platform.OS = runtime.GOOS
	}
	if p.Platform.Architecture == "" {
		p.Platform.Architecture = runtime.GOARCH
	}
	if !strings.EqualFold(p.Platform.OS, "linux") {
		return fault.New(fault.Invalid, "image operating system %q cannot be used on this platform: operating system is not supported", p.Platform.OS)
	}
	w := want(platform)
	is := platforms.Normalize(ocispec.Platform{Architecture: p.Platform.Architecture, OS: p.Platform.OS, Variant: p.Platform.Variant})
	if w.asked && !w.match.Match(is) {
		p.Warning = fmt.Sprintf("WARNING: image with reference %s was found but its platform (%s) does not match the specified platform (%s)",
			p.Name.Familiar(), platforms.FormatAll(is), w)
	}
	return nil
}

// layerType reports media types of layers that are tars.
func layerType(t string) bool {
	return strings.HasPrefix(t, "application/vnd.oci.image.layer.") ||
		strings.HasPrefix(t, "application/vnd.docker.image.rootfs.diff.tar") ||
		strings.HasPrefix(t, "application/vnd.docker.image.rootfs.foreign.diff.tar") ||
		strings.HasPrefix(t, "application/vnd.docker.container.image.rootfs.diff.") || t == typeDockerLayer
}
