package transfer

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// registry is a small registry in memory that notes what it is asked and can be made to misbehave.
type registry struct {
	*httptest.Server
	t testing.TB

	mu        sync.Mutex
	blobs     map[string][]byte              // "repo@digest"
	manifests map[string]map[string]document // repo → tag or digest
	uploads   map[string][]byte
	requests  []string                                          // "GET repo manifests latest", without the noise of /v2/
	before    func(w http.ResponseWriter, r *http.Request) bool // true: it has answered
	noMount   bool
	n         int
}

func newRegistry(t testing.TB) *registry {
	g := &registry{t: t, blobs: map[string][]byte{}, manifests: map[string]map[string]document{}, uploads: map[string][]byte{}}
	g.Server = httptest.NewServer(g)
	t.Cleanup(g.Close)
	return g
}

// host is how names call the registry.
func (g *registry) host() string { return strings.TrimPrefix(g.URL, "http://") }

func (g *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v2/" {
		return
	}
	repo, kind, what := splitPath(strings.TrimPrefix(r.URL.Path, "/v2/"))
	g.mu.Lock()
	g.requests = append(g.requests, strings.TrimSpace(r.Method+" "+repo+" "+kind+" "+strings.TrimPrefix(what, "sha256:")))
	before := g.before
	g.mu.Unlock()
	if before != nil && before(w, r) {
		return
	}
	switch kind {
	case "manifests":
		g.manifest(w, r, repo, what)
	case "blobs":
		g.blob(w, r, repo, what)
	case "uploads":
		g.upload(w, r, repo, what)
	case "tags":
		g.mu.Lock()
		defer g.mu.Unlock()
		var tags []string
		for k := range g.manifests[repo] {
			if !strings.Contains(k, ":") {
				tags = append(tags, k)
			}
		}
		slices.Sort(tags)
		json.NewEncoder(w).Encode(map[string]any{"name": repo, "tags": tags})
	default:
		http.NotFound(w, r)
	}
}

func splitPath(p string) (repo, kind, what string) {
	for _, k := range []string{"/manifests/", "/blobs/uploads/", "/blobs/", "/tags/"} {
		if i := strings.LastIndex(p, k); i >= 0 {
			kind = strings.Trim(k, "/")
			if k == "/blobs/uploads/" {
				kind = "uploads"
			}
			return p[:i], kind, p[i+len(k):]
		}
	}
	return p, "", ""
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"errors":[{"code":%q,"message":%q}]}`, code, strings.ToLower(strings.ReplaceAll(code, "_", " ")))
}

func (g *registry) manifest(w http.ResponseWriter, r *http.Request, repo, what string) {
	if r.Method == http.MethodPut {
		raw, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		for _, d := range references(raw) {
			_, blob := g.blobs[repo+"@"+d]
			_, doc := g.manifests[repo][d]
			if !blob && !doc {
				g.mu.Unlock()
				refuse(w, http.StatusBadRequest, "MANIFEST_BLOB_UNKNOWN")
				return
			}
		}
		g.mu.Unlock()
		d := g.put(repo, what, r.Header.Get("Content-Type"), raw)
		w.Header().Set("Docker-Content-Digest", d)
		w.Header().Set("Location", "/v2/"+repo+"/manifests/"+d)
		w.WriteHeader(http.StatusCreated)
		return
	}
	g.mu.Lock()
	doc, ok := g.manifests[repo][what]
	g.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN")
		return
	}
	w.Header().Set("Content-Type", doc.desc.MediaType)
	w.Header().Set("Docker-Content-Digest", string(doc.desc.Digest))
	w.Header().Set("Content-Length", fmt.Sprint(len(doc.raw)))
	if r.Method == http.MethodGet {
		w.Write(doc.raw)
	}
}

// references are the digests that a document names and that must be there.
func references(raw []byte) (list []string) {
	var m struct {
		Config    *struct{ Digest string }
		Layers    []struct{ Digest, MediaType string }
		Manifests []struct{ Digest string }
	}
	json.Unmarshal(raw, &m)
	if m.Config != nil {
		list = append(list, m.Config.Digest)
	}
	for _, l := range m.Layers {
		if !strings.Contains(l.MediaType, "foreign") {
			list = append(list, l.Digest)
		}
	}
	for _, d := range m.Manifests {
		list = append(list, d.Digest)
	}
	return list
}

// put stores a document by its digest, and by its tag.
func (g *registry) put(repo, tag, mediaType string, raw []byte) string {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := digest.FromBytes(raw)
	doc := document{raw: raw}
	doc.desc.MediaType, doc.desc.Digest, doc.desc.Size = mediaType, d, int64(len(raw))
	if g.manifests[repo] == nil {
		g.manifests[repo] = map[string]document{}
	}
	g.manifests[repo][string(d)] = doc
	if tag != "" {
		g.manifests[repo][tag] = doc
	}
	return string(d)
}

func (g *registry) putBlob(repo string, b []byte) digest.Digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := digest.FromBytes(b)
	g.blobs[repo+"@"+string(d)] = b
	return d
}

func (g *registry) blob(w http.ResponseWriter, r *http.Request, repo, what string) {
	g.mu.Lock()
	b, ok := g.blobs[repo+"@"+what]
	g.mu.Unlock()
	if !ok {
		refuse(w, http.StatusNotFound, "BLOB_UNKNOWN")
		return
	}
	from := 0
	if s := r.Header.Get("Range"); s != "" {
		fmt.Sscanf(s, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b)-1, len(b)))
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)-from))
	w.Header().Set("Docker-Content-Digest", what)
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	if r.Method == http.MethodGet {
		w.Write(b[from:])
	}
}

func (g *registry) upload(w http.ResponseWriter, r *http.Request, repo, id string) {
	q := r.URL.Query()
	g.mu.Lock()
	defer g.mu.Unlock()
	switch r.Method {
	case http.MethodPost:
		if m := q.Get("mount"); m != "" && !g.noMount {
			if b, ok := g.blobs[q.Get("from")+"@"+m]; ok {
				g.blobs[repo+"@"+m] = b
				w.WriteHeader(http.StatusCreated)
				return
			}
		}
		g.n++
		id = fmt.Sprint("u", g.n)
		g.uploads[id] = []byte{}
	case http.MethodPatch:
		g.mu.Unlock()
		b, err := io.ReadAll(r.Body)
		g.mu.Lock()
		g.uploads[id] = append(g.uploads[id], b...)
		if err != nil {
			return
		}
	case http.MethodPut:
		g.mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		g.mu.Lock()
		b = append(g.uploads[id], b...)
		delete(g.uploads, id)
		if d := string(digest.FromBytes(b)); d != q.Get("digest") {
			refuse(w, http.StatusBadRequest, "DIGEST_INVALID")
			return
		}
		g.blobs[repo+"@"+q.Get("digest")] = b
		w.Header().Set("Location", "/v2/"+repo+"/blobs/"+q.Get("digest"))
		w.WriteHeader(http.StatusCreated)
		return
	}
	w.Header().Set("Location", "/v2/"+repo+"/blobs/uploads/"+id)
	w.Header().Set("Range", fmt.Sprintf("0-%d", max(0, len(g.uploads[id])-1)))
	w.WriteHeader(http.StatusAccepted)
}

// asked gives the requests since the last call.
func (g *registry) asked() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := g.requests
	g.requests = nil
	return list
}

// answer makes the registry answer as f says, until the next call.
func (g *registry) answer(f func(w http.ResponseWriter, r *http.Request) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.before = f
}
