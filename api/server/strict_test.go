package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
)

// raw sends bytes to a server on TCP and gives the answers' status codes, until the server closes or is silent.
func raw(t *testing.T, address, text string) (codes []int, bodies string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		answer, err := http.ReadResponse(r, nil)
		if err != nil {
			return codes, bodies
		}
		b, _ := io.ReadAll(answer.Body)
		codes, bodies = append(codes, answer.StatusCode), bodies+string(b)
		_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond)) // for what should not come
	}
}

// What a proxy in front of the engine could read differently is refused or read in one way only.
func TestSmuggling(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(Config{Containers: newFake()})
	s.Serve(l)
	defer s.Shutdown(context.Background())
	address := l.Addr().String()
	const create = `{"Image":"box"}`
	for _, c := range []struct {
		what, text string
		want       []int
	}{
		{"plain", "GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n", []int{200}},
		{"absolute target", "GET http://other/containers/json HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"encoded dots", "GET /containers/%2e%2e/info HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"encoded dots, upper", "GET /%2E%2E/info HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"encoded slash makes no step", "GET /containers%2fjson HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}},
		{"encoded slash and dots", "GET /containers/x%2f..%2f..%2finfo HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"encoded slash in a version", "GET /v1.44%2finfo HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}},
		{"doubled slash", "GET //info HTTP/1.1\r\nHost: x\r\n\r\n", []int{301}},
		{"dots", "GET /containers/../info HTTP/1.1\r\nHost: x\r\n\r\n", []int{301}},
		{"control character", "GET /containers/a%00b/json HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"line break", "GET /containers/a%0d%0ab/json HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"semicolon in the query", "GET /containers/json?all=1;limit=1 HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"odd method", "get /info HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}},
		{"unknown method", "FOO /info HTTP/1.1\r\nHost: x\r\n\r\n", []int{404}},
		{"tunnel", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", []int{400}},
		{"two lengths", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 15\r\nContent-Type: application/json\r\n\r\n" + create, []int{400}},
		{"negative length", "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", []int{400}},
		{"two encodings", "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", []int{501}},
		{"strange encoding", "POST /containers/create HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", []int{501}},
		{"space before the colon", "GET /info HTTP/1.1\r\nHost: x\r\nX-A : b\r\n\r\n", []int{400}},
		{"folded header", "GET /_ping HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n", []int{200}},
		{"two hosts", "GET /info HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", []int{400}},
		{"no host", "GET /info HTTP/1.1\r\n\r\n", []int{400}},
		{"strange upgrade", "POST /containers/web/attach HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: smtp\r\n\r\n", []int{400}},
		{"upgrade of what is none", "GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n", []int{200}},
		{"web page", "POST /containers/prune HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://evil.example\r\nContent-Length: 0\r\n\r\n", []int{403}},
		{"web page, sandboxed", "POST /containers/prune HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: null\r\nContent-Length: 0\r\n\r\n", []int{403}},
		{"web page, image tag", "GET /info HTTP/1.1\r\nHost: localhost:2375\r\nSec-Fetch-Site: cross-site\r\n\r\n", []int{403}},
		{"rebound name", "GET /containers/json HTTP/1.1\r\nHost: rebind.evil.example:2375\r\n\r\n", []int{403}},
		{"address", "GET /_ping HTTP/1.1\r\nHost: 127.0.0.1:2375\r\n\r\n", []int{200}},
		{"address of six", "GET /_ping HTTP/1.1\r\nHost: [::1]:2375\r\n\r\n", []int{200}},
	} {
		codes, body := raw(t, address, c.text)
		if fmt.Sprint(codes) != fmt.Sprint(c.want) {
			t.Errorf("%s: %v %s, want %v", c.what, codes, body, c.want)
		}
	}
	// Length and chunks at once: chunks count (RFC 9112, section 6.3), and what follows them is the next request, which a proxy that
	// counted bytes would have taken for a body. So it is not answered: the connection ends.
	codes, _ := raw(t, address, "POST /containers/prune HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /info HTTP/1.1\r\nHost: x\r\n\r\n")
	if len(codes) != 1 {
		t.Errorf("chunks with a length, and a request behind them: %v", codes)
	}
	// Large heads and bodies.
	if codes, _ := raw(t, address, "GET /info HTTP/1.1\r\nHost: x\r\nX: "+strings.Repeat("a", 300<<10)+"\r\n\r\n"); fmt.Sprint(codes) != "[431]" {
		t.Errorf("a head of 300 KB: %v", codes)
	}
}

