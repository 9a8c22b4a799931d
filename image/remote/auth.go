package remote

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
)

// clientID is the name under which token servers know the program that asks, as dockerd gives it.
const clientID = "docker"

// A session is one caller's standing with the servers that it asks: its credentials and the tokens that it was given.
type session struct {
	c    *Client
	cred Credentials

	tokens struct {
		sync.Mutex
		list    []token
		fetch   map[string]gate   // by endpoint: one token is fetched at a time, others wait and find it
		refresh map[string]string // by realm: refresh tokens that servers gave us
		basic   map[string]string // by endpoint: headers with a password that an Asker told
	}
}

func newSession(c *Client, cred Credentials) *session {
	s := &session{c: c, cred: cred}
	s.tokens.fetch, s.tokens.refresh, s.tokens.basic = map[string]gate{}, map[string]string{}, map[string]string{}
	return s
}

// token is a bearer token and what it lets its holder do.
type token struct {
	endpoint string
	scopes   []string // atoms: "repository:library/busybox:pull"
	text     string
	until    time.Time
}

// authorization gives the header that a request to the endpoint goes with; "" for none. fresh asks for a token that was not
// used before, because the registry refused the last one; more are the scopes that it named then.
func (s *session) authorization(ctx context.Context, e *endpoint, challenges []challenge, scopes []string) (string, error) {
	cred := s.credentials(e)
	if cred.RegistryToken != "" {
		return "Bearer " + cred.RegistryToken, nil
	}
	for _, ch := range challenges {
		switch ch.scheme {
		case "bearer":
			t, err := s.token(ctx, e, cred, ch, scopes)
			return "Bearer " + t, err
		case "basic":
			if header, err := s.basicFor(ctx, e, cred); header != "" || err != nil {
				return header, err
			}
		}
	}
	return "", nil
}

// credentials gives what this endpoint may know of the caller. The credentials are the registry's: a mirror gets them, as from
// dockerd, but only where nobody else can read them and its certificate was checked.
func (s *session) credentials(e *endpoint) Credentials {
	switch {
	case e.own != nil:
		return *e.own
	case !e.mirror:
		return s.cred
	case e.base.Scheme != "https" || e.insecure:
		return Credentials{}
	}
	cred := s.cred
	cred.RegistryToken = "" // is for one audience, and was asked for by no mirror
	return cred
}

func basic(c Credentials) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password))
}

// cached gives a token that lets do all of scopes; "" when there is none.
func (s *session) cached(e *endpoint, scopes []string) string {
	s.tokens.Lock()
	defer s.tokens.Unlock()
	now := time.Now()
	s.tokens.list = slices.DeleteFunc(s.tokens.list, func(t token) bool { return now.After(t.until) })
	for _, t := range s.tokens.list {
		if t.endpoint != e.key() {
			continue
		}
		if !slices.ContainsFunc(scopes, func(a string) bool { return !slices.Contains(t.scopes, a) }) {
			return t.text
		}
	}
	return ""
}

// forget drops a token that the registry did not take.
func (s *session) forget(e *endpoint, header string) {
	s.tokens.Lock()
	defer s.tokens.Unlock()
	s.tokens.list = slices.DeleteFunc(s.tokens.list, func(t token) bool {
		return t.endpoint == e.key() && "Bearer "+t.text == header
	})
}

// token gives a bearer token for the scopes, from the cache or from the server that the challenge names.
func (s *session) token(ctx context.Context, e *endpoint, cred Credentials, ch challenge, scopes []string) (string, error) {
	if t := s.cached(e, scopes); t != "" {
		return t, nil
	}
	s.tokens.Lock()
	one := s.tokens.fetch[e.key()]
	if one == nil {
		one = newGate()
		s.tokens.fetch[e.key()] = one
	}
	s.tokens.Unlock()
	if err := one.lock(ctx); err != nil {
		return "", err
	}
	defer one.unlock()
	if t := s.cached(e, scopes); t != "" {
		return t, nil
	}
	t, _, err := s.fetchToken(ctx, e, cred, ch, scopes, false)
	return t, err
}

