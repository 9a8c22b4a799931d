package registry

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/opencontainers/go-digest"
	"golang.org/x/crypto/bcrypt"

	"berth/registry/distribution/distributiontest"
	"berth/registry/storage/s3/s3test"
)

func TestConformanceOnDirectory(t *testing.T) {
	_, host := open(t, Config{})
	distributiontest.Run(t, distributiontest.Target{URL: "http://" + host})
}

func TestConformanceOnObjectStore(t *testing.T) {
	bucket := s3test.Start(t).Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", bucket.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", bucket.SecretKey)
	_, host := open(t, Config{Storage: "s3://" + bucket.Bucket + "/" + bucket.Prefix + "?path-style=true&endpoint=" + bucket.Endpoint})
	distributiontest.Run(t, distributiontest.Target{URL: "http://" + host})
}

// TestRedirect pulls from a registry that sends its clients to the store: they get there without the registry's credentials, whole and in
// ranges, and only for what they may pull.
func TestRedirect(t *testing.T) {
	bucket := s3test.Start(t).Bucket(t)
	t.Setenv("AWS_ACCESS_KEY_ID", bucket.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", bucket.SecretKey)
	_, host := open(t, Config{Storage: "s3://" + bucket.Bucket + "?path-style=true&redirect=true&endpoint=" + bucket.Endpoint})
	d := pushIndex(t, host+"/team/index:1")
	i, err := remote.Index(tag(t, host+"/team/index:1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(i); err != nil {
		t.Error(err)
	}
	same(t, d, host+"/team/index:1")
	content := []byte("0123456789")
	blob := "http://" + host + "/v2/team/index/blobs/" + digest.FromBytes(content).String()
	r, err := http.Post("http://"+host+"/v2/team/index/blobs/uploads/?digest="+digest.FromBytes(content).String(), "", bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	req, err := http.NewRequest("GET", blob, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Range", "bytes=3-5")
	if r, err = http.DefaultClient.Do(req); err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err != nil || string(got) != "345" || r.StatusCode != 206 || r.Request.URL.Host == host {
		t.Errorf("%s from %s: %q, %v", r.Status, r.Request.URL.Host, got, err)
	}
	if r, err := http.Get(strings.Replace(blob, "team/index", "team/other", 1)); err != nil || r.StatusCode != 404 {
		t.Errorf("a repository that does not hold it: %v, %v", r, err)
	}
}

// TestConformanceSignedIn asks everything as a user with a password, who learns from each challenge which token he needs and keeps
// tokens for a repository and kind of request, as simple clients do.
func TestConformanceSignedIn(t *testing.T) {
	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	users := filepath.Join(t.TempDir(), "users")
	if err := os.WriteFile(users, []byte("alice:"+string(hash)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Htpasswd: users}
	cfg.Auth.Admins = []string{"alice"}
	_, host := open(t, cfg)
	distributiontest.Run(t, distributiontest.Target{URL: "http://" + host, Client: &http.Client{Transport: &signedIn{user: "alice", password: "secret", tokens: map[string]string{}}}})
}

// signedIn gets the tokens that challenges ask for.
type signedIn struct {
	user, password string
	tokens         map[string]string
}

var (
	challengeField = regexp.MustCompile(`([a-z]+)="([^"]*)"`)
	repositoryPath = regexp.MustCompile(`^/v2/(.*)/(?:blobs|manifests|tags|referrers)/`)
)

func (s *signedIn) RoundTrip(r *http.Request) (*http.Response, error) {
	key := r.Method
	switch r.Method {
	case "GET", "HEAD":
		key = "pull"
	case "POST", "PATCH", "PUT":
		key = "push"
	}
	if m := repositoryPath.FindStringSubmatch(r.URL.Path); m != nil {
		key = m[1] + " " + key
	}
	send := func() (*http.Response, error) {
		again := r.Clone(r.Context())
		if r.GetBody != nil {
			again.Body, _ = r.GetBody()
		}
		if s.tokens[key] != "" {
			again.Header.Set("Authorization", "Bearer "+s.tokens[key])
		}
		return http.DefaultTransport.RoundTrip(again)
	}
	resp, err := send()
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	resp.Body.Close()
	fields := map[string]string{}
	for _, m := range challengeField.FindAllStringSubmatch(resp.Header.Get("WWW-Authenticate"), -1) {
		fields[m[1]] = m[2]
	}
	ask, err := http.NewRequestWithContext(r.Context(), "GET", fields["realm"]+"?"+url.Values{"service": {fields["service"]}, "scope": {fields["scope"]}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	ask.SetBasicAuth(s.user, s.password)
	got, err := http.DefaultClient.Do(ask)
	if err != nil {
		return nil, err
	}
	defer got.Body.Close()
	var answer struct{ Token string }
	if err := json.NewDecoder(got.Body).Decode(&answer); err != nil {
		return nil, err
	}
	s.tokens[key] = answer.Token
	return send()
}

// TestConformanceOfAnother asks a registry that runs elsewhere: BERTH_REGISTRY=http://HOST:PORT.
func TestConformanceOfAnother(t *testing.T) {
	url := os.Getenv("BERTH_REGISTRY")
	if url == "" {
		t.Skip("needs BERTH_REGISTRY=http://HOST:PORT")
	}
	distributiontest.Run(t, distributiontest.Target{URL: url, Prefix: "berth-conformance"})
}
