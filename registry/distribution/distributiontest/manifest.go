package distributiontest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func manifestsOf(alg digest.Algorithm) func(*registry) {
	return func(g *registry) {
		repo := g.name("manifests/" + alg.String())
		one, two := g.image(repo, alg), g.image(repo, alg)
		nested := g.index(alg, one, two)
		outer := g.index(alg, nested)
		all := [][]byte{one, two, nested, outer, g.index(alg)}
		for _, m := range all {
			d := alg.FromBytes(m)
			g.put(repo, d.String(), d, m)
			g.put(repo, d.String(), d, m) // again is no conflict
			g.pulls("/v2/"+repo+"/manifests/"+d.String(), d, m)
		}
		if alg == digest.SHA256 {
			g.put(repo, "latest", digest.FromBytes(one), one)
			g.pulls("/v2/"+repo+"/manifests/latest", digest.FromBytes(one), one)
			g.put(repo, "latest", digest.FromBytes(outer), outer)
			g.pulls("/v2/"+repo+"/manifests/latest", digest.FromBytes(outer), outer)
			g.pulls("/v2/"+repo+"/manifests/"+digest.FromBytes(one).String(), digest.FromBytes(one), one)
		}
		wrong := append(slices.Clone(one), "  "...)
		g.code(g.status(g.do("PUT", "/v2/"+repo+"/manifests/"+alg.FromBytes(one).String(), wrong, "Content-Type: "+ocispec.MediaTypeImageManifest), 400), "DIGEST_INVALID")
		g.status(g.do("PUT", "/v2/"+repo+"/manifests/sha256:baddigeststring", one, "Content-Type: "+ocispec.MediaTypeImageManifest), 400)
		slices.Reverse(all)
		for _, m := range all {
			u := "/v2/" + repo + "/manifests/" + alg.FromBytes(m).String()
			g.status(g.do("DELETE", u, nil), 202)
			g.status(g.do("HEAD", u, nil), 404)
		}
		g.status(g.do("HEAD", "/v2/"+repo+"/manifests/latest", nil), 404)
	}
}

func tagParameters(g *registry) {
	for _, alg := range []digest.Algorithm{digest.SHA256, digest.SHA512} {
		repo := g.name("tag-parameter")
		m := g.image(repo, alg)
		d := alg.FromBytes(m)
		a := g.status(g.do("PUT", "/v2/"+repo+"/manifests/"+d.String()+"?tag=one&tag=two", m, "Content-Type: "+mediaType(m)), 201)
		if got := a.Header.Values("Oci-Tag"); !slices.Equal(got, []string{"one", "two"}) {
			g.Errorf("OCI-Tag is %q", got)
		}
		for _, tag := range []string{"one", "two"} {
			g.pulls("/v2/"+repo+"/manifests/"+tag, d, m)
			g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+tag, nil), 202)
		}
		g.status(g.do("PUT", "/v2/"+repo+"/manifests/"+d.String()+"?tag=one&tag=..", m, "Content-Type: "+mediaType(m)), 400)
		g.status(g.do("HEAD", "/v2/"+repo+"/manifests/one", nil), 404)
	}
}

