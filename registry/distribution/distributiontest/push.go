package distributiontest

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Run asks a registry all cases. Repositories that it makes have random names.
func Run(t *testing.T, target Target) {
	for _, c := range []struct {
		name string
		test func(*registry)
	}{
		{"ping", ping}, {"nothing there", nothing}, {"names", names},
		{"blobs/sha256", blobsOf(digest.SHA256)}, {"blobs/sha512", blobsOf(digest.SHA512)}, {"blobs/sha384", blobsOf(digest.SHA384)},
		{"upload/order", order}, {"upload/chunks", chunks}, {"upload/lengths", lengths}, {"upload/cancel", cancel}, {"mount", mount},
		{"ranges", ranges}, {"conditional", conditional},
		{"manifests/sha256", manifestsOf(digest.SHA256)}, {"manifests/sha512", manifestsOf(digest.SHA512)}, {"manifests/tags with a digest", tagParameters},
		{"manifests/refused", refused}, {"manifests/large", large}, {"manifests/kinds", kinds},
		{"referrers", referrersList}, {"tags", tagsList}, {"delete", deletes},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(&registry{T: t, Target: target}) })
	}
}

func ping(g *registry) {
	for _, p := range []string{"/v2/", "/v2"} {
		g.header(g.status(g.do("GET", p, nil), 200), "Docker-Distribution-Api-Version", "registry/2.0")
	}
	g.status(g.do("HEAD", "/v2/", nil), 200)
	g.status(g.do("POST", "/v2/", nil), 405)
}

func nothing(g *registry) {
	repo := g.name("none/such")
	d := digest.FromString("nothing")
	for _, method := range []string{"GET", "HEAD"} {
		g.status(g.do(method, "/v2/"+repo+"/blobs/"+d.String(), nil), 404)
		g.status(g.do(method, "/v2/"+repo+"/manifests/"+d.String(), nil), 404)
		g.status(g.do(method, "/v2/"+repo+"/manifests/latest", nil), 404)
		g.status(g.do(method, "/v2/"+repo+"/manifests/.INVALID_MANIFEST_NAME", nil), 404)
		g.status(g.do(method, "/v2/"+repo+"/tags/list", nil), 404)
	}
	g.code(g.do("GET", "/v2/"+repo+"/blobs/"+d.String(), nil), "BLOB_UNKNOWN")
	g.code(g.do("GET", "/v2/"+repo+"/manifests/latest", nil), "MANIFEST_UNKNOWN")
	g.code(g.do("GET", "/v2/"+repo+"/tags/list", nil), "NAME_UNKNOWN")
	g.status(g.do("GET", "/v2/"+repo+"/manifests/sha256:baddigeststring", nil), 404, 400)
	g.status(g.do("GET", "/v2/"+repo+"/blobs/sha256:baddigeststring", nil), 404, 400)
	g.status(g.do("DELETE", "/v2/"+repo+"/blobs/"+d.String(), nil), 404)
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+d.String(), nil), 404)
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/latest", nil), 404)
	for _, method := range []string{"GET", "PATCH", "PUT", "DELETE"} {
		a := g.do(method, "/v2/"+repo+"/blobs/uploads/0123456789abcdef0123456789abcdef?digest="+d.String(), nil)
		g.status(a, 404)
		g.code(a, "BLOB_UPLOAD_UNKNOWN")
	}
}

