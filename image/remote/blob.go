package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
)

const (
	// enoughBytes of progress are what makes a broken transfer's tries count from the beginning again.
	enoughBytes = 1 << 20
)

// Blob streams a blob from an offset to its end. A connection that breaks is made again inside Read, at the place where it broke and at the
// next mirror where there is one, a bounded number of times with growing pauses. The bytes are not verified: the caller hashes
// them. There are never more than d.Size; fewer end with an error. A d.Size of 0 or less means that the size is not known.
// The reader is a *BlobReader.
func (r *Repository) Blob(ctx context.Context, d ocispec.Descriptor, offset int64) (io.ReadCloser, error) {
	return r.open(ctx, d, offset, d.Size)
}

// BlobRange streams length bytes of a blob from an offset, as Blob does.
func (r *Repository) BlobRange(ctx context.Context, d ocispec.Descriptor, offset, length int64) (io.ReadCloser, error) {
	if length <= 0 || d.Size > 0 && offset+length > d.Size || offset+length < offset {
		return nil, fault.New(fault.Invalid, "blob %s has no %d bytes at %d", d.Digest, length, offset)
	}
	return r.open(ctx, d, offset, offset+length)
}

func (r *Repository) open(ctx context.Context, d ocispec.Descriptor, offset, end int64) (io.ReadCloser, error) {
	if _, err := parseDigest(d.Digest.String()); err != nil {
		return nil, err
	}
	if offset < 0 || end > 0 && offset > end {
		return nil, fault.New(fault.Invalid, "blob %s has no byte %d", d.Digest, offset)
	}
	if end <= 0 {
		end = -1
	}
	if offset == end {
		return io.NopCloser(strings.NewReader("")), nil
	}
	places, err := r.places(d)
	if err != nil {
		return nil, err
	}
	b := &BlobReader{r: r, ctx: ctx, d: d, at: offset, end: end, places: places, mark: offset, size: -1}
	if d.Size > 0 {
		b.size = d.Size
	}
	if err := b.connect(); err != nil {
		return nil, err
	}
	if b.end < 0 {
		b.end = b.size
	}
	return b, nil
}

// place is one address at which a blob may be had: an endpoint, or a URL that the manifest names.
type place struct {
	e   *endpoint
	url *url.URL // nil: the endpoint's own
}

// places gives where a blob may be had: mirrors, the registry, and the addresses of a foreign layer. What gave wrong bytes before is asked last.
func (r *Repository) places(d ocispec.Descriptor) ([]place, error) {
	list, err := r.endpoints(canPull)
	if err != nil {
		return nil, err
	}
	var good, bad []place
	r.mu.Lock()
	for _, e := range list {
		if r.distrust[e.host()] && e.mirror {
			bad = append(bad, place{e: e})
		} else {
			good = append(good, place{e: e})
		}
	}
	r.mu.Unlock()
	if len(d.URLs) > 0 {
		good = append(good, r.foreign(d)...)
	}
	return append(good, bad...), nil
}

// foreign checks the addresses that a manifest gives for a layer. Its author may be anybody: TLS only, public hosts only, no credentials.
func (r *Repository) foreign(d ocispec.Descriptor) []place {
	var list []place
	for _, s := range d.URLs {
		u, err := url.Parse(s)
		if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || len(list) >= 8 {
			r.c.log.Warn("address of a foreign layer is left out: https without credentials is allowed", "digest", d.Digest.String(), "address", clean(s))
			continue
		}
		t, err := r.c.transport(tlsSettings{foreign: true})
		if err != nil {
			continue
		}
		list = append(list, place{e: &endpoint{base: url.URL{Scheme: u.Scheme, Host: u.Host}, mirror: true, can: canPull, transport: t}, url: u})
	}
	return list
}

// Distrust says that a host gave bytes which are not what their digest says. When it is a mirror, it is asked after all others from now on.
func (r *Repository) Distrust(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.distrust == nil {
		r.distrust = map[string]bool{}
	}
	r.distrust[host] = true
}

// BlobReader streams a blob and outlives its connections.
type BlobReader struct {
	r      *Repository
	ctx    context.Context // of the Blob call that made the reader: its life is the call's
	d      ocispec.Descriptor
	at     int64 // position in the blob
	end    int64 // position behind the last byte that is wanted; -1: not known
	places []place
	next   int // place to be asked
	from   string
	body   io.ReadCloser

	size     int64 // of the blob, -1: not known
	failures int
	mark     int64 // position at which the failures were last forgiven
}

// Size gives the blob's size in bytes, as the manifest or else the server says it; -1 when neither does.
func (b *BlobReader) Size() int64 { return b.size }

