package http

import (
	"context"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/progress"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/image/layer"
	"berth/kernel/tree"
)

type bed struct {
	t *testing.T
	s *Source
}

func open(t *testing.T, change ...func(*Config)) *bed {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlay mounts")
	}
	layers, err := layer.Open(layer.Config{Root: t.TempDir()})
	need(t, err)
	snaps, err := snapshot.Open(snapshot.Config{Layers: layers, Root: t.TempDir()})
	need(t, err)
	cfg := Config{Snapshots: snaps, Root: t.TempDir()}
	for _, c := range change {
		c(&cfg)
	}
	s, err := Open(cfg)
	need(t, err)
	t.Cleanup(func() {
		snaps.Close()
		layers.Close()
	})
	return &bed{t, s}
}

func need(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pin pins an address with attributes, given as "key=value".
func (b *bed) pin(url string, attrs ...string) (solver.Pinned, error) {
	m := map[string]string{}
	for _, a := range attrs {
		k, v, _ := strings.Cut(a, "=")
		m[k] = v
	}
	src, err := b.s.Source(&graph.Vertex{Op: &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: url, Attrs: m}}}})
	if err != nil {
		return solver.Pinned{}, err
	}
	return src.Pin(b.t.Context(), &solver.Run{Sessions: session.NewGroup("s1"), Progress: quiet{}})
}

// take gives the one file of a pinned source: "name mode uid:gid mtime content".
func (b *bed) take(p solver.Pinned) (line string, err error) {
	s, err := p.Snapshot(b.t.Context())
	if err != nil {
		return "", err
	}
	defer s.Release()
	err = s.View(b.t.Context(), func(root *tree.Dir) error {
		entries, err := root.Entries()
		need(b.t, err)
		if len(entries) != 1 {
			b.t.Errorf("%d files", len(entries))
		}
		f, st, err := root.OpenEntry(entries[0].Name)
		need(b.t, err)
		defer f.Close()
		content, err := io.ReadAll(f)
		need(b.t, err)
		line = fmt.Sprintf("%s %o %d:%d %d %s", entries[0].Name, st.Mode&0o7777, st.UID, st.GID, st.Mtime.Sec, content)
		return nil
	})
	return line, err
}

// server counts what it is asked.
type server struct {
	*httptest.Server
	gets, heads int
	body, tag   string
	modified    time.Time
	disposition string
	auth        []string
	status      int
}

func serve(t *testing.T) *server {
	s := &server{body: "content", status: 200}
	s.Server = httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		s.auth = append(s.auth, r.Header.Get("Authorization"))
		if r.Method == nethttp.MethodHead {
			s.heads++
		} else {
			s.gets++
		}
		if s.tag != "" {
			w.Header().Set("ETag", s.tag)
		}
		if s.disposition != "" {
			w.Header().Set("Content-Disposition", s.disposition)
		}
		if !s.modified.IsZero() {
			w.Header().Set("Last-Modified", s.modified.UTC().Format(nethttp.TimeFormat))
		}
		if s.status != 200 {
			w.WriteHeader(s.status)
			return
		}
		if s.tag != "" && r.Header.Get("If-None-Match") == s.tag {
			w.WriteHeader(nethttp.StatusNotModified)
			return
		}
		_, _ = io.WriteString(w, s.body)
	}))
	t.Cleanup(s.Close)
	return s
}

