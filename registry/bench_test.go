package registry

import (
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/opencontainers/go-digest"
)

// BenchmarkPull pulls one small blob over many connections: what a request costs beside the copying.
func BenchmarkPull(b *testing.B) {
	r, err := Open(Config{Root: b.TempDir(), Addr: "127.0.0.1:0"})
	if err != nil {
		b.Fatal(err)
	}
	defer r.Close()
	l, err := r.Listener()
	if err != nil {
		b.Fatal(err)
	}
	go r.Serve(b.Context(), l)
	content := bytes.Repeat([]byte("x"), 64<<10)
	d := digest.FromBytes(content).String()
	base := "http://" + l.Addr().String() + "/v2/team/web/blobs/"
	resp, err := http.Post(base+"uploads/?digest="+d, "application/octet-stream", bytes.NewReader(content))
	if err != nil || resp.StatusCode != http.StatusCreated {
		b.Fatal(resp, err)
	}
	resp.Body.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	b.SetParallelism(32)
	b.SetBytes(int64(len(content)))
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			resp, err := client.Get(base + d)
			if err != nil {
				b.Error(err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	})
}
