package server

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/api/access"
	"berth/base/fault"
)

func TestListenUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "berth.sock")
	ls, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}, Group: "no-such-group-here"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if _, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second engine on one socket: %v", err)
	}
	ls[0].Close()
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket was left: %v", err)
	}
}

func TestListenUnixGroup(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: to give a socket to a group")
	}
	path := filepath.Join(t.TempDir(), "s")
	ls, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}, Group: "12345"})
	if err != nil {
		t.Fatal(err)
	}
	defer ls[0].Close()
	out, err := exec.Command("stat", "-c", "%a %g", path).Output()
	if err != nil || strings.TrimSpace(string(out)) != "660 12345" {
		t.Errorf("%s %v", out, err)
	}
}

func TestListenReplacesADeadSocketOnly(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close() // as kill -9 leaves it
	first, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}})
	if err != nil {
		t.Fatal(err)
	}
	// Somebody takes the name over; closing the first one leaves his socket alone.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	second, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}})
	if err != nil {
		t.Fatal(err)
	}
	first[0].Close()
	if _, err := os.Lstat(path); err != nil {
		t.Error("closing one listener removed the socket of another")
	}
	second[0].Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(ListenConfig{Hosts: []string{"unix://" + file}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a file stands where the socket should be: %v", err)
	}
	if b, _ := os.ReadFile(file); string(b) != "precious" {
		t.Error("the file is gone")
	}
}

func TestListenRefusals(t *testing.T) {
	for host, want := range map[string]string{
		"berth.sock":      "has no scheme",
		"unix://x":        "must be absolute",
		"npipe://x":       "unsupported proto 'npipe'",
		"tcp://1.2.3.4":   "write tcp://HOST:PORT",
		"tcp://0.0.0.0:0": "without TLS makes everybody who reaches it root",
		"fd://":           "no sockets found via socket activation",
	} {
		if _, err := Listen(ListenConfig{Hosts: []string{host}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", host, err)
		}
	}
	ls, err := Listen(ListenConfig{Hosts: []string{"tcp://127.0.0.1:0", "tcp://0.0.0.0:0"}, Insecure: true})
	if err != nil || len(ls) != 2 {
		t.Fatal(err)
	}
	for _, l := range ls {
		l.Close()
	}
}

// What was opened before a failure is closed again.
func TestListenAllOrNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	if _, err := Listen(ListenConfig{Hosts: []string{"unix://" + path, "nope://"}}); err == nil {
		t.Fatal("no error")
	}
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Error("a socket was left")
	}
}

// The test binary plays a service that systemd has started with two sockets.
func TestSocketActivation(t *testing.T) {
	if which := os.Getenv("BERTH_TEST_FD"); which != "" {
		os.Setenv("LISTEN_PID", "0")
		if _, err := inherited(""); err == nil {
			t.Error("sockets meant for another process are taken")
		}
		os.Setenv("LISTEN_PID", itoa(os.Getpid()))
		ls, err := Listen(ListenConfig{Hosts: []string{"fd://" + strings.TrimPrefix(which, "all")}})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, l := range ls {
			names = append(names, l.Addr().String())
		}
		t.Log("got " + strings.Join(names, " "))
		return
	}
	dir := t.TempDir()
	var files []*os.File
	for _, n := range []string{"a", "b"} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, n), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		f, err := l.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files = append(files, f)
	}
	for which, want := range map[string]string{"all": dir + "/a " + dir + "/b", "berth.socket": dir + "/b", "3": dir + "/a", "nope": ""} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestSocketActivation$", "-test.v")
		cmd.ExtraFiles = files
		cmd.Env = append(os.Environ(), "BERTH_TEST_FD="+which, "LISTEN_FDS=2", "LISTEN_FDNAMES=other:berth.socket")
		out, err := cmd.CombinedOutput()
		if want == "" {
			if err == nil || !strings.Contains(string(out), "systemd passed no such socket") {
				t.Errorf("%s: %s", which, out)
			}
		} else if err != nil || !strings.Contains(string(out), "got "+want+"\n") {
			t.Errorf("%s: %v\n%s", which, err, out)
		}
	}
}

func itoa(n int) string { return strings.TrimSpace(big.NewInt(int64(n)).String()) }

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	ca, caKey := certificate(t, dir, "ca", nil, nil)
	certificate(t, dir, "server", ca, caKey)
	certificate(t, dir, "client", ca, caKey)
	stranger, strangerKey := certificate(t, dir, "stranger", nil, nil)
	certificate(t, dir, "foe", stranger, strangerKey)
	p := func(name string) string { return filepath.Join(dir, name) }

	cfg, err := TLS(p("ca.pem"), p("server.pem"), p("server.key"), true)
	if err != nil {
		t.Fatal(err)
	}
	ls, err := Listen(ListenConfig{Hosts: []string{"tcp://127.0.0.1:0"}, TLS: cfg})
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Containers: newFake()})
	s.Serve(ls[0])
	defer s.http.Close()

	pool := x509.NewCertPool()
	pool.AddCert(ca)
	get := func(client string) (string, error) {
		c := &tls.Config{RootCAs: pool}
		if client != "" {
			pair, err := tls.LoadX509KeyPair(p(client+".pem"), p(client+".key"))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		web := http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}, Timeout: time.Minute}
		resp, err := web.Get("https://" + ls[0].Addr().String() + "/_ping")
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return string(b), err
	}
	if text, err := get("client"); text != "OK" || err != nil {
		t.Errorf("a client with a certificate: %q %v", text, err)
	}
	for _, other := range []string{"", "foe"} {
		if text, err := get(other); err == nil {
			t.Errorf("a client with the certificate %q gets in: %q", other, text)
		}
	}
	for _, files := range [][3]string{{"none.pem", "server.pem", "server.key"}, {"ca.pem", "none", "server.key"}, {"ca.key", "server.pem", "server.key"}, {"ca.pem", "server.pem", "client.key"}} {
		if _, err := TLS(p(files[0]), p(files[1]), p(files[2]), true); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v: %v", files, err)
		}
	}
}

// certificate makes NAME.pem and NAME.key, signed by parent; without one, a CA of its own.
func certificate(t *testing.T, dir, name string, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if parent == nil {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, parentKey = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write := func(file, kind string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(name+".pem", "CERTIFICATE", der)
	write(name+".key", "EC PRIVATE KEY", raw)
	return made, key
}

// The name that the kernel tells is the one that the socket was made under.
func TestAuditNamesTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "berth.sock")
	ls, err := Listen(ListenConfig{Hosts: []string{"unix://" + path}})
	if err != nil {
		t.Fatal(err)
	}
	entries := make(chan access.Entry, 4)
	f := newFake()
	s := New(Config{Containers: f, System: f, Audit: Audit{All: true, Write: func(e access.Entry) { entries <- e }}})
	s.Serve(ls[0])
	defer s.Shutdown(t.Context())
	client := http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	resp, err := client.Get("http://x/_ping")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	select {
	case e := <-entries:
		if e.Where != "unix://"+path {
			t.Errorf("the audit log says %q, want unix://%s", e.Where, path)
		}
	case <-time.After(time.Minute):
		t.Error("nothing was written")
	}
}
