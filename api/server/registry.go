package server

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/moby/moby/api/pkg/authconfig"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
)

// Registries are asked about themselves and what they have.
type Registries interface {
	Login(ctx context.Context, cred remote.Credentials) (status, identityToken string, err error)
	Search(ctx context.Context, term string, limit int, cred remote.Credentials) ([]remote.SearchResult, error)
	Repository(name ref.Ref, cred remote.Credentials) *remote.Repository
}

// ofRegistry gives what a registry answered, or kept from answering, the status that Docker gives it: what is wrong between the engine and
// a registry is no fault of the client's request (401) and none of this engine's state (503). What is not there stays not found.
func ofRegistry(err error) error {
	switch fault.KindOf(err) {
	case fault.Unauthorized, fault.Unavailable, fault.Deadline:
		return fault.Wrap(fault.Internal, err, "")
	}
	return err
}

// needRegistries refuses what an engine without a way to registries cannot do.
func needRegistries(handle handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Registries == nil {
			return fault.New(fault.NotImplemented, "talking to registries is not in this build of Berth")
		}
		return handle(s, c)
	}
}

// credentials are those of the header X-Registry-Auth. One that cannot be read counts as none, as with Docker: clients have always sent
// all kinds of things there, and what needs credentials fails by itself.
func (s *Server) credentials(c *call) remote.Credentials {
	a, err := authconfig.Decode(c.r.Header.Get(registry.AuthHeader))
	if err != nil {
		s.log.Debug("credentials cannot be read", "error", err)
		return remote.Credentials{}
	}
	return wire.Credentials(a)
}

// pushCredentials are those of the header or, from clients older than it, of the request's body.
func (s *Server) pushCredentials(c *call) (remote.Credentials, error) {
	if c.r.Header.Get(registry.AuthHeader) != "" || c.r.ContentLength == 0 {
		return s.credentials(c), nil
	}
	a, err := authconfig.DecodeRequestBody(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		return remote.Credentials{}, fault.Wrap(fault.Invalid, err, "bad parameters and missing X-Registry-Auth")
	}
	return wire.Credentials(a), nil
}

// login is POST /auth: are these credentials good?
func login(s *Server, c *call) error {
	a, err := authconfig.DecodeRequestBody(http.MaxBytesReader(c.w, c.r.Body, maxBody))
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "")
	}
	if scheme, _, ok := strings.Cut(a.ServerAddress, "://"); ok && scheme != "http" && scheme != "https" {
		return fault.New(fault.Invalid, "invalid server address %q: unsupported URL scheme %q: must be \"http\" or \"https\"", a.ServerAddress, scheme)
	}
	status, token, err := s.cfg.Registries.Login(c.ctx(), wire.Credentials(a))
	switch {
	case fault.Is(err, fault.Unauthorized): // this is what was asked
		return err
	case err != nil:
		return ofRegistry(err)
	}
	return c.json(http.StatusOK, wire.LoggedIn(status, token, c.v))
}

// Search limits, as Docker's.
const (
	searchDefault = 25
	searchMost    = 100
)

// imageSearch is GET /images/search.
func imageSearch(s *Server, c *call) error {
	limit := searchDefault
	if text := c.text("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "invalid limit specified")
		}
		if n != 0 {
			limit = n
		}
	}
	if limit < 1 || limit > searchMost {
		return fault.New(fault.Invalid, "limit %d is outside the range of [1, %d]", limit, searchMost)
	}
	filters, err := c.filters("is-automated", "is-official", "stars")
	if err != nil {
		return err
	}
	keep, err := searchFilter(filters)
	if err != nil {
		return err
	}
	term := c.text("term")
	if strings.Contains(term, "://") {
		return fault.New(fault.Invalid, "invalid repository name: repository name (%s) should not have a scheme", term)
	}
	out := []registry.SearchResult{}
	if keep == nil {
		return c.json(http.StatusOK, out)
	}
	found, err := s.cfg.Registries.Search(c.ctx(), term, limit, s.credentials(c))
	if err != nil {
		return ofRegistry(err)
	}
	for _, r := range found {
		if keep(r) {
			out = append(out, wire.SearchResult(r))
		}
	}
	return c.json(http.StatusOK, out)
}

// searchFilter makes a predicate of the filters; nil: nothing can fit. No repository has been automated since 1.44.
func searchFilter(filters map[string][]string) (func(remote.SearchResult) bool, error) {
	automated, err := oneBool(filters, "is-automated")
	if err != nil {
		return nil, err
	}
	official, err := oneBool(filters, "is-official")
	if err != nil {
		return nil, err
	}
	stars := 0
	for _, text := range filters["stars"] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "invalid filter 'stars=%s'", text)
		}
		stars = max(stars, n)
	}
	if automated != nil && *automated {
		return nil, nil
	}
	return func(r remote.SearchResult) bool {
		return (official == nil || r.Official == *official) && r.Stars >= stars
	}, nil
}

// configMost bounds the configuration that is read to find out an image's platform, in bytes.
const configMost = 8 << 20

// distributionInspect is GET /distribution/NAME/json: what a registry has under a name, without pulling it.
func distributionInspect(s *Server, c *call) error {
	if hex, id := ref.LooksLikeID(c.name); id && len(hex) == 64 {
		return fault.New(fault.Internal, "no manifest found for full image ID")
	}
	name, err := ref.Parse(c.name)
	if err != nil {
		return err
	}
	name = name.WithDefaultTag()
	at := name.Tag
	if name.Digest != "" {
		at = name.Digest.String()
	}
	repo := s.cfg.Registries.Repository(name, s.credentials(c))
	doc, err := repo.Manifest(c.ctx(), at)
	if said := (*remote.Refusal)(nil); errors.As(err, &said) && said.Code != "" {
		return fault.Wrap(fault.KindOf(err), said, "") // here Docker gives the registry's words alone
	}
	if err != nil {
		return ofRegistry(err)
	}
	var m struct {
		Config    ocispec.Descriptor   `json:"config"`
		Manifests []ocispec.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(doc.Content, &m); err != nil {
		return fault.Wrap(fault.Invalid, err, "manifest %s is malformed", doc.Digest)
	}
	out := registry.DistributionInspect{Descriptor: ocispec.Descriptor{MediaType: doc.MediaType, Digest: doc.Digest, Size: doc.Size}}
	for _, d := range m.Manifests {
		if d.Platform != nil {
			out.Platforms = append(out.Platforms, *d.Platform)
		}
	}
	if m.Manifests == nil {
		if p, ok := platformOf(c.ctx(), repo, m.Config); ok {
			out.Platforms = append(out.Platforms, p)
		}
	}
	return c.json(http.StatusOK, out)
}

// platformOf reads an image's platform from its configuration. That of an artifact, or one that cannot be had, has none.
func platformOf(ctx context.Context, repo *remote.Repository, d ocispec.Descriptor) (p ocispec.Platform, ok bool) {
	if d.Digest.Validate() != nil || d.Size > configMost {
		return p, false
	}
	r, err := repo.Blob(ctx, d, 0)
	if err != nil {
		return p, false
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, configMost+1))
	if err != nil || d.Digest.Algorithm().FromBytes(b) != d.Digest || json.Unmarshal(b, &p) != nil {
		return ocispec.Platform{}, false
	}
	return p, p.OS != "" || p.Architecture != ""
}
