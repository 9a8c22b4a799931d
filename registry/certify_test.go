package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/static"
)

// sign signs an image of the registry as cosign does: a tag beside it, with a payload and its signature.
func sign(t *testing.T, r *Registry, repository, tag string, key *ecdsa.PrivateKey) {
	t.Helper()
	was, err := remote.Get(mustTag(t, repository+":"+tag))
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte(`{"critical":{"identity":{"docker-reference":"` + repository + `"},"image":{"docker-manifest-digest":"` + was.Digest.String() + `"},"type":"cosign container image signature"},"optional":null}`)
	sum := sha256.Sum256(payload)
	sig, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.Append(empty.Image, mutate.Addendum{Layer: static.NewLayer(payload, "application/vnd.dev.cosign.simplesigning.v1+json"),
		Annotations: map[string]string{"dev.cosignproject.cosign/signature": base64.StdEncoding.EncodeToString(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(mustTag(t, repository+":"+strings.Replace(was.Digest.String(), ":", "-", 1)+".sig"), image); err != nil {
		t.Fatal(err)
	}
	if err := r.Catalog().Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func mustTag(t *testing.T, s string) name.Tag {
	t.Helper()
	tag, err := name.NewTag(s)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

func TestCertifiedIsSignedUnderAPolicy(t *testing.T) {
	dir := t.TempDir()
	newKey := func(file string) *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return key
	}
	release, other := newKey("release.pub"), newKey("other.pub")
	policy := filepath.Join(dir, "release.json")
	text := `{"version":1,"name":"release","default":"accept","rules":[{"images":"localhost/library/**","signed":[{"key":"release.pub"}]}]}`
	if err := os.WriteFile(policy, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, host := open(t, Config{Around: Around{Policies: []string{policy}}})
	certified := func(repository string) string {
		t.Helper()
		e, err := r.Catalog().Entry(repository)
		if err != nil {
			t.Fatal(err)
		}
		return e.Certified
	}
	push(t, r, host+"/library/tomcat:9")
	push(t, r, host+"/team/web:2")
	if certified("library/tomcat") != "" || certified("team/web") != "" {
		t.Error("unsigned, but certified; or accepted by default, which is no certificate")
	}
	sign(t, r, host+"/library/tomcat", "9", other)
	if certified("library/tomcat") != "" {
		t.Error("signed by somebody else, but certified")
	}
	sign(t, r, host+"/library/tomcat", "9", release)
	if certified("library/tomcat") != "release" {
		t.Error("signed, but not certified")
	}
	if _, body := fetch(t, "http://"+host+"/v1/search?q=tomcat"); !strings.Contains(body, `"certified":"release"`) {
		t.Error(body)
	}
	if _, body := fetch(t, "http://"+host+"/r/library/tomcat"); !strings.Contains(body, "Certified · release") {
		t.Error("the page does not show it")
	}
	renamed := strings.Replace(text, `"name":"release"`, `"name":"of the house"`, 1)
	if err := os.WriteFile(policy, []byte(renamed), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Catalog().Rebuild(t.Context()); err != nil || certified("library/tomcat") != "of the house" {
		t.Errorf("the policy is not read again: %v, %q", err, certified("library/tomcat"))
	}
	push(t, r, host+"/library/tomcat:10")
	if certified("library/tomcat") != "" {
		t.Error("a newer image, not signed, inherits the mark")
	}
	if _, err := Open(Config{Root: t.TempDir(), Around: Around{Policies: []string{filepath.Join(dir, "none.json")}}}); err == nil {
		t.Error("a policy that is not there is ignored")
	}
}
