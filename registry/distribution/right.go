package distribution

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/storage"
)

// may finds out who calls and refuses him unless he may do all of it to the request's repository.
func (c *call) may(actions ...access.Action) error {
	s, err := c.cfg.Who(c.r)
	if err != nil {
		return c.denied(err, c.repo, actions...)
	}
	c.subject = s
	for _, a := range actions {
		ok, err := c.cfg.Access.Allowed(c.r.Context(), s, c.repo, a)
		if err != nil {
			return err
		}
		if !ok {
			return c.refused(actions)
		}
	}
	return nil
}

// refused makes the answer to a caller who may not. One who has shown nothing yet, or a token that is good for other things, is told how to
// come back; one whom we know is told no.
func (c *call) refused(actions []access.Action) error {
	shown := c.r.Header.Get("Authorization") != ""
	if !shown && c.cfg.Challenge != nil {
		return c.denied(fault.New(fault.Unauthorized, "authentication required"), c.repo, actions...)
	}
	no := &apiError{status: http.StatusForbidden, code: "DENIED", message: "requested access to the resource is denied"}
	narrow := false
	for _, a := range actions {
		narrow = narrow || !c.subject.Limit.Has(c.repo, a)
	}
	if c.cfg.Challenge != nil && (c.subject.Anonymous() || narrow) {
		c.challenge(c.repo, actions)
		no.status = http.StatusUnauthorized
	}
	return no
}

// denied makes the answer to a caller whom we do not know.
func (c *call) denied(err error, repository string, actions ...access.Action) error {
	if !fault.Is(err, fault.Unauthorized) {
		return err
	}
	if c.cfg.Challenge != nil {
		c.challenge(repository, actions)
	}
	return &apiError{status: http.StatusUnauthorized, code: "UNAUTHORIZED", message: err.Error()}
}

// mayPull reports whether the caller may pull from another repository, without a word to him.
func (c *call) mayPull(repository string) bool {
	ok, err := c.cfg.Access.Allowed(c.r.Context(), c.subject, repository, access.Pull)
	return err == nil && ok
}

// widen asks a caller whose token is too narrow for the repository that he mounts from to come back with one that is good for
// both. nil when that would be in vain: then he gets an upload.
func (c *call) widen(from string) error {
	if c.cfg.Challenge == nil || c.subject.Limit.Has(from, access.Pull) {
		return nil
	}
	himself := c.subject
	himself.Limit = nil
	if ok, err := c.cfg.Access.Allowed(c.r.Context(), himself, from, access.Pull); err != nil || !ok {
		return err
	}
	if !c.challenge(c.repo, []access.Action{access.Pull, access.Push}) {
		c.w.Header().Del("WWW-Authenticate") // a scheme without scopes: coming back would change nothing
		return nil
	}
	return &apiError{status: http.StatusUnauthorized, code: "DENIED", message: "requested access to the resource is denied"}
}

// challenge tells the caller how to sign in. For a mount the scope has the source as well: clients ask for what they are told and come back
// once. It reports whether there is a scope at all.
func (c *call) challenge(repository string, actions []access.Action) bool {
	c.cfg.Challenge(c.w, c.r, repository, actions...)
	h := c.w.Header()
	before, scope, found := strings.Cut(h.Get("WWW-Authenticate"), `scope="`)
	q := c.r.URL.Query()
	if from := q.Get("from"); found && q.Get("mount") != "" && storage.CheckName(from) == nil {
		h.Set("WWW-Authenticate", before+`scope="repository:`+from+`:pull `+scope)
	}
	return found
}

// claim asks whether a repository that does not exist may come into being.
func (c *call) claim() error {
	if c.cfg.Storage.Exists(c.repo) {
		return nil
	}
	return c.cfg.Claim(c.r.Context(), c.subject, c.repo)
}

// room refuses what does not fit into the repository's quota.
func (c *call) room(more int64) error {
	return c.cfg.Quota(c.r.Context(), c.repo, max(more, 0))
}

// forgotten is for how long nobody has added to an upload that gives way to another one.
const forgotten = 10 * time.Minute

// roomToArrive is room for the request's body beside all that has arrived and has no name yet, or a quota would not bound what lies on
// the disk. Uploads that their clients have left give way.
func (c *call) roomToArrive() error {
	arriving := func() error { return c.room(c.cfg.Storage.Arriving(c.repo) + max(c.r.ContentLength, 0)) }
	full := arriving()
	if full == nil {
		return nil
	}
	if err := c.cfg.Storage.DropIdle(context.WithoutCancel(c.r.Context()), c.repo, forgotten); err != nil {
		c.cfg.Log.Warn("uploads that were left could not be dropped", "repository", c.repo, "error", err)
	}
	return arriving()
}

// roomFor is room for a blob, which takes none when the repository holds it already.
func (c *call) roomFor(d digest.Digest, size int64) error {
	full := c.room(size)
	if full == nil {
		return nil
	}
	if _, err := c.cfg.Storage.StatBlob(c.r.Context(), c.repo, d); err == nil {
		return nil
	}
	return full
}