// names tries what is no name, and what would lead a careless registry out of its directory.
func names(g *registry) {
	d := digest.FromString("x").String()
	for _, n := range []string{"UPPER", "a/../b", "..", "a//b", "-a", "a-", "a__", "_a", "a/_blobs", "a.", "é", "a b", strings.Repeat("a/", 130) + "a", "%2e%2e/%2e%2e", "a%2fb", "..%2f..", "a%00b"} {
		for _, path := range []string{"/manifests/latest", "/blobs/" + d, "/tags/list", "/referrers/" + d} {
			g.status(g.do("GET", "/v2/"+strings.ReplaceAll(n, " ", "%20")+path, nil), 400, 404)
		}
		a := g.do("POST", "/v2/"+strings.ReplaceAll(n, " ", "%20")+"/blobs/uploads/", nil)
		g.status(a, 400, 404)
	}
	for _, n := range []string{"a", "a/b/c/d/e", "a.b_c-d", "a__b", "a---b", "0/1", "blobs/uploads", "tags/list", "a/manifests", strings.Repeat("a", 200)} {
		repo := g.name(n)
		content := noise(10)
		desc := g.push(repo, digest.SHA256, content)
		g.holds("/v2/"+repo+"/blobs/"+desc.Digest.String(), desc.Digest, content)
		g.status(g.do("DELETE", "/v2/"+repo+"/blobs/"+desc.Digest.String(), nil), 202)
	}
	for _, tag := range []string{"..", ".", "-a", "a/b", "a+b", strings.Repeat("a", 129)} {
		g.status(g.do("PUT", "/v2/"+g.name("a")+"/manifests/"+tag, []byte("{}"), "Content-Type: "+ocispec.MediaTypeImageManifest), 400, 404)
	}
	// What stands behind an escape is the same name, not another.
	desc := g.push(g.name("a"), digest.SHA256, []byte("escaped"))
	g.status(g.do("GET", "/v2/"+g.name("a")+"/blobs/"+strings.Replace(desc.Digest.String(), ":", "%3A", 1), nil), 200)
}

func blobsOf(alg digest.Algorithm) func(*registry) {
	return func(g *registry) {
		repo := g.name("blobs/" + alg.String())
		for _, content := range [][]byte{{}, []byte("{}"), noise(512), noise(3 << 20)} {
			d := alg.FromBytes(content)
			ways := map[string]func(){
				"post": func() {
					a := g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), content, "Content-Type: application/octet-stream"), 201)
					g.holds(g.location(a), d, content)
				},
				"post and put": func() { g.push(repo, alg, content) },
				"stream": func() {
					u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
					u = g.location(g.status(g.do("PATCH", u, content, "Content-Type: application/octet-stream"), 202))
					a := g.status(g.do("PUT", with(u, "digest", d.String()), nil), 201)
					g.holds(g.location(a), d, content)
				},
				"stream without a length": func() {
					u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
					u = g.location(g.status(g.do("PATCH", u, content, "Transfer-Encoding: chunked"), 202))
					a := g.status(g.do("PUT", with(u, "digest", d.String()), nil, "Transfer-Encoding: chunked"), 201)
					g.holds(g.location(a), d, content)
				},
				"algorithm said": func() {
					u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/?digest-algorithm="+alg.String(), nil), 202))
					g.status(g.do("PUT", with(u, "digest", d.String()), content), 201)
				},
			}
			for _, way := range ways {
				way()
				u := "/v2/" + repo + "/blobs/" + d.String()
				a := g.status(g.do("HEAD", u, nil), 200)
				g.header(a, "Docker-Content-Digest", d.String())
				if a.ContentLength != int64(len(content)) || len(a.body) > 0 {
					g.Errorf("HEAD: length %d of %d, %d bytes of body", a.ContentLength, len(content), len(a.body))
				}
				g.status(g.do("DELETE", u, nil), 202)
				g.status(g.do("HEAD", u, nil), 404)
			}
		}
		wrong := alg.FromString("another content")
		content := noise(700)
		a := g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/?digest="+wrong.String(), content), 400)
		g.code(a, "DIGEST_INVALID")
		u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
		g.code(g.status(g.do("PUT", with(u, "digest", wrong.String()), content), 400), "DIGEST_INVALID")
		u = g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
		u = g.location(g.status(g.do("PATCH", u, content), 202))
		g.code(g.status(g.do("PUT", with(u, "digest", wrong.String()), nil), 400), "DIGEST_INVALID")
		g.status(g.do("HEAD", "/v2/"+repo+"/blobs/"+wrong.String(), nil), 404)
		g.status(g.do("HEAD", "/v2/"+repo+"/blobs/"+alg.FromBytes(content).String(), nil), 404)
		for _, bad := range []string{"", "sha256:", "sha256:xyz", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256", alg.String() + ":AB" + wrong.Encoded()[2:]} {
			u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
			g.code(g.status(g.do("PUT", with(u, "digest", bad), content), 400), "DIGEST_INVALID")
		}
		g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/?digest-algorithm=md5", nil), 400)
	}
}

