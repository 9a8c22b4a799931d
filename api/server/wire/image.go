package wire

import (
	"time"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/image"
)

// ImageSummary is one image in the answer to GET /images/json at API version v.
func ImageSummary(i *image.Summary, v Version) any {
	s := imageSummary(i, v)
	if v < 51 {
		s.Containers = -1
	}
	if v >= 44 {
		return s
	}
	return &legacySummary{s, s.Size}
}

func imageSummary(i *image.Summary, v Version) *imagetypes.Summary {
	s := &imagetypes.Summary{
		ID: i.ID, ParentID: i.Parent, RepoTags: list(i.RepoTags), RepoDigests: list(i.RepoDigests), Size: i.Size, SharedSize: i.SharedSize,
		Containers: int64(i.Containers), Labels: i.Config.Config.Labels, Manifests: manifests(i.Manifests),
	}
	if !i.Created.IsZero() {
		s.Created = i.Created.Unix()
	}
	if v < 43 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
		s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if v >= 48 {
		s.Descriptor = target(i.Image)
	}
	return s
}

// manifests are the parts of an image that came under an index.
func manifests(all []image.Manifest) (out []imagetypes.ManifestSummary) {
	for _, m := range all {
		s := imagetypes.ManifestSummary{ID: m.Descriptor.Digest.String(), Descriptor: *descriptor(&m.Descriptor), Available: m.Available, Kind: imagetypes.ManifestKind(m.Kind)}
		s.Size.Content, s.Size.Total = m.Content, m.Content
		switch m.Kind {
		case image.KindImage:
			s.ImageData = &imagetypes.ImageProperties{Platform: *ociPlatform(&m.Platform), Containers: list(m.Containers)}
			s.ImageData.Size.Unpacked = m.Unpacked
			s.Size.Total += m.Unpacked
		case image.KindAttestation:
			s.AttestationData = &imagetypes.AttestationProperties{For: m.For}
		}
		out = append(out, s)
	}
	return out
}

type legacySummary struct {
	*imagetypes.Summary
	VirtualSize int64
}

// ImageInspect is the answer to GET /images/NAME/json at API version v. parts are shown where they were asked for; one says that the client
// asked for the image of one platform, which is then described by its manifest instead of the index.
func ImageInspect(i *image.Image, parts []image.Manifest, one bool, v Version) any {
	c := i.Config
	r := &imagetypes.InspectResponse{
		ID: i.ID, RepoTags: list(i.RepoTags), RepoDigests: list(i.RepoDigests), Comment: c.Comment, Author: c.Author, Config: imageConfig(&c.Config),
		Architecture: c.Architecture, Variant: c.Variant, Os: c.OS, OsVersion: c.OSVersion, Size: i.Size,
		GraphDriver: &storage.DriverData{Name: "overlay2", Data: map[string]string{}}, RootFS: imagetypes.RootFS{Type: or(c.RootFS.Type, "layers")},
		Metadata: imagetypes.Metadata{LastTagTime: i.Tagged},
	}
	if !i.Created.IsZero() {
		r.Created = stamp(i.Created)
	}
	for _, d := range i.Layers {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	r.Manifests = manifests(parts)
	if v >= 48 {
		r.Descriptor = target(i)
	}
	if one && i.Manifest != nil {
		r.Descriptor = descriptor(i.Manifest)
	}
	if v >= 52 {
		return &struct {
			*imagetypes.InspectResponse
			Parent        string `json:",omitempty"`
			DockerVersion string `json:",omitempty"`
		}{r, i.Parent, c.DockerVersion}
	}
	return legacyImage(r, i, v)
}

// legacyImage adds what versions before 1.52 had.
func legacyImage(r *imagetypes.InspectResponse, i *image.Image, v Version) any {
	full := &legacyInspectImage{
		InspectResponse: r, Parent: i.Parent, Comment: r.Comment, DockerVersion: i.Config.DockerVersion, Author: r.Author, Created: r.Created,
	}
	config := &legacyImageConfig{
		DockerOCIImageConfig: r.Config, User: r.Config.User, Env: r.Config.Env, Cmd: r.Config.Cmd, Volumes: r.Config.Volumes,
		WorkingDir: r.Config.WorkingDir, Entrypoint: r.Config.Entrypoint, OnBuild: r.Config.OnBuild, Labels: r.Config.Labels,
	}
	full.Config = config
	if v < 50 {
		full.Config = &olderImageConfig{legacyImageConfig: config}
	}
	if v < 45 {
		full.ContainerConfig = &containertypes.Config{}
		full.Container = &i.Config.Container
	}
	if v < 44 {
		full.VirtualSize = &r.Size
		if r.Created == "" {
			full.Created = stamp(time.Time{})
		}
	}
	return full
}

type legacyInspectImage struct {
	*imagetypes.InspectResponse
	Parent          string
	Comment         string
	Created         string `json:",omitempty"`
	DockerVersion   string
	Author          string
	Container       *string                `json:",omitempty"`
	ContainerConfig *containertypes.Config `json:",omitempty"`
	VirtualSize     *int64                 `json:",omitempty"`
	Config          any
}

// legacyImageConfig has fields also when they are empty.
type legacyImageConfig struct {
	*dockerspec.DockerOCIImageConfig
	User       string
	Env        []string
	Cmd        []string
	Volumes    map[string]struct{}
	WorkingDir string
	Entrypoint []string
	OnBuild    []string
	Labels     map[string]string
}

// olderImageConfig has those of a container, too; they were always empty.
type olderImageConfig struct {
	*legacyImageConfig
	Hostname, Domainname, Image                                        string
	AttachStdin, AttachStdout, AttachStderr, Tty, OpenStdin, StdinOnce bool
}

func imageConfig(c *image.RunConfig) *dockerspec.DockerOCIImageConfig {
	out := &dockerspec.DockerOCIImageConfig{
		ImageConfig: ocispec.ImageConfig{
			User: c.User, ExposedPorts: c.ExposedPorts, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, Volumes: c.Volumes, WorkingDir: c.WorkingDir,
			Labels: c.Labels, StopSignal: c.StopSignal,
		},
	}
	//lint:ignore SA1019 images of Docker's old builder have it, and Docker shows it
	out.ArgsEscaped = c.ArgsEscaped
	out.OnBuild, out.Shell = c.OnBuild, c.Shell
	if h := c.Healthcheck; h != nil {
		out.Healthcheck = &dockerspec.HealthcheckConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	return out
}

// target describes the document by which a registry knows the image: its index, else its manifest; nil for one made here.
func target(i *image.Image) *ocispec.Descriptor {
	d := i.Index
	if d == nil {
		d = i.Manifest
	}
	if d == nil {
		return nil
	}
	return descriptor(d)
}

func descriptor(d *image.Descriptor) *ocispec.Descriptor {
	return &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations, ArtifactType: d.ArtifactType, Platform: ociPlatform(d.Platform)}
}

func ociPlatform(p *image.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	return &ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
}
