package history

import (
	"encoding/csv"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/pkg/filters"
	"github.com/moby/buildkit/util/gitutil"

	"berth/base/fault"
)

// match is one condition on a record.
type match func(*Record) bool

// parseFilters reads filters as buildx sends them. A record passes if it meets all conditions of any.
func parseFilters(in []string, now time.Time) (match, error) {
	if len(in) == 0 {
		return func(*Record) bool { return true }, nil
	}
	var any []match
	for _, f := range in {
		m, err := parseFilter(f, now)
		if err != nil {
			return nil, err
		}
		any = append(any, m)
	}
	return func(r *Record) bool {
		for _, m := range any {
			if m(r) {
				return true
			}
		}
		return false
	}, nil
}

func parseFilter(in string, now time.Time) (match, error) {
	fields, err := csv.NewReader(strings.NewReader(in)).Read()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "history filter %q", in)
	}
	var all []match
	var words []string
	for _, f := range fields {
		m, err := parseTime(f, now)
		if err != nil {
			return nil, err
		}
		if m == nil {
			words = append(words, f)
			continue
		}
		all = append(all, m)
	}
	named, err := filters.ParseAll(strings.Join(words, ","))
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "failed to parse history filters %v", in)
	}
	all = append(all, func(r *Record) bool { return named.Match(fieldsOf(r)) })
	return func(r *Record) bool {
		for _, m := range all {
			if !m(r) {
				return false
			}
		}
		return true
	}, nil
}

// parseTime reads a condition on a time: startedAt>=24h, completedAt<2026-01-02T03:04:05Z, duration>10s. nil: it is none.
func parseTime(f string, now time.Time) (match, error) {
	at := strings.IndexAny(f, "<>")
	if at < 0 {
		return nil, nil
	}
	key, op, value := f[:at], f[at:at+1], f[at+1:]
	if strings.HasPrefix(value, "=") {
		op, value = op+"=", value[1:]
	}
	var limit int64
	switch key {
	case "startedAt", "completedAt":
		if d, err := time.ParseDuration(value); err == nil {
			limit = now.Add(-d).Unix()
		} else if t, err := time.Parse(time.RFC3339, value); err == nil {
			limit = t.Unix()
		} else {
			return nil, fault.New(fault.Invalid, "invalid time %s", value)
		}
	case "duration":
		d, err := time.ParseDuration(value)
		if err != nil {
			return nil, fault.New(fault.Invalid, "invalid duration %s", value)
		}
		limit = int64(d)
	default:
		return nil, nil
	}
	return func(r *Record) bool { return compare(measure(r, key), op, limit) }, nil
}

func measure(r *Record, key string) int64 {
	switch {
	case key == "startedAt":
		return r.Created.Unix()
	case r.Completed.IsZero():
		return 0
	case key == "completedAt":
		return r.Completed.Unix()
	}
	return int64(r.Completed.Sub(r.Created))
}

func compare(v int64, op string, limit int64) bool {
	switch op {
	case ">=":
		return v >= limit
	case "<=":
		return v <= limit
	case ">":
		return v > limit
	}
	return v < limit
}

// fieldsOf gives a record's fields to containerd's filters: ref, status, repository.
func fieldsOf(r *Record) filters.Adaptor {
	return filters.AdapterFunc(func(path []string) (string, bool) {
		if len(path) == 0 {
			return "", false
		}
		switch path[0] {
		case "ref":
			return r.ID, r.ID != ""
		case "status":
			return r.Status(), true
		case "repository":
			if v, ok := r.FrontendAttrs["vcs:source"]; ok {
				return v, true
			}
			if u, err := gitutil.ParseURL(r.FrontendAttrs["context"]); err == nil {
				return u.Remote, true
			}
		}
		return "", false
	})
}

// isCanceled reports whether an error's words say that somebody did not want the build any more.
func isCanceled(message string) bool { return strings.Contains(message, "context canceled") }
