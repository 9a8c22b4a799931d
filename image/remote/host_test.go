package remote

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"berth/base/fault"
)

func (r *Repository) ctx() context.Context { return context.Background() }

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// serveOne is a registry that has one manifest under every tag, and counts how often it was asked.
func serveOne(asked *atomic.Int32) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/manifests/") {
			asked.Add(1)
			w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
			_, _ = w.Write(goodManifest)
		}
	}
}

// TestMirrors asks mirrors first and the registry when they fail, for the Hub and for any registry.
func TestMirrors(t *testing.T) {
	var good, ns atomic.Int32
	broken := handle(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	empty := hostile(t, refuse(404, "", ""))
	mirror := handle(t, serveOne(&good))
	named := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("ns") == "quay.example" && strings.HasPrefix(r.URL.Path, "/cache/v2/") {
			ns.Add(1)
		}
		serveOne(&good)(w, r)
	})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "quay.example", "hosts.toml"), fmt.Sprintf("server = \"https://quay.example\"\n[host.\"http://%s\"]\n  capabilities=[\"pull\",\"resolve\"]\n[host.\"http://%s/cache\"]\n[host.\"http://%s\"]\n", broken, named, mirror))
	write(t, filepath.Join(dir, "digests.example", "hosts.toml"), fmt.Sprintf("server = \"http://%s\"\n[host.\"http://%s\"]\n  capabilities=[\"pull\"]\n", mirror, broken))
	c := newClient(t, Config{Mirrors: []string{"http://" + broken, "http://" + empty, "http://" + mirror + "/"}, HostsDirs: []string{t.TempDir(), dir}})
	for _, name := range []string{"busybox", "quay.example/a/b", "digests.example/x"} {
		before := good.Load()
		doc, err := repository(t, c, name, Credentials{}).Manifest(t.Context(), "1")
		if err != nil || !bytes.Equal(doc.Content, goodManifest) || good.Load() != before+1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ns.Load() != 1 {
		t.Errorf("the mirror was told the namespace %d times", ns.Load())
	}
}

func TestMirrorURLs(t *testing.T) {
	for s, ok := range map[string]bool{"https://m.example": true, "http://m:5000/": true, "m.example": false, "ftp://m": false, "https://m/?x": false, "https://": false} {
		if _, err := New(Config{Mirrors: []string{s}}); (err == nil) != ok {
			t.Errorf("%s: %v", s, err)
		}
	}
	for s, ok := range map[string]bool{"r.example": true, "r.example:5000": true, "10.0.0.0/8": true, "http://r": false, "": false, "a b": false} {
		if _, err := New(Config{Insecure: []string{s}}); (err == nil) != ok {
			t.Errorf("insecure %q: %v", s, err)
		}
	}
}

// TestStaleMirror tells the age of what a mirror could not renew, and only that.
func TestStaleMirror(t *testing.T) {
	for warning, want := range map[string]time.Duration{`110 - "Response is Stale"`: 90 * time.Second, `111 berth "Revalidation Failed"`: 90 * time.Second, "": 0, `299 - "x"`: 0, `299 - "stale: hub"`: 90 * time.Second} {
		var n atomic.Int32
		host := handle(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Age", "90")
			w.Header().Set("Warning", warning)
			serveOne(&n)(w, r)
		})
		doc, err := repository(t, newClient(t, Config{}), host+"/x", Credentials{}).Manifest(t.Context(), "1")
		if err != nil || doc.Age != want {
			t.Errorf("%q: %v %v", warning, doc, err)
		}
	}
}

// authority makes certificates for tests.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t *testing.T) *authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &authority{cert, key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}
}

// issue makes a certificate and key in PEM form for a host or a client.
func (a *authority) issue(t *testing.T, name string) (cert, key string) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	kder, _ := x509.MarshalECPrivateKey(k)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: kder}))
}

