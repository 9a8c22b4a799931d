package remote

import (
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

func FuzzChallenge(f *testing.F) {
	f.Add(`Bearer realm="https://a/t",service="s",scope="repository:a:pull,push"`)
	f.Add(`Basic realm="a \" b", Bearer x=y`)
	f.Add(`,,,= a="`)
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range parseChallenges([]string{s}) {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("scheme %q", c.scheme)
			}
			for _, a := range splitScopes(c.params["scope"]) {
				if !strings.Contains(a, ":") {
					t.Errorf("scope %q", a)
				}
			}
			groupScopes(splitScopes(c.params["scope"]))
		}
	})
}

func FuzzLink(f *testing.F) {
	f.Add(`</v2/a/tags/list?n=1>; rel="next", <b>; rel=prev`)
	f.Add(`<;>;;rel="`)
	f.Fuzz(func(t *testing.T, s string) {
		if l := parseLink([]string{s}); !strings.Contains(s, l) {
			t.Errorf("%q is not in %q", l, s)
		}
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add(401, `Bearer error="insufficient_scope"`, `{"errors":[{"code":"DENIED","message":"no"}]}`)
	f.Add(429, "", `{"details":"x"}`)
	f.Add(500, "", "\x1b[31m")
	f.Fuzz(func(t *testing.T, status int, challenge, body string) {
		r := parseRefusal(status, []string{challenge}, []byte(body))
		if r.Message == "" || len(r.Error()) > 2000 || strings.ContainsFunc(r.Error(), unicode.IsControl) {
			t.Errorf("%q", r.Error())
		}
		r.kind()
	})
}

func FuzzHosts(f *testing.F) {
	f.Add("server = \"https://a\"\n[host.\"https://b\"]\ncapabilities=[\"pull\"]\n")
	f.Add("[host.x.header]\na = [\"b\"]\n[host]\n\"c\" = {ca = 1}")
	f.Fuzz(func(t *testing.T, s string) {
		conf, err := parseHosts([]byte(s), "/d")
		if err != nil {
			return
		}
		for _, h := range conf.mirrors {
			if h.url == nil || h.url.Host == "" {
				t.Errorf("%+v", h)
			}
		}
	})
}

func FuzzManifest(f *testing.F) {
	f.Add(string(goodManifest), "application/vnd.oci.image.manifest.v1+json")
	f.Add(`{"schemaVersion":1}`, "")
	f.Fuzz(func(t *testing.T, body, kind string) {
		d, err := verify([]byte(body), http.Header{"Content-Type": {kind}}, "")
		if err == nil && (!isManifestType(d.MediaType) || d.Digest.Validate() != nil) {
			t.Errorf("%+v", d)
		}
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("bytes 1-2/3", "0-5", "7", "sha256:x")
	f.Fuzz(func(t *testing.T, contentRange, uploaded, after, reference string) {
		if a, b, n, err := parseContentRange(contentRange); err == nil && (a < 0 || b < a || n >= 0 && n <= b) {
			t.Errorf("%q: %d %d %d", contentRange, a, b, n)
		}
		if n, ok := uploadedTo(uploaded); ok && n < 0 {
			t.Errorf("%q: %d", uploaded, n)
		}
		if d := retryAfter(after, time.Now()); d < 0 {
			t.Errorf("%q: %v", after, d)
		}
		if _, err := parseReference(reference); err == nil && strings.ContainsAny(reference, "/?#% \\") {
			t.Errorf("%q is no reference", reference)
		}
		for _, name := range hostDirNames(reference) {
			if strings.ContainsAny(name, "/\\") || name == ".." {
				t.Errorf("%q", name)
			}
		}
	})
}