// order sends chunks at wrong places and goes on from where the registry says.
func order(g *registry) {
	repo, content := g.name("chunks/order"), noise(3000)
	d := digest.FromBytes(content)
	chunk := func(method, u string, from, to int) *answer {
		return g.do(method, u, content[from:to], "Content-Type: application/octet-stream", fmt.Sprintf("Content-Range: %d-%d", from, to-1))
	}
	start := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
	standing := func(a *answer, at string) string {
		g.Helper()
		a = g.status(g.do("GET", g.location(a), nil), 204)
		g.header(a, "Range", at)
		return g.location(a)
	}
	a := g.status(chunk("PATCH", start, 1000, 2000), 416)
	u := standing(a, "0-0")
	a = g.status(chunk("PATCH", u, 0, 1000), 202)
	g.header(a, "Range", "0-999")
	u = standing(g.status(chunk("PATCH", start, 0, 1000), 416), "0-999")
	u = standing(g.status(chunk("PUT", with(u, "digest", d.String()), 2000, 3000), 416), "0-999")
	a = g.status(chunk("PATCH", u, 1000, 2000), 202)
	g.header(a, "Range", "0-1999")
	u = standing(g.status(chunk("PATCH", g.location(a), 500, 1500), 416), "0-1999")
	a = g.status(chunk("PUT", with(u, "digest", d.String()), 2000, 3000), 201)
	g.holds(g.location(a), d, content)
}

func chunks(g *registry) {
	repo, content := g.name("chunks/many"), noise(12<<20)
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		d := alg.FromBytes(content)
		u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
		for at := 0; at < len(content); {
			n := min(1<<20+at/3, len(content)-at)
			a := g.status(g.do("PATCH", u, content[at:at+n], fmt.Sprintf("Content-Range: %d-%d", at, at+n-1)), 202)
			at += n
			g.header(a, "Range", fmt.Sprintf("0-%d", at-1))
			u = g.location(a)
		}
		g.holds(g.location(g.status(g.do("PUT", with(u, "digest", d.String()), nil), 201)), d, content)
	}
}

func lengths(g *registry) {
	repo := g.name("chunks/length")
	u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
	for _, r := range []string{"0-98", "0-100", "5-1", "x", "0", "-5-3", "99999999999999999999-100000000000000000098"} {
		g.status(g.do("PATCH", u, noise(100), "Content-Range: "+r), 400)
	}
	g.header(g.status(g.do("GET", u, nil), 204), "Range", "0-0")
	g.status(g.do("PATCH", u, noise(100), "Content-Range: bytes 0-99/*"), 202)
}

