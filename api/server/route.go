package server

import (
	"path"
	"sort"
	"strings"

	"berth/api/server/wire"
)

// route is one line of the table.
type route struct {
	method string
	path   string // "/containers/{name}/json"; {name} takes any text, slashes too, as Docker's
	since  wire.Version
	handle handler // nil: this build has not got it
	lacks  string  // then: what, as the beginning of a sentence
	alone  string  // and what an engine says that is in no swarm: 503
	absent string  // and where one thing is asked for by name: the 404 that says there is none, around %s
	note   string  // what is different from Docker, for docs/compatibility.md
	own    bool    // Berth's, not Docker's
	stream bool    // goes on until the client or the server leaves
}

type handler func(s *Server, c *call) error

// table finds routes.
type table struct {
	byHead map[string][]entry // method and first path element
}

type entry struct {
	route          *route
	prefix, suffix string // around {name}; without one, prefix is the whole path
	named          bool
	open           bool // anything may follow suffix: the path has a second {…}, which no handler needs
}

func newTable(routes []route) *table {
	t := &table{byHead: map[string][]entry{}}
	for i := range routes {
		r := &routes[i]
		e := entry{route: r}
		e.prefix, e.suffix, e.named = strings.Cut(r.path, "{name}")
		e.suffix, _, e.open = strings.Cut(e.suffix, "{")
		h := head(r.method, r.path)
		t.byHead[h] = append(t.byHead[h], e)
	}
	for _, entries := range t.byHead {
		// A whole path wins over a pattern; among patterns the one that says more.
		sort.SliceStable(entries, func(a, b int) bool {
			if entries[a].named != entries[b].named {
				return !entries[a].named
			}
			return len(entries[a].prefix)+len(entries[a].suffix) > len(entries[b].prefix)+len(entries[b].suffix)
		})
	}
	return t
}

func head(method, p string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	return method + " " + first
}

// find gives the route of a path without version, and the text that stands for {name}.
func (t *table) find(method, p string) (*route, string) {
	if p == "/networks/" { // of Docker's lists this one alone has both names
		p = "/networks"
	}
	for _, e := range t.byHead[head(method, p)] {
		if !e.named {
			if p == e.prefix {
				return e.route, ""
			}
			continue
		}
		if e.open && strings.HasPrefix(p, e.prefix) {
			if name, rest, ok := strings.Cut(p[len(e.prefix):], e.suffix); ok && name != "" && rest != "" {
				return e.route, name
			}
			continue
		}
		if len(p) > len(e.prefix)+len(e.suffix) && strings.HasPrefix(p, e.prefix) && strings.HasSuffix(p, e.suffix) {
			return e.route, p[len(e.prefix) : len(p)-len(e.suffix)]
		}
	}
	return nil, ""
}

// splitVersion takes "/v1.44" off a path. version is "" where there is none.
func splitVersion(p string) (version, rest string) {
	if !strings.HasPrefix(p, "/v") {
		return "", p
	}
	first, rest, slash := strings.Cut(p[2:], "/")
	if !slash || first == "" || strings.Trim(first, "0123456789.") != "" {
		return "", p
	}
	return first, "/" + rest
}

// cleanPath takes ".", ".." and doubled slashes out of a path and keeps a slash at the end.
func cleanPath(p string) string {
	if p == "" {
		return "/"
	}
	if p[0] != '/' {
		p = "/" + p
	}
	clean := path.Clean(p)
	if p[len(p)-1] == '/' && clean != "/" {
		clean += "/"
	}
	return clean
}
