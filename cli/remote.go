package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"

	"berth/base/fault"

	"github.com/moby/moby/client"
)

// versionHeader is how a Berth engine tells that it is one, on its answer to _ping.
const versionHeader = "Berth-Version"

// A remote speaks Berth's own API, /berth/v1, over whatever way the Docker client found to the engine:
// a socket, TLS or ssh.
type remote struct {
	http   http.Client
	host   string
	header http.Header // sent with every request
}

func newRemote(c client.APIClient) *remote {
	dial := c.Dialer()
	return &remote{
		host: c.DaemonHost(),
		http: http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		}},
	}
}

// call sends a request to path (below /berth/v1) and decodes the answer into out, when it is not nil.
// command is the user's word for what needs this; an engine that is not Berth is told by it.
func (r *remote) call(ctx context.Context, command, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	answer, err := r.request(ctx, command, method, path, "application/json", body)
	if err != nil {
		return err
	}
	defer answer.Close()
	text, err := io.ReadAll(answer)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "read the engine's answer")
	}
	if out == nil {
		return nil
	}
	return fault.Wrap(fault.Internal, json.Unmarshal(text, out), "understand the engine's answer")
}

// open is call for what is no JSON: the body is an archive or nothing, and so is the answer, for the caller to read and close.
func (r *remote) open(ctx context.Context, command, method, path string, body io.Reader) (io.ReadCloser, error) {
	return r.request(ctx, command, method, path, "application/x-tar", body)
}

// request sends a request and gives the answer to one that succeeded.
func (r *remote) request(ctx context.Context, command, method, path, kind string, body io.Reader) (io.ReadCloser, error) {
	resp, err := r.send(ctx, method, "/berth/v1"+path, kind, body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode < 300 {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "read the engine's answer")
	}
	if resp.StatusCode == http.StatusNotFound && !r.isBerth(ctx) {
		return nil, r.stranger(command)
	}
	var said struct{ Message string }
	if json.Unmarshal(text, &said) != nil || said.Message == "" {
		said.Message = resp.Status + ": " + strings.TrimSpace(string(text))
	}
	return nil, fault.New(fault.Internal, "Error response from daemon: %s", said.Message)
}

// stranger is what a command that needs Berth says of another engine.
func (r *remote) stranger(command string) error {
	return fault.New(fault.NotImplemented, "%s needs a Berth engine, and the one at %s is none: name one with -H or %s", command, r.host, envHost)
}

func (r *remote) send(ctx context.Context, method, path, kind string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, body)
	if err != nil {
		return nil, err
	}
	for name, values := range r.header {
		req.Header[name] = values
	}
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot reach the engine at %s", r.host)
	}
	return resp, nil
}

// isBerth asks the engine who it is.
func (r *remote) isBerth(ctx context.Context) bool { return r.mustBeBerth(ctx, "") == nil }

// mustBeBerth refuses what needs Berth at another engine, before anything is asked of it.
func (r *remote) mustBeBerth(ctx context.Context, command string) error {
	resp, err := r.send(ctx, http.MethodGet, "/_ping", "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.Header.Get(versionHeader) == "" {
		return r.stranger(command)
	}
	return nil
}
