// Command api takes a container through its life over the HTTP API, with nothing but the standard
// library: create, start, wait, read its output, remove. Any engine with Docker's API will do.
//
//	api [-socket /run/berth/berth.sock] IMAGE PROGRAM [ARGS...]
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
)

func main() {
	socket := flag.String("socket", "/run/berth/berth.sock", "the engine's socket")
	flag.Parse()
	if flag.NArg() < 2 {
		fmt.Fprintln(os.Stderr, "usage: api [-socket PATH] IMAGE PROGRAM [ARGS...]")
		os.Exit(125)
	}
	code, err := run(client(*socket), flag.Arg(0), flag.Args()[1:], os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "api:", err)
		os.Exit(125)
	}
	os.Exit(code)
}

// An engine is an HTTP client that dials one socket whatever the URL says.
type engine struct{ http.Client }

func client(socket string) *engine {
	return &engine{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}}}
}

// run gives the program's exit code.
func run(e *engine, image string, command []string, stdout, stderr io.Writer) (code int, err error) {
	var c struct{ ID string }
	err = e.call(http.MethodPost, "/containers/create", map[string]any{
		"Image":      image,
		"Cmd":        command,
		"HostConfig": map[string]any{"NetworkMode": "none"},
	}, &c)
	if err != nil {
		return 0, err
	}
	defer func() {
		err = errors.Join(err, e.call(http.MethodDelete, "/containers/"+c.ID+"?force=1", nil, nil))
	}()
	if err := e.call(http.MethodPost, "/containers/"+c.ID+"/start", nil, nil); err != nil {
		return 0, err
	}
	var ended struct{ StatusCode int }
	if err := e.call(http.MethodPost, "/containers/"+c.ID+"/wait", nil, &ended); err != nil {
		return 0, err
	}
	resp, err := e.Get("http://engine/v1.41/containers/" + c.ID + "/logs?stdout=1&stderr=1")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	return ended.StatusCode, demultiplex(resp.Body, stdout, stderr)
}

// demultiplex takes a container's two streams apart. Each piece has a header of eight bytes: which
// stream (1 output, 2 errors), three zeros, and the length, big endian.
func demultiplex(r io.Reader, stdout, stderr io.Writer) error {
	var header [8]byte
	for {
		if _, err := io.ReadFull(r, header[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		to := stdout
		if header[0] == 2 {
			to = stderr
		}
		if _, err := io.CopyN(to, r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return err
		}
	}
}

// call sends in as JSON, or nothing, and decodes the answer into out, when it is not nil.
func (e *engine) call(method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, "http://engine/v1.41"+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := e.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		var said struct{ Message string }
		_ = json.NewDecoder(resp.Body).Decode(&said) // without a message the status says enough
		return fmt.Errorf("%s: %s", resp.Status, said.Message)
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}