func cancel(g *registry) {
	repo := g.name("cancel")
	u := g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
	u = g.location(g.status(g.do("PATCH", u, noise(100)), 202))
	g.status(g.do("DELETE", u, nil), 204)
	for _, method := range []string{"GET", "PATCH", "DELETE"} {
		g.code(g.do(method, u, nil), map[string]string{"GET": "BLOB_UPLOAD_UNKNOWN", "PATCH": "BLOB_UPLOAD_UNKNOWN", "DELETE": "BLOB_UPLOAD_UNKNOWN"}[method])
	}
	// An upload belongs to its repository.
	u = g.location(g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/", nil), 202))
	g.status(g.do("GET", strings.Replace(u, repo, g.name("another"), 1), nil), 404)
	g.status(g.do("DELETE", u, nil), 204)
}

func mount(g *registry) {
	from, to := g.name("mount/from"), g.name("mount/to")
	content := noise(1000)
	d := g.push(from, digest.SHA256, content).Digest.String()
	a := g.status(g.do("POST", "/v2/"+to+"/blobs/uploads/?mount="+d+"&from="+from, nil), 201)
	if !strings.HasSuffix(g.location(a), "/v2/"+to+"/blobs/"+d) {
		g.Errorf("mounted at %s", g.location(a))
	}
	g.holds(g.location(a), digest.Digest(d), content)
	g.status(g.do("DELETE", "/v2/"+to+"/blobs/"+d, nil), 202)
	g.status(g.do("HEAD", "/v2/"+to+"/blobs/"+d, nil), 404)
	g.status(g.do("HEAD", "/v2/"+from+"/blobs/"+d, nil), 200)
	g.status(g.do("POST", "/v2/"+to+"/blobs/uploads/?mount="+d, nil), 201)
	g.holds("/v2/"+to+"/blobs/"+d, digest.Digest(d), content)
	for _, q := range []string{"?mount=" + digest.FromString("none").String() + "&from=" + from, "?mount=" + digest.FromString("none").String(), "?mount=" + d + "&from=no/such", "?mount=" + d + "&from=../.."} {
		repo := g.name("mount/other")
		a := g.status(g.do("POST", "/v2/"+repo+"/blobs/uploads/"+q, nil), 202)
		if !strings.Contains(g.location(a), "/v2/"+repo+"/blobs/uploads/") {
			g.Errorf("%s: the upload is at %s", q, g.location(a))
		}
		g.status(g.do("PUT", with(g.location(a), "digest", d), content), 201)
		g.status(g.do("DELETE", "/v2/"+repo+"/blobs/"+d, nil), 202)
	}
	g.status(g.do("POST", "/v2/"+to+"/blobs/uploads/?mount=nonsense&from="+from, nil), 400)
}

func ranges(g *registry) {
	repo, content := g.name("ranges"), noise(2048)
	u := "/v2/" + repo + "/blobs/" + g.push(repo, digest.SHA256, content).Digest.String()
	for _, c := range []struct {
		asked    string
		from, to int
	}{{"500-1499", 500, 1500}, {"500-", 500, 2048}, {"-500", 1548, 2048}, {"2000-5000", 2000, 2048}, {"0-0", 0, 1}} {
		a := g.status(g.do("GET", u, nil, "Range: bytes="+c.asked), 206)
		if !bytes.Equal(a.body, content[c.from:c.to]) || a.ContentLength != int64(c.to-c.from) {
			g.Errorf("%s: %d bytes, or others", c.asked, len(a.body))
		}
		g.header(a, "Content-Range", fmt.Sprintf("bytes %d-%d/2048", c.from, c.to-1))
	}
	for _, asked := range []string{"500-0", "5000-10000", "x-y"} {
		g.status(g.do("GET", u, nil, "Range: bytes="+asked), 416)
	}
	g.header(g.status(g.do("HEAD", u, nil), 200), "Accept-Ranges", "bytes")
}

func conditional(g *registry) {
	repo := g.name("conditional")
	m := g.image(repo, digest.SHA256)
	g.put(repo, "1", digest.FromBytes(m), m)
	for _, u := range []string{"/v2/" + repo + "/manifests/1", "/v2/" + repo + "/manifests/" + digest.FromBytes(m).String()} {
		etag := g.status(g.do("GET", u, nil), 200).Header.Get("Etag")
		if etag == "" {
			g.Errorf("%s has no ETag", u)
		}
		a := g.status(g.do("GET", u, nil, "If-None-Match: "+etag), 304)
		g.header(a, "Docker-Content-Digest", digest.FromBytes(m).String())
		g.status(g.do("GET", u, nil, `If-None-Match: "another"`), 200)
	}
}
