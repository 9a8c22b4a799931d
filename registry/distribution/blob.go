package distribution

import (
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/notice"
	"berth/registry/storage"
)

// forever is for how long a client may keep what has a digest, in seconds.
const forever = "max-age=31536000"

func (c *call) blob(reference string) error {
	if err := c.method(http.MethodGet, http.MethodHead, http.MethodDelete); err != nil {
		return err
	}
	d, err := storage.ParseDigest(reference)
	if err != nil {
		return digestInvalid(err)
	}
	if c.r.Method == http.MethodDelete {
		return c.deleteBlob(d)
	}
	if err := c.may(access.Pull); err != nil {
		return err
	}
	if c.r.Method == http.MethodGet {
		if sent, err := c.send(d); sent || err != nil {
			return err
		}
	}
	content, err := c.cfg.Storage.RepositoryBlob(c.r.Context(), c.repo, d)
	if fault.Is(err, fault.NotFound) && c.cfg.Upstream != nil && c.cfg.Upstream.Covers(c.repo) {
		return blobUnknown(c.cfg.Upstream.Blob(c.r.Context(), c.repo, d, c.w, c.r))
	}
	if err != nil {
		return blobUnknown(err)
	}
	defer content.Body.Close()
	h := c.w.Header()
	h.Set("Content-Type", notice.Blob)
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Etag", `"`+d.String()+`"`)
	h.Set("Cache-Control", forever)
	// ServeContent answers HEAD, ranges and If-None-Match; from a file to a plain socket the kernel copies by itself. A modification time would
	// only be a second, worse validator.
	http.ServeContent(c.w, c.r, "", time.Time{}, content.Body)
	if c.r.Method == http.MethodGet {
		c.event(notice.Event{Action: notice.Pull, Digest: d, MediaType: notice.Blob, Size: content.Size})
	}
	return nil
}

// send sends the client to the storage itself, where that is wanted and the blob is there.
func (c *call) send(d digest.Digest) (bool, error) {
	url, err := c.cfg.Storage.BlobURL(c.r.Context(), c.repo, d)
	if fault.Is(err, fault.NotFound) || err == nil && url == "" {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	h := c.w.Header()
	h.Set("Docker-Content-Digest", d.String())
	h.Set("Location", url)
	h.Set("Content-Length", "0")
	h.Set("Cache-Control", "no-store") // the URL is for this caller and ends
	c.w.WriteHeader(http.StatusTemporaryRedirect)
	c.event(notice.Event{Action: notice.Pull, Digest: d, MediaType: notice.Blob})
	return true, nil
}

func (c *call) deleteBlob(d digest.Digest) error {
	if err := c.may(access.Delete); err != nil {
		return err
	}
	err := c.cfg.Storage.DeleteBlob(c.r.Context(), c.repo, d)
	if fault.Is(err, fault.Conflict) {
		return &apiError{status: http.StatusMethodNotAllowed, code: "UNSUPPORTED", message: err.Error()}
	}
	if err != nil {
		return blobUnknown(err)
	}
	c.event(notice.Event{Action: notice.Delete, Digest: d, MediaType: notice.Blob})
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
