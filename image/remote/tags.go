package remote

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

const (
	maxPage  = 8 << 20 // bytes of one page of a list
	maxPages = 10_000
	maxItems = 1 << 20
)

// Tags gives the repository's tags in the registry's order, all pages.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	all, err := firstOf(ctx, r, canResolve, func(e *endpoint) (*[]string, error) {
		var tags []string
		err := r.pages(ctx, e, &request{method: http.MethodGet, path: r.path("tags", "list"), query: r.askFor(e, "n", "1000"), scopes: repositoryScopes(r.name.Path, "pull")},
			func(body []byte, _ http.Header) (int, error) {
				var page struct {
					Tags []string `json:"tags"`
				}
				if err := json.Unmarshal(body, &page); err != nil {
					return 0, err
				}
				for _, t := range page.Tags {
					if tagPattern.MatchString(t) {
						tags = append(tags, t)
					}
				}
				return len(page.Tags), nil
			})
		return &tags, err
	})
	if err != nil {
		if no := refusalOf(err); no != nil && no.Code == "" && no.Status == http.StatusNotFound {
			return nil, fault.Wrap(fault.NotFound, err, "repository %s not found", r.name.FamiliarName())
		}
		return nil, r.reading(err, "latest")
	}
	return *all, nil
}

// askFor makes a query with the mirror's namespace.
func (r *Repository) askFor(e *endpoint, pairs ...string) url.Values {
	v := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		v.Set(pairs[i], pairs[i+1])
	}
	if e.ns != "" {
		v.Set("ns", e.ns)
	}
	return v
}

// pages asks for a list and for what its Link headers say comes next. A server whose pages go in a circle or never end is stopped.
func (r *Repository) pages(ctx context.Context, e *endpoint, q *request, read func([]byte, http.Header) (int, error)) error {
	seen, items := map[string]bool{}, 0
	for range maxPages {
		resp, err := r.do(ctx, e, q)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxPage+1))
		drain(resp)
		if err == nil && len(body) > maxPage {
			err = fault.New(fault.Invalid, "a page of more than %d bytes", maxPage)
		}
		n := 0
		if err == nil {
			n, err = read(body, resp.Header)
		}
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "the list that %s gave cannot be read", e.host())
		}
		if items += n; items > maxItems {
			return fault.New(fault.Invalid, "%s lists more than %d items", e.host(), maxItems)
		}
		link := parseLink(resp.Header.Values("Link"))
		if link == "" {
			return nil
		}
		next, err := follow(resp.Request.URL, link, e)
		if err != nil {
			return err
		}
		if next.Host != resp.Request.URL.Host {
			return fault.New(fault.Forbidden, "%s says that its list goes on at another host (%s)", e.host(), next.Host)
		}
		if seen[next.String()] {
			return fault.New(fault.Invalid, "%s lists in a circle: %s comes again", e.host(), next.Redacted())
		}
		seen[next.String()] = true
		q = &request{method: q.method, url: next, header: q.header, scopes: q.scopes}
	}
	return fault.New(fault.Invalid, "%s lists more than %d pages", e.host(), maxPages)
}

// Referrers gives what refers to a manifest (signatures, attestations), of one artifact type or of all (""). A registry without the
// referrers API is asked for the tag in which clients keep the list there.
func (r *Repository) Referrers(ctx context.Context, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	if _, err := parseDigest(d.String()); err != nil {
		return nil, err
	}
	list, err := firstOf(ctx, r, canPull, func(e *endpoint) (*[]ocispec.Descriptor, error) {
		found, err := r.referrersAt(ctx, e, d, artifactType)
		if no := refusalOf(err); no != nil && (no.Status == http.StatusNotFound || no.Status == http.StatusMethodNotAllowed || no.Status == http.StatusBadRequest) {
			var index *ocispec.Index
			if index, err = r.referrersTag(ctx, e, d); err == nil {
				found = index.Manifests
			}
		}
		return &found, err
	})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(*list, func(x ocispec.Descriptor) bool {
		return artifactType != "" && x.ArtifactType != artifactType
	}), nil
}