// From gives the host that is serving the blob, for Distrust and for messages.
func (b *BlobReader) From() string { return b.from }

// Read gives the next bytes, over a new connection when the last one broke.
func (b *BlobReader) Read(p []byte) (int, error) {
	for {
		if b.end >= 0 && b.at >= b.end {
			return 0, io.EOF
		}
		if b.body == nil {
			return 0, fault.New(fault.Internal, "blob %s is read after it failed or was closed", b.d.Digest)
		}
		if b.end >= 0 && int64(len(p)) > b.end-b.at {
			p = p[:b.end-b.at]
		}
		n, err := b.body.Read(p)
		b.at += int64(n)
		switch {
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			continue
		case err == io.EOF && (b.end < 0 || b.at >= b.end):
			return n, io.EOF
		case err == io.EOF:
			err = fmt.Errorf("%w: %d of %d bytes came", io.ErrUnexpectedEOF, b.at, b.end)
		}
		if again := b.resume(err); again != nil {
			return n, again
		}
		if n > 0 {
			return n, nil
		}
	}
}

// resume connects again after a break, or gives the error that ends the reader. A server that is not there for a while is waited for.
func (b *BlobReader) resume(broke error) error {
	b.body.Close()
	b.body = nil
	if b.at-b.mark >= enoughBytes {
		b.mark, b.failures = b.at, 0
	}
	b.next = (b.next + 1) % len(b.places)
	for {
		if b.ctx.Err() != nil {
			return netFault(b.ctx, http.MethodGet, b.from, broke)
		}
		b.failures++
		if b.failures >= b.r.c.cfg.Attempts || b.d.Size <= 0 && b.end < 0 {
			kind := fault.KindOf(broke)
			if kind == fault.Internal {
				kind = fault.Unavailable
			}
			return fault.Wrap(kind, broke, "blob %s from %s", b.d.Digest, b.from)
		}
		b.r.c.log.Info("download goes on after a break", "digest", b.d.Digest.String(), "host", b.from, "at", b.at, "error", broke)
		if wait, _ := backOff(io.EOF, min(b.failures, maxTries)); b.failures > 1 {
			if err := b.r.c.sleep(b.ctx, wait); err != nil {
				return err
			}
		}
		err := b.connect()
		if err == nil || !fault.Is(err, fault.Unavailable) {
			return err
		}
		broke = err
	}
}

// connect opens the blob at the present position, at the next place that has it. The failure that is told is the registry's own when
// it was asked.
func (b *BlobReader) connect() error {
	var told error
	for range b.places {
		p := b.places[b.next]
		body, size, err := b.r.fetch(b.ctx, p, b.d, b.at, b.end)
		if err == nil {
			b.body, b.from = body, p.e.host()
			if b.size < 0 {
				b.size, b.d.Size = size, max(size, 0)
			}
			return nil
		}
		if b.ctx.Err() != nil {
			return err
		}
		if told == nil || !p.e.mirror {
			told = err
		}
		b.next = (b.next + 1) % len(b.places)
	}
	return told
}

// Close ends the reader.
func (b *BlobReader) Close() error {
	if b.body == nil {
		return nil
	}
	err := b.body.Close()
	b.body, b.end = nil, -1 // a Read from now on is an error, not an end
	return err
}

// fetch asks one place for the bytes from offset to end (-1: to the last) and positions the answer there, whatever the server made of the range.
// The size is the blob's as the server says it, -1 when it does not.
func (r *Repository) fetch(ctx context.Context, p place, d ocispec.Descriptor, offset, end int64) (body io.ReadCloser, size int64, _ error) {
	q := &request{method: http.MethodGet, long: true, header: http.Header{"Accept-Encoding": {"identity"}}}
	ranged := offset > 0 || end >= 0 && end != d.Size
	if ranged {
		q.header.Set("Range", byteRange(offset, end))
	}
	resp, err := r.askPlace(ctx, p, d, q)
	if no := refusalOf(err); ranged && no != nil && no.Status == http.StatusRequestedRangeNotSatisfiable {
		q.header.Del("Range") // it has ranges but not this one, and it exists: everything is asked for, and skipped
		resp, err = r.askPlace(ctx, p, d, q)
	}
	if err != nil {
		return nil, 0, r.reading(r.blobWords(err, d.Digest), d.Digest.String())
	}
	size, err = position(resp, d, offset)
	if err != nil {
		resp.Body.Close()
		return nil, 0, fault.In(err, "blob %s from %s", d.Digest, resp.Request.URL.Host)
	}
	return resp.Body, size, nil
}

