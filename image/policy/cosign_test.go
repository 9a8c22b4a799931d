package policy

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	cranes "github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/base/ref"
	"berth/image/remote"
)

// cosign is the sigstore project's own program, with a registry to sign at.
type cosign struct {
	*testing.T
	program, home, host string
	src                 Source
	name                ref.Ref
	root                digest.Digest
}

func newCosign(t *testing.T) *cosign {
	t.Helper()
	program, err := exec.LookPath("cosign")
	if err != nil {
		t.Skip("needs cosign: in Debian from trixie on")
	}
	server := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	c := &cosign{T: t, program: program, home: t.TempDir(), host: strings.TrimPrefix(server.URL, "http://")}
	c.image()
	return c
}

// image pushes another image, which is not signed.
func (c *cosign) image() {
	c.Helper()
	image, err := random.Image(100, 1)
	if err != nil {
		c.Fatal(err)
	}
	tag, err := name.NewTag(c.host + "/team/web:2")
	if err == nil {
		err = cranes.Write(tag, image)
	}
	if err != nil {
		c.Fatal(err)
	}
	d, _ := image.Digest()
	c.root = digest.Digest(d.String())
	if c.name, err = ref.Parse(c.host + "/team/web:2"); err != nil {
		c.Fatal(err)
	}
	client, err := remote.New(remote.Config{})
	if err != nil {
		c.Fatal(err)
	}
	c.src = Remote{client.Repository(c.name, remote.Credentials{})}
}

func (c *cosign) run(args ...string) {
	c.Helper()
	cmd := exec.Command(c.program, args...)
	cmd.Dir = c.home
	cmd.Env = append(os.Environ(), "HOME="+c.home, "COSIGN_PASSWORD=x", "COSIGN_EXPERIMENTAL=1", "SIGSTORE_NO_CACHE=true")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (c *cosign) signee() string { return c.host + "/team/web@" + c.root.String() }

func (c *cosign) policy(signed string, keys map[string]string) *Policy {
	c.Helper()
	text, _ := json.Marshal(keys)
	p, err := Parse("policy.json", []byte(`{"version":1,"default":"reject","keys":`+string(text)+`,"rules":[{"images":"`+c.host+`/team/*","signed":[`+signed+`]}]}`),
		func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(c.home, name)) })
	if err != nil {
		c.Fatal(err)
	}
	return p
}

// accepted checks that the image is accepted, through transfer's Verifier, and that another image is not.
func (c *cosign) accepted(what string, p *Policy, want bool) {
	c.Helper()
	v := Verifier{p}
	err := v.Verify(c.Context(), c.name, ocispec.Descriptor{Digest: c.root}, c.src.(Remote).Repository)
	if want && err != nil || !want && !fault.Is(err, fault.Forbidden) {
		c.Errorf("%s: %v, want accepted=%v", what, err, want)
	}
}

func TestCosign(t *testing.T) {
	c := newCosign(t)
	c.run("generate-key-pair")
	team := c.policy(`{"key":"cosign.pub"}`, nil)
	c.accepted("before", team, false)
	c.run("sign", "--yes", "--tlog-upload=false", "--allow-http-registry", "--key", "cosign.key", c.signee())
	c.accepted("signed with a key, by tag", team, true)
	c.accepted("its repository named", c.policy(`{"key":"cosign.pub","reference":true}`, nil), true)
	c.accepted("another key", c.policy(`{"key":"k"}`, map[string]string{"k": publicPEM(t, ec(t))}), false)
	c.accepted("a log is wanted", c.policy(`{"key":"cosign.pub","log":"cosign.pub"}`, nil), false)

	c.image()
	c.accepted("another image", team, false)
	c.run("sign", "--yes", "--tlog-upload=false", "--allow-http-registry", "--registry-referrers-mode=oci-1-1", "--key", "cosign.key", c.signee())
	c.accepted("signed with a key, by referrer", team, true)

	// cosign's new bundles hold attestations; with the predicate of a signature one is a signature.
	c.image()
	predicate := filepath.Join(c.home, "predicate.json")
	if err := os.WriteFile(predicate, []byte(`{}`), 0o600); err != nil {
		t.Fatal(err)
	}
	c.run("attest", "--yes", "--tlog-upload=false", "--allow-http-registry", "--new-bundle-format", "--type", "https://corp.example/scan", "--predicate", predicate, "--key", "cosign.key", c.signee())
	c.accepted("attested, a signature is wanted", team, false)
	c.accepted("attested as wanted", c.policy(`{"key":"cosign.pub","predicate":"https://corp.example/scan"}`, nil), true)
	c.run("attest", "--yes", "--tlog-upload=false", "--allow-http-registry", "--new-bundle-format", "--type", predicateSign, "--predicate", predicate, "--key", "cosign.key", c.signee())
	c.accepted("signed in a bundle", team, true)
}

