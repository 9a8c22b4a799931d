package http

import (
	"context"
	"io"
	"log/slog"
	nethttp "net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/moby/buildkit/session/upload"
	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/build/source/pinned"
	"berth/kernel/tree"
)

// Sessions asks the clients of builds. It is *session.Manager.
type Sessions interface {
	Any(ctx context.Context, g session.Group, f func(ctx context.Context, id string, c session.Caller) error) error
	Secret(ctx context.Context, g session.Group, id string) ([]byte, error)
	Sessions() []string
}

// Config says where and how.
type Config struct {
	Snapshots *snapshot.Store
	Sessions  Sessions
	Root      string               // a directory of the package alone, for answers
	Transport nethttp.RoundTripper // nil: the process's proxies and certificates
	MaxBytes  int64                // of one file; 0: DefaultMaxBytes
	Log       *slog.Logger         // nil: nothing is logged
}

// DefaultMaxBytes is how large a downloaded file may be.
const DefaultMaxBytes = 256 << 30

// Source fetches files. It is safe for concurrent use.
type Source struct {
	cfg  Config
	log  *slog.Logger
	told *pinned.Memory[*found] // what builds were told
	mu   sync.Mutex             // guards the directory of answers
}

// Open gives the source. It makes nothing before it is used.
func Open(cfg Config) (*Source, error) {
	if cfg.Root == "" || cfg.Snapshots == nil {
		return nil, fault.New(fault.Internal, "the http source needs a directory and a snapshot store")
	}
	if cfg.Transport == nil {
		cfg.Transport = nethttp.DefaultTransport
	}
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = DefaultMaxBytes
	}
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	var live pinned.Live
	if cfg.Sessions != nil {
		live = cfg.Sessions
	}
	return &Source{cfg: cfg, log: log, told: pinned.New(live, (*found).close)}, nil
}

// Source gives the source that a vertex asks for.
func (s *Source) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	a, err := parse(op.GetIdentifier(), op.GetAttrs())
	if err != nil {
		return nil, err
	}
	return &pinner{s: s, a: a}, nil
}

type pinner struct {
	s *Source
	a *address
}

// Pin finds the digest of the file: for a build that was told before, the one that it was told.
func (p *pinner) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	f, kept, err := p.s.pin(ctx, p.a, r.Sessions, r.Status, p.a.signature != nil)
	if err != nil {
		return solver.Pinned{}, err
	}
	pin := solver.Pinned{
		Pin:   f.digest.String(),
		Cache: p.a.fileKey(f.name, f.digest, f.modified),
		Snapshot: func(ctx context.Context) (*snapshot.Snapshot, error) {
			snap, err := f.seal(ctx, r.Sessions, r.Status)
			return snap, fault.In(err, "fetch %s", graph.Redact(p.a.url))
		},
		Material: solver.Material{Kind: "http", URI: graph.Redact(p.a.url), Digest: f.digest, Attrs: map[string]string{"filename": f.name}},
	}
	if !kept {
		pin.Release = f.close
	}
	return pin, nil
}

// pin tells what is at an address, and with need makes sure that the file is here. What is kept is closed when the build's session has ended;
// what is not is the caller's.
func (s *Source) pin(ctx context.Context, a *address, g session.Group, st status, need bool) (f *found, kept bool, err error) {
	f, kept, err = s.told.Get(ctx, session.IDs(g), a.key("told", a.url, a.filename, a.checksum.String()).String(), func() (*found, error) {
		return s.find(ctx, a, g, st, need)
	})
	if err == nil {
		err = f.ready(ctx, g, st, kept, need)
		if err != nil && !kept {
			f.close()
		}
	}
	return f, kept, fault.In(err, "fetch %s", graph.Redact(a.url))
}

// found is what is known of the file at an address. Who has turn may change it.
type found struct {
	s        *Source
	a        *address
	name     string
	digest   digest.Digest
	modified *time.Time

	turn   chan struct{}      // has an element while nobody is at work on what follows
	d      *download          // the file, or nil
	snap   *snapshot.Snapshot // the sealed file, or nil
	kept   bool               // for who asks again
	closed bool
}

// find finds out what is at an address now. With need the file itself is wanted, not only what it is.
func (s *Source) find(ctx context.Context, a *address, g session.Group, st status, need bool) (*found, error) {
	f := &found{s: s, a: a, turn: make(chan struct{}, 1)}
	f.turn <- struct{}{}
	if a.checksum != "" && !need {
		f.name, f.digest = a.name(nil), a.checksum
		return f, nil
	}
	last := s.recall(a)
	if last != nil && !need {
		ok, err := s.holds(ctx, a, g, last)
		if err != nil {
			return nil, err
		}
		if ok {
			f.name, f.digest, f.modified = last.Name, last.Digest, last.Modified
			return f, nil
		}
	}
	return f, f.fetch(ctx, g, st)
}

