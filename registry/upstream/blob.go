package upstream

import (
	"context"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/image/remote"
)

// Blob streams a blob of a copy to the client while it is fetched and stored. Requests for one blob share one fetch, which goes on when
// they leave. NotFound before anything is written when the repository is no copy yet: nobody knows then whose it would be.
func (c *Cache) Blob(ctx context.Context, repository string, d digest.Digest, w http.ResponseWriter, r *http.Request) error {
	c.mu.Lock()
	_, copied := c.copies[repository]
	c.mu.Unlock()
	if !copied {
		return fault.New(fault.NotFound, "blob %s is not in repository %s", d, repository)
	}
	if r.Method == http.MethodHead {
		return c.blobHead(ctx, repository, d, w)
	}
	f, err := c.fetch(repository, d)
	if err != nil {
		return err
	}
	body := f.reader(ctx, true)
	defer body.Close()
	select {
	case <-f.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	f.mu.Lock()
	size, err := f.size, f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	setHeader(w, d)
	c.touch(repository, "")
	if size < 0 { // the source does not say how long it is; neither can we
		_, err := io.Copy(w, body)
		if err != nil {
			panic(http.ErrAbortHandler) // an end without an end is how the client learns of it
		}
		return nil
	}
	// When the fetch fails midway fewer bytes go out than were announced, and the server closes the connection.
	http.ServeContent(w, r, "", time.Time{}, body)
	return nil
}

func setHeader(w http.ResponseWriter, d digest.Digest) {
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", `"`+d.String()+`"`)
	h.Set("Cache-Control", "max-age=31536000")
}

// blobHead asks the source about a blob without fetching it.
func (c *Cache) blobHead(ctx context.Context, repository string, d digest.Digest, w http.ResponseWriter) error {
	rc, s, err := c.openBlob(ctx, repository, d)
	if err != nil {
		return err
	}
	rc.Close()
	s.answered(nil)
	setHeader(w, d)
	if b, ok := rc.(*remote.BlobReader); ok && b.Size() >= 0 {
		w.Header().Set("Content-Length", itoa(b.Size()))
	}
	w.WriteHeader(http.StatusOK)
	return nil
}

// openBlob begins to read a blob at the repository's source.
func (c *Cache) openBlob(ctx context.Context, repository string, d digest.Digest) (io.ReadCloser, *source, error) {
	list := c.candidates(repository)
	if len(list) == 0 {
		return nil, nil, fault.New(fault.NotFound, "blob %s is not in repository %s, which has no source", d, repository)
	}
	s := list[0]
	if c.isAbsent(s, repository, d.String()) {
		return nil, s, fault.New(fault.NotFound, "blob %s is not in repository %s, nor at its source", d, repository)
	}
	name, _ := s.remote(repository)
	rc, err := s.repository(name).Blob(ctx, ocispec.Descriptor{Digest: d}, 0)
	switch {
	case err == nil:
	case absent(err):
		s.answered(nil)
		c.noteAbsent(s, repository, d.String())
		c.count(s, "blob", "miss", 0)
	default:
		s.answered(err)
		c.count(s, "blob", "error", 0)
		err = fault.In(err, "mirror %s", s.Name)
	}
	return rc, s, err
}

// fetch joins the fetch of a blob, or begins it. The caller has a part in its file and releases it.
func (c *Cache) fetch(repository string, d digest.Digest) (*fetch, error) {
	key := repository + "\x00" + d.String() // not by digest alone: who may read one repository may not read all
	if f := c.join(key); f != nil {
		return f, nil
	}
	mine, err := newFetch(c.cfg.Dir)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.fetches[key]; f != nil && f.use() {
		mine.release()
		return f, nil
	}
	if c.closed {
		mine.release()
		return nil, fault.New(fault.Unavailable, "the registry is stopping")
	}
	f := mine
	f.use()
	c.fetches[key] = f
	c.all.Go(func() {
		err := c.run(f, repository, d)
		if err != nil {
			f.fail(err)
			select {
			case <-f.ready:
			default:
				close(f.ready)
			}
			c.log.Warn("a blob could not be fetched", "repository", repository, "digest", d.String(), "error", err)
		}
		c.mu.Lock()
		if c.fetches[key] == f {
			delete(c.fetches, key)
		}
		c.mu.Unlock()
		close(f.over)
		f.release()
	})
	return f, nil
}

// join takes part in a fetch that runs; nil when there is none.
func (c *Cache) join(key string) *fetch {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.fetches[key]; f != nil && f.use() {
		return f
	}
	return nil
}

// run fetches a blob for all who want it. The storage is one of them.
func (c *Cache) run(f *fetch, repository string, d digest.Digest) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	rc, s, err := c.openBlob(c.ctx, repository, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	f.mu.Lock()
	f.size = -1
	if b, ok := rc.(*remote.BlobReader); ok {
		f.size = b.Size()
	}
	f.mu.Unlock()
	close(f.ready)

	stored := make(chan error, 1)
	if full := c.cfg.Quota(c.ctx, repository, max(f.size, 0)); full != nil {
		stored <- full
	} else {
		f.use()
		body := f.reader(c.ctx, false) // PutBlob names nothing that does not have the digest
		c.all.Go(func() {
			defer body.Close()
			_, err := c.cfg.Store.PutBlob(c.ctx, repository, d, body)
			stored <- err
		})
	}
	if err := f.fill(rc, d); err != nil {
		f.fail(err)
		<-stored
		s.answered(err)
		c.count(s, "blob", "error", f.at)
		return err
	}
	s.answered(nil)
	c.count(s, "blob", "miss", f.at)
	if err := <-stored; err != nil {
		c.log.Error("a blob that was fetched could not be stored", "repository", repository, "digest", d.String(), "error", err)
		return nil // the clients have it all the same
	}
	c.arrived(repository, d)
	return nil
}
