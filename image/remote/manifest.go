package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// MaxManifest is the largest manifest or index that is read, in bytes: what the distribution spec asks of registries.
const MaxManifest = 4 << 20

// The media types of manifests. OCI's are in image-spec.
const (
	MediaTypeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	MediaTypeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	mediaTypeSchema1        = "application/vnd.docker.distribution.manifest.v1+json"
	mediaTypeSchema1Signed  = "application/vnd.docker.distribution.manifest.v1+prettyjws"
)

// acceptManifests is what is asked for. Schema 1 is not: a registry that has nothing else says so, or is told apart below.
var acceptManifests = []string{strings.Join([]string{
	ocispec.MediaTypeImageIndex, ocispec.MediaTypeImageManifest, MediaTypeDockerIndex, MediaTypeDockerManifest,
	"application/vnd.oci.artifact.manifest.v1+json", "*/*;q=0.1"}, ", ")}

// Document is a manifest or index as a registry gave it, verified.
type Document struct {
	ocispec.Descriptor
	Content []byte
	From    string        // host that served it
	Age     time.Duration // how old a mirror says that its copy is because it could not ask the registry; 0: fresh
}

// Manifest fetches what a tag or digest names. The content's digest is verified against the digest that was asked for, and what the
// registry said of it against what it is. At most MaxManifest bytes.
func (r *Repository) Manifest(ctx context.Context, tagOrDigest string) (*Document, error) {
	want, err := parseReference(tagOrDigest)
	if err != nil {
		return nil, err
	}
	return firstOf(ctx, r, capabilityFor(want), func(e *endpoint) (*Document, error) {
		return r.manifestFrom(ctx, e, tagOrDigest, want)
	})
}

// Resolve finds the descriptor of what a tag or digest names, without its content where the registry can do that.
func (r *Repository) Resolve(ctx context.Context, tagOrDigest string) (ocispec.Descriptor, error) {
	want, err := parseReference(tagOrDigest)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	d, err := firstOf(ctx, r, capabilityFor(want), func(e *endpoint) (*ocispec.Descriptor, error) {
		return r.resolveAt(ctx, e, tagOrDigest, want)
	})
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return *d, nil
}

// capabilityFor says what an endpoint must be allowed to do for a tag (no digest) or a digest.
func capabilityFor(want digest.Digest) capability {
	if want == "" {
		return canResolve
	}
	return canPull
}