// holds asks the server whether it would still give what it gave the last time. It asks for the header alone: there are servers that answer
// If-None-Match wrongly but tell their tags well.
func (s *Source) holds(ctx context.Context, a *address, g session.Group, last *answer) (bool, error) {
	req, err := s.request(ctx, a, g, nethttp.MethodHead)
	if err != nil {
		return false, err
	}
	req.Header.Set("If-None-Match", last.ETag)
	req.Header.Set("Accept-Encoding", "gzip") // which the transport adds to GET; a tag may depend on it
	resp, err := s.client(g).Do(req)
	if err != nil {
		return false, nil // GET will tell what is wrong
	}
	resp.Body.Close()
	tag := resp.Header.Get("ETag")
	switch resp.StatusCode {
	case nethttp.StatusNotModified:
		return tag == "" || sameTag(tag, last.ETag), nil
	case nethttp.StatusOK:
		return sameTag(tag, last.ETag), nil
	}
	return false, nil
}

// fetch downloads the file and checks that it is what it must be.
func (f *found) fetch(ctx context.Context, g session.Group, st status) (err error) {
	req, err := f.s.request(ctx, f.a, g, nethttp.MethodGet)
	if err != nil {
		return err
	}
	resp, err := f.s.client(g).Do(req)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "GET")
	}
	defer func() { resp.Body.Close() }()
	if resp.StatusCode < 200 || resp.StatusCode >= 300 {
		return fault.New(kindOf(resp.StatusCode), "invalid response status %d", resp.StatusCode)
	}
	name := f.a.name(resp.Header)
	var modified *time.Time
	if t, err := nethttp.ParseTime(resp.Header.Get("Last-Modified")); err == nil {
		modified = &t
	}
	resp.Body = f.s.resumable(ctx, f.a, g, resp)
	d, err := f.s.save(ctx, f.a, resp, name, modified, st)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			d.drop()
		}
	}()
	want := f.digest // what it was pinned to
	if want == "" {
		want = f.a.checksum
	}
	if got := d.digestFor(want); want != "" && got != want {
		return fault.New(fault.Invalid, "digest mismatch for %s: %s (expected: %s)", graph.Redact(f.a.url), got, want)
	}
	if f.digest == "" {
		f.digest = d.sum
		if f.a.checksum != "" {
			f.digest = f.a.checksum
		}
		f.name, f.modified = name, modified
	}
	if f.a.signature != nil {
		if err := d.verify(ctx, f.a.signature); err != nil {
			return err
		}
	}
	f.d = d
	f.s.keep(f.a, answer{ETag: resp.Header.Get("ETag"), Digest: d.sum, Name: name, Modified: modified})
	return nil
}

