package remote

import (
	"context"
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
	wholeBelow   = 256 << 10 // blobs up to this size go in one PUT, which saves a round trip
	refusedChunk = 32 << 20  // first size of chunks for a server that wants no larger request
	leastChunk   = 1 << 20
)

// writing is what a token must allow for a push: reading, too, since what is there is not sent.
func (r *Repository) writing() []string { return repositoryScopes(r.name.Path, "pull", "push") }

// Mount asks the registry to take a blob from another of its repositories. false: it did not, and the blob must be pushed.
func (r *Repository) Mount(ctx context.Context, d digest.Digest, from string) (bool, error) {
	if _, err := parseDigest(d.String()); err != nil {
		return false, err
	}
	e, err := r.home()
	if err != nil {
		return false, err
	}
	q := &request{method: http.MethodPost, path: r.path("blobs", "uploads", ""),
		query:  url.Values{"mount": {d.String()}, "from": {from}},
		scopes: union(r.writing(), repositoryScopes(from, "pull"))}
	resp, err := r.do(ctx, e, q)
	if err != nil {
		if no := refusalOf(err); no != nil && (no.Status == http.StatusNotFound || no.Status == http.StatusMethodNotAllowed) {
			return false, nil
		}
		return false, err
	}
	defer drain(resp)
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	if loc, err := uploadLocation(resp, e); err == nil {
		r.mu.Lock()
		if r.uploads == nil {
			r.uploads = map[string]string{}
		}
		r.uploads[d.String()] = loc.String()
		r.mu.Unlock()
	}
	return false, nil
}

// PushBlob gives the registry a blob. open gives the content from an offset and is called again when the upload breaks: it goes on where the
// registry says that it stopped. Large blobs go in one streamed request, in chunks when the server wants no larger ones, and in one
// PUT when it knows no other way. A d.Size of 0 or less means that the size is not known, unless the digest is the empty blob's.
func (r *Repository) PushBlob(ctx context.Context, d ocispec.Descriptor, open func(offset int64) (io.ReadCloser, error)) error {
	if _, err := parseDigest(d.Digest.String()); err != nil {
		return err
	}
	e, err := r.home()
	if err != nil {
		return err
	}
	u := &upload{r: r, e: e, d: d, open: open}
	r.mu.Lock()
	session, ok := r.uploads[d.Digest.String()]
	delete(r.uploads, d.Digest.String())
	r.mu.Unlock()
	if ok {
		u.location, err = url.Parse(session)
	} else {
		err = u.begin(ctx)
	}
	if err == nil {
		err = u.push(ctx)
	}
	if refusalOf(err) != nil {
		return err // "denied: requested access to the resource is denied" is the whole of what docker push says
	}
	return fault.In(err, "push of blob %s", d.Digest)
}

// push sends the blob over a session that is open.
func (u *upload) push(ctx context.Context) error {
	if u.d.Size > 0 && u.d.Size <= wholeBelow {
		if err := u.whole(ctx); err == nil || u.source.failure() != nil || !wantsOtherWay(err) {
			return err
		}
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	return u.run(ctx)
}

// upload is a blob on its way to the registry.
type upload struct {
	r        *Repository
	e        *endpoint
	d        ocispec.Descriptor
	open     func(int64) (io.ReadCloser, error)
	location *url.URL // of the session, as the registry last said; nil: there is none
	at       int64    // bytes that the registry has
	unsure   bool     // it has to be asked how many those are
	ended    bool     // the source has no more, when the size is not known
	chunk    int64    // most bytes of one request; 0: no limit
	least    int64    // least bytes of one request but the last, as the registry wants
	source   *counted // of the last request
}

// begin opens an upload session.
func (u *upload) begin(ctx context.Context) error {
	resp, err := u.r.do(ctx, u.e, &request{method: http.MethodPost, path: u.r.path("blobs", "uploads", ""), scopes: u.r.writing()})
	if err != nil {
		return err
	}
	defer drain(resp)
	u.at, u.ended = 0, false
	if n, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 && n <= 1<<30 {
		u.least = n
	}
	u.location, err = uploadLocation(resp, u.e)
	return err
}

// run sends, asks where a broken upload stands, sends again, and closes the session. A registry that is not there for a while is waited for.
func (u *upload) run(ctx context.Context) error {
	failures, mark := 0, int64(0)
	for {
		err := u.ready(ctx)
		if err == nil {
			err = u.send(ctx)
		}
		if err == nil {
			err = u.finish(ctx)
		}
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case u.source.failure() != nil:
			return u.source.failure()
		}
		if u.at-mark >= enoughBytes {
			failures = 0
		}
		mark = u.at
		if failures++; failures >= u.r.c.cfg.Attempts {
			return err
		}
		done, again := u.mend(ctx, err, failures)
		if done || again != nil {
			return again
		}
	}
}

