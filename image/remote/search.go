package remote

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/base/ref"
)

// SearchResult is one repository that a search found.
type SearchResult struct {
	Name        string `json:"name"`
	Description string `json:"description"`
	Stars       int    `json:"star_count"`
	Official    bool   `json:"is_official"`
	Automated   bool   `json:"is_automated"`
}

// Search asks for repositories by a word. "tomcat" is looked for at the Hub's mirrors that answer searches (they say so by answering /v1/search,
// or by the capability "search" in hosts.toml), else at the Hub's index; "HOST/tomcat" at that registry. limit is 1 to 100; 0 is 25.
func (c *Client) Search(ctx context.Context, term string, limit int, cred Credentials) ([]SearchResult, error) {
	if limit == 0 {
		limit = 25
	}
	if limit < 1 || limit > 100 {
		return nil, fault.New(fault.Invalid, "limit %d is outside the range of [1, 100]", limit)
	}
	if strings.Contains(term, "://") {
		return nil, fault.New(fault.Invalid, "invalid repository name: repository name (%s) should not have a scheme", clean(term))
	}
	domain, word := splitSearch(term)
	list, err := c.searchPlaces(domain)
	if err != nil {
		return nil, err
	}
	for i, e := range list {
		var found []SearchResult
		if found, err = newSession(c, cred).searchAt(ctx, e, word, limit); err == nil {
			return found, nil
		}
		if ctx.Err() != nil {
			return nil, err
		}
		if i < len(list)-1 {
			c.log.Debug("mirror does not search", "host", e.host(), "error", err)
		}
	}
	return nil, err
}

// SearchMirrors gives the hosts of the Hub's mirrors that answer searches (GET /v1/_ping), for those who want to know why a search finds
// what it does. What was learnt holds for five minutes; a mirror that says nothing for two seconds is left out.
func (c *Client) SearchMirrors(ctx context.Context) []string {
	places, err := c.searchPlaces(ref.DefaultDomain)
	if err != nil {
		return nil
	}
	mirrors := places[:len(places)-1]
	answers := make([]bool, len(mirrors))
	var all sync.WaitGroup
	for i, e := range mirrors {
		all.Go(func() { answers[i] = c.searches(ctx, e) })
	}
	all.Wait()
	var hosts []string
	for i, e := range mirrors {
		if answers[i] {
			hosts = append(hosts, e.host())
		}
	}
	return hosts
}

// searching remembers whether an endpoint answers searches.
type searching struct {
	at  time.Time
	yes bool
}

func (c *Client) searches(ctx context.Context, e *endpoint) bool {
	c.mu.Lock()
	known, ok := c.search[e.key()]
	c.mu.Unlock()
	if ok && time.Since(known.at) < freshFor {
		return known.yes
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	s := newSession(c, Credentials{})
	base, _, err := s.know(ctx, e)
	if err == nil {
		base.Path = strings.TrimSuffix(base.Path, "/v2")
		u := base
		u.Path += "/v1/_ping"
		var resp *http.Response
		if resp, err = s.roundTrip(ctx, e, base, &request{method: http.MethodGet, url: &u}, ""); err == nil {
			drain(resp)
			known.yes = resp.StatusCode == http.StatusOK
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.search[e.key()] = searching{at: time.Now(), yes: err == nil && known.yes}
	return err == nil && known.yes
}

// splitSearch takes the registry off a search term by Docker's rule for names.
func splitSearch(term string) (domain, word string) {
	first, rest, ok := strings.Cut(term, "/")
	if !ok || !strings.ContainsAny(first, ".:") && first != "localhost" {
		return ref.DefaultDomain, strings.TrimPrefix(term, "library/")
	}
	if first == hubIndex || first == ref.DefaultDomain {
		return ref.DefaultDomain, strings.TrimPrefix(rest, "library/")
	}
	return first, rest
}

// searchPlaces gives the servers that are asked: for the Hub its mirrors, then its index.
func (c *Client) searchPlaces(domain string) ([]*endpoint, error) {
	list, err := c.endpoints(domain)
	if err != nil {
		return nil, err
	}
	if domain != ref.DefaultDomain {
		return list[len(list)-1:], nil
	}
	home := *list[len(list)-1]
	if home.base.Host == hubHost {
		home.base.Host = hubIndex
		if home.plain != nil {
			p := home.base
			p.Scheme = "http"
			home.plain = &p
		}
	}
	return append(list[:len(list)-1:len(list)-1], &home), nil
}

// searchAt asks one server as dockerd does: /v1/search?q=WORD&n=LIMIT, with the password, or with a token for the catalog where a login
// left an identity token.
func (s *session) searchAt(ctx context.Context, e *endpoint, word string, limit int) ([]SearchResult, error) {
	base, cred, header := e.base, s.credentials(e), ""
	if e.base.Host != hubIndex {
		known, challenges, err := s.know(ctx, e)
		if err != nil {
			return nil, err
		}
		base = known
		if cred.IdentityToken != "" || cred.RegistryToken != "" {
			if header, err = s.authorization(ctx, e, challenges, []string{"registry:catalog:search"}); err != nil {
				return nil, err
			}
		}
	}
	if header == "" && cred.Username != "" && cred.Password != "" {
		header = basic(cred)
	}
	base.Path = strings.TrimSuffix(base.Path, "/v2")
	u := base
	u.Path += "/v1/search"
	u.RawQuery = url.Values{"q": {word}, "n": {strconv.Itoa(limit)}}.Encode()
	q := &request{method: http.MethodGet, url: &u, header: http.Header{"X-Docker-Token": {"true"}}}
	resp, err := s.retrying(ctx, e, func() (*http.Response, error) {
		resp, err := s.roundTrip(ctx, e, base, q, header)
		return s.judge(resp, err, q)
	}, false)
	if err != nil {
		if no := refusalOf(err); no != nil && no.Code == "" {
			return nil, fault.In(err, "Unexpected status code %d", no.Status)
		}
		return nil, err
	}
	defer drain(resp)
	return readSearch(resp.Body)
}

// readSearch reads an answer to a search. Texts are made fit for a terminal.
func readSearch(r io.Reader) ([]SearchResult, error) {
	body, err := io.ReadAll(io.LimitReader(r, maxPage+1))
	if err == nil && len(body) > maxPage {
		err = fault.New(fault.Invalid, "more than %d bytes", maxPage)
	}
	var answer struct {
		Results *[]SearchResult `json:"results"`
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err == nil && answer.Results == nil {
		err = fault.New(fault.Invalid, "it has no results")
	}
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "error decoding registry search results")
	}
	for i := range *answer.Results {
		x := &(*answer.Results)[i]
		x.Name, x.Description = clean(x.Name), clean(x.Description)
	}
	return *answer.Results, nil
}
