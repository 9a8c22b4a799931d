package catalog

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/registry/access"
	"berth/registry/door"
)

// Found is one page of what a search found.
type Found struct {
	Total   int     `json:"total"` // all that the asker may see, not only this page
	Entries []Entry `json:"entries"`
}

// Search gives page (from 1) of n entries of what the subject may pull and has every word of the query, best
// first: the very name, then names, then what only mentions it; within that official ones, stars, pulls.
// A query without a word finds everything.
func (c *Catalog) Search(ctx context.Context, s access.Subject, query string, n, page int) (Found, error) {
	entries, err := c.visible(ctx, s, query)
	if err != nil {
		return Found{}, err
	}
	return Found{Total: len(entries), Entries: pageOf(entries, n, page)}, nil
}

// visible gives all entries for a query that the subject may pull. Rights are asked without any lock held.
func (c *Catalog) visible(ctx context.Context, s access.Subject, query string) ([]Entry, error) {
	c.mu.RLock()
	all := c.index.search(query)
	c.mu.RUnlock()
	mine := all[:0]
	for _, e := range all {
		ok, err := c.cfg.Access.Allowed(ctx, s, e.Name, access.Pull)
		if err != nil {
			return nil, fault.In(err, "search")
		}
		if ok {
			mine = append(mine, e)
		}
	}
	return mine, nil
}

// pageOf cuts a page out; a page past the end is empty.
func pageOf(entries []Entry, n, page int) []Entry {
	page = max(page, 1) - 1
	if n <= 0 || page > len(entries)/n {
		return nil
	}
	return entries[page*n : min(len(entries), page*n+n)]
}

// Docker's bounds of a page of search results.
const (
	defaultPage = 25
	maxPage     = 100
)

// result is one line of a search in Docker's first registry protocol. The last two are our own.
type result struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	StarCount   int    `json:"star_count"`
	IsOfficial  bool   `json:"is_official"`
	IsAutomated bool   `json:"is_automated"` // always false, as the Hub's since 2022
	IsTrusted   bool   `json:"is_trusted"`   // podman has it in its type; the Hub no longer says it
	PullCount   uint64 `json:"pull_count"`
	Certified   string `json:"certified,omitempty"`
}

// results is a page of a search in Docker's first registry protocol.
type results struct {
	NumResults int      `json:"num_results"`
	NumPages   int      `json:"num_pages"`
	Page       int      `json:"page"`
	PageSize   int      `json:"page_size"`
	Query      string   `json:"query"`
	Results    []result `json:"results"`
}

// SearchHandler serves /v1/_ping and /v1/search. dockerd asks the first of them to learn whether the host is an
// index, and sends a password with the second when it has one and the connection is TLS (X-Docker-Registry-Standalone);
// podman sends none, so that it finds public repositories only.
func (c *Catalog) SearchHandler(d *door.Door) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/_ping", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Docker-Registry-Version", "0.9.1")
		w.Header().Set("X-Docker-Registry-Standalone", "true")
		door.Answer(w, http.StatusOK, true)
	})
	mux.HandleFunc("GET /v1/search", func(w http.ResponseWriter, r *http.Request) {
		s, ok := d.Subject(w, r)
		if !ok {
			return
		}
		// A token that a client got for searching names no repository. It says who asks; his rights say what he sees.
		s.Limit = nil
		query, n, page, err := asked(r)
		if err != nil {
			d.Fail(w, r, err)
			return
		}
		entries, err := c.visible(r.Context(), s, query)
		if err != nil {
			d.Fail(w, r, err)
			return
		}
		out := lines(entries, query, n, page)
		if agent := r.UserAgent(); strings.HasPrefix(agent, "libpod/") || strings.HasPrefix(agent, "containers/") {
			// podman puts the registry's name before what it is told, and people pull what it prints.
			for i, e := range pageOf(one(entries), n, page) {
				out.Results[i].Name = e.Name
			}
		}
		door.Answer(w, http.StatusOK, out)
	})
	return mux
}

// lines makes Docker's page.
func lines(entries []Entry, query string, n, page int) results {
	kept := one(entries)
	out := results{NumResults: len(kept), NumPages: (len(kept) + n - 1) / n, Page: page, PageSize: n, Query: query, Results: []result{}}
	for _, e := range pageOf(kept, n, page) {
		out.Results = append(out.Results, result{Name: e.Shown(), Description: e.Short, StarCount: e.Stars,
			IsOfficial: e.Official, PullCount: e.Pulls, Certified: e.Certified})
	}
	return out
}

// one leaves out a repository outside library/ whose path is another's bare name: one name is one line, and it is the one
// that a pull by that name means.
func one(entries []Entry) []Entry {
	bare := map[string]bool{}
	for _, e := range entries {
		if shown := e.Shown(); shown != e.Name {
			bare[shown] = true
		}
	}
	kept := make([]Entry, 0, len(entries))
	for _, e := range entries {
		if !bare[e.Name] {
			kept = append(kept, e)
		}
	}
	return kept
}

// asked reads a search's parameters. Sizes out of bounds are brought into them, as the Hub does; what is no
// number is Invalid.
func asked(r *http.Request) (query string, n, page int, err error) {
	q := r.URL.Query()
	if n, err = number(q.Get("n"), defaultPage); err != nil {
		return "", 0, 0, err
	}
	if page, err = number(q.Get("page"), 1); err != nil {
		return "", 0, 0, err
	}
	return q.Get("q"), min(n, maxPage), page, nil
}

func number(s string, without int) (int, error) {
	if s == "" {
		return without, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fault.New(fault.Invalid, "%q is no number", s)
	}
	return max(n, 1), nil
}