// ready sees to it that there is a session of which is known how much it has.
func (u *upload) ready(ctx context.Context) error {
	if u.unsure && u.location != nil {
		err := u.ask(ctx)
		if fault.Is(err, fault.Unavailable) || ctx.Err() != nil {
			return err
		}
		if err != nil {
			u.location = nil // the session is lost: from the beginning
		}
	}
	if u.location == nil {
		if err := u.begin(ctx); err != nil {
			return err
		}
	}
	u.unsure = false
	return nil
}

// mend decides how to go on after a failure. done: the registry has the blob after all.
func (u *upload) mend(ctx context.Context, err error, failures int) (done bool, _ error) {
	no := refusalOf(err)
	status := 0
	if no != nil {
		status = no.Status
	}
	switch {
	case status == http.StatusRequestEntityTooLarge:
		if u.chunk == 0 {
			u.chunk = refusedChunk
		} else {
			u.chunk /= 4
		}
		if u.chunk < max(leastChunk, u.least) {
			return false, err
		}
	case no == nil && !fault.Is(err, fault.Unavailable):
		return false, err // no answer of a registry, and no break either
	case no != nil && wantsOtherWay(err) && u.at == 0 && u.d.Size > 0:
		if err := u.begin(ctx); err != nil {
			return false, err
		}
		return true, u.whole(ctx)
	case no != nil && status < 500 && status != http.StatusRequestedRangeNotSatisfiable && status != http.StatusNotFound && status != http.StatusTooManyRequests:
		return false, err
	}
	u.r.c.log.Info("upload goes on after a break", "digest", u.d.Digest.String(), "host", u.e.host(), "at", u.at, "error", err)
	wait, _ := backOff(io.EOF, min(failures, maxTries))
	if no != nil && no.After > 0 {
		wait = max(wait, min(no.After, longestWait))
	}
	if err := u.r.c.sleep(ctx, wait); err != nil {
		return false, err
	}
	if _, ok, err := u.r.HasBlob(ctx, u.d.Digest); err == nil && ok {
		return true, nil
	}
	u.unsure = true
	return false, nil
}

// ask finds out how much of the blob the registry has.
func (u *upload) ask(ctx context.Context) error {
	resp, err := u.r.do(ctx, u.e, &request{method: http.MethodGet, url: u.location, scopes: u.r.writing()})
	if err != nil {
		return err
	}
	defer drain(resp)
	at, ok := uploadedTo(resp.Header.Get("Range"))
	if !ok {
		return fault.New(fault.Invalid, "the registry does not say how much of the upload it has")
	}
	if u.d.Size > 0 && at > u.d.Size {
		return fault.New(fault.Invalid, "the registry has %d bytes of a blob of %d", at, u.d.Size)
	}
	loc, err := uploadLocation(resp, u.e)
	if err != nil {
		loc = u.location
	}
	u.at, u.location, u.ended = at, loc, false
	return nil
}

// send gives the registry what it lacks.
func (u *upload) send(ctx context.Context) error {
	for {
		left := u.d.Size - u.at
		if u.d.Size > 0 && left <= 0 || u.d.Size <= 0 && u.ended {
			return nil
		}
		most := left
		if u.d.Size <= 0 {
			most = -1
		}
		if u.chunk > 0 && (most < 0 || most > u.chunk) {
			most = u.chunk
		}
		q := &request{method: http.MethodPatch, url: u.location, scopes: u.r.writing(), once: true, long: true, size: most, wait: storeTimeout,
			header: http.Header{"Content-Type": {"application/octet-stream"}},
			body:   func() (io.ReadCloser, error) { return u.content(u.at, most) }}
		if most >= 0 && (u.at > 0 || most < u.d.Size) {
			q.header.Set("Content-Range", fmt.Sprintf("%d-%d", u.at, u.at+most-1))
		}
		if u.d.Size <= 0 && u.chunk > 0 {
			q.size = -1
		}
		resp, err := u.r.do(ctx, u.e, q)
		if err != nil {
			return err
		}
		drain(resp)
		n, ended, _ := u.source.state()
		sent := u.at + n
		at, ok := uploadedTo(resp.Header.Get("Range"))
		if !ok || at > sent || at == 0 && sent == 1 { // "0-0" is one byte, too
			at = sent
		}
		loc, err := uploadLocation(resp, u.e)
		if err != nil {
			return err
		}
		if at <= u.at && n > 0 {
			return fault.New(fault.Unavailable, "the registry took nothing of %d bytes", n)
		}
		u.ended = ended && at == sent
		u.at, u.location = at, loc
	}
}

// content opens the source for one request of at most n bytes (< 0: all).
func (u *upload) content(at, n int64) (io.ReadCloser, error) {
	rc, err := u.open(at)
	u.source = &counted{rc: rc, left: n, err: err}
	if err != nil {
		return nil, err
	}
	return u.source, nil
}

