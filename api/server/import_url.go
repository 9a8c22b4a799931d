package server

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/image"
)

// sayEvery is how often the bytes of a download are told.
const sayEvery = 100 * time.Millisecond

// importURL makes an image of a tar that the engine downloads: fromSrc=URL, or an address to which http:// belongs.
func (s *Server) importURL(c *call, source string, o image.ImportOptions) error {
	said := source
	if !strings.Contains(source, "://") {
		source = "http://" + source
	}
	u, err := url.Parse(source)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "")
	}
	if u.User != nil {
		said = u.Redacted() // the image's history is for everybody who gets the image
	}
	if o.Message == "" {
		o.Message = "Imported from " + said
	}
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	body, size, err := s.download(ctx, u)
	if err != nil {
		return err
	}
	defer body.Close()
	out := &lines{c: c}
	out.step(wire.Step{Status: "Downloading from " + u.Redacted()})
	id, err := s.cfg.Images.Import(ctx, &importReader{r: body, out: out, total: size}, o)
	if err == nil {
		out.step(wire.Step{Status: id})
	}
	return out.end(err)
}

// download asks for a file; -1 is the size that nobody says.
func (s *Server) download(ctx context.Context, u *url.URL) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, 0, fault.Wrap(fault.Invalid, err, "")
	}
	req.Header.Set("User-Agent", "Berth/"+s.about().Version)
	proxies := httpproxy.FromEnvironment()
	for to, v := range map[*string]string{&proxies.HTTPProxy: s.about().Registries.HTTPProxy, &proxies.HTTPSProxy: s.about().Registries.HTTPSProxy, &proxies.NoProxy: s.about().Registries.NoProxy} {
		if v != "" {
			*to = v
		}
	}
	through := proxies.ProxyFunc()
	// A transport of its own: its connection goes with the download.
	transport := &http.Transport{Proxy: func(r *http.Request) (*url.URL, error) { return through(r.URL) }, DisableKeepAlives: true, TLSHandshakeTimeout: 30 * time.Second, DisableCompression: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, 0, fault.Wrap(fault.Internal, err, "")
	}
	if resp.StatusCode < http.StatusBadRequest {
		return resp.Body, resp.ContentLength, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		text = []byte("error reading body")
	}
	kind, known := map[int]fault.Kind{
		http.StatusBadRequest: fault.Invalid, http.StatusUnauthorized: fault.Unauthorized, http.StatusForbidden: fault.Forbidden, http.StatusNotFound: fault.NotFound,
	}[resp.StatusCode]
	if !known {
		kind = fault.Internal
	}
	return nil, 0, fault.New(kind, "failed to GET %s with status %s: %s", u.Redacted(), resp.Status, bytes.TrimSpace(text))
}

// importReader tells how much of a download has been read.
type importReader struct {
	r          io.Reader
	out        *lines
	now, total int64
	said       time.Time
	saidAt     int64
}

func (i *importReader) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.now += int64(n)
	if at := time.Now(); i.now > i.saidAt && (at.Sub(i.said) >= sayEvery || err != nil) {
		i.said, i.saidAt = at, i.now
		i.out.step(wire.Step{Status: "Importing", Current: i.now, Total: max(i.total, 0)})
	}
	return n, err
}