// askPlace asks an endpoint with credentials, or an address of a manifest without.
func (r *Repository) askPlace(ctx context.Context, p place, d ocispec.Descriptor, q *request) (*http.Response, error) {
	if p.url == nil {
		q.path, q.scopes = r.path("blobs", d.Digest.String()), repositoryScopes(r.name.Path, "pull")
		q.query = r.askFor(p.e)
		return r.do(ctx, p.e, q)
	}
	q.url = p.url
	return r.retrying(ctx, p.e, func() (*http.Response, error) {
		resp, err := r.roundTrip(ctx, p.e, p.e.base, q, "")
		return r.judge(resp, err, q)
	}, false)
}

// blobWords tells a missing blob in the registry's words, not in those of a missing manifest.
func (r *Repository) blobWords(err error, d digest.Digest) error {
	if no := refusalOf(err); no != nil && no.Status == http.StatusNotFound && (no.Code == "" || no.Code == "BLOB_UNKNOWN") {
		return fault.New(fault.NotFound, "blob unknown: %s is not in %s at %s", d, r.name.FamiliarName(), no.Host)
	}
	return err
}

// byteRange writes the header. It is left open only where the end is not known: some servers understand both ends only.
func byteRange(offset, end int64) string {
	if end < 0 {
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, end-1)
}

// position checks an answer's range and length, and skips what the server sent too early: one that does not know ranges
// sends everything. It gives the blob's size, -1 when the server does not say it.
func position(resp *http.Response, d ocispec.Descriptor, offset int64) (int64, error) {
	start, size := int64(0), resp.ContentLength
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusPartialContent:
		first, last, total, err := parseContentRange(resp.Header.Get("Content-Range"))
		if err != nil {
			return 0, err
		}
		if first > offset || last < offset {
			return 0, fault.New(fault.Invalid, "the server was asked for byte %d and sends %d to %d", offset, first, last)
		}
		if size >= 0 && size != last-first+1 {
			return 0, fault.New(fault.Invalid, "the server says that it sends bytes %d to %d, which are not %d", first, last, size)
		}
		start, size = first, total
	default:
		return 0, fault.New(fault.Invalid, "unexpected HTTP status %s", clean(resp.Status))
	}
	if d.Size > 0 && size >= 0 && size != d.Size {
		return 0, fault.New(fault.Invalid, "the server has %d bytes, the manifest says %d", size, d.Size)
	}
	if skip := offset - start; skip > 0 {
		if _, err := io.CopyN(io.Discard, resp.Body, skip); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return 0, fault.Wrap(fault.Unavailable, err, "skip to byte %d", offset)
		}
	}
	return size, nil
}

// parseContentRange reads "bytes FIRST-LAST/TOTAL"; total is -1 for "*".
func parseContentRange(s string) (first, last, total int64, err error) {
	wrong := fault.New(fault.Invalid, "the server's Content-Range %q cannot be read", clean(s))
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, all, ok2 := strings.Cut(rest, "/")
	a, b, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, 0, wrong
	}
	first, err1 := strconv.ParseInt(a, 10, 64)
	last, err2 := strconv.ParseInt(b, 10, 64)
	total = -1
	var err3 error
	if all != "*" {
		total, err3 = strconv.ParseInt(all, 10, 64)
	}
	if err1 != nil || err2 != nil || err3 != nil || first < 0 || last < first || total >= 0 && last >= total {
		return 0, 0, 0, wrong
	}
	return first, last, total, nil
}

// HasBlob asks the registry itself, not its mirrors, whether the repository holds a blob, and its size.
func (r *Repository) HasBlob(ctx context.Context, d digest.Digest) (size int64, ok bool, err error) {
	resp, err := r.head(ctx, "blobs", d, nil)
	if resp == nil || err != nil {
		return 0, false, err
	}
	return resp.ContentLength, true, nil
}

// HasManifest asks the registry itself whether the repository holds a manifest.
func (r *Repository) HasManifest(ctx context.Context, d digest.Digest) (bool, error) {
	resp, err := r.head(ctx, "manifests", d, http.Header{"Accept": acceptManifests})
	return resp != nil, err
}

// head asks for something by digest; nil when it is not there.
func (r *Repository) head(ctx context.Context, kind string, d digest.Digest, h http.Header) (*http.Response, error) {
	if _, err := parseDigest(d.String()); err != nil {
		return nil, err
	}
	e, err := r.home()
	if err != nil {
		return nil, err
	}
	resp, err := r.do(ctx, e, &request{method: http.MethodHead, path: r.path(kind, d.String()), header: h, scopes: r.writing()})
	if err != nil {
		if no := refusalOf(err); no != nil && no.Status == http.StatusNotFound {
			return nil, nil
		}
		return nil, err
	}
	resp.Body.Close()
	return resp, nil
}