func TestLooks(t *testing.T) {
	b, s := open(t), serve(t)
	for _, tt := range []struct {
		name, path  string
		disposition string
		modified    time.Time
		attrs       []string
		want        string
	}{
		{name: "plain", path: "/d/file.txt?q=1", want: "file.txt 600 0:0 0 content"},
		{name: "no name", path: "/", want: "download 600 0:0 0 content"},
		{name: "time", path: "/f", modified: time.Unix(1e9, 0), want: "f 600 0:0 1000000000 content"},
		{name: "server's name", path: "/f", disposition: `attachment; filename="../other name"`, want: "other name 600 0:0 0 content"},
		{name: "hostile name", path: "/f", disposition: `attachment; filename=".."`, want: "download 600 0:0 0 content"},
		{name: "all attributes", path: "/f", attrs: []string{"http.filename=n", "http.perm=0755", "http.uid=7", "http.gid=8"}, want: "n 755 7:8 0 content"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.disposition, s.modified = tt.disposition, tt.modified
			p, err := b.pin(s.URL+tt.path, tt.attrs...)
			need(t, err)
			if p.Pin != digest.FromString("content").String() || p.Cache == "" || p.Material.Digest.String() != p.Pin {
				t.Errorf("%+v", p)
			}
			got, err := b.take(p)
			need(t, err)
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestEntityTags(t *testing.T) {
	b, s := open(t), serve(t)
	s.tag = `"one"`
	first, err := b.pin(s.URL + "/f")
	need(t, err)
	_, err = b.take(first)
	need(t, err)
	again, err := b.pin(s.URL + "/f")
	need(t, err)
	if s.gets != 1 || s.heads != 1 || again.Cache != first.Cache || again.Pin != first.Pin {
		t.Errorf("%d GET, %d HEAD", s.gets, s.heads)
	}
	if got, err := b.take(again); err != nil || got != "f 600 0:0 0 content" { // the record is gone
		t.Errorf("%q, %v", got, err)
	}

	s.tag, s.body = `W/"two"`, "changed"
	third, err := b.pin(s.URL + "/f")
	need(t, err)
	if third.Pin != digest.FromString("changed").String() || third.Cache == first.Cache {
		t.Errorf("what changed was not noticed: %+v", third)
	}
	s.tag = `"two"` // weakly the same
	gets := s.gets
	_, err = b.pin(s.URL + "/f")
	need(t, err)
	if s.gets != gets {
		t.Error("a weak tag was not compared weakly")
	}
	fourth, err := b.pin(s.URL + "/f")
	need(t, err)
	s.body = "changed without a new tag"
	if _, err := b.take(fourth); err == nil || !strings.Contains(err.Error(), "digest mismatch") {
		t.Errorf("what is not what was pinned was taken: %v", err)
	}
}

func TestChecksum(t *testing.T) {
	b, s := open(t), serve(t)
	sum := digest.FromString("content")
	p, err := b.pin(s.URL+"/f", "http.checksum="+sum.String())
	need(t, err)
	if s.gets+s.heads != 0 || p.Pin != sum.String() {
		t.Errorf("a pinned file was asked for: %d", s.gets+s.heads)
	}
	if got, err := b.take(p); err != nil || got != "f 600 0:0 0 content" {
		t.Errorf("%q, %v", got, err)
	}
	long := sha512.Sum512([]byte("content"))
	p, err = b.pin(s.URL+"/f", "http.checksum=sha512:"+hex.EncodeToString(long[:]))
	need(t, err)
	if _, err := b.take(p); err != nil {
		t.Error(err)
	}
	p, err = b.pin(s.URL+"/f", "http.checksum="+digest.FromString("other").String())
	need(t, err)
	if _, err := b.take(p); err == nil || !strings.Contains(err.Error(), "digest mismatch") {
		t.Errorf("a wrong file was taken: %v", err)
	}
}

func TestRefused(t *testing.T) {
	b, s := open(t, func(c *Config) { c.MaxBytes = 1 << 20 }), serve(t)
	s.status = 404
	if _, err := b.pin(s.URL + "/f"); err == nil || !strings.Contains(err.Error(), "invalid response status 404") || !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	s.status, s.body = 200, strings.Repeat("x", 1<<20+1)
	if _, err := b.pin(strings.Replace(s.URL, "//", "//user:geheim@", 1) + "/f"); err == nil || !strings.Contains(err.Error(), "larger than") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v", err)
	}
	for _, bad := range [][]string{
		{"ftp://x/f"}, {"http:///f"}, {"http://x/f", "http.checksum=zz"}, {"http://x/f", "http.uid=x"}, {"http://x/f", "http.sig.pubkey=k"},
	} {
		if _, err := b.pin(bad[0], bad[1:]...); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// live are sessions that are there, without anything to offer.
type live []string

func (l live) Sessions() []string { return l }

func (l live) Secret(_ context.Context, _ session.Group, id string) ([]byte, error) {
	return nil, fault.New(fault.NotFound, "secret %s", id)
}

func (l live) Any(context.Context, session.Group, func(context.Context, string, session.Caller) error) error {
	return fault.New(fault.NotFound, "no active sessions")
}

// What a build was told stays true for it, whatever the server says later; another build is told anew.
func TestToldOnce(t *testing.T) {
	b, s := open(t, func(c *Config) { c.Sessions = live{"s1", "s2"} }), serve(t)
	s.tag = `"one"`
	meta := func(g session.Group) digest.Digest {
		r, err := b.s.ResolveSourceMetadata(t.Context(), &pb.SourceOp{Identifier: s.URL + "/f"}, sourceresolver.Opt{}, g)
		need(t, err)
		return r.HTTP.Digest
	}
	first := meta(session.NewGroup("s1"))
	s.tag, s.body = `"two"`, "changed"
	if now := meta(session.NewGroup("s1")); now != first {
		t.Error("a build was told two things")
	}
	p, err := b.pin(s.URL + "/f") // of s1
	need(t, err)
	for range 2 {
		if got, err := b.take(p); err != nil || got != "f 600 0:0 0 content" {
			t.Errorf("%q, %v", got, err)
		}
	}
	if now := meta(session.NewGroup("s2")); now != digest.FromString("changed") {
		t.Error("another build was told what was true once")
	}
	if p.Release != nil {
		t.Error("what is kept for the session must not be given up before")
	}
}

// secrets is a client with secrets and nothing else.
type secrets map[string]string

func (s secrets) Secret(_ context.Context, _ session.Group, id string) ([]byte, error) {
	if v, ok := s[id]; ok {
		return []byte(v), nil
	}
	return nil, fault.New(fault.NotFound, "secret %s", id)
}

func (s secrets) Sessions() []string { return nil }

func (s secrets) Any(context.Context, session.Group, func(context.Context, string, session.Caller) error) error {
	return fault.New(fault.NotFound, "no active sessions")
}

func TestSecrets(t *testing.T) {
	for _, tt := range []struct {
		name    string
		secrets secrets
		attrs   []string
		want    string
	}{
		{"none", secrets{}, nil, ""},
		{"token", secrets{"HTTP_AUTH_TOKEN_127.0.0.1": "t"}, nil, "Bearer t"},
		{"header", secrets{"HTTP_AUTH_HEADER_127.0.0.1": "Basic x"}, nil, "Basic x"},
		{"named", secrets{"mine": "Own y", "HTTP_AUTH_TOKEN_127.0.0.1": "t"}, []string{"http.authheadersecret=mine"}, "Own y"},
		{"named and missing", secrets{}, []string{"http.authheadersecret=mine"}, "error"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, s := open(t, func(c *Config) { c.Sessions = tt.secrets }), serve(t)
			_, err := b.pin(s.URL+"/f", tt.attrs...)
			if tt.want == "error" {
				if err == nil || s.gets != 0 {
					t.Errorf("%v, %d requests", err, s.gets)
				}
				return
			}
			need(t, err)
			if s.auth[0] != tt.want {
				t.Errorf("%q", s.auth)
			}
		})
	}
}

// A secret for one server is not sent to another one that the first points to.
func TestSecretsStayAtHome(t *testing.T) {
	other := serve(t)
	home := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		nethttp.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1)+"/f", nethttp.StatusFound)
	}))
	defer home.Close()
	b := open(t, func(c *Config) { c.Sessions = secrets{"HTTP_AUTH_TOKEN_127.0.0.1": "geheim"} })
	_, err := b.pin(home.URL + "/f")
	need(t, err)
	if len(other.auth) != 1 || other.auth[0] != "" {
		t.Errorf("%q", other.auth)
	}
}

func TestResolve(t *testing.T) {
	b, s := open(t), serve(t)
	s.modified = time.Unix(1e9, 0)
	op := &pb.SourceOp{Identifier: s.URL + "/f"}
	ask := sourceresolver.Opt{HTTPOpt: &sourceresolver.ResolveHTTPOpt{ChecksumReq: &sourceresolver.ResolveHTTPChecksumRequest{
		Algo: sourceresolver.ResolveHTTPChecksumAlgoSHA512, Suffix: []byte("tail"),
	}}}
	r, err := b.s.ResolveSourceMetadata(t.Context(), op, ask, nil)
	need(t, err)
	if r.HTTP.Digest != digest.FromString("content") || r.HTTP.Filename != "f" || !r.HTTP.LastModified.Equal(s.modified) ||
		r.HTTP.ChecksumResponse.Digest != digest.SHA512.FromString("contenttail").String() {
		t.Errorf("%+v", r.HTTP)
	}
}

// quiet hears nothing.
type quiet struct{}

func (quiet) Vertex(progress.Vertex)   {}
func (quiet) Status(progress.Status)   {}
func (quiet) Log(progress.Log)         {}
func (quiet) Warning(progress.Warning) {}