func (r *Repository) referrersAt(ctx context.Context, e *endpoint, d digest.Digest, artifactType string) ([]ocispec.Descriptor, error) {
	var found []ocispec.Descriptor
	q := &request{method: http.MethodGet, path: r.path("referrers", d.String()), query: r.askFor(e), scopes: repositoryScopes(r.name.Path, "pull"),
		header: http.Header{"Accept": {ocispec.MediaTypeImageIndex}}}
	if artifactType != "" {
		q.query.Set("artifactType", artifactType)
	}
	err := r.pages(ctx, e, q, func(body []byte, h http.Header) (int, error) {
		var page ocispec.Index
		if err := json.Unmarshal(body, &page); err != nil {
			return 0, err
		}
		for _, x := range page.Manifests {
			if _, err := parseDigest(x.Digest.String()); err != nil {
				return 0, err
			}
		}
		found = append(found, page.Manifests...)
		return len(page.Manifests), nil
	})
	return found, err
}

// referrersTag reads the list that clients keep under a tag; empty when there is none.
func (r *Repository) referrersTag(ctx context.Context, e *endpoint, d digest.Digest) (*ocispec.Index, error) {
	index := &ocispec.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex}
	doc, err := r.manifestFrom(ctx, e, referrersTagOf(d), "")
	if fault.Is(err, fault.NotFound) {
		return index, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(doc.Content, index); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "the referrers of %s", d)
	}
	return index, nil
}

// referrersTagOf gives the tag of the spec's fall-back: sha256-HEX, cut to a tag's length.
func referrersTagOf(d digest.Digest) string {
	cut := func(s string, n int) string { return s[:min(len(s), n)] }
	return cut(d.Algorithm().String(), 32) + "-" + cut(d.Encoded(), 64)
}

// linkSubject adds a manifest that was pushed to the list of its subject's referrers, where the registry did not say that it does so.
func (r *Repository) linkSubject(ctx context.Context, confirmed string, d digest.Digest, mediaType string, content []byte) error {
	var m struct {
		Subject      *ocispec.Descriptor `json:"subject"`
		ArtifactType string              `json:"artifactType"`
		Config       struct {
			MediaType string `json:"mediaType"`
		} `json:"config"`
		Annotations map[string]string `json:"annotations"`
	}
	if confirmed != "" || json.Unmarshal(content, &m) != nil || m.Subject == nil {
		return nil
	}
	if _, err := parseDigest(m.Subject.Digest.String()); err != nil {
		return err
	}
	e, err := r.home()
	if err != nil {
		return err
	}
	if _, err := r.referrersAt(ctx, e, m.Subject.Digest, ""); err == nil {
		return nil // it has the API and only did not say so
	}
	index, err := r.referrersTag(ctx, e, m.Subject.Digest)
	if err != nil {
		return fault.In(err, "referrers of %s", m.Subject.Digest)
	}
	if slices.ContainsFunc(index.Manifests, func(x ocispec.Descriptor) bool { return x.Digest == d }) {
		return nil
	}
	kind := m.ArtifactType
	if kind == "" {
		kind = m.Config.MediaType
	}
	index.Manifests = append(index.Manifests, ocispec.Descriptor{MediaType: mediaType, Digest: d, Size: int64(len(content)), ArtifactType: kind, Annotations: m.Annotations})
	body, err := json.Marshal(index)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "")
	}
	text := string(body)
	resp, err := r.do(ctx, e, &request{method: http.MethodPut, path: r.path("manifests", referrersTagOf(m.Subject.Digest)), scopes: r.writing(),
		header: http.Header{"Content-Type": {ocispec.MediaTypeImageIndex}, "Content-Length": {strconv.Itoa(len(text))}}, body: textBody(text), size: int64(len(text))})
	if err != nil {
		return fault.In(err, "referrers of %s", m.Subject.Digest)
	}
	drain(resp)
	return nil
}
