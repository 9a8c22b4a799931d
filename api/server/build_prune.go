package server

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	buildtypes "github.com/moby/moby/api/types/build"

	"berth/base/fault"
	"berth/build/cache"
)

// buildPrune removes what builds keep and nothing uses. Without a builder there is nothing, and `docker system prune` must not stumble
// over that.
func buildPrune(s *Server, c *call) error {
	o, err := s.cachePruneOptions(c)
	if err != nil {
		return err
	}
	report := buildtypes.CachePruneReport{}
	if s.cfg.Builds != nil {
		err = s.cfg.Builds.Prune(c.ctx(), o, func(u cache.Usage) {
			report.CachesDeleted = append(report.CachesDeleted, u.ID)
			report.SpaceReclaimed += uint64(max(u.Size, 0))
		})
		if err != nil {
			return fault.In(err, "failed to prune build cache")
		}
	}
	s.publish("builder", "prune", map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return c.json(http.StatusOK, report)
}

// cachePruneOptions reads what is to be removed, and what kept.
func (s *Server) cachePruneOptions(c *call) (o cache.PruneOptions, err error) {
	fields := []string{"id", "parent", "type", "description", "inuse", "shared", "private"}
	f, err := c.filters(append([]string{"until", "unused-for", "label"}, fields...)...)
	if err != nil {
		return o, fault.In(err, "failed to prune build cache")
	}
	o.All = c.flag("all")
	for key, to := range map[string]*int64{"keep-storage": &o.ReservedSpace, "reserved-space": &o.ReservedSpace, "max-used-space": &o.MaxUsedSpace, "min-free-space": &o.MinFreeSpace} {
		text := c.text(key)
		if text == "" {
			continue
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return o, fault.Wrap(fault.Invalid, err, "%s is in bytes and expects an integer", key)
		}
		if n != 0 || *to == 0 {
			*to = n
		}
	}
	until := append(append([]string{}, f["until"]...), f["unused-for"]...)
	switch len(until) {
	case 0:
	case 1:
		if o.KeepDuration, err = s.since(until[0]); err != nil {
			return o, err
		}
	default:
		return o, fault.New(fault.Invalid, "failed to prune build cache: filters expect only one value")
	}
	var all []string
	for _, field := range fields {
		switch values := f[field]; {
		case len(values) == 0:
		case len(values) > 1:
			return o, fault.New(fault.Invalid, "failed to prune build cache: filters expect only one value")
		case field == "id":
			all = append(all, field+"~="+values[0])
		case field == "inuse" || field == "shared" || field == "private":
			all = append(all, field)
		default:
			all = append(all, field+"=="+values[0])
		}
	}
	if len(all) > 0 {
		o.Filters = []string{strings.Join(all, ",")}
	}
	return o, nil
}

// since gives how long ago a moment is that is written as a duration or as a time.
func (s *Server) since(text string) (time.Duration, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return d, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return s.now().Sub(t), nil
	}
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, fault.New(fault.Invalid, "failed to prune build cache: until: %q is no duration, no RFC 3339 time and no number of seconds since 1970", text)
	}
	return s.now().Sub(time.Unix(0, int64(seconds*1e9))), nil
}
