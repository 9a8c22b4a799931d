package distributiontest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Target is a registry under test. The caller may push to, pull from and delete in everything below Prefix.
type Target struct {
	URL    string // http://HOST:PORT
	Prefix string // "" or "some/where"
	Client *http.Client
}

type registry struct {
	*testing.T
	Target
}

func (g *registry) name(s string) string {
	if g.Prefix == "" {
		return s
	}
	return g.Prefix + "/" + s
}

// answer is a response whose body was read.
type answer struct {
	*http.Response
	body []byte
	what string
}

// do makes a request. The header is a list of "Name: value"; a path that is a whole URL is taken as it is.
func (g *registry) do(method, path string, body []byte, header ...string) *answer {
	g.Helper()
	u := path
	if !strings.HasPrefix(path, "http") {
		u = g.URL + path
	}
	req, err := http.NewRequestWithContext(g.Context(), method, u, bytes.NewReader(body))
	if err != nil {
		g.Fatal(err)
	}
	for _, h := range header {
		k, v, _ := strings.Cut(h, ": ")
		req.Header.Add(k, v)
	}
	if req.Header.Get("Transfer-Encoding") != "" {
		req.Header.Del("Transfer-Encoding")
		req.ContentLength, req.GetBody = -1, nil
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	client := g.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		g.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		g.Fatalf("%s %s: %v", method, path, err)
	}
	return &answer{Response: resp, body: data, what: method + " " + path}
}

// status fails the test unless the answer has one of these; errors must have the specification's shape.
func (g *registry) status(a *answer, wanted ...int) *answer {
	g.Helper()
	for _, s := range wanted {
		if a.StatusCode == s {
			if s >= 400 && s < 500 && s != 416 && a.Request.Method != http.MethodHead {
				g.shape(a)
			}
			return a
		}
	}
	g.Fatalf("%s: %s, want %v\n%.500s", a.what, a.Status, wanted, a.body)
	return a
}

// codes are those of the specification.
var codes = []string{"BLOB_UNKNOWN", "BLOB_UPLOAD_INVALID", "BLOB_UPLOAD_UNKNOWN", "DIGEST_INVALID", "MANIFEST_BLOB_UNKNOWN", "MANIFEST_INVALID",
	"MANIFEST_UNKNOWN", "NAME_INVALID", "NAME_UNKNOWN", "SIZE_INVALID", "UNAUTHORIZED", "DENIED", "UNSUPPORTED", "TOOMANYREQUESTS"}

func (g *registry) shape(a *answer) {
	g.Helper()
	c := code(a)
	for _, known := range codes {
		if c == known {
			return
		}
	}
	g.Errorf("%s: %s: an error with the code %q\n%.300s", a.what, a.Status, c, a.body)
}

func code(a *answer) string {
	var e struct {
		Errors []struct{ Code, Message string }
	}
	if json.Unmarshal(a.body, &e) != nil || len(e.Errors) == 0 {
		return ""
	}
	return e.Errors[0].Code
}

func (g *registry) code(a *answer, wanted string) {
	g.Helper()
	if c := code(a); c != wanted {
		g.Errorf("%s: code %q, want %q\n%.300s", a.what, c, wanted, a.body)
	}
}

func (g *registry) header(a *answer, name, wanted string) {
	g.Helper()
	if got := a.Header.Get(name); got != wanted {
		g.Errorf("%s: %s is %q, want %q", a.what, name, got, wanted)
	}
}

// location gives where the answer points, as a whole URL.
func (g *registry) location(a *answer) string {
	g.Helper()
	l, err := a.Location()
	if err != nil {
		g.Fatalf("%s: %v", a.what, err)
	}
	return l.String()
}

// with adds a query to a URL.
func with(u, name, value string) string {
	sep := "?"
	if strings.Contains(u, "?") {
		sep = "&"
	}
	return u + sep + url.Values{name: {value}}.Encode()
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// push pushes a blob by POST and PUT.
func (g *registry) push(repo string, alg digest.Algorithm, content []byte) ocispec.Descriptor {
	g.Helper()
	d := alg.FromBytes(content)
	u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
	a := g.status(g.do("PUT", with(u, "digest", d.String()), content, "Content-Type: application/octet-stream"), 201)
	g.header(a, "Docker-Content-Digest", d.String())
	g.holds(g.location(a), d, content)
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: d, Size: int64(len(content))}
}

// holds pulls a blob.
func (g *registry) holds(u string, d digest.Digest, content []byte) {
	g.Helper()
	a := g.status(g.do("GET", u, nil), 200)
	if !bytes.Equal(a.body, content) {
		g.Errorf("%s: %d bytes come back, others than were pushed", a.what, len(a.body))
	}
	g.header(a, "Docker-Content-Digest", d.String())
}

// image makes a manifest of blobs that it pushes.
func (g *registry) image(repo string, alg digest.Algorithm, change ...func(*ocispec.Manifest)) []byte {
	g.Helper()
	m := ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Config: g.push(repo, alg, noise(100)), Layers: []ocispec.Descriptor{g.push(repo, alg, noise(200))}}
	m.SchemaVersion = 2
	m.Config.MediaType = ocispec.MediaTypeImageConfig
	for _, c := range change {
		c(&m)
	}
	return document(m)
}

func (g *registry) index(alg digest.Algorithm, manifests ...[]byte) []byte {
	i := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{}}
	i.SchemaVersion = 2
	for _, m := range manifests {
		i.Manifests = append(i.Manifests, describe(alg, m))
	}
	return document(i)
}

func document(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

func mediaType(content []byte) string {
	var m struct{ MediaType string }
	json.Unmarshal(content, &m)
	return m.MediaType
}

func describe(alg digest.Algorithm, m []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType(m), Digest: alg.FromBytes(m), Size: int64(len(m))}
}

// put pushes a manifest and pulls it again.
func (g *registry) put(repo, reference string, d digest.Digest, m []byte) *answer {
	g.Helper()
	a := g.status(g.do("PUT", "/v2/"+repo+"/manifests/"+reference, m, "Content-Type: "+mediaType(m)), 201)
	g.header(a, "Docker-Content-Digest", d.String())
	g.pulls(g.location(a), d, m)
	return a
}

func (g *registry) pulls(u string, d digest.Digest, m []byte) {
	g.Helper()
	for _, method := range []string{"HEAD", "GET"} {
		a := g.status(g.do(method, u, nil, "Accept: "+ocispec.MediaTypeImageManifest, "Accept: "+ocispec.MediaTypeImageIndex), 200)
		g.header(a, "Docker-Content-Digest", d.String())
		g.header(a, "Content-Type", mediaType(m))
		if a.ContentLength != int64(len(m)) {
			g.Errorf("%s: Content-Length %d, want %d", a.what, a.ContentLength, len(m))
		}
		if method == "GET" && !bytes.Equal(a.body, m) {
			g.Errorf("%s: another manifest comes back than was pushed", a.what)
		}
	}
}