// finish closes the session: the registry checks the digest and names the blob.
func (u *upload) finish(ctx context.Context) error {
	q := &request{method: http.MethodPut, url: u.location, query: url.Values{"digest": {u.d.Digest.String()}}, scopes: u.r.writing(), once: true, long: true, wait: storeTimeout,
		header: http.Header{"Content-Type": {"application/octet-stream"}}}
	resp, err := u.r.do(ctx, u.e, q)
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

// whole sends the blob in one PUT.
func (u *upload) whole(ctx context.Context) error {
	q := &request{method: http.MethodPut, url: u.location, query: url.Values{"digest": {u.d.Digest.String()}}, scopes: u.r.writing(), long: true, size: u.d.Size, wait: storeTimeout,
		header: http.Header{"Content-Type": {"application/octet-stream"}},
		body:   func() (io.ReadCloser, error) { return u.content(0, u.d.Size) }}
	resp, err := u.r.do(ctx, u.e, q)
	if failed := u.source.failure(); failed != nil {
		return failed
	}
	if err != nil {
		return err
	}
	drain(resp)
	return nil
}

// wantsOtherWay reports whether a refusal is about how the blob was sent.
func wantsOtherWay(err error) bool {
	no := refusalOf(err)
	if no == nil || no.Code == "DIGEST_INVALID" {
		return false
	}
	switch no.Status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired, http.StatusUnsupportedMediaType, http.StatusNotImplemented,
		http.StatusRequestedRangeNotSatisfiable, http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// uploadLocation reads where the session goes on. A registry behind a proxy may write http though it is asked by TLS.
func uploadLocation(resp *http.Response, e *endpoint) (*url.URL, error) {
	s := resp.Header.Get("Location")
	if s == "" || len(s) > maxChallenge {
		return nil, fault.New(fault.Invalid, "the registry does not say where the upload goes on")
	}
	return follow(resp.Request.URL, s, e)
}

// uploadedTo reads a Range of an upload: "0-N" or "bytes=0-N" means N+1 bytes. "0-0" is what registries write for nothing and for one byte; it
// is taken for nothing, and a session that has one byte refuses the next chunk and is begun again.
func uploadedTo(s string) (int64, bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "bytes"), "=")
	first, last, ok := strings.Cut(s, "-")
	if !ok || strings.TrimSpace(first) != "0" {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(last), 10, 64)
	if err != nil || n < 0 || n == 1<<63-1 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// PushManifest gives the registry a manifest or index under a tag or its digest, and tells the digest. Where the manifest has a
// subject and the registry does not keep referrers itself, the subject's referrers tag is brought up to date, as the distribution spec has it.
func (r *Repository) PushManifest(ctx context.Context, tagOrDigest, mediaType string, content []byte) (digest.Digest, error) {
	want, err := parseReference(tagOrDigest)
	if err != nil {
		return "", err
	}
	if len(content) > MaxManifest {
		return "", tooLarge(int64(len(content)))
	}
	d := digest.FromBytes(content)
	if want != "" {
		if real := want.Algorithm().FromBytes(content); real != want {
			return "", fault.New(fault.Invalid, "the manifest has the digest %s, not %s", real, want)
		}
		d = want
	}
	e, err := r.home()
	if err != nil {
		return "", err
	}
	text := string(content)
	resp, err := r.do(ctx, e, &request{method: http.MethodPut, path: r.path("manifests", tagOrDigest), scopes: r.writing(), long: true, wait: storeTimeout,
		header: http.Header{"Content-Type": {mediaType}}, body: textBody(text), size: int64(len(text))})
	if err != nil {
		return "", err
	}
	drain(resp)
	if said := resp.Header.Get("Docker-Content-Digest"); said != "" {
		got, err := parseDigest(said)
		if err != nil || got.Algorithm().FromBytes(content) != got {
			return "", fault.New(fault.Invalid, "the registry stored the manifest under the digest %q, which is not its own (%s)", clean(said), d)
		}
	}
	if err := r.linkSubject(ctx, resp.Header.Get("OCI-Subject"), d, mediaType, content); err != nil {
		return "", err
	}
	return d, nil
}

// Delete takes a tag or a manifest out of the repository.
func (r *Repository) Delete(ctx context.Context, tagOrDigest string) error {
	if _, err := parseReference(tagOrDigest); err != nil {
		return err
	}
	e, err := r.home()
	if err != nil {
		return err
	}
	resp, err := r.do(ctx, e, &request{method: http.MethodDelete, path: r.path("manifests", tagOrDigest), scopes: repositoryScopes(r.name.Path, "delete", "pull")})
	if err != nil {
		return r.reading(err, tagOrDigest)
	}
	drain(resp)
	return nil
}
