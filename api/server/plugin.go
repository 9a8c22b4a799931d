package server

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine/plugin"
	"berth/image/remote"
)

// Plugins are the managed ones.
type Plugins interface {
	List(capabilities []string, enabled *bool) []*plugin.Plugin
	Get(name string) (*plugin.Plugin, error)
	PrivilegesOf(ctx context.Context, name string, cred remote.Credentials) ([]plugin.Privilege, error)
	Pull(ctx context.Context, r plugin.PullRequest) error
	Create(ctx context.Context, name string, r io.Reader) error
	Push(ctx context.Context, name string, cred remote.Credentials, tell func(plugin.Progress)) error
	Enable(ctx context.Context, name string, timeout time.Duration) error
	Disable(ctx context.Context, name string, force bool) error
	Set(name string, changes []string) error
	Remove(ctx context.Context, name string, force bool) error
}

// needPlugins refuses what an engine without managed plugins cannot do.
func needPlugins(handle handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Plugins == nil {
			return fault.New(fault.NotImplemented, "managed plugins are not in this build of Berth")
		}
		return handle(s, c)
	}
}

func pluginList(s *Server, c *call) error {
	filters, err := c.filters("enabled", "capability")
	if err != nil {
		return err
	}
	var enabled *bool
	for _, text := range filters["enabled"] {
		on, err := strconv.ParseBool(text)
		if err != nil {
			return fault.New(fault.Invalid, "invalid filter 'enabled=[%s]'", text)
		}
		enabled = &on
	}
	out := []any{} // not null
	for _, p := range s.cfg.Plugins.List(filters["capability"], enabled) {
		w, err := wire.Plugin(p)
		if err != nil {
			return err
		}
		out = append(out, w)
	}
	return c.json(http.StatusOK, out)
}

func pluginInspect(s *Server, c *call) error {
	p, err := s.cfg.Plugins.Get(c.name)
	if err != nil {
		return err
	}
	w, err := wire.Plugin(p)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, w)
}

func pluginPrivileges(s *Server, c *call) error {
	list, err := s.cfg.Plugins.PrivilegesOf(c.ctx(), c.text("remote"), s.credentials(c))
	if err != nil {
		return ofRegistry(err)
	}
	return c.json(http.StatusOK, list)
}

// pluginPull installs; on a route with a name it upgrades what is installed under it.
func pluginPull(s *Server, c *call) error {
	r := plugin.PullRequest{Remote: c.text("remote"), Name: c.text("name"), Upgrade: c.name, Credentials: s.credentials(c)}
	if r.Remote == "" {
		return fault.New(fault.Invalid, "remote is missing: which plugin?")
	}
	if _, there, err := c.decode(&r.Privileges); err != nil || !there {
		return fault.New(fault.Invalid, "failed to parse the privileges that were granted: a list is wanted")
	}
	if r.Upgrade == "" {
		c.w.Header().Set("Docker-Plugin-Name", r.LocalName()) // clients go on with what stands here
	}
	out := &lines{c: c}
	r.Progress = out.plugin
	return out.end(ofRegistry(s.cfg.Plugins.Pull(c.ctx(), r)))
}

func (l *lines) plugin(p plugin.Progress) {
	l.step(wire.Step{ID: p.ID, Status: p.Status, Current: p.Current, Total: p.Total})
}

func pluginCreate(s *Server, c *call) error {
	if err := s.cfg.Plugins.Create(c.ctx(), c.text("name"), c.r.Body); err != nil {
		return err
	}
	return c.done(http.StatusNoContent)
}

func pluginPush(s *Server, c *call) error {
	out := &lines{c: c}
	return out.end(ofRegistry(s.cfg.Plugins.Push(c.ctx(), c.name, s.credentials(c), out.plugin)))
}

func pluginEnable(s *Server, c *call) error {
	seconds, err := c.number("timeout")
	if err != nil {
		return err
	}
	var timeout time.Duration
	if seconds != nil {
		timeout = time.Duration(*seconds) * time.Second
	}
	if timeout < 0 {
		return fault.New(fault.Invalid, "negative timeout")
	}
	if err := s.cfg.Plugins.Enable(c.ctx(), c.name, timeout); err != nil {
		return s.ofPlugin(c.name, err)
	}
	return c.done(http.StatusOK)
}

// ofPlugin gives what is wrong with a plugin that is there the status that Docker has for it: 404 is for one that is not.
func (s *Server) ofPlugin(name string, err error) error {
	if _, gone := s.cfg.Plugins.Get(name); gone == nil && (fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid)) {
		return fault.Wrap(fault.Internal, err, "")
	}
	return err
}

func pluginDisable(s *Server, c *call) error {
	if err := s.cfg.Plugins.Disable(c.ctx(), c.name, c.flag("force")); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}

func pluginSet(s *Server, c *call) error {
	var changes []string
	if _, _, err := c.decode(&changes); err != nil {
		return err
	}
	if err := s.cfg.Plugins.Set(c.name, changes); err != nil {
		return s.ofPlugin(c.name, err)
	}
	return c.done(http.StatusNoContent)
}

func pluginRemove(s *Server, c *call) error {
	p, err := s.cfg.Plugins.Get(c.name)
	if err != nil {
		return err
	}
	if err := s.cfg.Plugins.Remove(c.ctx(), c.name, c.flag("force")); err != nil {
		return err
	}
	w, err := wire.Plugin(p)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, w)
}
