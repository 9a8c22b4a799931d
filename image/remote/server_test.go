package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/crypto/bcrypt"

	"berth/base/fault"
	"berth/base/ref"
)

// servers are registries that the client is tried against.
func servers(t *testing.T) map[string]string {
	return map[string]string{"ggcr": ggcr(t), "docker-registry": debianRegistry(t, "")}
}

// ggcr starts go-containerregistry's registry and gives its host.
func ggcr(t *testing.T) string {
	s := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0)), registry.WithReferrersSupport(false)))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// debianRegistry starts Debian's docker-registry and gives its host; "" when it is not installed. auth is YAML.
func debianRegistry(t *testing.T, auth string) string {
	bin, err := exec.LookPath("docker-registry")
	if err != nil {
		return ""
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage:\n  filesystem: {rootdirectory: %s}\n  delete: {enabled: true}\nhttp: {addr: '%s', secret: x}\n%s", dir, host, auth)
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "serve", file)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("docker-registry: %s", out.String())
		}
	})
	for range 200 {
		if c, err := net.Dial("tcp", host); err == nil {
			c.Close()
			return host
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("docker-registry does not listen: %s", out.String())
	return ""
}

func newClient(t *testing.T, cfg Config) *Client {
	t.Helper()
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.sleep = func(ctx context.Context, d time.Duration) error { return ctx.Err() }
	t.Cleanup(c.Close)
	return c
}

func repository(t *testing.T, c *Client, name string, cred Credentials) *Repository {
	t.Helper()
	n, err := ref.Parse(name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Repository(n, cred)
}

// content makes bytes that are the same for the same seed.
func content(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func describe(b []byte) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: "application/octet-stream", Digest: digest.FromBytes(b), Size: int64(len(b))}
}

// from gives a PushBlob source over bytes.
func from(b []byte) func(int64) (io.ReadCloser, error) {
	return func(offset int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b[offset:])), nil }
}

func manifestOf(config, layer []byte, subject string) []byte {
	return fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":%d}]%s}`,
		ocispec.MediaTypeImageManifest, digest.FromBytes(config), len(config), digest.FromBytes(layer), len(layer), subject)
}

func readAll(t *testing.T, rc io.ReadCloser, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestServers takes an image to real registries and back.
func TestServers(t *testing.T) {
	for name, host := range servers(t) {
		t.Run(name, func(t *testing.T) {
			if host == "" {
				t.Skip("needs docker-registry: apt-get install docker-registry")
			}
			trip(t, newClient(t, Config{}), host, Credentials{})
		})
	}
}

// trip pushes an image, mounts, lists, reads, refers to and deletes it.
func trip(t *testing.T, c *Client, host string, cred Credentials) {
	ctx := t.Context()
	r := repository(t, c, host+"/team/web", cred)
	config, layer := []byte(`{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}`), content(1, 5<<20)
	if _, ok, err := r.HasBlob(ctx, digest.FromBytes(layer)); err != nil || ok {
		t.Fatalf("HasBlob before: %v %v", ok, err)
	}
	for _, b := range [][]byte{config, layer} {
		if err := r.PushBlob(ctx, describe(b), from(b)); err != nil {
			t.Fatal(err)
		}
		if size, ok, err := r.HasBlob(ctx, digest.FromBytes(b)); err != nil || !ok || size != int64(len(b)) {
			t.Fatalf("HasBlob after: %d %v %v", size, ok, err)
		}
	}
	m := manifestOf(config, layer, "")
	d, err := r.PushManifest(ctx, "2", ocispec.MediaTypeImageManifest, m)
	if err != nil || d != digest.FromBytes(m) {
		t.Fatalf("%v %v", d, err)
	}
	got, err := r.Resolve(ctx, "2")
	if err != nil || got.Digest != d || got.Size != int64(len(m)) || got.MediaType != ocispec.MediaTypeImageManifest {
		t.Fatalf("Resolve: %+v %v", got, err)
	}
	for _, what := range []string{"2", d.String()} {
		doc, err := r.Manifest(ctx, what)
		if err != nil || !bytes.Equal(doc.Content, m) || doc.Digest != d || doc.From != host || doc.Age != 0 {
			t.Fatalf("Manifest %s: %+v %v", what, doc, err)
		}
	}
	rc, err := r.Blob(ctx, describe(layer), 0)
	if !bytes.Equal(readAll(t, rc, err), layer) {
		t.Error("the layer came back differently")
	}
	rc, err = r.Blob(ctx, describe(layer), 3_000_001)
	if !bytes.Equal(readAll(t, rc, err), layer[3_000_001:]) {
		t.Error("the layer's end came back differently")
	}
	rc, err = r.BlobRange(ctx, describe(layer), 1000, 77)
	if !bytes.Equal(readAll(t, rc, err), layer[1000:1077]) {
		t.Error("a range of the layer came back differently")
	}
	if tags, err := r.Tags(ctx); err != nil || len(tags) != 1 || tags[0] != "2" {
		t.Errorf("Tags: %v %v", tags, err)
	}

	other := repository(t, c, host+"/other/web", cred)
	mounted, err := other.Mount(ctx, digest.FromBytes(layer), "team/web")
	if err != nil {
		t.Fatal(err)
	}
	if !mounted {
		if err := other.PushBlob(ctx, describe(layer), from(layer)); err != nil {
			t.Fatal(err)
		}
	}
	absent := content(2, 100)
	if mounted, err := other.Mount(ctx, digest.FromBytes(absent), "team/web"); err != nil || mounted {
		t.Errorf("a blob that is nowhere was mounted: %v %v", mounted, err)
	}
	if err := other.PushBlob(ctx, describe(absent), from(absent)); err != nil {
		t.Errorf("push over the session of a refused mount: %v", err)
	}

	signature := manifestOf(config, layer, fmt.Sprintf(`,"subject":{"mediaType":%q,"digest":%q,"size":%d}`, ocispec.MediaTypeImageManifest, d, len(m)))
	if _, err := r.PushManifest(ctx, digest.FromBytes(signature).String(), ocispec.MediaTypeImageManifest, signature); err != nil {
		t.Fatal(err)
	}
	list, err := r.Referrers(ctx, d, "")
	if err != nil || len(list) != 1 || list[0].Digest != digest.FromBytes(signature) || list[0].ArtifactType != "application/vnd.oci.image.config.v1+json" {
		t.Errorf("Referrers: %+v %v", list, err)
	}
	if list, err := r.Referrers(ctx, d, "other/type"); err != nil || len(list) != 0 {
		t.Errorf("Referrers of another type: %+v %v", list, err)
	}

	if err := r.Delete(ctx, d.String()); err != nil {
		t.Error(err)
	}
	if ok, err := r.HasManifest(ctx, d); err != nil || ok {
		t.Errorf("after Delete: %v %v", ok, err)
	}
	_, err = r.Manifest(ctx, "nosuch")
	if want := "manifest for " + host + "/team/web:nosuch not found: manifest unknown"; err == nil || !strings.HasPrefix(err.Error(), want) || !fault.Is(err, fault.NotFound) {
		t.Errorf("%v, want %s", err, want)
	}
	if _, err := r.Resolve(ctx, "nosuch"); err == nil || !strings.Contains(err.Error(), "manifest unknown") {
		t.Errorf("Resolve of what is not there: %v", err)
	}
	_, err = repository(t, c, host+"/nobody/none", cred).Tags(ctx)
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("tags of what is not there: %v", err)
	}
}

