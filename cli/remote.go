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
	http http.Client
	host string
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
	resp, err := r.send(ctx, method, "/berth/v1"+path, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "read the engine's answer")
	}
	if resp.StatusCode < 300 {
		if out == nil {
			return nil
		}
		return fault.Wrap(fault.Internal, json.Unmarshal(body, out), "understand the engine's answer")
	}
	if resp.StatusCode == http.StatusNotFound && !r.isBerth(ctx) {
		return fault.New(fault.NotImplemented, "%s needs a Berth engine, and the one at %s is none: name one with -H or %s", command, r.host, envHost)
	}
	var said struct{ Message string }
	if json.Unmarshal(body, &said) != nil || said.Message == "" {
		said.Message = resp.Status + ": " + strings.TrimSpace(string(body))
	}
	return fault.New(fault.Internal, "Error response from daemon: %s", said.Message)
}

func (r *remote) send(ctx context.Context, method, path string, in any) (*http.Response, error) {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://berth"+path, body)
	if err != nil {
		return nil, err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "cannot reach the engine at %s", r.host)
	}
	return resp, nil
}

// isBerth asks the engine who it is.
func (r *remote) isBerth(ctx context.Context) bool {
	resp, err := r.send(ctx, http.MethodGet, "/_ping", nil)
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.Header.Get(versionHeader) != ""
}
