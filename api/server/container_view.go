package server

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"

	containertypes "github.com/moby/moby/api/types/container"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// views are the verbs that only look.
type views interface {
	Inspect(ctx context.Context, ref string) (container.Info, error)
	List(ctx context.Context, o engine.ListOptions) ([]container.Info, error)
	Size(ctx context.Context, ref string) (writable, whole int64, err error)
	Top(ctx context.Context, ref, psArgs string) (engine.Top, error)
	Stats(ctx context.Context, ref string) (engine.Stats, error)
}

func containerInspect(s *Server, c *call) error {
	info, err := s.cfg.Containers.Inspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	if c.flag("size") && info.SizeRw == nil {
		rw, all, err := s.cfg.Containers.Size(c.ctx(), info.ID)
		if err != nil {
			return err
		}
		info.SizeRw, info.SizeRootFs = &rw, &all
	}
	return c.json(http.StatusOK, wire.Inspect(&info, &s.cfg.Defaults, s.networkIDs(), c.v))
}

// listFilters are the filters of GET /containers/json.
var listFilters = []string{"ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume"}

func containerList(s *Server, c *call) error {
	filters, err := c.filters(listFilters...)
	if err != nil {
		return err
	}
	if err := checkListFilters(filters); err != nil {
		return err
	}
	limit, err := c.number("limit")
	if err != nil {
		return err
	}
	o := engine.ListOptions{All: c.flag("all"), Size: c.flag("size"), Before: c.text("before"), Since: c.text("since")}
	if limit != nil {
		o.Limit = *limit
	}
	annotations := filters["annotation"]
	delete(filters, "annotation") // the engine does not know them: picked below, and with them the limit
	o.Filters = filters
	cut := o.Limit
	if len(annotations) > 0 {
		o.All, o.Limit = o.All || o.Limit > 0, 0
	}
	all, err := s.cfg.Containers.List(c.ctx(), o)
	if err != nil {
		return err
	}
	if len(annotations) > 0 {
		all = slices.DeleteFunc(slices.Clone(all), func(i container.Info) bool { return !hasAll(i.Spec.Annotations, annotations) })
		if cut > 0 && len(all) > cut {
			all = all[:cut]
		}
	}
	names, ids := s.imageNames(), s.networkIDs()
	out, now := make([]containertypes.Summary, len(all)), s.now()
	for i := range all {
		out[i] = wire.Summary(&all[i], names.of(&all[i]), ids, c.v, now)
	}
	return c.json(http.StatusOK, out)
}

// checkListFilters refuses values that no container can have.
func checkListFilters(f map[string][]string) error {
	if err := onlyValues(f, "status", "created", "restarting", "running", "removing", "paused", "exited", "dead"); err != nil {
		return err
	}
	if err := onlyValues(f, "health", "none", "starting", "healthy", "unhealthy"); err != nil {
		return err
	}
	if err := onlyValues(f, "is-task", "true", "false", "1", "0"); err != nil {
		return err
	}
	for _, v := range f["exited"] {
		if _, err := strconv.Atoi(v); err != nil {
			return fault.Wrap(fault.Invalid, err, "invalid filter 'exited=%s'", v)
		}
	}
	return nil
}

// hasAll reports whether m fits every selector, "key" or "key=value".
func hasAll(m map[string]string, selectors []string) bool {
	for _, s := range selectors {
		key, want, pair := strings.Cut(s, "=")
		if got, there := m[key]; !there || pair && got != want {
			return false
		}
	}
	return true
}

// imageNames remembers, for one list, which names still mean the image that a container was made from.
type imageNames struct {
	images Images
	ids    map[string]string
}

func (s *Server) imageNames() *imageNames { return &imageNames{s.cfg.Images, map[string]string{}} }

// of gives the name that list shows for a container's image: the one it was made with, as long as it means that image.
func (n *imageNames) of(i *container.Info) string {
	name := i.Spec.Image
	if name == i.ImageID || n.images == nil {
		return name
	}
	id, known := n.ids[name]
	if !known {
		if img, err := n.images.Resolve(name); err == nil {
			id = img.ID
		}
		n.ids[name] = id
	}
	if id != i.ImageID {
		return i.ImageID
	}
	return name
}

func containerTop(s *Server, c *call) error {
	args := c.text("ps_args")
	if args == "" {
		args = "-ef"
	}
	top, err := s.cfg.Containers.Top(c.ctx(), c.name, args)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, containertypes.TopResponse{Processes: top.Processes, Titles: top.Titles})
}
