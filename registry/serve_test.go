package registry

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// writeCert writes a self-signed certificate with a name that tells it from others.
func writeCert(t *testing.T, cert, key, name string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kder, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: kder}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// serve runs Serve and gives the address and a way to stop it that gives its error.
func serve(t *testing.T, cfg Config) (addr string, stop func() error) {
	t.Helper()
	cfg.Root, cfg.Addr = t.TempDir(), "127.0.0.1:0"
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Listener()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Serve(ctx, l) }()
	stopped := false
	stop = func() error {
		if stopped {
			return nil
		}
		stopped = true
		cancel()
		err := <-done
		r.Close()
		return err
	}
	t.Cleanup(func() { stop() })
	return l.Addr().String(), stop
}

// A certificate that is renewed is used for the next connection, one that is broken is not.
func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	writeCert(t, cert, key, "first")
	addr, _ := serve(t, Config{TLSCert: cert, TLSKey: key})
	look := func() string {
		t.Helper()
		c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if p := c.ConnectionState().NegotiatedProtocol; p != "h2" {
			t.Errorf("the server speaks %q, want h2", p)
		}
		return c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	wait := func(want string) {
		t.Helper()
		for end := time.Now().Add(time.Minute); look() != want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it shows %q, want %q", look(), want)
			}
		}
	}
	wait("first")
	writeCert(t, cert, key, "second")
	wait("second")
	if err := os.WriteFile(key, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	time.Sleep(certLook + 100*time.Millisecond)
	if got := look(); got != "second" {
		t.Errorf("with a broken key it shows %q", got)
	}
}

func TestBadCertificateIsRefusedAtStart(t *testing.T) {
	for _, c := range []struct {
		cfg  Config
		want string
	}{
		{Config{TLSCert: "/does/not/exist", TLSKey: "/does/not/exist"}, "/does/not/exist"},
		{Config{TLSCert: "cert.pem"}, "its key is not said"},
		{Config{TLSKey: "key.pem"}, "its certificate is not said"},
		{Config{TLSCA: "ca.pem"}, "only with TLS"},
	} {
		c.cfg.Root = t.TempDir()
		r, err := Open(c.cfg)
		if err == nil {
			r.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("certificate %q, key %q, CA %q: %v; want %q", c.cfg.TLSCert, c.cfg.TLSKey, c.cfg.TLSCA, err, c.want)
		}
	}
}

// A request that is under way when the registry is told to stop ends well.
func TestStopWaitsForRequests(t *testing.T) {
	addr, stop := serve(t, Config{})
	content := bytes.Repeat([]byte("x"), 1000)
	r, w := io.Pipe()
	answer := make(chan string, 1)
	reads := make(chan struct{}) // closed when the handler has begun to read: that is when Go's server says 100 Continue
	go func() {
		trace := &httptrace.ClientTrace{Got100Continue: func() { close(reads) }}
		req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), "POST", "http://"+addr+"/v2/a/blobs/uploads/?digest="+digest.FromBytes(content).String(), r)
		req.Header.Set("Expect", "100-continue")
		client := &http.Transport{ExpectContinueTimeout: time.Minute}
		defer client.CloseIdleConnections()
		resp, err := client.RoundTrip(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		resp.Body.Close()
		answer <- resp.Status
	}()
	w.Write(content[:500])
	<-reads
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until it stops
		c, err := net.Dial("tcp", addr)
		if err != nil {
			break
		}
		c.Close()
		time.Sleep(5 * time.Millisecond)
	}
	w.Write(content[500:])
	w.Close()
	if got := <-answer; got != "201 Created" {
		t.Errorf("the request ends with %s", got)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}

// askJSON makes a request of the registry's own routes.
func askJSON(t *testing.T, method, url string, body, answer any) int {
	t.Helper()
	data, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, url, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s %s: %s %v\n%s", method, url, resp.Status, err, text)
		}
	}
	return resp.StatusCode
}

