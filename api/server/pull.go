package server

import (
	"context"
	"strings"

	"github.com/containerd/platforms"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/base/ref"
	"berth/image/transfer"
)

// Transfer brings images from registries and to them.
type Transfer interface {
	PlanPull(ctx context.Context, r transfer.PullRequest) (*transfer.PullPlan, error)
	Pull(ctx context.Context, r transfer.PullRequest) (*transfer.Pulled, error)
	PlanPush(ctx context.Context, r transfer.PushRequest) (*transfer.PushPlan, error)
	Push(ctx context.Context, r transfer.PushRequest) (*transfer.Pushed, error)
}

// pullHeader is how Berth's own client asks for more than Docker's has: words of pullWords, with commas between them. Each can be a query
// value as well, lazy=1. Both are ignored by other engines.
const pullHeader = "Berth-Pull"

// What a client may ask of a pull beside what Docker knows.
const (
	pullLazy  = "lazy"           // do not wait for layers that can be served before they are here
	pullStale = "stale-if-error" // take the copy that is here when the registry cannot be asked
)

// imagePull is POST /images/create with fromImage.
func imagePull(s *Server, c *call) error {
	r, err := s.pullRequest(c)
	if err != nil {
		return err
	}
	return s.transfer(c, func(ctx context.Context, tell func(transfer.Progress)) error {
		r.Progress = tell
		_, err := s.cfg.Transfer.Pull(ctx, r)
		return err
	})
}

// transfer runs a pull or push and streams what it tells. It ends with the client and with the engine.
func (s *Server) transfer(c *call, do func(ctx context.Context, tell func(transfer.Progress)) error) error {
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	out := &lines{c: c}
	err := ofRegistry(do(ctx, out.transfer))
	if err != nil && s.leaving.Err() != nil && c.ctx().Err() == nil {
		err = fault.New(fault.Unavailable, "the engine is being stopped: do it again when it is back, what has arrived is not sent twice")
	}
	return out.end(err)
}

// pullRequest reads what is to be pulled. A name alone means all tags of the repository, in every version of the API.
func (s *Server) pullRequest(c *call) (r transfer.PullRequest, err error) {
	if s.cfg.Transfer == nil {
		return r, fault.New(fault.NotImplemented, "pulling images is not in this build of Berth: load %s from an archive (docker load), or import a file system (docker import)", c.text("fromImage"))
	}
	// Before 1.32 a value called platform was nobody's.
	if text := c.text("platform"); text != "" && c.v >= 32 {
		p, err := platforms.Parse(text)
		if err != nil {
			return r, fault.Wrap(fault.Invalid, err, "")
		}
		r.Platform = stored(&p)
	}
	// `docker pull -a` of old sends the name with a colon at its end.
	if r.Name, err = ref.Parse(strings.TrimSuffix(c.text("fromImage"), ":")); err != nil {
		return r, err
	}
	if r.Name, err = withTagOrDigest(r.Name, c.text("tag")); err != nil {
		return r, err
	}
	if r.Name.FamiliarName() == "scratch" {
		return r, fault.New(fault.Forbidden, "'scratch' is a reserved name")
	}
	r.AllTags = r.Name.IsNameOnly()
	r.Credentials = s.credentials(c)
	r.Lazy, r.StaleIfError = c.pullWord(pullLazy), c.pullWord(pullStale)
	return r, nil
}

// pullWord reports whether a client asks for one of Berth's own kinds of pulling.
func (c *call) pullWord(word string) bool {
	for _, w := range strings.Split(c.r.Header.Get(pullHeader), ",") {
		if strings.TrimSpace(w) == word {
			return true
		}
	}
	return c.flag(word)
}

// withTagOrDigest puts what the query value "tag" says to a name: a digest can stand there, too.
func withTagOrDigest(name ref.Ref, tag string) (ref.Ref, error) {
	if tag == "" {
		return name, nil
	}
	if digested, err := ref.Parse(name.Repository() + "@" + tag); err == nil {
		return digested, nil
	}
	return name.WithTag(tag)
}

// imagePush is POST /images/NAME/push.
func imagePush(s *Server, c *call) error {
	r, err := s.pushRequest(c)
	if err != nil {
		return err
	}
	return s.transfer(c, func(ctx context.Context, tell func(transfer.Progress)) error {
		r.Progress = tell
		_, err := s.cfg.Transfer.Push(ctx, r)
		return err
	})
}

// pushRequest reads what is to be pushed. Without a tag: all tags of the repository.
func (s *Server) pushRequest(c *call) (r transfer.PushRequest, err error) {
	if s.cfg.Transfer == nil {
		return r, fault.New(fault.NotImplemented, "pushing images is not in this build of Berth")
	}
	if r.Name, err = ref.Parse(c.name); err != nil {
		return r, err
	}
	if tag := c.text("tag"); tag != "" {
		if r.Name, err = r.Name.WithTag(tag); err != nil {
			return r, err
		}
	}
	p, err := c.platform("platform", 46)
	if err != nil {
		return r, err
	}
	r.Platform = stored(p)
	r.AllTags = r.Name.IsNameOnly()
	if r.Credentials, err = s.pushCredentials(c); err != nil {
		return r, err
	}
	return r, nil
}

// transfer writes a message of the transfer. The first one of a pull says only what was asked for.
func (l *lines) transfer(p transfer.Progress) {
	line := wire.ProgressLine(wire.Step{ID: p.ID, Status: p.Status, Current: p.Current, Total: p.Total, Aux: p.Aux}, l.c.v)
	if !l.c.began && l.held == nil && wire.Announces(p.Status) {
		l.hold(line)
		return
	}
	l.write(line)
}

// pullPlan answers with what POST /images/create would do, and does nothing.
func pullPlan(s *Server, c *call) error {
	if c.text("fromImage") == "" {
		return fault.New(fault.Invalid, "fromImage is missing: which image?")
	}
	r, err := s.pullRequest(c)
	if err != nil {
		return err
	}
	plan, err := s.cfg.Transfer.PlanPull(c.ctx(), r)
	if err != nil {
		return err
	}
	return c.plan(plan)
}

// pushPlan answers with what POST /images/NAME/push would do, and does nothing.
func pushPlan(s *Server, c *call) error {
	r, err := s.pushRequest(c)
	if err != nil {
		return err
	}
	plan, err := s.cfg.Transfer.PlanPush(c.ctx(), r)
	if err != nil {
		return err
	}
	return c.plan(plan)
}
