// Package hub reads and writes manifests of images in registries, from where the command runs: what the engine knows plays no part.
//
// The life of a Hub: New → Get an image → look into it, Copy what it refers to, Put a manifest under a name. Registries on this machine
// are spoken to without TLS, all others with it.
package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/distribution/reference"
	"github.com/docker/cli/cli/config/configfile"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
)

// maxManifest bounds what is read into memory.
const maxManifest = 8 << 20

// dockerHub is the key that logins at Docker Hub have in the configuration file.
const dockerHub = "https://index.docker.io/v1/"

// A Hub speaks to registries with the passwords of a configuration file.
type Hub struct {
	resolver remotes.Resolver
	options  docker.ResolverOptions
}

// New gives a Hub.
func New(config *configfile.ConfigFile) *Hub {
	auth := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(host string) (string, string, error) {
		if host == "registry-1.docker.io" {
			host = dockerHub
		}
		a, err := config.GetAuthConfig(host)
		if err != nil {
			return "", "", err
		}
		if a.IdentityToken != "" {
			return "", a.IdentityToken, nil
		}
		return a.Username, a.Password, nil
	}))
	o := docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithAuthorizer(auth), docker.WithPlainHTTP(isLocal))}
	return &Hub{docker.NewResolver(o), o}
}

// pusher is one of its own: a resolver takes what it has pushed once, under whatever name, for pushed.
func (h *Hub) pusher(ctx context.Context, name string) (remotes.Pusher, error) {
	ctx = quiet(ctx)
	return docker.NewResolver(h.options).Pusher(ctx, name)
}

// isLocal reports whether a registry is on this machine.
func isLocal(host string) (bool, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// An Image is a manifest or index in a registry.
type Image struct {
	Name     string // canonical
	Desc     ocispec.Descriptor
	Text     []byte
	Platform *ocispec.Platform // of a manifest's configuration

	fetcher remotes.Fetcher
}

// Canonical is a name with its registry and tag.
func Canonical(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.TagNameOnly(named).String()
}

// Repository is a name without tag and digest.
func Repository(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// quiet keeps the library from telling in its log what the errors say that it gives.
func quiet(ctx context.Context) context.Context {
	l := logrus.New()
	l.SetOutput(io.Discard)
	return log.WithLogger(ctx, logrus.NewEntry(l))
}

// Repository is where the image is.
func (i *Image) Repository() string { return Repository(i.Name) }

// Get reads a manifest by its name.
func (h *Hub) Get(ctx context.Context, name string) (*Image, error) {
	ctx = quiet(ctx)
	name = Canonical(name)
	_, desc, err := h.resolver.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	f, err := h.resolver.Fetcher(ctx, name)
	if err != nil {
		return nil, err
	}
	i := &Image{Name: name, Desc: desc, fetcher: f}
	if i.Text, err = i.read(ctx, desc); err != nil {
		return nil, err
	}
	if images.IsManifestType(desc.MediaType) {
		var m ocispec.Manifest
		if err := json.Unmarshal(i.Text, &m); err != nil {
			return nil, err
		}
		var p ocispec.Platform
		if err := i.Decode(ctx, m.Config, &p); err == nil && p.OS != "" {
			i.Platform = &p
		}
	}
	return i, nil
}

func (i *Image) read(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	if desc.Size > maxManifest {
		return nil, fmt.Errorf("%s of %s is larger than %d bytes", desc.Digest, i.Name, maxManifest)
	}
	r, err := i.fetcher.Fetch(ctx, desc)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	text, err := io.ReadAll(io.LimitReader(r, maxManifest))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(text); got != desc.Digest {
		return nil, fmt.Errorf("%s of %s has come as %s", desc.Digest, i.Name, got)
	}
	return text, nil
}

// Decode reads a JSON document that the image has.
func (i *Image) Decode(ctx context.Context, desc ocispec.Descriptor, into any) error {
	text, err := i.read(ctx, desc)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// JSON reads a JSON document as it stands.
func (i *Image) JSON(ctx context.Context, desc ocispec.Descriptor) (map[string]any, error) {
	var m map[string]any
	err := i.Decode(ctx, desc, &m)
	return m, err
}

// Put writes a manifest under a name.
func (h *Hub) Put(ctx context.Context, name string, desc ocispec.Descriptor, text []byte) error {
	p, err := h.pusher(ctx, Canonical(name))
	if err != nil {
		return err
	}
	return push(ctx, p, desc, bytes.NewReader(text))
}

// Copy brings a manifest, with all that it refers to, into the repository of a name. What is there already, or can be had from another repository of
// that registry, is not sent.
func (h *Hub) Copy(ctx context.Context, from *Image, desc ocispec.Descriptor, to string) error {
	target, err := reference.ParseNormalizedNamed(to)
	if err != nil {
		return err
	}
	if from.Repository() == target.Name() {
		return nil
	}
	p, err := h.pusher(ctx, target.Name()+"@"+desc.Digest.String())
	if err != nil {
		return err
	}
	source, err := reference.ParseNormalizedNamed(from.Name)
	if err != nil {
		return err
	}
	return copyTree(ctx, from, p, desc, reference.Domain(source), reference.Path(source))
}

func copyTree(ctx context.Context, from *Image, p remotes.Pusher, desc ocispec.Descriptor, host, repository string) error {
	if !images.IsManifestType(desc.MediaType) && !images.IsIndexType(desc.MediaType) {
		r, err := from.fetcher.Fetch(ctx, desc)
		if err != nil {
			return err
		}
		defer r.Close()
		d := desc
		d.Annotations = map[string]string{"containerd.io/distribution.source." + host: repository}
		return push(ctx, p, d, r)
	}
	text, err := from.read(ctx, desc)
	if err != nil {
		return err
	}
	var all struct {
		Config    *ocispec.Descriptor  `json:"config"`
		Layers    []ocispec.Descriptor `json:"layers"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	children := append(all.Layers, all.Manifests...)
	if all.Config != nil {
		children = append(children, *all.Config)
	}
	for _, c := range children {
		if err := copyTree(ctx, from, p, c, host, repository); err != nil {
			return err
		}
	}
	return push(ctx, p, desc, bytes.NewReader(text))
}

func push(ctx context.Context, p remotes.Pusher, desc ocispec.Descriptor, r io.Reader) error {
	w, err := p.Push(ctx, desc)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer w.Close()
	err = content.Copy(ctx, w, r, desc.Size, desc.Digest)
	if errdefs.IsAlreadyExists(err) {
		return nil
	}
	return err
}
