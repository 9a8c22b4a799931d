package container

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/id"
	"berth/network"
)

// Lookup resolves the references that filters may hold.
type Lookup struct {
	Container func(ref string) (*Info, error)
	Images    func(ref string) (ids []string, err error) // an image and those that were made from it
	Now       time.Time
}

// Matcher decides about one snapshot.
type Matcher func(*Info) bool

// listFilters are the names that list accepts; pruneFilters those of prune.
var (
	listFilters  = []string{"ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network", "publish", "since", "status", "volume"}
	pruneFilters = []string{"label", "label!", "until"}
)

// ForList compiles the filters of a list. Different names must all match, values of one name need one that does; labels must all match.
func (f Filters) ForList(l Lookup) (Matcher, error) {
	if err := f.known(listFilters); err != nil {
		return nil, err
	}
	var all []Matcher
	add := func(m Matcher, err error) error {
		if err == nil {
			all = append(all, m)
		}
		return err
	}
	for name, values := range f {
		if len(values) == 0 {
			continue
		}
		if err := add(compileFilter(name, values, l)); err != nil {
			return nil, err
		}
	}
	return every(all), nil
}

// ForPrune compiles the filters of a prune.
func (f Filters) ForPrune(l Lookup) (Matcher, error) {
	if err := f.known(pruneFilters); err != nil {
		return nil, err
	}
	all := []Matcher{}
	if v := f["label"]; len(v) > 0 {
		all = append(all, hasLabels(v))
	}
	if v := f["label!"]; len(v) > 0 {
		has := hasLabels(v)
		all = append(all, func(i *Info) bool { return !has(i) })
	}
	switch v := f["until"]; {
	case len(v) > 1:
		return nil, fault.New(fault.Invalid, "more than one until filter specified")
	case len(v) == 1:
		until, err := moment(v[0], l.Now)
		if err != nil {
			return nil, err
		}
		all = append(all, func(i *Info) bool { return i.Created.Before(until) })
	}
	return every(all), nil
}

// NeedsAll reports whether the filters ask for containers that do not run.
func (f Filters) NeedsAll() bool { return len(f["status"]) > 0 }

func (f Filters) known(names []string) error {
	for name := range f {
		if !slices.Contains(names, name) {
			return fault.New(fault.Invalid, "invalid filter '%s'", name)
		}
	}
	return nil
}

func compileFilter(name string, values []string, l Lookup) (Matcher, error) {
	switch name {
	case "id":
		return matches(values, func(i *Info) []string { return []string{i.ID} }), nil
	case "name":
		return matches(values, func(i *Info) []string { return []string{i.Name, "/" + i.Name} }), nil
	case "label":
		return hasLabels(values), nil
	case "status":
		return hasStatus(values)
	case "exited":
		return hasExited(values)
	case "before", "since":
		return orderedTo(name, values, l)
	case "ancestor":
		return hasAncestor(values, l), nil
	case "volume":
		return hasMount(values), nil
	case "network":
		return onNetwork(values), nil
	case "expose":
		return exposes(values)
	case "publish":
		return publishes(values)
	case "health":
		for _, v := range values {
			if !slices.Contains([]string{"none", "starting", "healthy", "unhealthy"}, v) {
				return nil, invalidFilter("health", v)
			}
		}
		return func(i *Info) bool { return slices.Contains(values, string(i.State.HealthStatus())) }, nil
	case "is-task":
		task, err := truth(values)
		if err != nil {
			return nil, invalidFilter("is-task", values[0])
		}
		return func(*Info) bool { return !task }, nil
	}
	return func(*Info) bool { return true }, nil // isolation is a word of Windows
}

// Name gives the network's name as list and filters use it.
func (n Network) Name() string {
	switch {
	case n.Disabled:
		return "none"
	case n.Mode == "", n.Mode == "default":
		return "bridge"
	}
	return n.Mode
}

func every(all []Matcher) Matcher {
	return func(i *Info) bool {
		for _, m := range all {
			if !m(i) {
				return false
			}
		}
		return true
	}
}

// matches compares as Docker does: the exact text, or the value read as a regular expression.
func matches(values []string, texts func(*Info) []string) Matcher {
	var patterns []*regexp.Regexp
	for _, v := range values {
		if p, err := regexp.Compile(v); err == nil {
			patterns = append(patterns, p)
		}
	}
	return func(i *Info) bool {
		for _, t := range texts(i) {
			if slices.Contains(values, t) || slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(t) }) {
				return true
			}
		}
		return false
	}
}

func hasLabels(values []string) Matcher {
	return func(i *Info) bool {
		for _, v := range values {
			name, want, hasValue := strings.Cut(v, "=")
			got, ok := i.Spec.Labels[name]
			if !ok || hasValue && got != want {
				return false
			}
		}
		return true
	}
}

func hasStatus(values []string) (Matcher, error) {
	known := []Status{Created, Running, Paused, Restarting, Removing, Exited, Dead}
	for _, v := range values {
		if !slices.Contains(known, Status(v)) {
			return nil, invalidFilter("status", v)
		}
	}
	return func(i *Info) bool { return slices.Contains(values, string(i.State.Status)) }, nil
}

