package plugin

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
)

const (
	mimeType   = "application/vnd.docker.plugins.v1.2+json" // what every request accepts, as dockerd's
	maxAnswer  = 16 << 20                                   // bytes of an answer
	maxRefusal = 64 << 10                                   // bytes of an answer that is an error
	maxSpec    = 64 << 10                                   // bytes of a spec file
)

// Plugin is a program that answers calls. It is safe for concurrent use.
type Plugin struct {
	name       string
	addr       string
	url        string // "http://host/"
	implements []string
	hostPath   func(name, path string) string // nil: paths are the host's
	http       *http.Client
	wait       time.Duration
	timeout    time.Duration
}

// RemoteError is a refusal in the plugin's own words.
type RemoteError struct {
	Method string // "VolumeDriver.Create"
	Status int    // of HTTP; 200 when the answer was well-formed and carried the refusal in "Err"
	Text   string
}

// Error gives the plugin's words; those that came with an HTTP error are preceded by the method, as Docker shows them.
func (e *RemoteError) Error() string {
	if e.Status == http.StatusOK {
		return e.Text
	}
	return e.Method + ": " + e.Text
}

// Lacks reports whether err says that the plugin does not have the method (HTTP 404), which is allowed for the optional ones.
func Lacks(err error) bool {
	var e *RemoteError
	return errors.As(err, &e) && e.Status == http.StatusNotFound
}

// Name gives the name it was asked for by.
func (p *Plugin) Name() string { return p.name }

// Addr gives its address: "unix:///run/docker/plugins/x.sock", "http://…".
func (p *Plugin) Addr() string { return p.addr }

// HostPath gives the place on the host of a path that the plugin answered.
func (p *Plugin) HostPath(path string) string {
	if p.hostPath == nil || path == "" {
		return path
	}
	return p.hostPath(p.name, path)
}

// Serves reports whether it said at its activation that it serves the subsystem.
func (p *Plugin) Serves(subsystem string) bool { return slices.Contains(p.implements, subsystem) }

// Call asks the plugin for one method, "VolumeDriver.Create". args nil sends an empty body; ret nil drops
// the answer. Connecting is tried again for a while, since a plugin may be restarting; a request that may
// have arrived is never repeated. Errors: fault.Internal around a *RemoteError when the plugin refuses,
// fault.Unavailable when it cannot be reached or breaks off, fault.Deadline when it takes too long,
// fault.Internal for an answer that is none.
func (p *Plugin) Call(ctx context.Context, method string, args, ret any) error {
	var body []byte
	if args != nil {
		var err error
		if body, err = json.Marshal(args); err != nil {
			return fault.Wrap(fault.Invalid, err, "plugin %q: %s", p.name, method)
		}
	}
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	answer, err := p.send(limited, method, body)
	switch {
	case err != nil && ctx.Err() != nil:
		return fault.In(ctx.Err(), "plugin %q: %s", p.name, method)
	case err != nil && limited.Err() != nil:
		return fault.New(fault.Deadline, "plugin %q: %s: no answer within %v", p.name, method, p.timeout)
	case err != nil:
		return err
	}
	var refusal struct{ Err, Error string } // plugins for addresses say Error, all others Err
	if len(answer) > 0 && json.Unmarshal(answer, &refusal) == nil && refusal.Err+refusal.Error != "" {
		return &RemoteError{Method: method, Status: http.StatusOK, Text: refusal.Err + refusal.Error}
	}
	if ret == nil {
		return nil
	}
	if err := json.Unmarshal(answer, ret); err != nil {
		return fault.Wrap(fault.Internal, err, "plugin %q: %s: its answer is not understood", p.name, method)
	}
	return nil
}

// send posts the body until a connection could be made, and gives the answer's body.
func (p *Plugin) send(ctx context.Context, method string, body []byte) ([]byte, error) {
	giveUp := time.Now().Add(p.wait)
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		answer, err := p.post(ctx, method, body)
		if !unreached(err) {
			return answer, err
		}
		if time.Now().Add(pause).After(giveUp) {
			return nil, fault.Wrap(fault.Unavailable, err, "plugin %q: %s: it cannot be reached", p.name, method)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// unreached reports whether no connection was made, so that nothing can have been done.
func unreached(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func (p *Plugin) post(ctx context.Context, method string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+method, bytes.NewReader(body))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "plugin %q: %s", p.name, method)
	}
	req.Header.Set("Accept", mimeType)
	res, err := p.http.Do(req)
	if err != nil {
		if unreached(err) {
			return nil, err
		}
		return nil, fault.Wrap(fault.Unavailable, err, "plugin %q: %s", p.name, method)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, refused(method, res)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "plugin %q: %s: it broke off", p.name, method)
	}
	if len(answer) > maxAnswer {
		return nil, fault.New(fault.Internal, "plugin %q: %s: its answer is longer than %d bytes", p.name, method, maxAnswer)
	}
	return answer, nil
}