func refused(g *registry) {
	repo := g.name("refused")
	good := g.image(repo, digest.SHA256)
	change := func(from, to string) string { return strings.Replace(string(good), from, to, 1) }
	missing := func(m *ocispec.Manifest) { m.Layers[0].Digest = digest.FromString("missing") }
	var m ocispec.Manifest
	if err := json.Unmarshal(good, &m); err != nil {
		g.Fatal(err)
	}
	manifest, index := ocispec.MediaTypeImageManifest, ocispec.MediaTypeImageIndex
	for name, c := range map[string]struct{ content, contentType, code string }{
		"empty":               {"", manifest, "MANIFEST_INVALID"},
		"no JSON":             {"blablabla", manifest, "MANIFEST_INVALID"},
		"a list":              {"[]", manifest, "MANIFEST_INVALID"},
		"null":                {"null", manifest, "MANIFEST_INVALID"},
		"two documents":       {string(good) + string(good), manifest, "MANIFEST_INVALID"},
		"no schema version":   {change(`"schemaVersion":2`, `"schemaVersion":1`), manifest, "MANIFEST_INVALID"},
		"other content type":  {string(good), index, "MANIFEST_INVALID"},
		"two kinds in one":    {change(`"layers"`, `"manifests":[],"layers"`), manifest, "MANIFEST_INVALID"},
		"no layers":           {change(`"layers"`, `"lairs"`), manifest, "MANIFEST_INVALID"},
		"an index of none":    {`{"schemaVersion":2}`, index, "MANIFEST_INVALID"},
		"a type for a page":   {strings.Replace(string(good), `"mediaType":"`+manifest+`",`, "", 1), "text/html", "MANIFEST_INVALID"},
		"a digest of nothing": {change(m.Config.Digest.String(), "sha256:1234"), manifest, "MANIFEST_INVALID"},
		"a path for a digest": {change(m.Config.Digest.String(), "sha256:../../../../etc/passwd"), manifest, "MANIFEST_INVALID"},
		"a negative size":     {change(fmt.Sprintf(`"size":%d`, m.Config.Size), `"size":-1`), manifest, "MANIFEST_INVALID"},
		"missing layer":       {string(g.image(repo, digest.SHA256, missing)), manifest, "MANIFEST_BLOB_UNKNOWN"},
		"schema 1":            {`{"schemaVersion":1,"name":"x","tag":"y","fsLayers":[],"history":[]}`, "application/vnd.docker.distribution.manifest.v1+json", "MANIFEST_INVALID"},
	} {
		a := g.do("PUT", "/v2/"+repo+"/manifests/bad", []byte(c.content), "Content-Type: "+c.contentType)
		if a.StatusCode != 400 && a.StatusCode != 404 || code(a) != c.code {
			g.Errorf("%s: %s %s, want %s", name, a.Status, code(a), c.code)
		}
	}
	// A blob that only another repository has is missing here.
	other := g.image(g.name("refused/other"), digest.SHA256)
	g.code(g.do("PUT", "/v2/"+repo+"/manifests/bad", other, "Content-Type: "+manifest), "MANIFEST_BLOB_UNKNOWN")
	g.status(g.do("HEAD", "/v2/"+repo+"/manifests/bad", nil), 404)
}

func large(g *registry) {
	repo := g.name("large")
	fill := func(n int) func(*ocispec.Manifest) {
		return func(m *ocispec.Manifest) {
			m.Annotations = map[string]string{}
			for i := range n {
				m.Annotations[fmt.Sprintf("large-%d", i)] = strings.Repeat("A", 10000)
			}
		}
	}
	m := g.image(repo, digest.SHA256, fill(390))
	g.put(repo, "large", digest.FromBytes(m), m)
	g.status(g.do("PUT", "/v2/"+repo+"/manifests/larger", g.image(repo, digest.SHA256, fill(430)), "Content-Type: "+ocispec.MediaTypeImageManifest), 413)
}