// tlsServer serves h as registry.test, which the returned proxy function leads to. Clients must show a certificate when mutual.
func tlsServer(t *testing.T, a *authority, mutual bool, h http.Handler) (proxy func(*http.Request) (*url.URL, error)) {
	cert, key := a.issue(t, "registry.test")
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	if mutual {
		s.TLS.ClientAuth = tls.RequireAndVerifyClientCert
		s.TLS.ClientCAs = x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(a.cert)
	}
	s.Config.ErrorLog = nil
	s.StartTLS()
	t.Cleanup(s.Close)
	return connectProxy(t, s.Listener.Addr().String())
}

// connectProxy is an HTTP proxy that connects everything to one address.
func connectProxy(t *testing.T, to string) func(*http.Request) (*url.URL, error) {
	host := handle(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			r.URL.Host, r.RequestURI = to, ""
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(502)
				return
			}
			defer resp.Body.Close()
			for k, v := range resp.Header {
				w.Header()[k] = v
			}
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		there, err := net.Dial("tcp", to)
		if err != nil {
			w.WriteHeader(502)
			return
		}
		here, early, err := w.(http.Hijacker).Hijack()
		if err != nil {
			there.Close()
			return
		}
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(there, early); there.Close() }()
		go func() { _, _ = io.Copy(here, there); here.Close() }()
	})
	return func(*http.Request) (*url.URL, error) { return url.Parse("http://" + host) }
}

// TestTLS reaches a registry with a certificate of its own, by certs.d and by hosts.toml, with and without a client certificate.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue(t, "client")
	dirs := map[string]string{}
	for _, kind := range []string{"none", "certs.d", "mutual", "toml", "toml mutual", "skip", "missing key", "no PEM"} {
		dirs[kind] = t.TempDir()
	}
	at := func(kind, name string) string { return filepath.Join(dirs[kind], "registry.test", name) }
	write(t, at("certs.d", "ca.crt"), a.pem)
	write(t, at("mutual", "ca.crt"), a.pem)
	write(t, at("mutual", "client.cert"), cert)
	write(t, at("mutual", "client.key"), key)
	write(t, at("toml", "hosts.toml"), "ca = \"ca.pem\"\n")
	write(t, at("toml", "ca.pem"), a.pem)
	write(t, at("toml mutual", "hosts.toml"), "server = \"https://registry.test\"\nca = [\"ca.pem\"]\nclient = [[\"c.pem\", \"k.pem\"]]\n")
	write(t, at("toml mutual", "ca.pem"), a.pem)
	write(t, at("toml mutual", "c.pem"), cert)
	write(t, at("toml mutual", "k.pem"), key)
	write(t, at("skip", "hosts.toml"), "skip_verify = true\n")
	write(t, at("missing key", "client.cert"), cert)
	write(t, at("no PEM", "ca.crt"), "hello")

	var n atomic.Int32
	plain, mutual := tlsServer(t, a, false, serveOne(&n)), tlsServer(t, a, true, serveOne(&n))
	for _, c := range []struct {
		kind  string
		proxy func(*http.Request) (*url.URL, error)
		bad   []string
		want  string
	}{
		{"none", plain, nil, "certificate signed by unknown authority"},
		{"none", plain, []string{"registry.test"}, ""},
		{"certs.d", plain, nil, ""},
		{"certs.d", mutual, nil, "certificate required"},
		{"mutual", mutual, nil, ""},
		{"toml", plain, nil, ""},
		{"toml mutual", mutual, nil, ""},
		{"skip", plain, nil, ""},
		{"missing key", plain, nil, "missing key client.key for client certificate"},
		{"no PEM", plain, nil, "has no certificate in PEM form"},
	} {
		cl := newClient(t, Config{HostsDirs: []string{dirs[c.kind]}, Proxy: c.proxy, Insecure: c.bad})
		_, err := repository(t, cl, "registry.test/x", Credentials{}).Manifest(t.Context(), "1")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.kind, err, c.want)
		}
		if c.kind == "none" && err != nil && (fault.Is(err, fault.Unavailable) || !strings.HasPrefix(err.Error(), `Get "https://registry.test/v2/": `)) {
			t.Errorf("an unknown certificate is told as %v (%v)", err, fault.KindOf(err))
		}
	}
}