func hasExited(values []string) (Matcher, error) {
	var codes []int
	for _, v := range values {
		n, err := strconv.Atoi(v)
		if err != nil {
			return nil, invalidFilter("exited", v)
		}
		codes = append(codes, n)
	}
	return func(i *Info) bool {
		return !i.State.Running && !i.State.StartedAt.IsZero() && slices.Contains(codes, i.State.ExitCode)
	}, nil
}

func orderedTo(name string, values []string, l Lookup) (Matcher, error) {
	var mark *Info
	for _, v := range values {
		i, err := l.Container(v)
		if err != nil {
			return nil, err
		}
		mark = i
	}
	if name == "before" {
		return func(i *Info) bool { return i.Created.Before(mark.Created) }, nil
	}
	return func(i *Info) bool { return i.Created.After(mark.Created) }, nil
}

func hasAncestor(values []string, l Lookup) Matcher {
	var ids []string
	for _, v := range values {
		if family, err := l.Images(v); err == nil { // an unknown image has no containers
			ids = append(ids, family...)
		}
	}
	return func(i *Info) bool { return slices.Contains(ids, i.ImageID) }
}

func hasMount(values []string) Matcher {
	return func(i *Info) bool {
		return slices.ContainsFunc(i.Mounts, func(m MountPoint) bool {
			return slices.Contains(values, m.Destination) || m.Name != "" && slices.Contains(values, m.Name) || m.Name == "" && m.Source != "" && slices.Contains(values, m.Source)
		})
	}
}

type portRange struct {
	from, to uint64
	proto    string
}

func exposes(values []string) (Matcher, error) {
	ranges, err := portRanges(values)
	if err != nil {
		return nil, err
	}
	return func(i *Info) bool {
		for _, p := range i.Spec.ExposedPorts {
			number, proto, _ := strings.Cut(p, "/")
			n, err := strconv.ParseUint(number, 10, 16)
			if err == nil && slices.ContainsFunc(ranges, func(r portRange) bool { return r.from <= n && n <= r.to && r.proto == proto }) {
				return true
			}
		}
		return false
	}, nil
}

// publishes matches the ports of the host that lead to a container while it runs.
func publishes(values []string) (Matcher, error) {
	ranges, err := portRanges(values)
	if err != nil {
		return nil, err
	}
	return func(i *Info) bool {
		return slices.ContainsFunc(i.Sandbox.Ports, func(p network.Port) bool {
			n := uint64(p.HostPort)
			return slices.ContainsFunc(ranges, func(r portRange) bool { return r.from <= n && n <= r.to && r.proto == p.Proto })
		})
	}, nil
}

// onNetwork matches each network of a container, by its name or the beginning of its id.
func onNetwork(values []string) Matcher {
	return func(i *Info) bool {
		if slices.Contains(values, i.Spec.Network.Name()) {
			return true
		}
		for _, p := range i.Spec.Network.Endpoints {
			if slices.Contains(values, p.Network) {
				return true
			}
		}
		for _, p := range i.Sandbox.Endpoints {
			if slices.ContainsFunc(values, func(v string) bool { return v == p.NetworkName || id.IsHex(v) && strings.HasPrefix(p.NetworkID, v) }) {
				return true
			}
		}
		return false
	}
}

// portRanges reads "80", "80/udp", "8000-8100/tcp".
func portRanges(values []string) ([]portRange, error) {
	var ranges []portRange
	for _, v := range values {
		ports, proto, ok := strings.Cut(v, "/")
		if !ok {
			proto = "tcp"
		}
		from, to, isRange := strings.Cut(ports, "-")
		if !isRange {
			to = from
		}
		a, err1 := strconv.ParseUint(from, 10, 16)
		b, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil || b < a || !slices.Contains([]string{"tcp", "udp", "sctp"}, proto) {
			return nil, fault.New(fault.Invalid, "invalid filter: %q is no port, PORT[-PORT][/PROTOCOL]", v)
		}
		ranges = append(ranges, portRange{a, b, proto})
	}
	return ranges, nil
}

func truth(values []string) (bool, error) {
	if len(values) != 1 {
		return false, fault.New(fault.Invalid, "one value wanted")
	}
	return strconv.ParseBool(values[0])
}

// moment reads a time as Docker's filters take it: a duration before now, seconds since the epoch, or RFC 3339 and its shorter forms.
func moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	sec, frac, _ := strings.Cut(s, ".")
	if n, err := strconv.ParseInt(sec, 10, 64); err == nil {
		nano, err := strconv.ParseInt((frac + "000000000")[:9], 10, 64)
		if err != nil {
			return time.Time{}, invalidFilter("until", s)
		}
		return time.Unix(n, nano), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02Z07:00", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, invalidFilter("until", s)
}

func invalidFilter(name, value string) error {
	return fault.New(fault.Invalid, "invalid filter '%s=%s'", name, value)
}
