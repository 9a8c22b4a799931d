package remotecache

import (
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

// partsBucket is an S3 store that takes objects in parts.
type partsBucket struct {
	mu      sync.Mutex
	refuse  int            // the number of a part that is refused, or 0
	parts   map[int][]byte // of the upload under way
	objects map[string][]byte
	whole   int // objects that came in one request
	ended   int // uploads that were given up
}

func (b *partsBucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	raw, _ := io.ReadAll(r.Body)
	b.mu.Lock()
	defer b.mu.Unlock()
	q := r.URL.Query()
	number, _ := strconv.Atoi(q.Get("partNumber"))
	switch {
	case r.Method == http.MethodPost && q.Has("uploads"):
		b.parts = map[int][]byte{}
		fmt.Fprint(w, "<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
	case q.Has("uploadId") && q.Get("uploadId") != "u1":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodPut && number == b.refuse && number > 0:
		w.WriteHeader(http.StatusBadRequest)
	case r.Method == http.MethodPut && number > 0:
		b.parts[number] = raw
		w.Header().Set("ETag", fmt.Sprintf("%q", digest.FromBytes(raw).Encoded()))
	case r.Method == http.MethodPost && q.Has("uploadId"):
		var list struct {
			Part []struct {
				PartNumber int
				ETag       string
			}
		}
		if err := xml.Unmarshal(raw, &list); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		var object []byte
		for _, p := range list.Part {
			if p.ETag != fmt.Sprintf("%q", digest.FromBytes(b.parts[p.PartNumber]).Encoded()) {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			object = append(object, b.parts[p.PartNumber]...)
		}
		b.objects[r.URL.Path] = object
		fmt.Fprint(w, "<CompleteMultipartUploadResult/>")
	case r.Method == http.MethodDelete && q.Has("uploadId"):
		b.parts = nil
		b.ended++
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPut:
		b.objects[r.URL.Path] = raw
		b.whole++
	default:
		object, ok := b.objects[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Write(object)
	}
}

// What is larger than one request may be goes to a bucket in parts, and what fails on the way leaves nothing.
func TestBlobInParts(t *testing.T) {
	b := &partsBucket{objects: map[string][]byte{}}
	server := httptest.NewServer(b)
	defer server.Close()
	opened, err := (&Caches{}).openS3(map[string]string{"bucket": "b", "region": "r", "endpoint_url": server.URL, "use_path_style": "true",
		"access_key_id": "id", "secret_access_key": "secret"})
	if err != nil {
		t.Fatal(err)
	}
	p := opened.(*s3Place)
	if p.most != 5<<30 || 10_000*p.part < 5<<40 {
		t.Errorf("what S3 takes: %d in one, parts of %d", p.most, p.part)
	}
	p.most, p.part = 1000, 400
	put := func(size int) (ocispec.Descriptor, []byte, error) {
		raw := bytes.Repeat([]byte{'a', 'b', 'c'}, size/3+1)[:size]
		d := ocispec.Descriptor{Digest: digest.FromBytes(raw), Size: int64(size)}
		return d, raw, p.put(t.Context(), d, bytesFrom(raw))
	}
	for _, tt := range []struct{ size, parts int }{{1000, 0}, {1001, 3}, {1200, 3}, {1201, 4}} {
		b.parts, b.whole = nil, 0
		d, raw, err := put(tt.size)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.parts) != tt.parts || b.whole != map[bool]int{true: 1}[tt.parts == 0] {
			t.Errorf("%d bytes: %d parts, %d in one", tt.size, len(b.parts), b.whole)
		}
		r, err := p.get(context.Background(), d)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		r.Close()
		if err != nil || !bytes.Equal(got, raw) {
			t.Errorf("%d bytes: %d came back, %v", tt.size, len(got), err)
		}
	}
	b.refuse = 2
	d, _, err := put(1300)
	if err == nil || b.ended != 1 || b.parts != nil {
		t.Errorf("a part was refused: %v, %d uploads given up", err, b.ended)
	}
	if _, err := p.get(t.Context(), d); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is there: %v", err)
	}
}
