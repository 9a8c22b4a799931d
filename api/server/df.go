package server

import (
	"net/http"
	"strconv"

	"github.com/moby/moby/api/types/build"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// buildPrune empties the build cache. There is none yet, and `docker system prune` must not stumble over that.
func buildPrune(s *Server, c *call) error {
	if _, err := c.filters("until", "id", "parent", "type", "description", "inuse", "shared", "private", "label"); err != nil {
		return fault.In(err, "failed to prune build cache")
	}
	for _, size := range []string{"keep-storage", "reserved-space", "max-used-space", "min-free-space"} {
		if text := c.text(size); text != "" {
			if _, err := strconv.ParseInt(text, 10, 64); err != nil {
				return fault.Wrap(fault.Invalid, err, "%s is in bytes and expects an integer", size)
			}
		}
	}
	s.publish("builder", "prune", map[string]string{"reclaimed": "0"})
	return c.json(http.StatusOK, build.CachePruneReport{})
}

// diskUsage tells what takes room. From 1.42 on a client may ask for single kinds of things.
func diskUsage(s *Server, c *call) error {
	want := map[string]bool{}
	if kinds, given := c.q["type"]; given && c.v >= 42 {
		for _, k := range kinds {
			switch k {
			case "container", "image", "volume", "build-cache":
				want[k] = true
			default:
				return fault.New(fault.Invalid, "unknown object type: %s", k)
			}
		}
	} else {
		want = map[string]bool{"container": true, "image": true, "volume": true, "build-cache": true}
	}
	asked, verbose := c.v >= 52 && c.text("verbose") != "", false
	if asked {
		var err error
		if verbose, err = strconv.ParseBool(c.text("verbose")); err != nil {
			return fault.New(fault.Invalid, "invalid value for verbose: %s", c.text("verbose"))
		}
	}
	u := wire.Usage{BuildCache: want["build-cache"]}
	if want["volume"] {
		var err error
		if u.Volumes, err = s.volumeUses(c.ctx()); err != nil {
			return err
		}
	}
	if want["container"] {
		all, err := s.cfg.Containers.List(c.ctx(), engine.ListOptions{All: true, Size: true})
		if err != nil {
			return err
		}
		u.Containers = append([]container.Info{}, all...)
	}
	if want["image"] && s.cfg.Images != nil {
		var err error
		if u.Images, err = s.cfg.Images.DiskUsage(c.ctx()); err != nil {
			return err
		}
	}
	return c.json(http.StatusOK, u.DiskUsage(c.v, asked, verbose, s.now()))
}
