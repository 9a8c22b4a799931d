package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// hostile serves GET /v2/ well and everything else as told.
func hostile(t *testing.T, h http.HandlerFunc) string {
	return handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		h(w, r)
	})
}

var goodManifest = manifestOf([]byte("{}"), []byte("layer"), "")

// TestHostileManifests wants a precise error of the right kind for each lie about a manifest.
func TestHostileManifests(t *testing.T) {
	other := digest.FromString("something else")
	huge := append(bytes.Repeat([]byte(" "), MaxManifest), goodManifest...)
	send := func(kind string, body []byte, h ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			for i := 0; i < len(h); i += 2 {
				w.Header().Set(h[i], h[i+1])
			}
			if r.Method != http.MethodHead {
				_, _ = w.Write(body)
			}
		}
	}
	oci := ocispec.MediaTypeImageManifest
	for name, c := range map[string]struct {
		ask  string
		h    http.HandlerFunc
		want string
		kind fault.Kind
	}{
		"wrong digest":        {other.String(), send(oci, goodManifest), "manifest verification failed for digest " + other.String(), fault.Invalid},
		"wrong header digest": {"1", send(oci, goodManifest, "Docker-Content-Digest", other.String()), "manifest verification failed for digest " + other.String(), fault.Invalid},
		"no digest":           {"1", send(oci, goodManifest, "Docker-Content-Digest", "sha256:zz"), `Docker-Content-Digest "sha256:zz" is not a digest`, fault.Invalid},
		"huge":                {"1", send(oci, huge), "more than the 4194304", fault.Invalid},
		"huge without length": {"1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", oci)
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			for range 80 {
				_, _ = w.Write(bytes.Repeat([]byte(" "), 1<<16))
			}
		}, "more than the 4194304", fault.Invalid},
		"other type":      {"1", send(ocispec.MediaTypeImageIndex, goodManifest), "was sent as " + ocispec.MediaTypeImageIndex, fault.Invalid},
		"html":            {"1", send("text/html", []byte("<html>hello")), "the manifest is not JSON", fault.Invalid},
		"nothing":         {"1", send(oci, nil), "the manifest is not JSON", fault.Invalid},
		"array":           {"1", send(oci, []byte(`[1]`)), "cannot be read", fault.Invalid},
		"nothing known":   {"1", send("text/plain", []byte(`{}`)), "unsupported manifest media type", fault.Invalid},
		"ambiguous":       {"1", send(oci, []byte(`{"schemaVersion":2,"layers":[],"manifests":[]}`)), "ambiguous", fault.Invalid},
		"index as image":  {"1", send(oci, []byte(`{"schemaVersion":2,"manifests":[]}`)), "not what its media type", fault.Invalid},
		"schema 1":        {"1", send(mediaTypeSchema1Signed, []byte(`{"schemaVersion":1,"fsLayers":[]}`)), "schema 1", fault.NotImplemented},
		"hidden schema 1": {"1", send(oci, []byte(`{"schemaVersion":1}`)), "schema 1", fault.NotImplemented},
		"truncated": {"1", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "5000")
			_, _ = w.Write(goodManifest)
		}, "unexpected EOF", fault.Unavailable},
		"path in tag":    {"../../x", nil, "invalid tag format", fault.Invalid},
		"query in tag":   {"a?b", nil, "invalid tag format", fault.Invalid},
		"path in digest": {"sha256:../../x", nil, "invalid digest", fault.Invalid},
		"error page":     {"1", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "<html>nginx", 404) }, "manifest for HOST/x:1 not found: manifest unknown: manifest unknown", fault.NotFound},
		"denied": {"1", refuse(401, `Bearer realm="/t",error="insufficient_scope"`, ``),
			"pull access denied for HOST/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", fault.NotFound},
		"no name":   {"1", refuse(404, "", `{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}`), "repository HOST/x not found: name unknown: repository name not known to registry", fault.NotFound},
		"limit":     {"1", refuse(429, "", `{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}`), "toomanyrequests: You have reached your pull rate limit.", fault.Unavailable},
		"forbidden": {"1", refuse(403, "", ``), "pull access denied for HOST/x, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", fault.NotFound},
		"broken":    {"1", refuse(500, "", `oops`), "received unexpected HTTP status: 500 Internal Server Error", fault.Unavailable},
		"escapes":   {"1", refuse(400, "", `{"errors":[{"code":"X\u001b[31m","message":"\u001b]0;title\u0007 red"}]}`), "unknown: ]0;title  red", fault.Invalid},
	} {
		t.Run(name, func(t *testing.T) {
			host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/t" {
					_, _ = io.WriteString(w, `{"token":"t"}`)
					return
				}
				c.h(w, r)
			})
			r := repository(t, newClient(t, Config{}), host+"/x", Credentials{})
			doc, err := r.Manifest(t.Context(), c.ask)
			want := strings.ReplaceAll(c.want, "HOST", host)
			if err == nil || doc != nil || !strings.Contains(err.Error(), want) || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%v), want %s (%v)", err, fault.KindOf(err), want, c.kind)
			}
			if _, err := r.Resolve(t.Context(), c.ask); err == nil && name != "wrong header digest" && name != "huge without length" && name != "wrong digest" {
				// what the head of an answer says is believed until the content is asked for by its digest
				if name != "truncated" && name != "ambiguous" && name != "index as image" && name != "hidden schema 1" && name != "array" {
					t.Error("Resolve has no objection")
				}
			}
		})
	}
}