// firstOf asks the endpoints in their order and gives the first good answer. The failure that is told is the last one's, the registry's
// own: mirrors may lack anything.
func firstOf[T any](ctx context.Context, r *Repository, want capability, ask func(*endpoint) (*T, error)) (*T, error) {
	list, err := r.endpoints(want)
	if err != nil {
		return nil, err
	}
	for i, e := range list {
		var v *T
		if v, err = ask(e); err == nil {
			return v, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if i < len(list)-1 {
			r.c.log.Info("mirror has no answer, the next host is asked", "host", e.host(), "error", err)
		}
	}
	return nil, err
}

func (r *Repository) resolveAt(ctx context.Context, e *endpoint, what string, want digest.Digest) (*ocispec.Descriptor, error) {
	resp, err := r.do(ctx, e, r.asking(http.MethodHead, e, what))
	if err == nil {
		resp.Body.Close()
		d, ok, err := described(resp, want)
		if err != nil {
			return nil, fault.In(err, "%s", e.host())
		}
		if ok {
			if isSchema1(d.MediaType) {
				return nil, schema1(r.name, d.MediaType)
			}
			return d, nil
		}
	} else if no := refusalOf(err); no == nil || no.Status == http.StatusUnauthorized || no.Status == http.StatusTooManyRequests || no.Status >= 500 && no.Status != http.StatusNotImplemented {
		return nil, r.reading(err, what)
	}
	// HEAD says too little, or says no without a reason: GET has the words.
	doc, err := r.manifestFrom(ctx, e, what, want)
	if err != nil {
		return nil, err
	}
	return &doc.Descriptor, nil
}

// asking makes the request for a manifest.
func (r *Repository) asking(method string, e *endpoint, what string) *request {
	q := &request{method: method, path: r.path("manifests", what), header: http.Header{"Accept": acceptManifests},
		scopes: repositoryScopes(r.name.Path, "pull")}
	if e.ns != "" {
		q.query = map[string][]string{"ns": {e.ns}}
	}
	if !strings.Contains(what, ":") {
		q.says = http.MethodHead // dockerd asks for tags so first, and its words are known
	}
	return q
}

// described reads a descriptor from the head of an answer; not ok when something is missing. With a digest that was asked for, the
// answer must be about that digest.
func described(resp *http.Response, want digest.Digest) (*ocispec.Descriptor, bool, error) {
	d := &ocispec.Descriptor{MediaType: mediaTypeOf(resp.Header), Digest: want, Size: resp.ContentLength}
	if said := resp.Header.Get("Docker-Content-Digest"); said != "" {
		got, err := parseDigest(said)
		if err != nil {
			return nil, false, fault.New(fault.Invalid, "the answer's Docker-Content-Digest %q is not a digest", clean(said))
		}
		if want != "" && got != want && got.Algorithm() == want.Algorithm() {
			return nil, false, fault.New(fault.Invalid, "asked for %s, the answer is about %s", want, got)
		}
		if want == "" {
			d.Digest = got
		}
	}
	if d.Size > MaxManifest {
		return nil, false, tooLarge(d.Size)
	}
	return d, d.Digest != "" && d.Size > 0 && isManifestType(d.MediaType), nil
}

func tooLarge(n int64) error {
	return fault.New(fault.Invalid, "the manifest has %d bytes: more than the %d that are allowed", n, MaxManifest)
}

func (r *Repository) manifestFrom(ctx context.Context, e *endpoint, what string, want digest.Digest) (*Document, error) {
	resp, err := r.do(ctx, e, r.asking(http.MethodGet, e, what))
	if err != nil {
		return nil, r.reading(err, what)
	}
	defer drain(resp)
	if resp.ContentLength > MaxManifest {
		return nil, fault.In(tooLarge(resp.ContentLength), "%s: manifest %s", e.host(), what)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, MaxManifest+1))
	if err == nil && len(content) > MaxManifest {
		return nil, fault.In(tooLarge(int64(len(content))), "%s: manifest %s", e.host(), what)
	}
	if err != nil {
		return nil, netFault(ctx, http.MethodGet, resp.Request.URL.Redacted(), err)
	}
	d, err := verify(content, resp.Header, want)
	if err != nil {
		return nil, fault.In(err, "%s: manifest %s", e.host(), what)
	}
	if isSchema1(d.MediaType) {
		return nil, schema1(r.name, d.MediaType)
	}
	return &Document{Descriptor: *d, Content: content, From: e.host(), Age: staleness(resp.Header)}, nil
}

// verify makes the descriptor of content, after checking what was said of it: the digest that was asked for, the digest in the answer's
// head, and the media type in the head and in the content.
func verify(content []byte, h http.Header, want digest.Digest) (*ocispec.Descriptor, error) {
	d := &ocispec.Descriptor{Size: int64(len(content)), Digest: want}
	if want != "" && want.Algorithm().FromBytes(content) != want {
		return nil, fault.New(fault.Invalid, "manifest verification failed for digest %s: the content has %s", want, want.Algorithm().FromBytes(content))
	}
	if said := h.Get("Docker-Content-Digest"); said != "" {
		got, err := parseDigest(said)
		if err != nil {
			return nil, fault.New(fault.Invalid, "the answer's Docker-Content-Digest %q is not a digest", clean(said))
		}
		if real := got.Algorithm().FromBytes(content); real != got {
			return nil, fault.New(fault.Invalid, "manifest verification failed for digest %s: the content has %s", got, real)
		}
		if want == "" {
			d.Digest = got
		}
	}
	if d.Digest == "" {
		d.Digest = digest.FromBytes(content)
	}
	var err error
	d.MediaType, d.ArtifactType, err = kindOf(content, mediaTypeOf(h))
	return d, err
}