// tokenAnswer is what token servers send. Some write token, some access_token, some both.
type tokenAnswer struct {
	Token        string    `json:"token"`
	AccessToken  string    `json:"access_token"`
	RefreshToken string    `json:"refresh_token"`
	ExpiresIn    int64     `json:"expires_in"`
	IssuedAt     time.Time `json:"issued_at"`
}

// fetchToken asks a token server: by POST where we hold a refresh token, by GET otherwise. offline asks for a refresh token.
func (s *session) fetchToken(ctx context.Context, e *endpoint, cred Credentials, ch challenge, scopes []string, offline bool) (access, refresh string, err error) {
	realm, err := checkRealm(ch.params["realm"], e)
	if err != nil {
		return "", "", err
	}
	service, asked := ch.params["service"], groupScopes(scopes)
	s.tokens.Lock()
	if r := s.tokens.refresh[realm.String()]; r != "" && cred.IdentityToken == "" && !cred.anonymous() {
		cred.IdentityToken = r
	}
	s.tokens.Unlock()

	var answer tokenAnswer
	switch {
	case cred.Asker != nil:
		answer, err = s.ask(ctx, e, cred.Asker, realm, service, asked)
	case cred.IdentityToken != "":
		form := url.Values{"grant_type": {"refresh_token"}, "refresh_token": {cred.IdentityToken}, "service": {service}, "client_id": {clientID}}
		answer, err = s.postToken(ctx, e, realm, form, asked, offline)
	default:
		answer, err = s.getToken(ctx, e, realm, cred, service, asked, offline)
		if r := refusalOf(err); r != nil && (r.Status == http.StatusMethodNotAllowed || r.Status == http.StatusNotFound) && cred.Password != "" {
			form := url.Values{"grant_type": {"password"}, "username": {cred.Username}, "password": {cred.Password}, "service": {service}, "client_id": {clientID}}
			answer, err = s.postToken(ctx, e, realm, form, asked, offline)
		}
	}
	if err != nil {
		return "", "", err
	}
	text := answer.Token
	if text == "" {
		text = answer.AccessToken
	}
	if text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return "", "", fault.New(fault.Unauthorized, "authorization server %s did not include a token in the response", realm.Host)
	}
	s.remember(e, realm, text, scopes, answer)
	return text, answer.RefreshToken, nil
}

// remember keeps a token for as long as its server says that it holds. Its own clock is not trusted: the time counts from now.
func (s *session) remember(e *endpoint, realm *url.URL, text string, scopes []string, a tokenAnswer) {
	life := time.Duration(min(max(a.ExpiresIn, 60), 24*3600)) * time.Second
	s.tokens.Lock()
	defer s.tokens.Unlock()
	s.tokens.list = append(s.tokens.list, token{endpoint: e.key(), scopes: scopes, text: text, until: time.Now().Add(life - life/10)})
	if a.RefreshToken != "" {
		s.tokens.refresh[realm.String()] = a.RefreshToken
	}
}

func (s *session) getToken(ctx context.Context, e *endpoint, realm *url.URL, cred Credentials, service string, scopes []string, offline bool) (tokenAnswer, error) {
	u := *realm
	q := u.Query()
	if service != "" {
		q.Set("service", service)
	}
	for _, sc := range scopes {
		q.Add("scope", sc)
	}
	header := ""
	if offline {
		q.Set("offline_token", "true")
		q.Set("client_id", clientID)
	}
	if cred.Username != "" || cred.Password != "" {
		q.Set("account", cred.Username)
		header = basic(cred)
	}
	u.RawQuery = q.Encode()
	return s.askToken(ctx, e, &request{method: http.MethodGet, url: &u}, header)
}

func (s *session) postToken(ctx context.Context, e *endpoint, realm *url.URL, form url.Values, scopes []string, offline bool) (tokenAnswer, error) {
	if len(scopes) > 0 {
		form.Set("scope", strings.Join(scopes, " "))
	}
	if offline {
		form.Set("access_type", "offline")
	}
	body := form.Encode()
	return s.askToken(ctx, e, &request{
		method: http.MethodPost, url: realm, body: textBody(body), size: int64(len(body)),
		header: http.Header{"Content-Type": {"application/x-www-form-urlencoded"}},
	}, "")
}