func kinds(g *registry) {
	repo := g.name("kinds")
	for name, change := range map[string]func(*ocispec.Manifest){
		"no layers":  func(m *ocispec.Manifest) { m.Layers = []ocispec.Descriptor{} },
		"artifact":   func(m *ocispec.Manifest) { m.ArtifactType = "application/vnd.example.thing" },
		"data":       func(m *ocispec.Manifest) { m.Config.Data = []byte("data") },
		"own config": func(m *ocispec.Manifest) { m.Config.MediaType = "application/vnd.example.config" },
		"nondistributable": func(m *ocispec.Manifest) {
			m.Layers = append(m.Layers, ocispec.Descriptor{MediaType: "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Digest: digest.FromString("elsewhere"), Size: 123456, URLs: []string{"https://store.example.com/x"}})
		},
	} {
		m := g.image(repo, digest.SHA256, change)
		g.put(repo, strings.ReplaceAll(name, " ", "-"), digest.FromBytes(m), m)
	}
	unknown := []byte(strings.Replace(string(g.image(repo, digest.SHA256)), "{", `{"org.example.unknown":{"a":[1,2]},`, 1))
	g.put(repo, "unknown-fields", digest.FromBytes(unknown), unknown)
	docker := []byte(strings.NewReplacer(ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json").Replace(string(g.image(repo, digest.SHA256))))
	g.put(repo, "docker", digest.FromBytes(docker), docker)
	list := []byte(strings.NewReplacer(ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json").Replace(string(g.index(digest.SHA256, docker))))
	g.put(repo, "docker-list", digest.FromBytes(list), list)
	// Old clients leave the media type out of the document.
	bare := []byte(strings.Replace(string(g.image(repo, digest.SHA256)), `"mediaType":"`+ocispec.MediaTypeImageManifest+`",`, "", 1))
	g.status(g.do("PUT", "/v2/"+repo+"/manifests/bare", bare, "Content-Type: "+ocispec.MediaTypeImageManifest), 201)
	g.header(g.do("HEAD", "/v2/"+repo+"/manifests/bare", nil), "Content-Type", ocispec.MediaTypeImageManifest)
}

func referrersList(g *registry) {
	repo := g.name("referrers")
	list := func(subject digest.Digest, query string) ([]ocispec.Descriptor, *answer) {
		g.Helper()
		a := g.status(g.do("GET", "/v2/"+repo+"/referrers/"+subject.String()+query, nil), 200)
		g.header(a, "Content-Type", ocispec.MediaTypeImageIndex)
		var i ocispec.Index
		if err := json.Unmarshal(a.body, &i); err != nil || i.SchemaVersion != 2 || i.MediaType != ocispec.MediaTypeImageIndex || i.Manifests == nil {
			g.Fatalf("%s: %v: %s", a.what, err, a.body)
		}
		return i.Manifests, a
	}
	subject := g.image(repo, digest.SHA256)
	sd := describe(digest.SHA256, subject)
	if l, _ := list(sd.Digest, ""); len(l) != 0 {
		g.Errorf("referrers of what does not exist: %v", l)
	}
	add := func(artifact string, config string) ocispec.Descriptor {
		g.Helper()
		m := g.image(repo, digest.SHA256, func(m *ocispec.Manifest) {
			m.Subject, m.ArtifactType, m.Annotations = &sd, artifact, map[string]string{"org.example": artifact + config}
			m.Config.MediaType = config
		})
		d := describe(digest.SHA256, m)
		g.header(g.put(repo, d.Digest.String(), d.Digest, m), "Oci-Subject", sd.Digest.String())
		d.ArtifactType = artifact
		if artifact == "" {
			d.ArtifactType = config
		}
		d.Annotations = map[string]string{"org.example": artifact + config}
		return d
	}
	before := add("application/vnd.example.a", ocispec.MediaTypeEmptyJSON) // the subject comes later
	g.put(repo, "subject", sd.Digest, subject)
	wanted := []ocispec.Descriptor{before, add("application/vnd.example.b", ocispec.MediaTypeEmptyJSON), add("", "application/vnd.example.a"), add("", ocispec.MediaTypeImageConfig)}
	index := ocispec.Index{MediaType: ocispec.MediaTypeImageIndex, ArtifactType: "application/vnd.example.a", Manifests: []ocispec.Descriptor{sd}, Subject: &sd, Annotations: map[string]string{"org.example": "index"}}
	index.SchemaVersion = 2
	im := document(index)
	g.header(g.put(repo, "index-with-subject", digest.FromBytes(im), im), "Oci-Subject", sd.Digest.String())
	id := describe(digest.SHA256, im)
	id.ArtifactType, id.Annotations = index.ArtifactType, index.Annotations
	wanted = append(wanted, id)

	same := func(what string, got, want []ocispec.Descriptor) {
		g.Helper()
		byDigest := func(a, b ocispec.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) }
		got, want = slices.SortedFunc(slices.Values(got), byDigest), slices.SortedFunc(slices.Values(want), byDigest)
		if string(document(got)) != string(document(want)) {
			g.Errorf("%s:\n got %s\nwant %s", what, document(got), document(want))
		}
	}
	all, a := list(sd.Digest, "")
	same("all", all, wanted)
	g.header(a, "Oci-Filters-Applied", "")
	for _, kind := range []string{"application/vnd.example.a", "application/vnd.example.b", "application/vnd.example.none"} {
		got, a := list(sd.Digest, "?artifactType="+kind)
		same(kind, got, slices.DeleteFunc(slices.Clone(wanted), func(d ocispec.Descriptor) bool { return d.ArtifactType != kind }))
		g.header(a, "Oci-Filters-Applied", "artifactType")
	}
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+before.Digest.String(), nil), 202)
	rest, _ := list(sd.Digest, "")
	same("after one was deleted", rest, wanted[1:])
	// The list outlives its subject.
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+sd.Digest.String(), nil), 202)
	rest, _ = list(sd.Digest, "")
	same("without the subject", rest, wanted[1:])
	if l, _ := list(digest.SHA512.FromString("x"), ""); len(l) != 0 {
		g.Errorf("referrers of a sha512: %v", l)
	}
	g.status(g.do("GET", "/v2/"+repo+"/referrers/nonsense", nil), 400, 404)
}

func tagsList(g *registry) {
	repo := g.name("tags-of")
	m := g.image(repo, digest.SHA256)
	list := func(query string) ([]string, string) {
		g.Helper()
		a := g.status(g.do("GET", "/v2/"+repo+"/tags/list"+query, nil), 200)
		var l struct {
			Name string
			Tags []string
		}
		if err := json.Unmarshal(a.body, &l); err != nil || l.Name != repo || l.Tags == nil {
			g.Fatalf("%s: %v: %s", a.what, err, a.body)
		}
		return l.Tags, a.Header.Get("Link")
	}
	names := []string{"1.0", "1.10", "1.9", "Latest", "edge", "latest", "v1"} // ASCII order
	for _, n := range []string{"v1", "latest", "1.9", "edge", "1.0", "Latest", "1.10"} {
		g.put(repo, n, digest.FromBytes(m), m)
	}
	for _, c := range []struct {
		query string
		want  []string
		more  bool
	}{
		{"", names, false}, {"?n=3", names[:3], true}, {"?n=3&last=1.9", names[3:6], true}, {"?n=3&last=edge", names[5:], false},
		{"?last=edge", names[5:], false}, {"?last=f", names[5:], false}, {"?n=7", names, false}, {"?n=100", names, false},
		{"?n=0", []string{}, false}, {"?last=zzz", []string{}, false}, {"?n=5&last=v1", []string{}, false},
	} {
		got, link := list(c.query)
		if !slices.Equal(got, c.want) || (link != "") != c.more {
			g.Errorf("%s: %v %q, want %v, more %v", c.query, got, link, c.want, c.more)
		}
	}
	// Following the links gives all.
	var got []string
	for next := "?n=2"; next != ""; {
		page, link := list(next)
		got = append(got, page...)
		next = ""
		if link != "" {
			target, rel, _ := strings.Cut(link, ">")
			if !strings.Contains(rel, `rel="next"`) {
				g.Fatalf("Link is %q", link)
			}
			_, query, _ := strings.Cut(target, "?")
			next = "?" + query
		}
	}
	if !slices.Equal(got, names) {
		g.Errorf("by pages: %v", got)
	}
	for _, n := range []string{"-1", "x"} {
		g.status(g.do("GET", "/v2/"+repo+"/tags/list?n="+n, nil), 400)
	}
}

func deletes(g *registry) {
	repo := g.name("delete")
	m := g.image(repo, digest.SHA256)
	d := digest.FromBytes(m)
	var doc ocispec.Manifest
	if err := json.Unmarshal(m, &doc); err != nil {
		g.Fatal(err)
	}
	for _, tag := range []string{"a", "b", "c"} {
		g.put(repo, tag, d, m)
	}
	layer := "/v2/" + repo + "/blobs/" + doc.Layers[0].Digest.String()
	// A tag goes alone.
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/a", nil), 202)
	g.status(g.do("HEAD", "/v2/"+repo+"/manifests/a", nil), 404)
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/a", nil), 404)
	g.pulls("/v2/"+repo+"/manifests/b", d, m)
	// A blob in use stays.
	g.code(g.status(g.do("DELETE", layer, nil), 405), "UNSUPPORTED")
	g.status(g.do("HEAD", layer, nil), 200)
	// A manifest takes its tags along.
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+d.String(), nil), 202)
	for _, ref := range []string{d.String(), "b", "c"} {
		g.status(g.do("GET", "/v2/"+repo+"/manifests/"+ref, nil), 404)
	}
	g.status(g.do("DELETE", "/v2/"+repo+"/manifests/"+d.String(), nil), 404)
	a := g.status(g.do("GET", "/v2/"+repo+"/tags/list", nil), 200)
	if !strings.Contains(string(a.body), `"tags":[]`) {
		g.Errorf("tags after all were deleted: %s", a.body)
	}
	g.status(g.do("DELETE", layer, nil), 202)
	g.status(g.do("GET", layer, nil), 404)
	g.status(g.do("DELETE", layer, nil), 404)
}