// TestPlain speaks HTTP only where it is allowed.
func TestPlain(t *testing.T) {
	var n atomic.Int32
	host := handle(t, serveOne(&n))
	proxy := connectProxy(t, host)
	_, err := repository(t, newClient(t, Config{Proxy: proxy}), "registry.test/x", Credentials{}).Manifest(t.Context(), "1")
	if err == nil || !strings.Contains(err.Error(), "http: server gave HTTP response to HTTPS client") || fault.Is(err, fault.Unavailable) {
		t.Errorf("%v (%v)", err, fault.KindOf(err))
	}
	for _, insecure := range []string{"registry.test", "REGISTRY.test"} {
		if _, err := repository(t, newClient(t, Config{Proxy: proxy, Insecure: []string{insecure}}), "registry.test/x", Credentials{}).Manifest(t.Context(), "1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := repository(t, newClient(t, Config{}), host+"/x", Credentials{}).Manifest(t.Context(), "1"); err != nil {
		t.Errorf("loopback: %v", err)
	}
	_, err = repository(t, newClient(t, Config{}), "127.0.0.1:1/x", Credentials{}).Manifest(t.Context(), "1")
	if want := `Get "http://127.0.0.1:1/v2/": dial tcp 127.0.0.1:1: connect: connection refused`; err == nil || err.Error() != want || !fault.Is(err, fault.Unavailable) {
		t.Errorf("%v (%v), want %s", err, fault.KindOf(err), want)
	}
}

// TestMirrorCredentials keeps the Hub's password from mirrors that others could listen to.
func TestMirrorCredentials(t *testing.T) {
	seen := ""
	mirror := handle(t, func(w http.ResponseWriter, r *http.Request) {
		seen += r.Header.Get("Authorization")
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(401)
	})
	c := newClient(t, Config{Mirrors: []string{"http://" + mirror}, Proxy: func(r *http.Request) (*url.URL, error) {
		if r.URL.Host == mirror {
			return nil, nil
		}
		return url.Parse("http://127.0.0.1:1")
	}})
	_, err := repository(t, c, "busybox", Credentials{Username: "ann", Password: "s"}).Manifest(t.Context(), "1")
	if err == nil || seen != "" {
		t.Errorf("%v, seen %q", err, seen)
	}
	u := mustURL(t, "http://own:word@"+mirror)
	c = newClient(t, Config{Mirrors: []string{u.String()}, Proxy: c.cfg.Proxy})
	_, _ = repository(t, c, "busybox", Credentials{Username: "ann", Password: "s"}).Manifest(t.Context(), "1")
	if want := basic(Credentials{Username: "own", Password: "word"}); seen != want {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestHostsFile(t *testing.T) {
	conf, err := parseHosts([]byte(`
server = "https://up.example/base"
capabilities = ["pull", "resolve"]
[header]
  X-Up = "1"
[host."https://b.example"]
  capabilities = ["pull", "search"]
  ca = "b.pem"
  client = "b-client.pem"
  [host."https://b.example".header]
    X-B = ["1", "2"]
[host."a.example:5000"]
  skip_verify = true
  client = [["/c", "/k"], ["/both"]]
[host."http://c.example/v2/x"]
  override_path = true
`), "/etc/x")
	if err != nil {
		t.Fatal(err)
	}
	got := ""
	for _, h := range append(conf.mirrors, conf.server) {
		got += fmt.Sprintf("%s %04b %v %v %v %v\n", h.url, h.capabilities, h.ca, h.client, h.header, h.overridePath)
	}
	want := `https://b.example 1001 [/etc/x/b.pem] [[/etc/x/b-client.pem ]] map[X-B:[1 2]] false
https://a.example:5000 0000 [] [[/c /k] [/both ]] map[] false
http://c.example/v2/x 0000 [] [] map[] true
https://up.example/base 0011 [] [] map[X-Up:[1]] false
`
	if got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, bad := range []string{`server = 5`, `capabilities = ["eat"]`, `[host."ftp://x"]`, `[host.""]`, `ca = 7`, `client = {}`, `client = [["a","b","c"]]`, "[header]\n\"a b\" = \"c\"", "[header]\na = \"c\\r\\nd: e\"", `x = `} {
		if _, err := parseHosts([]byte(bad), "/"); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// TestHostDirNames never leaves the directory.
func TestHostDirNames(t *testing.T) {
	for domain, want := range map[string]int{"..": 0, ".": 0, "a/../../b": 0, "_default": 0, "": 0, "r.example": 2, "r.example:5000": 3, "docker.io": 4} {
		if got := hostDirNames(domain); len(got) != want {
			t.Errorf("%q: %q", domain, got)
		}
	}
}

// TestForeign takes a foreign layer from the address in its manifest only by TLS and only from the outside world.
func TestForeign(t *testing.T) {
	host := hostile(t, refuse(404, "", ""))
	data := content(9, 100)
	d := describe(data)
	d.URLs = []string{"http://example.org/layer", "https://127.0.0.1:1/layer", "https://localhost/layer", "https://u:p@example.org/layer", "https://[::ffff:10.0.0.1]/x"}
	c := newClient(t, Config{Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }})
	r := repository(t, c, host+"/x", Credentials{})
	_, err := r.Blob(t.Context(), d, 0)
	if !fault.Is(err, fault.NotFound) {
		t.Errorf("%v (%v)", err, fault.KindOf(err))
	}
	if n := len(r.foreign(d)); n != 3 {
		t.Errorf("%d addresses may be asked", n)
	}
	for _, p := range r.foreign(d) {
		if _, _, err := r.fetch(t.Context(), p, d, 0, -1); err == nil || !strings.Contains(err.Error(), "has no public address") {
			t.Errorf("%s: %v", p.url, err)
		}
	}
}

func TestSearch(t *testing.T) {
	asked := ""
	with := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.RequestURI()
		_, _ = io.WriteString(w, `{"num_results":1,"results":[{"name":"tomcat","description":"Apache\nTomcat \u001b[1m","star_count":3,"is_official":true,"is_automated":false}]}`)
	})
	without := hostile(t, refuse(404, "", "404 page not found"))
	c := newClient(t, Config{Mirrors: []string{"http://" + without, "http://" + with}})
	got, err := c.Search(t.Context(), "tomcat", 5, Credentials{})
	if err != nil || len(got) != 1 || got[0] != (SearchResult{"tomcat", "Apache Tomcat  [1m", 3, true, false}) || asked != "/v1/search?n=5&q=tomcat" {
		t.Errorf("%+v %v, asked %s", got, err, asked)
	}
	if got := c.SearchMirrors(t.Context()); len(got) != 1 || got[0] != with {
		t.Errorf("SearchMirrors: %q", got)
	}
	if got, err := c.Search(t.Context(), with+"/library/tomcat", 0, Credentials{}); err != nil || len(got) != 1 || asked != "/v1/search?n=25&q=library%2Ftomcat" {
		t.Errorf("%v %v, asked %s", got, err, asked)
	}
	if _, err := c.Search(t.Context(), without+"/tomcat", 5, Credentials{}); err == nil || !strings.Contains(err.Error(), "Unexpected status code 404") {
		t.Error(err)
	}
	if _, err := c.Search(t.Context(), "x", 101, Credentials{}); err == nil || err.Error() != "limit 101 is outside the range of [1, 100]" {
		t.Error(err)
	}
}

// TestFollow never goes from TLS to plain HTTP where that is not allowed, and takes no credentials out of an address.
func TestFollow(t *testing.T) {
	strict, loose := &endpoint{}, &endpoint{insecure: true}
	for _, c := range []struct {
		e              *endpoint
		from, to, want string
	}{
		{strict, "https://r.example/v2/a", "https://cdn.example/x?y", "https://cdn.example/x?y"},
		{strict, "https://r.example/v2/a", "/b", "https://r.example/b"},
		{strict, "https://r.example/v2/a", "http://r.example/b", "https://r.example/b"},
		{strict, "https://r.example/v2/a", "http://cdn.example/x", ""},
		{loose, "https://r.example/v2/a", "http://cdn.example/x", "http://cdn.example/x"},
		{strict, "http://r.example/v2/a", "http://cdn.example/x", "http://cdn.example/x"},
		{strict, "https://r.example/v2/a", "https://u:p@cdn.example/x#y", "https://cdn.example/x"},
		{strict, "https://r.example/v2/a", "gopher://x/", ""},
		{strict, "https://r.example/v2/a", "https://", ""},
		{strict, "https://r.example/v2/a", "http://[::1", ""},
	} {
		got, err := follow(mustURL(t, c.from), c.to, c.e)
		if c.want == "" && err == nil || c.want != "" && (err != nil || got.String() != c.want) {
			t.Errorf("%s to %s: %v %v, want %q", c.from, c.to, got, err, c.want)
		}
	}
}

// TestResumeElsewhere goes on with a broken download at the next host, and asks a host last that gave wrong bytes.
func TestResumeElsewhere(t *testing.T) {
	data := content(20, 3<<20)
	var asked [2]atomic.Int32
	host := [2]string{}
	for i := range host {
		host[i] = hostile(t, func(w http.ResponseWriter, r *http.Request) {
			asked[i].Add(1)
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
			if from > 0 {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
				w.WriteHeader(206)
			}
			_, _ = w.Write(data[from:min(from+2<<20, len(data))])
		})
	}
	c := newClient(t, Config{Mirrors: []string{"http://" + host[0], "http://" + host[1]}, Proxy: func(*http.Request) (*url.URL, error) { return nil, nil }})
	r := repository(t, c, "busybox", Credentials{})
	rc, err := r.Blob(t.Context(), describe(data), 0)
	if err != nil {
		t.Fatal(err)
	}
	if from := rc.(*BlobReader).From(); from != host[0] {
		t.Errorf("from %s", from)
	}
	if !bytes.Equal(readAll(t, rc, nil), data) || asked[0].Load() != 1 || asked[1].Load() != 1 {
		t.Errorf("asked %d and %d times", asked[0].Load(), asked[1].Load())
	}
	r.Distrust(host[0])
	rc, err = r.Blob(t.Context(), describe(data), 0)
	if err != nil {
		t.Skip("needs no access to Docker Hub, or one that fails quickly")
	}
	defer rc.Close()
	if from := rc.(*BlobReader).From(); from != host[1] {
		t.Errorf("after wrong bytes from %s: %s", host[0], from)
	}
}

// TestRestart goes on with a download and an upload when the registry is away in between.
func TestRestart(t *testing.T) {
	data := content(21, 3<<20)
	l := listen(t)
	addr := l.Addr().String()
	up := &uploads{breaks: 1}
	var first *http.Server
	away := func() { // closes the port, and opens it again later
		go first.Close()
		time.Sleep(300 * time.Millisecond)
		again, err := net.Listen("tcp", addr)
		if err != nil {
			t.Errorf("the port is taken: %v", err)
			return
		}
		second := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/uploads/") || r.Method == http.MethodHead {
				up.ServeHTTP(w, r)
				return
			}
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})}
		t.Cleanup(func() { second.Close() })
		_ = second.Serve(again)
	}
	var once sync.Once
	first = &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodPost:
			up.ServeHTTP(w, r)
		default:
			w.Header().Set("Content-Length", fmt.Sprint(len(data)))
			_, _ = w.Write(data[:1<<20])
			w.(http.Flusher).Flush()
			once.Do(func() { go away() })
			<-r.Context().Done()
		}
	})}
	go func() { _ = first.Serve(l) }()
	c := newClient(t, Config{})
	c.sleep = func(ctx context.Context, _ time.Duration) error { return sleep(ctx, 150*time.Millisecond) }
	r := repository(t, c, addr+"/x", Credentials{})
	u := &upload{r: r, d: describe(data), open: from(data)}
	var err error
	if u.e, err = r.home(); err != nil {
		t.Fatal(err)
	}
	if err := u.begin(t.Context()); err != nil {
		t.Fatal(err)
	}
	rc, err := r.Blob(t.Context(), describe(data), 0)
	if !bytes.Equal(readAll(t, rc, err), data) {
		t.Error("the download differs")
	}
	if err := u.run(t.Context()); err != nil || !bytes.Equal(up.data, data) {
		t.Errorf("the upload: %v", err)
	}
}