func refuse(status int, challenge, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// TestMediaTypes takes what honest but careless servers send.
func TestMediaTypes(t *testing.T) {
	index := []byte(`{"schemaVersion":2,"manifests":[]}`)
	for _, c := range []struct {
		said string
		body []byte
		want string
	}{
		{ocispec.MediaTypeImageManifest + "; charset=utf-8", goodManifest, ocispec.MediaTypeImageManifest},
		{"application/json", goodManifest, ocispec.MediaTypeImageManifest},
		{"", index, ocispec.MediaTypeImageIndex},
		{"text/plain", []byte(`{"schemaVersion":2,"config":{},"layers":[]}`), ocispec.MediaTypeImageManifest},
		{MediaTypeDockerIndex, index, MediaTypeDockerIndex},
	} {
		if got, _, err := kindOf(c.body, mediaTypeOf(http.Header{"Content-Type": {c.said}})); err != nil || got != c.want {
			t.Errorf("%q: %q %v, want %q", c.said, got, err, c.want)
		}
	}
}

// TestBrokenDownloads reads a blob from servers that stop, lie about ranges and know none.
func TestBrokenDownloads(t *testing.T) {
	data := content(4, 3<<20)
	for name, h := range map[string]func(w http.ResponseWriter, r *http.Request, from int64, n int32){
		"breaks each megabyte": func(w http.ResponseWriter, r *http.Request, from int64, n int32) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)-int(from)))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
				w.WriteHeader(206)
			}
			_, _ = w.Write(data[from:min(int(from)+1<<20, len(data))])
		},
		"knows no ranges": func(w http.ResponseWriter, r *http.Request, from int64, n int32) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			if n == 1 {
				_, _ = w.Write(data[:1<<20])
				return
			}
			_, _ = w.Write(data)
		},
		"starts earlier than asked": func(w http.ResponseWriter, r *http.Request, from int64, n int32) {
			start := max(0, from-1000)
			w.Header().Set("Content-Length", strconv.Itoa(len(data)-int(start)))
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", start, len(data)-1, len(data)))
			w.WriteHeader(206)
			_, _ = w.Write(data[start:min(int(start)+1<<20, len(data))])
		},
		"416 for what exists": func(w http.ResponseWriter, r *http.Request, from int64, n int32) {
			if from > 0 {
				w.WriteHeader(416)
				return
			}
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			if n == 1 {
				_, _ = w.Write(data[:1<<20])
				return
			}
			_, _ = w.Write(data)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
				var from int64
				_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
				h(w, r, from, asked.Add(1))
			})
			r := repository(t, newClient(t, Config{}), host+"/x", Credentials{})
			rc, err := r.Blob(t.Context(), describe(data), 0)
			if !bytes.Equal(readAll(t, rc, err), data) {
				t.Error("the bytes differ")
			}
			if asked.Load() < 2 {
				t.Error("nothing was resumed")
			}
		})
	}
}