// What has arrived and has no name yet counts, too.
func TestQuotaOfUploads(t *testing.T) {
	_, host := open(t, Config{})
	base := "http://" + host
	if s := askJSON(t, "PUT", base+routes+"quota", map[string]any{"repository": 100}, nil); s != 204 {
		t.Fatal(s)
	}
	send := func(method, url string, n int) (int, string) {
		req, err := http.NewRequest(method, url, bytes.NewReader(make([]byte, n)))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode, base + resp.Header.Get("Location")
	}
	_, one := send("POST", base+"/v2/team/web/blobs/uploads/", 0)
	_, two := send("POST", base+"/v2/team/web/blobs/uploads/", 0)
	if s, _ := send("PATCH", one, 60); s != 202 {
		t.Fatal(s)
	}
	if s, _ := send("PATCH", two, 60); s != 403 {
		t.Errorf("two uploads of 60 bytes where 100 may lie: %d", s)
	}
	if s, _ := send("PATCH", one, 40); s != 202 {
		t.Errorf("as much as the quota: %d", s)
	}
	if s, _ := send("DELETE", one, 0); s != 204 {
		t.Fatal(s)
	}
	if s, _ := send("PATCH", two, 60); s != 202 {
		t.Errorf("when the other has ended: %d", s)
	}
}

func TestUpkeepRoutes(t *testing.T) {
	_, host := open(t, Config{})
	base := "http://" + host
	push := func(repo string, n int) int {
		content := bytes.Repeat([]byte{byte(n)}, n)
		resp, err := http.Post(base+"/v2/"+repo+"/blobs/uploads/?digest="+digest.FromBytes(content).String(), "application/octet-stream", bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if s := push("team/web", 100); s != 201 {
		t.Fatal(s)
	}
	if s := askJSON(t, "PUT", base+routes+"quota", map[string]any{"organisations": map[string]int{"team": 150}}, nil); s != 204 {
		t.Fatal(s)
	}
	if s := push("team/db", 60); s != 403 {
		t.Errorf("more than the quota: %d", s)
	}
	if s := push("team/web", 100); s != 201 {
		t.Errorf("what it holds already: %d", s)
	}
	if s := push("team/db", 50); s != 201 {
		t.Errorf("as much as the quota: %d", s)
	}
	var use struct{ Used, Limit int64 }
	if askJSON(t, "GET", base+routes+"usage/team?organisation=1", nil, &use); use.Used != 150 || use.Limit != 150 {
		t.Errorf("use %+v", use)
	}
	if askJSON(t, "GET", base+routes+"usage/team/web", nil, &use); use.Used != 100 {
		t.Errorf("use %+v", use)
	}
	var collected struct {
		Plan    string
		Removed *struct{ Blobs int }
	}
	if askJSON(t, "POST", base+routes+"gc", map[string]any{"plan": true, "grace": "0s"}, &collected); collected.Removed != nil || !strings.Contains(collected.Plan, "remove 0 manifests, 2 links, 2 blobs") {
		t.Errorf("plan: %+v", collected)
	}
	if askJSON(t, "POST", base+routes+"gc", map[string]any{}, &collected); collected.Removed == nil || collected.Removed.Blobs != 0 {
		t.Errorf("young blobs: %+v", collected)
	}
	var checked struct {
		Blobs    int
		Problems []string
	}
	if s := askJSON(t, "POST", base+routes+"check", map[string]any{"content": true}, &checked); s != 200 || checked.Blobs != 2 || len(checked.Problems) != 0 {
		t.Errorf("check: %d %+v", s, checked)
	}
}

func TestReadOnly(t *testing.T) {
	_, host := open(t, Config{ReadOnly: true})
	for method, path := range map[string]string{"POST": "blobs/uploads/", "PUT": "manifests/x", "DELETE": "manifests/x", "PATCH": "blobs/uploads/x"} {
		req, _ := http.NewRequest(method, fmt.Sprintf("http://%s/v2/a/%s", host, path), nil)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed {
			t.Errorf("%s: %s", method, resp.Status)
		}
	}
}