// kindOf says what a manifest is. The head of an answer and the content must not disagree, nor may the content be a manifest and an
// index at once: that is how one digest is made to mean different things to different readers.
func kindOf(content []byte, said string) (mediaType, artifactType string, err error) {
	var m struct {
		SchemaVersion int             `json:"schemaVersion"`
		MediaType     string          `json:"mediaType"`
		ArtifactType  string          `json:"artifactType"`
		Config        json.RawMessage `json:"config"`
		Layers        json.RawMessage `json:"layers"`
		Manifests     json.RawMessage `json:"manifests"`
		FSLayers      json.RawMessage `json:"fsLayers"`
	}
	if err := json.Unmarshal(content, &m); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return "", "", fault.New(fault.Invalid, "the manifest is not JSON: %v", err)
		}
		return "", "", fault.New(fault.Invalid, "the manifest cannot be read: %v", err)
	}
	present := func(r json.RawMessage) bool { return len(r) > 0 && string(r) != "null" }
	image, index := present(m.Config) || present(m.Layers), present(m.Manifests)
	switch {
	case m.SchemaVersion == 1 || present(m.FSLayers):
		if !isSchema1(said) {
			said = mediaTypeSchema1
		}
		return said, "", nil
	case image && index:
		return "", "", fault.New(fault.Invalid, "the manifest is ambiguous: it has layers and manifests")
	case isManifestType(said) && m.MediaType != "" && m.MediaType != said:
		return "", "", fault.New(fault.Invalid, "the manifest says that it is %s, but was sent as %s", clean(m.MediaType), clean(said))
	}
	mediaType = m.MediaType
	if mediaType == "" {
		mediaType = said
	}
	switch {
	case isIndexType(mediaType) && image, isImageType(mediaType) && index:
		return "", "", fault.New(fault.Invalid, "the content is not what its media type %s says", clean(mediaType))
	case isManifestType(mediaType):
	case index:
		mediaType = ocispec.MediaTypeImageIndex
	case image:
		mediaType = ocispec.MediaTypeImageManifest
	default:
		return "", "", fault.New(fault.Invalid, "unsupported manifest media type and no default available: %s", clean(said))
	}
	return mediaType, m.ArtifactType, nil
}

func isImageType(t string) bool {
	return t == ocispec.MediaTypeImageManifest || t == MediaTypeDockerManifest
}

func isIndexType(t string) bool { return t == ocispec.MediaTypeImageIndex || t == MediaTypeDockerIndex }

func isSchema1(t string) bool { return t == mediaTypeSchema1 || t == mediaTypeSchema1Signed }

func isManifestType(t string) bool {
	return isImageType(t) || isIndexType(t) || isSchema1(t) || t == "application/vnd.oci.artifact.manifest.v1+json"
}

func mediaTypeOf(h http.Header) string {
	t, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// staleness reads the age of a copy that a mirror could not renew: Warning 110 or 111 beside Age (RFC 7234), or 299 with a text that begins
// with "stale:", as our own registry writes it, because the distribution spec knows no other code. An Age alone is what every cache on the
// way writes, and means nothing here.
func staleness(h http.Header) time.Duration {
	for _, w := range h.Values("Warning") {
		w = strings.TrimSpace(w)
		if !strings.HasPrefix(w, "110") && !strings.HasPrefix(w, "111") && !strings.HasPrefix(w, `299 - "stale:`) {
			continue
		}
		if n, err := strconv.ParseInt(h.Get("Age"), 10, 64); err == nil && n > 0 && n < 1<<31 {
			return time.Duration(n) * time.Second
		}
		return time.Second // it says that it is stale, and not how much
	}
	return 0
}

var tagPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$`)

// parseReference checks a tag or digest before it becomes part of an address. The digest is "" for a tag.
func parseReference(s string) (digest.Digest, error) {
	if strings.Contains(s, ":") {
		return parseDigest(s)
	}
	if !tagPattern.MatchString(s) {
		return "", fault.New(fault.Invalid, "invalid tag format: %q", clean(s))
	}
	return "", nil
}

// parseDigest checks a digest of an algorithm that we have.
func parseDigest(s string) (digest.Digest, error) {
	d, err := digest.Parse(s)
	if err != nil {
		return "", fault.New(fault.Invalid, "invalid digest %q: %v", clean(s), err)
	}
	return d, nil
}