// TestHostileBlobs wants an end and a reason for each lie about a blob.
func TestHostileBlobs(t *testing.T) {
	data := content(5, 1<<20)
	for name, c := range map[string]struct {
		h      http.HandlerFunc
		offset int64
		want   string
		kind   fault.Kind
	}{
		"other length": {func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(data[:100]) }, 0, "the server has 100 bytes, the manifest says 1048576", fault.Invalid},
		"never more than ten bytes": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			_, _ = w.Write(data[:10])
		}, 0, "unexpected EOF", fault.Unavailable},
		"range of something else": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 900-999/1048576")
			w.WriteHeader(206)
			_, _ = w.Write(data[:100])
		}, 5, "was asked for byte 5 and sends 900 to 999", fault.Invalid},
		"range and length": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes 5-1048575/1048576")
			w.WriteHeader(206)
			_, _ = w.Write(data[:100])
		}, 5, "which are not 100", fault.Invalid},
		"range unreadable": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Range", "bytes x")
			w.WriteHeader(206)
		}, 5, `Content-Range "bytes x" cannot be read`, fault.Invalid},
		"no content": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }, 0, "unexpected HTTP status 204", fault.Invalid},
		"absent":     {refuse(404, "", ""), 0, "blob unknown: ", fault.NotFound},
	} {
		t.Run(name, func(t *testing.T) {
			host := hostile(t, c.h)
			r := repository(t, newClient(t, Config{}), host+"/x", Credentials{})
			rc, err := r.Blob(t.Context(), describe(data), c.offset)
			if err == nil {
				_, err = io.Copy(io.Discard, rc)
				rc.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || fault.KindOf(err) != c.kind {
				t.Errorf("%v (%v), want %s (%v)", err, fault.KindOf(err), c.want, c.kind)
			}
		})
	}
}

// TestTooMuch stops at the size that the manifest says.
func TestTooMuch(t *testing.T) {
	data := content(6, 1000)
	host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		for {
			if _, err := w.Write(data); err != nil {
				return
			}
		}
	})
	r := repository(t, newClient(t, Config{}), host+"/x", Credentials{})
	rc, err := r.Blob(t.Context(), describe(data), 0)
	if !bytes.Equal(readAll(t, rc, err), data) {
		t.Error("differs")
	}
}

// TestSlow ends what a server draws out: silence before and after the head, and a drip of single bytes.
func TestSlow(t *testing.T) {
	data := content(7, 1<<20)
	drip := func(every time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(data)))
			for i := range data {
				if _, err := w.Write(data[i : i+1]); err != nil || r.Context().Err() != nil {
					return
				}
				w.(http.Flusher).Flush()
				select {
				case <-time.After(every):
				case <-r.Context().Done():
				}
			}
		}
	}
	for name, h := range map[string]http.HandlerFunc{"drip": drip(2 * time.Millisecond), "silence": drip(time.Hour)} {
		t.Run(name, func(t *testing.T) {
			r := repository(t, newClient(t, Config{Stall: 100 * time.Millisecond, MinRate: 100_000}), hostile(t, h)+"/x", Credentials{})
			rc, err := r.Blob(t.Context(), describe(data), 0)
			if err == nil {
				_, err = io.Copy(io.Discard, rc)
				rc.Close()
			}
			if !errors.Is(err, errSilent) || !fault.Is(err, fault.Unavailable) {
				t.Errorf("%v (%v)", err, fault.KindOf(err))
			}
		})
	}
}

