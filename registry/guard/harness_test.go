package guard_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/crypto/bcrypt"

	"berth/registry"
	"berth/registry/guard"
)

// site is a registry that serves on loopback.
type site struct {
	*testing.T
	url, host, root string
	log             *bytes.Buffer
	image           v1.Image
}

func serve(t *testing.T, cfg registry.Config) *site {
	t.Helper()
	if cfg.Root == "" {
		cfg.Root = t.TempDir()
	}
	s := &site{T: t, root: cfg.Root, log: &bytes.Buffer{}}
	cfg.Log = slog.New(slog.NewTextHandler(s.log, nil))
	r, err := registry.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(r)
	t.Cleanup(func() {
		server.Close()
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	s.url, s.host = server.URL, strings.TrimPrefix(server.URL, "http://")
	if s.image, err = random.Image(2000, 2); err != nil {
		t.Fatal(err)
	}
	return s
}

// htpasswd writes a password file; the passwords are NAME-secret.
func htpasswd(t *testing.T, names ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "htpasswd")
	var b strings.Builder
	for _, n := range names {
		h, err := bcrypt.GenerateFromPassword([]byte(n+"-secret"), bcrypt.MinCost)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:%s\n", n, h)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func as(user string) authn.Authenticator {
	if user == "" {
		return authn.Anonymous
	}
	return &authn.Basic{Username: user, Password: user + "-secret"}
}

// push and pull give the error's text, "" for none.
func (s *site) push(who authn.Authenticator, repo string) string {
	s.Helper()
	tag, err := name.NewTag(s.host + "/" + repo + ":2")
	if err != nil {
		s.Fatal(err)
	}
	return text(remote.Write(tag, s.image, remote.WithAuth(who)))
}

func (s *site) pull(who authn.Authenticator, repo string) string {
	s.Helper()
	tag, err := name.NewTag(s.host + "/" + repo + ":2")
	if err != nil {
		s.Fatal(err)
	}
	i, err := remote.Image(tag, remote.WithAuth(who))
	if err == nil {
		var got, want v1.Hash
		got, _ = i.Digest()
		if want, err = s.image.Digest(); got != want {
			s.Errorf("pulled %s, pushed %s", got, want)
		}
	}
	return text(err)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// do makes a request of the registry's own routes; who is "NAME:PASSWORD", or "" for nobody.
func (s *site) do(method, path, who string, body any, into any) int {
	s.Helper()
	var b bytes.Buffer
	if body != nil {
		json.NewEncoder(&b).Encode(body)
	}
	r, err := http.NewRequest(method, s.url+path, &b)
	if err != nil {
		s.Fatal(err)
	}
	if user, password, ok := strings.Cut(who, ":"); ok {
		r.SetBasicAuth(user, password)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	if into != nil && answer.StatusCode < 300 {
		if err := json.Unmarshal(text, into); err != nil {
			s.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
	if answer.StatusCode >= 500 {
		s.Errorf("%s %s: %d %s", method, path, answer.StatusCode, text)
	}
	return answer.StatusCode
}

func (s *site) must(status int, method, path, who string, body, into any) {
	s.Helper()
	if got := s.do(method, guard.Prefix+path, who, body, into); got != status {
		s.Fatalf("%s %s as %q: %d, want %d", method, path, who, got, status)
	}
}

// token asks for one as a client does.
func (s *site) token(user, scope string) string {
	s.Helper()
	var a struct{ Token string }
	who := ""
	if user != "" {
		who = user + ":" + user + "-secret"
	}
	if got := s.do("GET", "/token?service="+guard.Service+"&scope="+url.QueryEscape(scope), who, nil, &a); got != 200 {
		s.Fatalf("token for %s: %d", user, got)
	}
	return a.Token
}

func (s *site) bearer(method, path, token string) int {
	s.Helper()
	r, _ := http.NewRequest(method, s.url+path, nil)
	r.Header.Set("Authorization", "Bearer "+token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		s.Fatal(err)
	}
	answer.Body.Close()
	return answer.StatusCode
}

func empty(t *testing.T) v1.ImageIndex {
	i, err := random.Index(0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return i
}
