package distribution

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/notice"
	"berth/registry/storage"
)

func (c *call) manifest(reference string) error {
	if err := c.method(http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete); err != nil {
		return err
	}
	if err := checkReference(reference); err != nil {
		var e *apiError
		if errors.As(err, &e) && e.code == tagInvalid && c.r.Method != http.MethodPut {
			return manifestUnknown(fault.New(fault.NotFound, "%s", e.detail)) // what cannot be is not there
		}
		return err
	}
	switch c.r.Method {
	case http.MethodPut:
		return c.putManifest(reference)
	case http.MethodDelete:
		return c.deleteManifest(reference)
	}
	return c.getManifest(reference)
}

// tagInvalid is the code for a tag that is none; the specification has no other.
const tagInvalid = "MANIFEST_INVALID"

func checkReference(reference string) error {
	if storage.IsDigest(reference) {
		if _, err := storage.ParseDigest(reference); err != nil {
			return digestInvalid(err)
		}
		return nil
	}
	if err := storage.CheckTag(reference); err != nil {
		return &apiError{status: http.StatusBadRequest, code: tagInvalid, message: "manifest invalid", detail: err.Error()}
	}
	return nil
}

func (c *call) getManifest(reference string) error {
	if err := c.may(access.Pull); err != nil {
		return err
	}
	m, err := c.find(reference)
	if err != nil {
		return manifestUnknown(err)
	}
	h := c.w.Header()
	h.Set("Content-Type", m.MediaType)
	h.Set("Docker-Content-Digest", m.Digest.String())
	h.Set("Etag", `"`+m.Digest.String()+`"`)
	if storage.IsDigest(reference) {
		h.Set("Cache-Control", forever)
	}
	if m.Age > 0 {
		h.Set("Age", strconv.Itoa(int(m.Age.Seconds())))
	}
	if m.Warning != "" {
		h.Set("Warning", `299 - `+strconv.Quote(m.Warning))
	}
	http.ServeContent(c.w, c.r, "", time.Time{}, bytes.NewReader(m.Content))
	if c.r.Method == http.MethodGet {
		c.event(manifestEvent(notice.Pull, reference, m.Record))
	}
	return nil
}

// find gives a manifest from the storage or from upstream.
func (c *call) find(reference string) (*Manifest, error) {
	up := c.cfg.Upstream
	covered := up != nil && up.Covers(c.repo)
	if covered && !storage.IsDigest(reference) {
		return up.Manifest(c.r.Context(), c.repo, reference)
	}
	m, err := c.cfg.Storage.Manifest(c.r.Context(), c.repo, reference)
	if fault.Is(err, fault.NotFound) && covered {
		return up.Manifest(c.r.Context(), c.repo, reference)
	}
	if err != nil {
		return nil, err
	}
	return &Manifest{Manifest: *m}, nil
}

func (c *call) putManifest(reference string) error {
	if err := c.may(access.Pull, access.Push); err != nil {
		return err
	}
	if err := c.claim(); err != nil {
		return err
	}
	content, err := c.small()
	if err != nil {
		return err
	}
	if err := c.roomFor(digest.FromBytes(content), int64(len(content))); err != nil {
		return err
	}
	put := storage.Put{Reference: reference, MediaType: c.r.Header.Get("Content-Type"), Content: content}
	if storage.IsDigest(reference) {
		put.Tags = c.r.URL.Query()["tag"]
		for _, t := range put.Tags {
			if err := checkReference(t); err != nil {
				return err
			}
		}
	}
	m, err := c.cfg.Storage.PutManifest(c.r.Context(), c.repo, put)
	if err != nil {
		return putError(err)
	}
	e := manifestEvent(notice.Push, reference, m.Record)
	if len(put.Tags) == 0 {
		c.event(e)
	}
	h := c.w.Header()
	for _, t := range put.Tags {
		h.Add("Oci-Tag", t)
		e.Tag = t
		c.event(e)
	}
	if m.Subject != "" {
		h.Set("Oci-Subject", m.Subject.String())
	}
	h.Set("Location", "/v2/"+c.repo+"/manifests/"+m.Digest.String())
	h.Set("Docker-Content-Digest", m.Digest.String())
	h.Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusCreated)
	return nil
}

// small reads a body that is to be a manifest.
func (c *call) small() ([]byte, error) {
	tooLarge := &apiError{status: http.StatusRequestEntityTooLarge, code: "MANIFEST_INVALID", message: "manifest invalid", detail: "a manifest may have " + strconv.Itoa(storage.MaxManifest) + " bytes"}
	b := &body{c: c, control: http.NewResponseController(c.w)}
	if c.r.ContentLength > storage.MaxManifest {
		c.drain(b)
		return nil, tooLarge
	}
	content, err := io.ReadAll(io.LimitReader(b, storage.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if len(content) > storage.MaxManifest {
		c.drain(b)
		return nil, tooLarge
	}
	return content, nil
}

// maxDrain is how much of a manifest that is too large is read for its sender's sake.
const maxDrain = 16 << 20

// drain reads what is left of a body: whoever writes all of it before he reads the answer would learn of a broken connection only.
func (c *call) drain(b io.Reader) {
	if c.r.ContentLength > maxDrain {
		return
	}
	io.CopyN(io.Discard, b, maxDrain)
}

func putError(err error) error {
	var missing *storage.MissingError
	switch {
	case errors.As(err, &missing):
		return &apiError{status: http.StatusNotFound, code: "MANIFEST_BLOB_UNKNOWN", message: "blob unknown to registry", detail: missing.Digests}
	case errors.Is(err, storage.ErrDigest):
		return digestInvalid(err)
	case fault.Is(err, fault.Invalid):
		return &apiError{status: http.StatusBadRequest, code: "MANIFEST_INVALID", message: "manifest invalid", detail: err.Error()}
	}
	return err
}

func (c *call) deleteManifest(reference string) error {
	if err := c.may(access.Delete); err != nil {
		return err
	}
	if !storage.IsDigest(reference) {
		t, err := c.cfg.Storage.DeleteTag(c.r.Context(), c.repo, reference)
		if err != nil {
			return manifestUnknown(err)
		}
		c.event(notice.Event{Action: notice.Delete, Tag: t.Name, Digest: t.Digest, MediaType: "application/vnd.oci.image.manifest.v1+json"})
		return c.accepted()
	}
	d, err := storage.ParseDigest(reference)
	if err != nil {
		return digestInvalid(err)
	}
	r, err := c.cfg.Storage.Record(c.r.Context(), c.repo, reference)
	if err != nil {
		return manifestUnknown(err)
	}
	if _, err := c.cfg.Storage.DeleteManifest(c.r.Context(), c.repo, d); err != nil {
		return manifestUnknown(err)
	}
	c.event(manifestEvent(notice.Delete, reference, r))
	return c.accepted()
}

func (c *call) accepted() error {
	c.w.Header().Set("Content-Length", "0")
	c.w.WriteHeader(http.StatusAccepted)
	return nil
}