// A certificate of a company's own CA, which cosign signs with and stores.
func TestCosignCertificate(t *testing.T) {
	c := newCosign(t)
	c.run("generate-key-pair")
	text, err := os.ReadFile(filepath.Join(c.home, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	a := newAuthorityFor(t, issuerURL, keys[0], func(cert *x509.Certificate) { cert.NotAfter = time.Now().Add(time.Hour) })
	for name, text := range map[string]string{"cert.pem": certPEM(a.cert), "chain.pem": certPEM(a.between, a.root), "root.pem": certPEM(a.root)} {
		if err := os.WriteFile(filepath.Join(c.home, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.run("sign", "--yes", "--tlog-upload=false", "--allow-http-registry", "--key", "cosign.key", "--certificate", "cert.pem", "--certificate-chain", "chain.pem", c.signee())
	c.accepted("its identity", c.policy(`{"identity":{"roots":"root.pem",`+devIs+`}}`, nil), true)
	c.accepted("another identity", c.policy(`{"identity":{"roots":"root.pem","issuer":"https://accounts.example","subject":"x"}}`, nil), false)
	stranger := newAuthority(t, issuerURL, nil)
	c.accepted("another CA", c.policy(`{"identity":{"roots":"r",`+devIs+`}}`, map[string]string{"r": certPEM(stranger.root)}), false)
}

// A provenance of the public sigstore instance, with its CA and log, as sigstore's own library carries it for its tests.
func TestPublicInstance(t *testing.T) {
	cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Skip("needs the go command")
	}
	dir := filepath.Join(strings.TrimSpace(string(cache)), "github.com/sigstore/sigstore-go@v1.2.2")
	text, err := os.ReadFile(filepath.Join(dir, "examples", "bundle-provenance.json"))
	if err != nil {
		t.Skip("needs the module github.com/sigstore/sigstore-go v1.2.2 in the module cache: go mod download")
	}
	trusted, err := os.ReadFile(filepath.Join(dir, "examples", "trusted-root-public-good.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root struct {
		Logs []struct {
			Key struct {
				Raw []byte `json:"rawBytes"`
			} `json:"publicKey"`
		} `json:"tlogs"`
		CAs []struct {
			Chain struct {
				Certificates []rawBytes `json:"certificates"`
			} `json:"certChain"`
		} `json:"certificateAuthorities"`
	}
	if err := json.Unmarshal(trusted, &root); err != nil {
		t.Fatal(err)
	}
	var cas, rekor strings.Builder
	for _, ca := range root.CAs {
		for _, cert := range ca.Chain.Certificates {
			pem.Encode(&cas, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Bytes})
		}
	}
	for _, l := range root.Logs {
		pem.Encode(&rekor, &pem.Block{Type: "PUBLIC KEY", Bytes: l.Key.Raw})
	}
	c, err := readBundle(text)
	if err != nil {
		t.Fatal(err)
	}
	var statement inToto
	if err := json.Unmarshal(c.payload, &statement); err != nil {
		t.Fatal(err)
	}
	image := digest.NewDigestFromEncoded(digest.SHA512, statement.Subject[0].Digest["sha512"])
	keys, _ := json.Marshal(map[string]string{"fulcio": cas.String(), "rekor": rekor.String()})
	check := func(match string) error {
		p := parsed(t, `{"version":1,"default":"reject","keys":`+string(keys)+`,"rules":[{"images":"registry.example","signed":[{"log":"rekor","predicate":"`+statement.Predicate+`",
			"identity":{"roots":"fulcio","issuer":"https://token.actions.githubusercontent.com","match":"`+match+`"}}]}]}`)
		src := newMemory()
		src.referring(typeBundle, src.layer(typeBundle, text, nil))
		_, err := p.Check(t.Context(), named(t, "registry.example/x"), image, src)
		return err
	}
	if err := check(`https://github[.]com/sigstore/sigstore-js/.*`); err != nil {
		t.Error(err)
	}
	if err := check(`https://github[.]com/evil/.*`); !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
	c.entry.body[10]++
	if _, err := newLogs(nil).check(c.entry, statementFor(c)); err == nil {
		t.Error("no log is trusted")
	}
	keysOf, err := parseKeys([]byte(rekor.String()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newLogs(keysOf).check(c.entry, statementFor(c)); err == nil {
		t.Error("a changed entry is taken")
	}
}

func statementFor(c candidate) statement {
	return statement{c.signature, c.cert.Raw, c.message, c.payload}
}