// TestCancel ends a download with its caller.
func TestCancel(t *testing.T) {
	host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 10))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	rc, err := repository(t, newClient(t, Config{}), host+"/x", Credentials{}).Blob(ctx, describe(make([]byte, 1000)), 0)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := io.Copy(io.Discard, rc); !fault.Is(err, fault.Cancelled) {
		t.Errorf("%v (%v)", err, fault.KindOf(err))
	}
}

// TestRedirects follows to other hosts without the credentials, and ends loops.
func TestRedirects(t *testing.T) {
	data := content(8, 1000)
	leaked := ""
	store := handle(t, func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization") + r.Header.Get("X-Own")
		_, _ = w.Write(data)
	})
	host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		if _, pass, _ := r.BasicAuth(); pass != "p" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(401)
			return
		}
		switch {
		case strings.HasPrefix(r.URL.Path, "/v2/loop"):
			http.Redirect(w, r, "/v2/pool", http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/v2/pool"):
			http.Redirect(w, r, "/v2/loop/blobs/"+digest.FromBytes(data).String(), http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/v2/long"):
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		case strings.HasPrefix(r.URL.Path, "/v2/file"):
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		case strings.HasPrefix(r.URL.Path, "/v2/here"):
			http.Redirect(w, r, "/v2/x/blobs/y", http.StatusTemporaryRedirect)
		default:
			http.Redirect(w, r, "http://"+store+"/data?sig=1", http.StatusTemporaryRedirect)
		}
	})
	c := newClient(t, Config{})
	get := func(name string) ([]byte, error) {
		rc, err := repository(t, c, host+"/"+name, Credentials{Username: "u", Password: "p"}).Blob(t.Context(), describe(data), 0)
		if err != nil {
			return nil, err
		}
		defer rc.Close()
		return io.ReadAll(rc)
	}
	for _, name := range []string{"x", "here"} {
		if b, err := get(name); err != nil || !bytes.Equal(b, data) || leaked != "" {
			t.Errorf("%s: %v, leaked %q", name, err, leaked)
		}
	}
	for name, want := range map[string]string{"loop": "redirect loop: http://", "long": "stopped after 10 redirects", "file": "which is no web address"} {
		if _, err := get(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// TestStorms counts how often a server is asked that says no, and how long is waited for it.
func TestStorms(t *testing.T) {
	for _, c := range []struct {
		name        string
		status      int
		after       string
		asked       int32
		least, most time.Duration
	}{
		{"limit without end", 429, "", 2, 0, time.Second},
		{"limit with end", 429, "5", 4, 15 * time.Second, 20 * time.Second},
		{"limit for an hour", 429, "3600", 1, 0, 0},
		{"gateway", 502, "", 4, 0, 10 * time.Second},
		{"not here", 404, "", 1, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			var asked atomic.Int32
			host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Add(1)
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
			})
			cl := newClient(t, Config{})
			var waited time.Duration
			cl.sleep = func(_ context.Context, d time.Duration) error { waited += d; return nil }
			_, err := repository(t, cl, host+"/x", Credentials{}).Manifest(t.Context(), "1")
			if err == nil || asked.Load() != c.asked || waited < c.least || waited > c.most {
				t.Errorf("%v, asked %d times, waited %v", err, asked.Load(), waited)
			}
			if want := c.status != 404; fault.Is(err, fault.Unavailable) != want {
				t.Errorf("kind %v", fault.KindOf(err))
			}
		})
	}
}

// TestPagesInCircles ends lists that have no end.
func TestPagesInCircles(t *testing.T) {
	for link, want := range map[string]string{
		`</v2/x/tags/list?last=a>; rel="next"`: "lists in a circle",
		`<http://127.0.0.1:1/x>; rel=next`:     "goes on at another host",
		``:                                     "",
		`</other>; rel="prev"`:                 "",
	} {
		host := hostile(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", link)
			_, _ = io.WriteString(w, `{"tags":["a","../b","c d"]}`)
		})
		tags, err := repository(t, newClient(t, Config{}), host+"/x", Credentials{}).Tags(t.Context())
		if want == "" && (err != nil || len(tags) != 1 || tags[0] != "a") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v %v", link, tags, err)
		}
	}
}