// TestTimeouts tells a network that does not answer from a caller who does not wait.
func TestTimeouts(t *testing.T) {
	dialer := net.Dialer{Timeout: 1}
	_, slow := dialer.Dial("tcp", "127.0.0.1:1")
	if slow == nil {
		t.Fatal("a dial in no time")
	}
	over, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		want fault.Kind
	}{
		{t.Context(), slow, fault.Unavailable},
		{over, over.Err(), fault.Deadline},
		{t.Context(), fmt.Errorf("%w: x", errSilent), fault.Unavailable},
		{t.Context(), context.Canceled, fault.Cancelled},
		{t.Context(), io.ErrUnexpectedEOF, fault.Unavailable},
		{t.Context(), x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}, fault.Internal},
	} {
		if err := netFault(c.ctx, http.MethodGet, "https://x/", c.err); fault.KindOf(err) != c.want {
			t.Errorf("%v: %v, want %v", c.err, fault.KindOf(err), c.want)
		}
	}
}

// TestWaitTogether tells all who wait for a registry that does not answer at once.
func TestWaitTogether(t *testing.T) {
	var asked atomic.Int32
	host := handle(t, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		time.Sleep(200 * time.Millisecond)
		panic(http.ErrAbortHandler)
	})
	r := repository(t, newClient(t, Config{}), host+"/x", Credentials{})
	start := time.Now()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := r.Manifest(t.Context(), "1"); !fault.Is(err, fault.Unavailable) {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if asked.Load() > 2*maxTries || time.Since(start) > 5*time.Second {
		t.Errorf("asked %d times in %v", asked.Load(), time.Since(start))
	}
}

// TestConfigure replaces mirrors and insecure registries of a client that lives, all or none.
func TestConfigure(t *testing.T) {
	c := newClient(t, Config{})
	asked := func() string {
		t.Helper()
		list, err := c.endpoints("docker.io")
		if err != nil {
			t.Fatal(err)
		}
		return list[0].base.Host
	}
	if asked() != hubHost || c.isInsecure("192.0.2.7:5000") {
		t.Fatal("not as made")
	}
	if err := c.Configure([]string{"http://192.0.2.7:5000"}, []string{"192.0.2.0/24"}); err != nil {
		t.Fatal(err)
	}
	if asked() != "192.0.2.7:5000" || !c.isInsecure("192.0.2.7:5000") {
		t.Error("not as configured")
	}
	if err := c.Configure([]string{"ftp://x"}, nil); err == nil {
		t.Error("a mirror by FTP was accepted")
	}
	if asked() != "192.0.2.7:5000" || !c.isInsecure("192.0.2.7:5000") {
		t.Error("a refused configuration changed something")
	}
}
