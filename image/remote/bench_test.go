package remote

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"berth/base/ref"
)

// BenchmarkBlob reads a blob as a pull does, beside Go's bare HTTP client.
func BenchmarkBlob(b *testing.B) {
	data := bytes.Repeat([]byte("berth"), 20<<20/5)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v2/" {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		}
	})}
	l := listen(b)
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	host := l.Addr().String()
	drain := func(b *testing.B, rc io.ReadCloser, err error) {
		if err != nil {
			b.Fatal(err)
		}
		buf := make([]byte, 128<<10)
		for err == nil {
			_, err = rc.Read(buf)
		}
		rc.Close()
		if err != io.EOF {
			b.Fatal(err)
		}
	}
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			resp, err := http.Get("http://" + host + "/x")
			if err != nil {
				b.Fatal(err)
			}
			drain(b, resp.Body, nil)
		}
	})
	b.Run("remote", func(b *testing.B) {
		c, err := New(Config{})
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		name, err := ref.Parse(host + "/x")
		if err != nil {
			b.Fatal(err)
		}
		r, d := c.Repository(name, Credentials{}), describe(data)
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			rc, err := r.Blob(b.Context(), d, 0)
			drain(b, rc, err)
		}
	})
}
