package page

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/registry/catalog"
)

// perPage is how many repositories or tags one page shows.
const perPage = 20

// listView is the view of the first page, of a search and of an organisation.
type listView struct {
	Heading string
	Query   string
	Org     string
	Total   int
	Entries []catalog.Entry
	Orgs    []org // on the first page
	Orders  []order
	Pages   pager
	Empty   string // what to say when there is nothing
	Host    string
}

// order is a way to sort the list.
type order struct {
	Name, To string
	On       bool
}

// orders sorts entries as the address asks and gives the ways to do it. Without a wish the best come first, as Search gives them.
func orders(entries []catalog.Entry, at *url.URL) []order {
	asked := at.Query().Get("sort")
	var all []order
	for _, o := range []struct {
		key, name string
		compare   func(a, b catalog.Entry) int
	}{
		{"", "Best", nil},
		{"pushed", "Last pushed", func(a, b catalog.Entry) int { return b.LastPush.Compare(a.LastPush) }},
		{"pulls", "Most pulled", func(a, b catalog.Entry) int { return cmp.Compare(b.Pulls, a.Pulls) }},
		{"name", "Name", func(a, b catalog.Entry) int { return cmp.Compare(a.Name, b.Name) }},
	} {
		q := at.Query()
		q.Del("page")
		q.Del("sort")
		if o.key != "" {
			q.Set("sort", o.key)
		}
		to := at.Path
		if len(q) > 0 {
			to += "?" + q.Encode()
		}
		all = append(all, order{o.name, to, o.key == asked})
		if o.key == asked && o.compare != nil {
			slices.SortStableFunc(entries, o.compare)
		}
	}
	return all
}

// org is the first element of repositories' names.
type org struct {
	Name  string
	Count int
}

// list shows repositories: all, those that a search finds, or those of an organisation.
func (p *Pages) list(w http.ResponseWriter, r *http.Request) {
	who, _ := p.visitor(r)
	v := listView{Query: strings.TrimSpace(r.URL.Query().Get("q")), Org: r.PathValue("org"), Host: p.host(r)}
	title := p.cfg.Title
	// All that the visitor may see is asked for, because the organisations beside the list are counted from it.
	found, err := p.cfg.Catalog.Search(r.Context(), who, v.Query, 1<<30, 1)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	entries := found.Entries
	switch {
	case v.Org != "":
		entries = slices.DeleteFunc(entries, func(e catalog.Entry) bool { return !strings.HasPrefix(e.Name, v.Org+"/") })
		if len(entries) == 0 {
			p.fail(w, r, fault.New(fault.NotFound, "There is no organisation %s, or you may see none of its repositories.", v.Org))
			return
		}
		v.Heading, title = v.Org, v.Org
	case r.URL.Path == "/search" && v.Query != "":
		v.Heading, title = "Search", "Search: "+v.Query
		v.Empty = "Nothing that you may see has all of these words."
	default:
		v.Heading = "Repositories"
		v.Orgs = orgs(entries)
		if v.Empty = "Nothing has been pushed yet."; who.Anonymous() && p.canSignIn() {
			v.Empty = "There is nothing that everybody may see. Sign in to see more."
		}
	}
	v.Total = len(entries)
	v.Orders = orders(entries, r.URL)
	v.Entries, v.Pages = pageOf(entries, r.URL)
	p.render(w, r, http.StatusOK, "list", title, v)
}

// orgs counts repositories by organisation, the largest first. Those without one are left out.
func orgs(entries []catalog.Entry) []org {
	count := map[string]int{}
	for _, e := range entries {
		if name, _, ok := strings.Cut(e.Name, "/"); ok {
			count[name]++
		}
	}
	var all []org
	for name, n := range count {
		all = append(all, org{name, n})
	}
	slices.SortFunc(all, func(a, b org) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return strings.Compare(a.Name, b.Name)
	})
	return all[:min(len(all), 30)]
}

// A pager leads to the pages before and after.
type pager struct {
	Page, Of   int
	Prev, Next string // addresses; "": none
}

// pageOf cuts out the page that the address asks for.
func pageOf[T any](all []T, at *url.URL) ([]T, pager) {
	p := pager{Of: max(1, (len(all)+perPage-1)/perPage)}
	n, _ := strconv.Atoi(at.Query().Get("page"))
	p.Page = min(max(n, 1), p.Of)
	to := func(n int) string {
		q := at.Query()
		q.Set("page", strconv.Itoa(n))
		return at.Path + "?" + q.Encode()
	}
	if p.Page > 1 {
		p.Prev = to(p.Page - 1)
	}
	if p.Page < p.Of {
		p.Next = to(p.Page + 1)
	}
	from := (p.Page - 1) * perPage
	return all[from:min(len(all), from+perPage)], p
}

// host is the registry's name in pull commands: as configured, else what the visitor asked, if it looks like a host.
func (p *Pages) host(r *http.Request) string {
	if u, err := url.Parse(p.cfg.URL); err == nil && u.Host != "" {
		return u.Host
	}
	if strings.ContainsFunc(r.Host, func(c rune) bool {
		return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".:-[]", c))
	}) {
		return "registry"
	}
	return r.Host
}
