package remote

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// uploads is a registry's upload side with habits.
type uploads struct {
	mu     sync.Mutex
	data   []byte
	log    []string
	most   int64  // largest body that is taken; 0: any
	breaks int    // PATCH requests that end in the middle
	only   string // "PUT": no PATCH
	have   map[string]bool
}

func (u *uploads) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.mu.Lock()
	defer u.mu.Unlock()
	w.Header().Set("Location", "/v2/x/blobs/uploads/1?state=a%2Fb")
	said := func(status int) {
		if len(u.data) > 0 {
			w.Header().Set("Range", fmt.Sprintf("0-%d", len(u.data)-1))
		} else {
			w.Header().Set("Range", "0-0")
		}
		w.WriteHeader(status)
	}
	if r.URL.Path != "/v2/" {
		u.log = append(u.log, fmt.Sprintf("%s %d %s", r.Method, r.ContentLength, r.Header.Get("Content-Range")))
	}
	switch {
	case r.URL.Path == "/v2/":
	case r.Method == http.MethodHead:
		if !u.have[r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]] {
			w.WriteHeader(404)
		}
	case r.Method == http.MethodPost:
		u.data = nil
		w.WriteHeader(202)
	case r.URL.Query().Get("state") != "a/b":
		w.WriteHeader(400)
	case r.Method == http.MethodGet:
		said(204)
	case u.most > 0 && r.ContentLength > u.most:
		w.WriteHeader(413)
	case r.Method == http.MethodPatch && u.only == "PUT":
		w.WriteHeader(405)
	case r.Method == http.MethodPatch && u.breaks > 0:
		u.breaks--
		b := make([]byte, 1<<20)
		if u.breaks > 100 {
			b = b[:1000]
		}
		_, _ = io.ReadFull(r.Body, b)
		u.data = append(u.data, b...)
		panic(http.ErrAbortHandler)
	case r.Method == http.MethodPatch:
		b, _ := io.ReadAll(r.Body)
		u.data = append(u.data, b...)
		said(202)
	case r.Method == http.MethodPut:
		b, _ := io.ReadAll(r.Body)
		u.data = append(u.data, b...)
		if digest.FromBytes(u.data).String() != r.URL.Query().Get("digest") {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}`)
			return
		}
		w.WriteHeader(201)
	}
}

func (u *uploads) asked() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.log)
}

func TestUploads(t *testing.T) {
	big, small := content(10, 5<<20), content(11, 1000)
	for name, c := range map[string]struct {
		server *uploads
		data   []byte
		want   string
	}{
		"small":    {&uploads{}, small, "POST 0 |PUT 1000 "},
		"big":      {&uploads{}, big, "POST 0 |PATCH 5242880 |PUT 0 "},
		"breaks":   {&uploads{breaks: 2}, big, "POST 0 |PATCH 5242880 |HEAD 0 |GET 0 |PATCH 4194304 1048576-5242879|HEAD 0 |GET 0 |PATCH 3145728 2097152-5242879|PUT 0 "},
		"only PUT": {&uploads{only: "PUT"}, big, "POST 0 |PATCH 5242880 |POST 0 |PUT 5242880 "},
		"chunks":   {&uploads{most: 3 << 20}, big, "POST 0 |PATCH 5242880 |HEAD 0 |GET 0 |PATCH 5242880 |HEAD 0 |GET 0 |PATCH 5242880 |HEAD 0 |GET 0 |PATCH 2097152 0-2097151|PATCH 2097152 2097152-4194303|PATCH 1048576 4194304-5242879|PUT 0 "},
	} {
		t.Run(name, func(t *testing.T) {
			host := handle(t, c.server.ServeHTTP)
			err := repository(t, newClient(t, Config{}), host+"/x", Credentials{}).PushBlob(t.Context(), describe(c.data), from(c.data))
			if err != nil || !bytes.Equal(c.server.data, c.data) {
				t.Error(err)
			}
			if got := strings.Join(c.server.log, "|"); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

// TestUploadFails tells whose fault it was and does not try for ever.
func TestUploadFails(t *testing.T) {
	data := content(12, 2<<20)
	push := func(u *uploads, open func(int64) (io.ReadCloser, error)) error {
		return repository(t, newClient(t, Config{}), handle(t, u.ServeHTTP)+"/x", Credentials{}).PushBlob(t.Context(), describe(data), open)
	}
	gone := errors.New("the disk is gone")
	err := push(&uploads{}, func(int64) (io.ReadCloser, error) { return nil, gone })
	if !errors.Is(err, gone) {
		t.Errorf("open: %v", err)
	}
	u := &uploads{}
	err = push(u, func(int64) (io.ReadCloser, error) {
		return io.NopCloser(io.MultiReader(bytes.NewReader(data[:1<<20]), brokenReader{gone})), nil
	})
	if !errors.Is(err, gone) || u.asked() > 2 {
		t.Errorf("read: %v after %q", err, u.log)
	}
	err = push(&uploads{}, from(content(13, 2<<20)))
	if err == nil || !strings.Contains(err.Error(), "digest invalid: provided digest did not match uploaded content") || !fault.Is(err, fault.Invalid) {
		t.Errorf("other content: %v", err)
	}
	u = &uploads{breaks: 1000}
	if err = push(u, from(data)); err == nil || u.asked() > 60 {
		t.Errorf("%v after %d requests", err, len(u.log))
	}
	// a registry whose answer to the last request was lost
	u = &uploads{breaks: 1, have: map[string]bool{digest.FromBytes(data).String(): true}}
	if err = push(u, from(data)); err != nil {
		t.Errorf("it has the blob: %v", err)
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestUploadedTo(t *testing.T) {
	for s, want := range map[string]int64{"0-9": 10, "bytes=0-9": 10, "0-0": 0, "": -1, "1-2": -1, "0-x": -1, "0--1": -1, "0-9223372036854775807": -1} {
		got, ok := uploadedTo(s)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q: %d, want %d", s, got, want)
		}
	}
}

// TestPushStream pushes what is made on the way, also over a connection that breaks.
func TestPushStream(t *testing.T) {
	data := content(22, 5<<20)
	for _, breaks := range []int{0, 2} {
		u := &uploads{breaks: breaks}
		r := repository(t, newClient(t, Config{}), handle(t, u.ServeHTTP)+"/x", Credentials{})
		d, err := r.PushStream(t.Context(), func(w io.Writer) (ocispec.Descriptor, error) {
			_, err := io.Copy(w, bytes.NewReader(data))
			return describe(data), err
		})
		if err != nil || d.Digest != digest.FromBytes(data) || !bytes.Equal(u.data, data) {
			t.Errorf("%d breaks: %v %v", breaks, d.Digest, err)
		}
	}
	gone := errors.New("the disk is gone")
	r := repository(t, newClient(t, Config{}), handle(t, (&uploads{}).ServeHTTP)+"/x", Credentials{})
	_, err := r.PushStream(t.Context(), func(io.Writer) (ocispec.Descriptor, error) { return ocispec.Descriptor{}, gone })
	if !errors.Is(err, gone) {
		t.Error(err)
	}
}
