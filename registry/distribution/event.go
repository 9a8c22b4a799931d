package distribution

import (
	"net"
	"time"

	"berth/base/id"
	"berth/registry/notice"
	"berth/registry/storage"
)

// event tells what has happened in this request.
func (c *call) event(e notice.Event) {
	addr, _, err := net.SplitHostPort(c.r.RemoteAddr)
	if err != nil {
		addr = c.r.RemoteAddr
	}
	e.ID, e.At = id.New()[:32], time.Now().UTC()
	e.Repository, e.Actor = c.repo, c.subject
	e.Request = notice.Request{ID: c.id, Addr: addr, Host: c.r.Host, Method: c.r.Method, UserAgent: c.r.UserAgent()}
	c.cfg.Events(e)
}

func manifestEvent(action notice.Action, reference string, r storage.Record) notice.Event {
	e := notice.Event{Action: action, Digest: r.Digest, MediaType: r.MediaType, Size: r.Size}
	if !storage.IsDigest(reference) {
		e.Tag = reference
	}
	for _, refs := range [][]storage.Reference{r.Blobs, r.Manifests} {
		for _, ref := range refs {
			e.References = append(e.References, notice.Reference{MediaType: ref.MediaType, Digest: ref.Digest, Size: ref.Size})
		}
	}
	return e
}
