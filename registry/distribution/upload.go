package distribution

import (
	"context"
	"errors"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/notice"
	"berth/registry/storage"
)

// startUpload mounts a blob, takes one that comes with the request, or begins an upload.
func (c *call) startUpload() error {
	if err := c.method(http.MethodPost); err != nil {
		return err
	}
	if err := c.may(access.Pull, access.Push); err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	q := c.r.URL.Query()
	if mount := q.Get("mount"); mount != "" {
		d, err := storage.ParseDigest(mount)
		if err != nil {
			return digestInvalid(err)
		}
		if done, err := c.mount(d, q.Get("from")); done || err != nil {
			return err
		}
	}
	if q.Get("digest") != "" {
		return c.monolithic(q.Get("digest"))
	}
	u, err := c.cfg.Storage.StartUpload(c.r.Context(), c.repo, digest.Algorithm(q.Get("digest-algorithm")))
	if fault.Is(err, fault.Invalid) {
		return digestInvalid(err)
	}
	if err != nil {
		return err
	}
	c.standing(u, http.StatusAccepted)
	return nil
}

// mount makes a blob of another repository one of this. A client that may not read there, or names nothing that is there, gets an
// upload instead: the specification wants so, and it tells nobody what exists.
func (c *call) mount(d digest.Digest, from string) (bool, error) {
	if from == "" {
		found, err := c.holder(d)
		if err != nil || found == "" {
			return false, err
		}
		from = found
	}
	if storage.CheckName(from) != nil {
		return false, nil
	}
	if !c.mayPull(from) {
		return false, c.widen(from)
	}
	desc, err := c.cfg.Storage.StatBlob(c.r.Context(), from, d)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err == nil {
		err = c.roomFor(d, desc.Size)
	}
	if err == nil {
		desc, err = c.cfg.Storage.Mount(c.r.Context(), c.repo, d, from)
	}
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	c.event(notice.Event{Action: notice.Mount, Digest: d, MediaType: notice.Blob, Size: desc.Size, From: from})
	c.created(desc)
	return true, nil
}

