package server

import (
	"net/http"
	"strconv"

	"berth/api/server/wire"
	"berth/base/fault"
	"berth/build/cache"
	"berth/engine"
	"berth/engine/container"
)

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
	u := wire.Usage{}
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
	if want["build-cache"] {
		u.BuildCache = []cache.Usage{}
		if s.cfg.Builds != nil {
			found, err := s.cfg.Builds.DiskUsage(c.ctx(), nil)
			if err != nil {
				return err
			}
			u.BuildCache = append(u.BuildCache, found...)
		}
	}
	return c.json(http.StatusOK, u.DiskUsage(c.v, asked, verbose, s.now()))
}
