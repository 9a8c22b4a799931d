package webhook

import (
	"time"

	"github.com/opencontainers/go-digest"

	"berth/registry/notice"
)

// MediaType is the content type of an envelope.
const MediaType = "application/vnd.docker.distribution.events.v1+json"

// Envelope is the body of a notification.
type Envelope struct {
	Events []Event `json:"events"`
}

// Event is one event in Docker's format: the fields of distribution's notifications, version 1.
type Event struct {
	ID        string    `json:"id"`
	Timestamp time.Time `json:"timestamp"`
	Action    string    `json:"action"` // push, pull, mount, delete; ping for a test
	Target    Target    `json:"target"`
	Request   Request   `json:"request"`
	Actor     Actor     `json:"actor"`
	Source    Source    `json:"source"`
}

// Target is what the event is about.
type Target struct {
	MediaType      string        `json:"mediaType,omitempty"`
	Size           int64         `json:"size,omitempty"` // bytes
	Digest         digest.Digest `json:"digest,omitempty"`
	Length         int64         `json:"length,omitempty"` // the same as Size, for old readers
	Repository     string        `json:"repository,omitempty"`
	FromRepository string        `json:"fromRepository,omitempty"` // of a mount
	URL            string        `json:"url,omitempty"`
	Tag            string        `json:"tag,omitempty"`
	References     []Reference   `json:"references,omitempty"`
}

// Reference is something that a manifest names.
type Reference struct {
	MediaType string        `json:"mediaType,omitempty"`
	Digest    digest.Digest `json:"digest"`
	Size      int64         `json:"size"`
}

// Request is the HTTP request that did it.
type Request struct {
	ID        string `json:"id"`
	Addr      string `json:"addr,omitempty"`
	Host      string `json:"host,omitempty"`
	Method    string `json:"method"`
	UserAgent string `json:"useragent"`
}

// Actor is who did it; empty for an anonymous one.
type Actor struct {
	Name string `json:"name,omitempty"`
}

// Source is the registry that says it.
type Source struct {
	Addr       string `json:"addr,omitempty"`       // HOST:PORT
	InstanceID string `json:"instanceID,omitempty"` // another one after each start
}

// translate makes Docker's event of ours. base is the URL under which the registry is reached, "" when unknown: then the
// event has no URL, because the Host of the request that caused it is a client's word.
func translate(n notice.Event, source Source, base string) Event {
	e := Event{
		ID: n.ID, Timestamp: n.At, Action: string(n.Action),
		Target: Target{MediaType: n.MediaType, Size: n.Size, Length: n.Size, Digest: n.Digest,
			Repository: n.Repository, FromRepository: n.From, Tag: n.Tag},
		Request: Request{ID: n.Request.ID, Addr: n.Request.Addr, Host: n.Request.Host, Method: n.Request.Method, UserAgent: n.Request.UserAgent},
		Actor:   Actor{Name: n.Actor.Name},
		Source:  source,
	}
	for _, r := range n.References {
		e.Target.References = append(e.Target.References, Reference{r.MediaType, r.Digest, r.Size})
	}
	if base != "" && n.Digest != "" && n.Action != notice.Delete {
		kind := "manifests"
		if !n.Manifest() {
			kind = "blobs"
		}
		e.Target.URL = base + "/v2/" + n.Repository + "/" + kind + "/" + string(n.Digest)
	}
	return e
}
