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

// ImageSummary is one image in the answer to GET /images/json at API version v. containers and shared are -1 where nobody counted.
func ImageSummary(i *image.Image, containers, shared int64, v Version) any {
	if v < 51 {
		containers = -1
	}
	s := imageSummary(i, containers, shared, v)
	if v >= 44 {
		return s
	}
	return &legacySummary{s, s.Size}
}

func imageSummary(i *image.Image, containers, shared int64, v Version) *imagetypes.Summary {
	s := &imagetypes.Summary{
		ID: i.ID, ParentID: i.Parent, RepoTags: list(i.RepoTags), RepoDigests: list(i.RepoDigests), Size: i.Size, SharedSize: shared,
		Containers: containers, Labels: i.Config.Config.Labels,
	}
	if !i.Created.IsZero() {
		s.Created = i.Created.Unix()
	}
	if v < 43 && len(s.RepoTags) == 0 && len(s.RepoDigests) == 0 {
		s.RepoTags, s.RepoDigests = []string{"<none>:<none>"}, []string{"<none>@<none>"}
	}
	if v >= 48 {
		s.Descriptor = target(i)
	}
	return s
}

type legacySummary struct {
	*imagetypes.Summary
	VirtualSize int64
}

// ImageInspect is the answer to GET /images/NAME/json at API version v.
func ImageInspect(i *image.Image, v Version) any {
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
	if v >= 48 {
		r.Descriptor = target(i)
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
	out := &ocispec.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size, Annotations: d.Annotations, ArtifactType: d.ArtifactType}
	if p := d.Platform; p != nil {
		out.Platform = &ocispec.Platform{Architecture: p.Architecture, OS: p.OS, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures, Variant: p.Variant}
	}
	return out
}