// holder looks for a repository that holds a blob and that the caller may read. A look that takes long is given up: the client can upload.
func (c *call) holder(d digest.Digest) (string, error) {
	content, err := c.cfg.Storage.Blob(c.r.Context(), d)
	if fault.Is(err, fault.NotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	content.Body.Close()
	ctx, cancel := context.WithTimeout(c.r.Context(), 250*time.Millisecond)
	defer cancel()
	names, err := c.cfg.Storage.Repositories(ctx, "")
	if err != nil {
		return "", err
	}
	for _, name := range names { // those that need no look first: a bucket may be far
		if c.cfg.Storage.Remembers(name, d) && c.mayPull(name) {
			return name, nil
		}
	}
	for _, name := range names {
		if ctx.Err() != nil {
			return "", nil
		}
		if !c.mayPull(name) {
			continue
		}
		if _, err := c.cfg.Storage.StatBlob(ctx, name, d); err == nil {
			return name, nil
		}
	}
	return "", nil
}

// monolithic takes a blob that is the request's body.
func (c *call) monolithic(wanted string) error {
	d, err := storage.ParseDigest(wanted)
	if err != nil {
		return digestInvalid(err)
	}
	if err := c.roomFor(d, c.r.ContentLength); err != nil {
		return err
	}
	u, err := c.cfg.Storage.StartUpload(c.r.Context(), c.repo, d.Algorithm())
	if err != nil {
		return err
	}
	if _, err = u.Append(c.r.Context(), -1, c.body(u)); err == nil {
		err = c.commit(u, d)
	}
	if err != nil {
		u.Cancel(context.WithoutCancel(c.r.Context()))
	}
	return err
}

func (c *call) upload(id string) error {
	if err := c.method(http.MethodGet, http.MethodHead, http.MethodPatch, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	if err := c.may(access.Pull, access.Push); err != nil {
		return err
	}
	u, err := c.cfg.Storage.ResumeUpload(c.r.Context(), c.repo, id)
	if err != nil {
		return uploadUnknown(err)
	}
	switch c.r.Method {
	case http.MethodPatch:
		return c.patch(u)
	case http.MethodPut:
		return c.put(u)
	case http.MethodDelete:
		if err := u.Cancel(c.r.Context()); err != nil {
			return uploadUnknown(err)
		}
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	c.standing(u, http.StatusNoContent)
	return nil
}

func (c *call) patch(u *storage.Upload) error {
	if err := c.add(u); err != nil {
		return err
	}
	c.standing(u, http.StatusAccepted)
	return nil
}

// put takes the last bytes, if there are any, and names the blob.
func (c *call) put(u *storage.Upload) error {
	d, err := storage.ParseDigest(c.r.URL.Query().Get("digest"))
	if err != nil {
		return digestInvalid(err)
	}
	if err := c.add(u); err != nil {
		return err
	}
	return c.commit(u, d)
}

// add appends the request's body.
func (c *call) add(u *storage.Upload) error {
	offset, length, err := c.contentRange()
	if err != nil {
		return err
	}
	if err := c.roomToArrive(); err != nil {
		return err
	}
	var body io.Reader = c.body(u)
	if length >= 0 {
		body = &exactly{r: body, left: length}
	}
	_, err = u.Append(c.r.Context(), offset, body)
	var out *storage.RangeError
	switch {
	case errors.As(err, &out):
		c.place(u)
		return &apiError{status: http.StatusRequestedRangeNotSatisfiable, code: "BLOB_UPLOAD_INVALID", message: "blob upload invalid", detail: err.Error()}
	case errors.Is(err, errLength):
		return &apiError{status: http.StatusBadRequest, code: "SIZE_INVALID", message: "provided length did not match content length", detail: err.Error()}
	case fault.Is(err, fault.NotFound):
		return uploadUnknown(err)
	}
	return err
}

var rangeGrammar = regexp.MustCompile(`^(?:bytes[ =])?([0-9]{1,18})-([0-9]{1,18})(?:/(?:[0-9]+|\*))?$`)

// contentRange reads where a chunk belongs and how long it is; -1 is unsaid. The specification writes START-END; some clients write the
// header as RFC 9110 does.
func (c *call) contentRange() (offset, length int64, err error) {
	s := c.r.Header.Get("Content-Range")
	if s == "" {
		return -1, -1, nil
	}
	m := rangeGrammar.FindStringSubmatch(s)
	if m == nil {
		return 0, 0, &apiError{status: http.StatusBadRequest, code: "BLOB_UPLOAD_INVALID", message: "blob upload invalid", detail: "Content-Range is no START-END"}
	}
	start, _ := strconv.ParseInt(m[1], 10, 64)
	end, _ := strconv.ParseInt(m[2], 10, 64)
	length = end - start + 1
	if length < 0 || c.r.ContentLength >= 0 && length != c.r.ContentLength {
		return 0, 0, &apiError{status: http.StatusBadRequest, code: "SIZE_INVALID", message: "provided length did not match content length"}
	}
	return start, length, nil
}

// commit names the blob and tells the client where it is.
func (c *call) commit(u *storage.Upload, d digest.Digest) error {
	if err := c.roomFor(d, u.Size()); err != nil {
		return errors.Join(err, u.Cancel(context.WithoutCancel(c.r.Context())))
	}
	desc, err := u.Commit(c.r.Context(), d)
	if errors.Is(err, storage.ErrDigest) {
		return digestInvalid(err)
	}
	if err != nil {
		return uploadUnknown(err)
	}
	c.event(notice.Event{Action: notice.Push, Digest: d, MediaType: notice.Blob, Size: desc.Size})
	c.created(desc)
	return nil
}

func (c *call) created(desc ocispec.Descriptor) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo+"/blobs/"+desc.Digest.String())
	h.Set("Docker-Content-Digest", desc.Digest.String())
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
}

// standing tells where an upload stands.
func (c *call) standing(u *storage.Upload, status int) {
	c.place(u)
	if status != http.StatusNoContent {
		c.w.Header().Set("Content-Length", "0")
	}
	c.w.WriteHeader(status)
}

func (c *call) place(u *storage.Upload) {
	h := c.w.Header()
	h.Set("Location", "/v2/"+c.repo+"/blobs/uploads/"+u.ID())
	h.Set("Docker-Upload-Uuid", u.ID())
	// An empty upload is "0-0" too: the header cannot say it, and clients know docker-registry's answer.
	h.Set("Range", "0-"+strconv.FormatInt(max(u.Size()-1, 0), 10))
	if c.cfg.ChunkMin > 0 {
		h.Set("Oci-Chunk-Min-Length", strconv.FormatInt(c.cfg.ChunkMin, 10))
	}
}

func uploadUnknown(err error) error {
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	return &apiError{status: http.StatusNotFound, code: "BLOB_UPLOAD_UNKNOWN", message: "blob upload unknown to registry", detail: err.Error()}
}