func TestBodies(t *testing.T) {
	s, _, _ := serve(t, newFake())
	for what, c := range map[string]struct {
		body string
		want int
	}{
		"plain":                 {`{"Image":"box"}`, 201},
		"twice":                 {`{"Image":"a","Image":"b"}`, 400},
		"twice in another case": {`{"Image":"a","image":"b"}`, 400},
		"nested twice":          {`{"Image":"a","HostConfig":{"Privileged":false,"privileged":true}}`, 400},
		"two host configs":      {`{"Image":"a","HostConfig":{},"hostConfig":{"Privileged":true}}`, 400},
		"Kelvin sign":           {"{\"Image\":\"a\",\"HostConfig\":{\"NetworkMode\":\"none\",\"Networ\u212aMode\":\"host\"}}", 400},
		"escaped name":          {`{"Image":"a","\u0049mage":"b"}`, 400},
		"trailing":              {`{"Image":"a"}{"Image":"b"}`, 400},
		"trailing text":         {`{"Image":"a"} x`, 400},
		"deep":                  {`{"Image":"a","HostConfig":{"X":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}}`, 400},
		"large":                 {`{"Image":"` + strings.Repeat("a", 9<<20) + `"}`, 413},
		"labels in two cases":   {`{"Image":"a","Labels":{"x":"1","X":"2"}}`, 201},
	} {
		if code, answer := knock(s, "POST /containers/create", c.body); code != c.want {
			t.Errorf("%s: %d %.200s, want %d", what, code, answer, c.want)
		}
	}
	r, _ := http.NewRequest("POST", "/containers/create", strings.NewReader(`{"Image":"a"}`))
	r.Header.Set("Content-Type", "text/plain") // what a page may send without being asked about
	if err := wellFormed(r); err != nil {
		t.Error(err)
	}
}

// An encoded slash belongs to a name wherever it stands, and finds the same thing as a plain one.
func TestEncodedSlashInNames(t *testing.T) {
	for raw, want := range map[string]string{"/images/a%2Fb/json": "a/b", "/images/a/b/json": "a/b", "/v1.44/images/h:5%2fa%2fb:1/json": "h:5/a/b:1"} {
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		_, rest := splitVersion(routed(u))
		_, name := newTable(routes()).find("GET", rest)
		if got := strings.ReplaceAll(name, encodedSlash, "/"); got != want {
			t.Errorf("%s: %q, want %q", raw, got, want)
		}
	}
}

// Whatever path comes: it is refused, or what its route is about does not depend on how it was encoded.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"/containers/json", "/v1.44/containers/a%2fb/json", "/%2e%2e/", "//", "/images/a/b/json", "/containers/%00", "/v1.44%2fx", "*"} {
		f.Add(p)
	}
	table := newTable(routes())
	f.Fuzz(func(t *testing.T, p string) {
		u, err := url.ParseRequestURI(p)
		if err != nil {
			return
		}
		r := &http.Request{Method: "GET", URL: u, Header: http.Header{}}
		if err := wellFormed(r); err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%q: %v", p, err)
			}
			return
		}
		_, rest := splitVersion(routed(u))
		found, name := table.find("GET", rest)
		name = strings.ReplaceAll(name, encodedSlash, "/")
		if found == nil || cleanPath(u.Path) != u.Path {
			return
		}
		if strings.ContainsAny(name, "\x00\r\n") {
			t.Fatalf("%q: the name %q has control characters", p, name)
		}
		for _, step := range strings.Split(name, "/") {
			if step == ".." || step == "." {
				t.Fatalf("%q: the name %q climbs", p, name)
			}
		}
		// A proxy that decodes the path and cuts it by its own slashes must come to the same route, or to one of the same kind of thing.
		_, plain := splitVersion(u.Path)
		other, _ := table.find("GET", plain)
		if other == nil {
			t.Fatalf("%q: found %s, but nothing when it is decoded first", p, found.path)
		}
	})
}

// A browser shows a client's certificate for any page that asks.
func TestPagesWithCertificates(t *testing.T) {
	for _, c := range []struct {
		head    map[string]string
		refused bool
	}{
		{nil, false}, // no browser
		{map[string]string{"Sec-Fetch-Site": "none"}, false},
		{map[string]string{"Sec-Fetch-Site": "same-origin", "Origin": "https://engine:2376"}, false},
		{map[string]string{"Origin": "https://ENGINE:2376"}, false}, // libraries for websockets say so
		{map[string]string{"Sec-Fetch-Site": "cross-site"}, true},
		{map[string]string{"Origin": "https://evil.example"}, true},
		{map[string]string{"Origin": "https://engine"}, true},
		{map[string]string{"Origin": "null"}, true},
	} {
		r := httptest.NewRequest("GET", "/containers/web/attach/ws", nil)
		r.Host, r.TLS = "engine:2376", &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{}}}
		for k, v := range c.head {
			r.Header.Set(k, v)
		}
		if err := ofBrowser(r); (err != nil) != c.refused {
			t.Errorf("%v: %v", c.head, err)
		}
	}
}
