// Package s3test starts a real S3-compatible server for tests: moto, which Debian has as python3-moto. It knows nothing of the driver's
// layout.
package s3test

import (
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"berth/base/id"
	"berth/registry/storage/s3"
)

// Server is a running server that dies with the test.
type Server struct {
	Endpoint string // http://127.0.0.1:PORT
}

// Start starts a server, or skips the test where there is none.
func Start(t testing.TB) *Server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	cmd := command(t, port)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Skipf("needs moto's server: %v", err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	s := &Server{Endpoint: fmt.Sprintf("http://127.0.0.1:%d", port)}
	for range 300 {
		if r, err := http.Get(s.Endpoint + "/moto-api/"); err == nil {
			r.Body.Close()
			return s
		}
		time.Sleep(100 * time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
	t.Skipf("needs moto's server: it does not answer: %s", out.String())
	return nil
}

// command finds moto: its server on PATH, or the Python module that Debian's package installs without one.
func command(t testing.TB, port int) *exec.Cmd {
	args := []string{"-H", "127.0.0.1", "-p", fmt.Sprint(port)}
	if path, err := exec.LookPath("moto_server"); err == nil {
		return exec.Command(path, args...)
	}
	for _, python := range []string{"/usr/bin/python3", "python3"} {
		if exec.Command(python, "-c", "import moto.server").Run() == nil {
			return exec.Command(python, append([]string{"-m", "moto.server"}, args...)...)
		}
	}
	t.Skip("needs moto: neither moto_server nor Debian's python3-moto is there")
	return nil
}

// Bucket makes an empty bucket and gives the way to it.
func (s *Server) Bucket(t testing.TB) s3.Config {
	t.Helper()
	name := "b" + id.New()[:20]
	req, err := http.NewRequest(http.MethodPut, s.Endpoint+"/"+name, nil)
	if err != nil {
		t.Fatal(err)
	}
	// moto wants no signature but looks for the region and the service in one.
	req.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=none")
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != http.StatusOK {
		t.Fatalf("making a bucket: %s", r.Status)
	}
	return s3.Config{Bucket: name, Prefix: "some/where", Endpoint: s.Endpoint, PathStyle: true, AccessKey: "test", SecretKey: "test", PartSize: 5 << 20}
}