// refused makes an error of an HTTP error: the "Err" of its JSON, or its text.
func refused(method string, res *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxRefusal))
	e := &RemoteError{Method: method, Status: res.StatusCode, Text: strings.TrimSpace(string(text))}
	var told struct{ Err string }
	if json.Unmarshal(text, &told) == nil && told.Err != "" {
		e.Text = told.Err
	}
	if e.Text == "" {
		e.Text = res.Status
	}
	return e
}

// client makes the plugin that lies at the place, not yet activated.
func (r *Registry) client(at place) (*Plugin, error) {
	if at.managed { // whatever its socket is called
		at.path = "unix://" + at.path
	}
	s, err := readSpec(at.path)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "plugin %q: %s", at.name, at.path)
	}
	network, address, scheme, err := dialing(s.Addr)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "plugin %q: %s", at.name, at.path)
	}
	tr := &http.Transport{
		// One connection per call: a plugin that was restarted meanwhile is then never met on a connection
		// that is already dead, where it could not be told whether the request had arrived.
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			d := net.Dialer{Timeout: r.cfg.Wait}
			return d.DialContext(ctx, network, address)
		},
	}
	host := address
	if network == "unix" {
		host = "localhost" // a path is no valid Host header
	}
	if scheme == "https" {
		if tr.TLSClientConfig, err = s.TLSConfig.client(); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "plugin %q: TLS", at.name)
		}
	}
	return &Plugin{name: at.name, addr: s.Addr, url: scheme + "://" + host + "/", wait: r.cfg.Wait, timeout: r.cfg.Timeout,
		http: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// spec is the content of NAME.json; NAME.spec and NAME.sock give only the address.
type spec struct {
	Addr      string
	TLSConfig tlsFiles
}

type tlsFiles struct {
	InsecureSkipVerify        bool
	CAFile, CertFile, KeyFile string
}

func readSpec(path string) (spec, error) {
	if strings.HasPrefix(path, "unix://") {
		return spec{Addr: path}, nil
	}
	if filepath.Ext(path) == ".sock" {
		return spec{Addr: "unix://" + path}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return spec{}, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return spec{}, err
	}
	return parseSpec(text, filepath.Ext(path) == ".json")
}

func parseSpec(text []byte, isJSON bool) (spec, error) {
	var s spec
	if isJSON {
		if err := json.Unmarshal(text, &s); err != nil {
			return spec{}, err
		}
	} else {
		s.Addr = strings.TrimSpace(string(text))
	}
	if s.Addr == "" {
		return spec{}, errEmpty
	}
	if s.TLSConfig.CAFile == "" {
		s.TLSConfig.InsecureSkipVerify = true // as Docker: without an authority there is nothing to verify with
	}
	return s, nil
}

// dialing splits a plugin's address into what to connect to and the scheme to speak.
func dialing(addr string) (network, address, scheme string, err error) {
	u, err := url.Parse(addr)
	if err != nil {
		return "", "", "", err
	}
	switch u.Scheme {
	case "unix":
		if u.Path == "" || u.Host != "" {
			return "", "", "", fmt.Errorf("address %q has no absolute path", addr)
		}
		return "unix", u.Path, "http", nil
	case "tcp", "http", "https":
		scheme = "http"
		if u.Scheme == "https" {
			scheme = "https"
		}
		if u.Hostname() == "" {
			return "", "", "", fmt.Errorf("address %q names no host", addr)
		}
		port := u.Port()
		switch {
		case port == "" && scheme == "https":
			port = "443"
		case port == "":
			port = "80"
		}
		return "tcp", net.JoinHostPort(u.Hostname(), port), scheme, nil
	}
	return "", "", "", fmt.Errorf("address %q: unknown protocol", addr)
}

func (t tlsFiles) client() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.InsecureSkipVerify}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", t.CAFile)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, err
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