// work takes the turn.
func (f *found) work(ctx context.Context) (done func(), err error) {
	select {
	case <-f.turn:
		return func() { f.turn <- struct{}{} }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ready notes that the file is kept, and brings it here if it is needed.
func (f *found) ready(ctx context.Context, g session.Group, st status, kept, need bool) error {
	done, err := f.work(ctx)
	if err != nil {
		return err
	}
	defer done()
	f.kept = kept
	if need && f.d == nil && f.snap == nil {
		return f.fetch(ctx, g, st)
	}
	return nil
}

// seal gives the file as a snapshot, and downloads it where that was not necessary before.
func (f *found) seal(ctx context.Context, g session.Group, st status) (*snapshot.Snapshot, error) {
	done, err := f.work(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	if f.snap != nil {
		return f.snap.Share(), nil
	}
	if f.d == nil {
		if err := f.fetch(ctx, g, st); err != nil {
			return nil, err
		}
	}
	d := f.d
	f.d = nil
	snap, err := d.seal(ctx)
	if err != nil || !f.kept || f.closed {
		return snap, err
	}
	f.snap = snap
	return snap.Share(), nil
}

// read gives use the file, which is here.
func (f *found) read(ctx context.Context, use func(io.Reader) error) error {
	done, err := f.work(ctx)
	if err != nil {
		return err
	}
	defer done()
	if f.d != nil {
		return f.d.read(ctx, use)
	}
	return f.snap.View(ctx, func(root *tree.Dir) error {
		file, err := root.OpenFile(f.name)
		if err != nil {
			return err
		}
		defer file.Close()
		return use(file)
	})
}

// close gives up what was kept. A snapshot that is asked for afterwards is downloaded again.
func (f *found) close() {
	<-f.turn
	defer func() { f.turn <- struct{}{} }()
	if f.d != nil {
		f.d.drop()
	}
	if f.snap != nil {
		f.snap.Release()
	}
	f.d, f.snap, f.closed = nil, nil, true
}

func kindOf(status int) fault.Kind {
	switch {
	case status == nethttp.StatusNotFound || status == nethttp.StatusGone:
		return fault.NotFound
	case status == nethttp.StatusUnauthorized || status == nethttp.StatusForbidden:
		return fault.Forbidden
	case status >= 500:
		return fault.Unavailable
	}
	return fault.Invalid
}

// userAgent is what servers are told. They know BuildKit, and some let only that in.
const userAgent = "buildkit/v0.33.1 berth"

// Names of the secrets that are tried where the build names none: followed by the server's name.
const (
	headerSecret = "HTTP_AUTH_HEADER_"
	tokenSecret  = "HTTP_AUTH_TOKEN_"
)

// request makes a request with what the build says about it.
func (s *Source) request(ctx context.Context, a *address, g session.Group, method string) (*nethttp.Request, error) {
	req, err := nethttp.NewRequestWithContext(ctx, method, a.url, nil)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "address")
	}
	req.Header.Set("User-Agent", userAgent)
	for _, h := range a.header {
		req.Header.Set(h.Name, h.Value)
	}
	if req.URL.Host == sessionHost || s.cfg.Sessions == nil || len(session.IDs(g)) == 0 {
		if a.authSecret != "" {
			return nil, fault.New(fault.NotFound, "failed to retrieve HTTP auth secret %s: no session", a.authSecret)
		}
		return req, nil
	}
	if a.authSecret != "" {
		v, err := s.cfg.Sessions.Secret(ctx, g, a.authSecret)
		if err != nil {
			return nil, fault.In(err, "failed to retrieve HTTP auth secret %s", a.authSecret)
		}
		req.Header.Set("Authorization", string(v))
		return req, nil
	}
	if v, err := s.cfg.Sessions.Secret(ctx, g, tokenSecret+req.URL.Hostname()); err == nil {
		req.Header.Set("Authorization", "Bearer "+string(v))
	} else if v, err := s.cfg.Sessions.Secret(ctx, g, headerSecret+req.URL.Hostname()); err == nil {
		req.Header.Set("Authorization", string(v))
	}
	return req, nil
}

// sessionHost is the name of no server: the client of the build sends the file.
const sessionHost = "buildkit-session"

func (s *Source) client(g session.Group) *nethttp.Client {
	return &nethttp.Client{Transport: &transport{s: s, g: g}, CheckRedirect: follow}
}

// redirectsMax is how often a server may point elsewhere; net/http's.
const redirectsMax = 10

// follow lets a secret follow a redirect within its host, by the protocol that it was for or a better one. net/http takes it to subdomains, too,
// and from https to http.
func follow(req *nethttp.Request, via []*nethttp.Request) error {
	if len(via) >= redirectsMax {
		return fault.New(fault.Invalid, "stopped after %d redirects", redirectsMax)
	}
	if req.URL.Host == sessionHost {
		return fault.New(fault.Forbidden, "a server pointed to the client's upload")
	}
	first := via[0].URL
	if !strings.EqualFold(req.URL.Hostname(), first.Hostname()) || req.URL.Scheme != "https" && (first.Scheme != req.URL.Scheme || first.Host != req.URL.Host) {
		req.Header.Del("Authorization")
	}
	return nil
}

// transport sends requests where they belong.
type transport struct {
	s *Source
	g session.Group
}

// RoundTrip is net/http's.
func (t *transport) RoundTrip(req *nethttp.Request) (*nethttp.Response, error) {
	if req.URL.Host != sessionHost {
		return t.s.cfg.Transport.RoundTrip(req)
	}
	if req.Method != nethttp.MethodGet || t.s.cfg.Sessions == nil {
		return nil, fault.New(fault.Invalid, "a client's upload can only be fetched, and from its session")
	}
	pr, pw := io.Pipe()
	started := make(chan error, 1)
	ctx := req.Context()
	go func() {
		err := t.s.cfg.Sessions.Any(ctx, t.g, func(ctx context.Context, _ string, c session.Caller) error {
			up, err := upload.New(ctx, c, &url.URL{Scheme: req.URL.Scheme, Host: req.URL.Host, Path: req.URL.Path})
			if err != nil {
				return err
			}
			started <- nil
			_, err = up.WriteTo(pw)
			pw.CloseWithError(err) // nil is the end of the file
			return nil             // what was begun with one session is not begun again with another
		})
		if err != nil {
			started <- err
		}
	}()
	select {
	case err := <-started:
		if err != nil {
			return nil, err
		}
	case <-ctx.Done():
		pr.CloseWithError(ctx.Err())
		return nil, ctx.Err()
	}
	return &nethttp.Response{Status: "200 OK", StatusCode: nethttp.StatusOK, Header: nethttp.Header{}, Body: pr, ContentLength: -1, Request: req}, nil
}
