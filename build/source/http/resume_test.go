package http

import (
	"compress/gzip"
	"fmt"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
)

// breaking serves a text and breaks each transfer after some bytes.
type breaking struct {
	text   string
	after  int
	tag    string
	ranges []string // what was asked for
	moved  bool     // it is another text when it is asked again
	refuse bool     // it knows no ranges
}

func (b *breaking) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	b.ranges = append(b.ranges, r.Header.Get("Range"))
	from, tag := 0, b.tag
	if b.moved && len(b.ranges) > 1 {
		tag = `"other"`
	}
	if tag != "" {
		w.Header().Set("ETag", tag)
	}
	code := nethttp.StatusOK
	if n, _ := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); n == 1 && !b.refuse && r.Header.Get("If-Range") == tag {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(b.text)-1, len(b.text)))
		code = nethttp.StatusPartialContent
	} else {
		from = 0
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b.text)-from))
	w.WriteHeader(code)
	_, _ = io.WriteString(w, b.text[from:min(from+b.after, len(b.text))]) // net/http ends the connection when the rest does not come
}

// Transfers that break are taken up again, where that is sure to give the same file.
func TestBrokenTransfer(t *testing.T) {
	text := strings.Repeat("0123456789", 100)
	for name, tt := range map[string]struct {
		b      breaking
		ranges string
		ok     bool
	}{
		"resumed":              {breaking{after: 400, tag: `"1"`}, " bytes=400- bytes=800-", true},
		"no tag":               {breaking{after: 400}, "", false},
		"a weak tag":           {breaking{after: 400, tag: `W/"1"`}, "", false},
		"changed meanwhile":    {breaking{after: 400, tag: `"1"`, moved: true}, " bytes=400-", false},
		"a server without":     {breaking{after: 400, tag: `"1"`, refuse: true}, " bytes=400-", false},
		"nothing ever follows": {breaking{after: 0, tag: `"1"`}, strings.Repeat(" bytes=0-", resumeTries), false},
	} {
		t.Run(name, func(t *testing.T) {
			b, h := open(t), tt.b
			h.text = text
			s := httptest.NewServer(&h)
			defer s.Close()
			p, err := b.pin(s.URL + "/f")
			if err == nil {
				var got string
				got, err = b.take(p)
				if !strings.HasSuffix(got, " "+text) || p.Pin != digest.FromString(text).String() {
					t.Errorf("another file came: %.100s", got)
				}
			}
			if (err == nil) != tt.ok || strings.Join(h.ranges, " ") != tt.ranges {
				t.Errorf("%v, asked for %q, want %q", err, strings.Join(h.ranges, " "), tt.ranges)
			}
		})
	}
}

// What a server has compressed for the way arrives as it is; what is a compressed file stays one.
func TestEncodings(t *testing.T) {
	b := open(t)
	var zipped strings.Builder
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, "content")
	_ = z.Close()
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if strings.HasSuffix(r.URL.Path, "/way") {
			w.Header().Set("Content-Encoding", "gzip")
		}
		w.Header().Set("ETag", `"1"`)
		_, _ = io.WriteString(w, zipped.String())
	}))
	defer s.Close()
	for path, want := range map[string]string{"/way": "content", "/file.gz": zipped.String()} {
		p, err := b.pin(s.URL+path, pb.AttrHTTPChecksum+"="+digest.FromString(want).String())
		need(t, err)
		if got, err := b.take(p); err != nil || !strings.HasSuffix(got, " "+want) {
			t.Errorf("%s: %q %v", path, got, err)
		}
	}
}

// A secret follows a redirect within its server, and nowhere else; nobody is sent to the client's uploads.
func TestRedirects(t *testing.T) {
	var to string
	var asked []string
	s := httptest.NewServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		asked = append(asked, r.URL.Path+" "+r.Header.Get("Authorization"))
		switch r.URL.Path {
		case "/from":
			nethttp.Redirect(w, r, to, nethttp.StatusTemporaryRedirect)
		case "/loop":
			nethttp.Redirect(w, r, "/loop", nethttp.StatusFound)
		default:
			_, _ = io.WriteString(w, "content")
		}
	}))
	defer s.Close()
	other := httptest.NewServer(s.Config.Handler)
	defer other.Close()
	secure := httptest.NewTLSServer(s.Config.Handler)
	defer secure.Close()
	b := open(t, func(c *Config) {
		c.Sessions = secrets{"HTTP_AUTH_TOKEN_127.0.0.1": "geheim"}
		c.Transport = secure.Client().Transport
	})
	for i, tt := range []struct{ from, to, want string }{
		{s.URL, "/to", "Bearer geheim"},
		{s.URL, other.URL + "/to", ""},                     // another port
		{s.URL, secure.URL + "/to", "Bearer geheim"},       // to a better protocol
		{secure.URL, s.URL + "/to", ""},                    // to a worse one
		{s.URL, "http://buildkit-session/to", "forbidden"}, // to the client
		{s.URL, "/loop", "forbidden"},
		{s.URL, "ftp://127.0.0.1/x", "forbidden"},
		{s.URL, "file:///etc/passwd", "forbidden"},
	} {
		to, asked = tt.to, nil
		p, err := b.pin(fmt.Sprintf("%s/from?%d", tt.from, i))
		if err == nil {
			_, err = b.take(p)
		}
		if tt.want == "forbidden" {
			if err == nil || strings.Contains(err.Error(), "geheim") {
				t.Errorf("%s: %v", tt.to, err)
			}
			continue
		}
		need(t, err)
		if last := asked[len(asked)-1]; last != "/to "+tt.want {
			t.Errorf("%s was told %q", tt.to, last)
		}
	}
}