// TestUnknownSize pushes a stream whose length is not known before.
func TestUnknownSize(t *testing.T) {
	for name, host := range servers(t) {
		t.Run(name, func(t *testing.T) {
			if host == "" {
				t.Skip("needs docker-registry: apt-get install docker-registry")
			}
			b := content(3, 700_000)
			d := describe(b)
			d.Size = 0
			r := repository(t, newClient(t, Config{}), host+"/a", Credentials{})
			if err := r.PushBlob(t.Context(), d, from(b)); err != nil {
				t.Fatal(err)
			}
			rc, err := r.Blob(t.Context(), d, 0)
			if !bytes.Equal(readAll(t, rc, err), b) {
				t.Error("differs")
			}
		})
	}
}

// TestBasicAuth pushes to a registry with htpasswd.
func TestBasicAuth(t *testing.T) {
	file := filepath.Join(t.TempDir(), "htpasswd")
	// user ann, password secret (bcrypt, cost 5)
	if err := os.WriteFile(file, []byte("ann:"+bcryptSecret(t)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	host := debianRegistry(t, "auth: {htpasswd: {realm: r, path: "+file+"}}\n")
	if host == "" {
		t.Skip("needs docker-registry: apt-get install docker-registry")
	}
	c := newClient(t, Config{})
	trip(t, c, host, Credentials{Username: "ann", Password: "secret"})

	_, err := repository(t, c, host+"/team/web", Credentials{}).Manifest(t.Context(), "2")
	if want := fmt.Sprintf(`Head "http://%s/v2/team/web/manifests/2": no basic auth credentials`, host); err == nil || err.Error() != want || !fault.Is(err, fault.Unauthorized) {
		t.Errorf("%v, want %s", err, want)
	}
	_, err = repository(t, c, host+"/team/web", Credentials{Username: "ann", Password: "wrong"}).Manifest(t.Context(), "2")
	if err == nil || err.Error() != "unauthorized: authentication required" || !fault.Is(err, fault.Unauthorized) {
		t.Errorf("wrong password: %v", err)
	}
	status, token, err := c.Login(t.Context(), Credentials{Username: "ann", Password: "secret", ServerAddress: host})
	if status != "Login Succeeded" || token != "" || err != nil {
		t.Errorf("Login: %q %q %v", status, token, err)
	}
	_, _, err = c.Login(t.Context(), Credentials{Username: "ann", Password: "wrong", ServerAddress: host})
	if want := "login attempt to http://" + host + "/v2/ failed with status: 401 Unauthorized"; err == nil || err.Error() != want || !fault.Is(err, fault.Unauthorized) {
		t.Errorf("%v, want %s", err, want)
	}
}

func handle(t *testing.T, h http.HandlerFunc) string {
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func bcryptSecret(t *testing.T) string {
	h, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return string(h)
}

func listen(tb testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	return l
}