// askToken sends a request to a token server and reads its answer.
func (s *session) askToken(ctx context.Context, e *endpoint, q *request, header string) (tokenAnswer, error) {
	var a tokenAnswer
	q.noBounce = q.method == http.MethodPost // a body with a password goes to the realm and nowhere else
	resp, err := s.retrying(ctx, e, func() (*http.Response, error) {
		resp, err := s.roundTrip(ctx, e, url.URL{Scheme: q.url.Scheme, Host: q.url.Host}, q, header)
		return s.judge(resp, err, q)
	}, false)
	if err != nil {
		return a, err
	}
	defer drain(resp)
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxServer+1))
	if err == nil && len(body) > maxServer {
		err = fault.New(fault.Invalid, "the answer is longer than %d bytes", maxServer)
	}
	if err == nil {
		err = json.Unmarshal(body, &a)
	}
	if err != nil {
		return a, fault.Wrap(fault.Unauthorized, err, "unable to decode the token that %s gave", q.url.Host)
	}
	return a, nil
}

// challengesOf reads how a server wants to know who asks. A token server that it names by a path is its own.
func challengesOf(resp *http.Response) []challenge {
	list := parseChallenges(resp.Header.Values("WWW-Authenticate"))
	for _, c := range list {
		if u, err := resp.Request.URL.Parse(c.params["realm"]); c.scheme == "bearer" && c.params["realm"] != "" && err == nil {
			c.params["realm"] = u.String()
		}
	}
	return list
}

// checkRealm refuses token servers to which nothing may be sent: those that would have a password go in the clear though the
// registry does not, and link-local addresses, where clouds keep their machines' secrets.
func checkRealm(s string, e *endpoint) (*url.URL, error) {
	u, err := url.Parse(s)
	if s == "" || err != nil {
		return nil, fault.New(fault.Unauthorized, "registry %s names no usable token server: realm %q", e.host(), clean(s))
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, fault.New(fault.Unauthorized, "registry %s names a token server that is no web address: %q", e.host(), clean(s))
	}
	if u.Scheme == "http" && !e.insecure {
		return nil, fault.New(fault.Unauthorized, "registry %s names a token server without TLS (%s): nothing is sent there", e.host(), clean(s))
	}
	if a, err := netip.ParseAddr(strings.Trim(u.Hostname(), "[]")); err == nil && a.Unmap().IsLinkLocalUnicast() && u.Hostname() != e.base.Hostname() {
		return nil, fault.New(fault.Unauthorized, "registry %s names a token server at a link-local address (%s): nothing is sent there", e.host(), clean(s))
	}
	u.User, u.Fragment = nil, ""
	return u, nil
}

// repositoryScopes gives the atoms of what is going to be done in a repository.
func repositoryScopes(path string, actions ...string) []string {
	var atoms []string
	for _, a := range actions {
		atoms = append(atoms, "repository:"+path+":"+a)
	}
	return atoms
}

// splitScopes reads the scope of a challenge ("repository:a/b:pull,push registry:catalog:*") into atoms. A resource's name may
// hold colons.
func splitScopes(s string) []string {
	var atoms []string
	for _, f := range strings.Fields(s) {
		i := strings.LastIndexByte(f, ':')
		if i <= 0 {
			continue
		}
		for _, a := range strings.Split(f[i+1:], ",") {
			if len(atoms) >= 64 {
				return atoms
			}
			if a != "" {
				atoms = append(atoms, f[:i+1]+a)
			}
		}
	}
	return atoms
}

// groupScopes puts atoms together as token servers want them: one text per resource, actions with commas, all in order.
func groupScopes(atoms []string) []string {
	actions := map[string][]string{}
	var resources []string
	for _, a := range atoms {
		i := strings.LastIndexByte(a, ':')
		res, act := a[:i], a[i+1:]
		if _, ok := actions[res]; !ok {
			resources = append(resources, res)
		}
		if !slices.Contains(actions[res], act) {
			actions[res] = append(actions[res], act)
		}
	}
	for i, res := range resources {
		slices.Sort(actions[res])
		resources[i] = res + ":" + strings.Join(actions[res], ",")
	}
	return resources
}

// union adds atoms that are not there yet.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
