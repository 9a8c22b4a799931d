package guard

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"berth/auth"
	"berth/auth/token"
	"berth/auth/user"
	"berth/base/fault"
	"berth/registry/access"
)

// localName is the name of whoever shows the local key. It is no name that an account can have.
const localName = "@local"

// Who finds out who makes a request; the package's comment lists the ways. Errors: Unauthorized when a challenge is the
// answer, Unavailable when a directory cannot be asked or somebody guesses passwords (*auth.Slow).
func (g *Guard) Who(r *http.Request) (access.Subject, error) {
	header := r.Header.Get("Authorization")
	scheme, rest, _ := strings.Cut(header, " ")
	switch {
	case header == "":
		if g.Guarded() && asksForChallenge(r) {
			return access.Subject{}, fault.New(fault.Unauthorized, "authentication required")
		}
		return access.Subject{}, nil
	case strings.EqualFold(scheme, "Bearer"):
		return g.bearer(r, strings.TrimSpace(rest))
	case strings.EqualFold(scheme, "Basic"):
		name, password, ok := r.BasicAuth()
		if !ok {
			return access.Subject{}, fault.New(fault.Unauthorized, "malformed credentials")
		}
		return g.basic(r, name, password)
	}
	return access.Subject{}, fault.New(fault.Unauthorized, "unknown authentication scheme %q", scheme)
}

// asksForChallenge reports whether a request without credentials is how clients learn to sign in.
func asksForChallenge(r *http.Request) bool {
	return r.URL.Path == "/v2/" || r.URL.Path == "/v2" || r.URL.Path == "/v2/_catalog"
}

func (g *Guard) basic(r *http.Request, name, password string) (access.Subject, error) {
	if name == localName {
		return g.localSubject(password, g.From(r))
	}
	if !g.Guarded() {
		return access.Subject{}, nil // nobody is known, so nobody is refused: clients send what they have stored
	}
	if name == "" && password == "" {
		return access.Subject{}, nil
	}
	in, limit, err := g.signIn(r.Context(), name, password, g.From(r))
	if err != nil {
		return access.Subject{}, err
	}
	return g.subject(in.User, limit), nil
}

func (g *Guard) localSubject(key string, from netip.Addr) (access.Subject, error) {
	if subtle.ConstantTimeCompare([]byte(key), []byte(g.local)) != 1 {
		g.refused(localName, from, "wrong local key")
		return access.Subject{}, auth.ErrPassword
	}
	return access.Subject{Name: localName, Admin: true}, nil
}

// bearer reads an access token. Rights are asked when they are used; the token only narrows them.
func (g *Guard) bearer(r *http.Request, text string) (access.Subject, error) {
	if !strings.Contains(text, ".") { // a JWT has dots, the local key has none
		return g.localSubject(text, g.From(r))
	}
	grant, err := g.issuer.Check(text)
	if err != nil {
		return access.Subject{}, err
	}
	if grant.User.Name == "" {
		return access.Subject{}, nil
	}
	u := grant.User
	if u.Source == "accounts" { // asked at no cost: closing an account and a new password work at once
		now, err := g.accounts.Lookup(r.Context(), u.Name)
		if err == nil && now.Stamp != u.Stamp {
			err = auth.ErrPassword
		}
		if err != nil {
			return access.Subject{}, fault.In(err, "the account is closed or has another password")
		}
		u.Admin = now.Admin
	}
	if _, err := g.personal(token.SignIn{User: u, Personal: grant.Personal}); err != nil {
		return access.Subject{}, err
	}
	limit := &access.Limit{}
	for _, s := range grant.Scopes {
		if s.Type == "registry" && s.Name == "site" && slices.Contains(s.Actions, string(access.Admin)) {
			limit.Every = []access.Action{access.Admin}
		}
		if s.Type == "repository" {
			limit.Scopes = append(limit.Scopes, access.Scope{Repository: s.Name, Actions: actions(s.Actions)})
		}
	}
	if r.URL.Path == "/v2/_catalog" {
		limit = nil // the list is of what may be pulled, not of what this token is for
	}
	return g.subject(u, limit), nil
}

func (g *Guard) subject(u auth.User, limit *access.Limit) access.Subject {
	s := access.Subject{Name: u.Name, Groups: u.Groups, Admin: u.Admin, Limit: limit}
	rules := g.rights.Rules()
	for _, p := range g.admins {
		s.Admin = s.Admin || rules.Is(s, p)
	}
	return s
}

// administrator reports whether a request may change the site. A token that is limited to something may not.
func (g *Guard) administrator(r *http.Request, s access.Subject) bool {
	if !g.Guarded() {
		return s.Admin || g.fromHere(r)
	}
	return g.rights.Rules().IsAdmin(s)
}

// fromHere reports whether a request comes from this machine, and not through a proxy on it.
func (g *Guard) fromHere(r *http.Request) bool {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil || !peer.Addr().Unmap().IsLoopback() {
		return false
	}
	// Proxies give themselves away, by what they add or by the old protocol in which nginx asks when nobody told it otherwise.
	for _, h := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"} {
		if r.Header.Get(h) != "" {
			return false
		}
	}
	return r.ProtoAtLeast(1, 1) && !crossSite(r) && namesThisMachine(r.Host)
}

// namesThisMachine reports whether a request was made to an address or to localhost. Under another name a browser may
// have been led here by a page that made its own name stand for this machine.
func namesThisMachine(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || host == "localhost"
}

// crossSite reports whether a browser makes the request for a page of another site, which runs on this machine but is
// not of it.
func crossSite(r *http.Request) bool {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" {
		return site != "same-origin" && site != "none"
	}
	origin := r.Header.Get("Origin")
	return origin != "" && !strings.EqualFold(strings.TrimPrefix(strings.TrimPrefix(origin, "https://"), "http://"), r.Host)
}

// signIn checks a password, or a personal token in its place.
func (g *Guard) signIn(ctx context.Context, name, password string, from netip.Addr) (token.SignIn, *access.Limit, error) {
	if err := auth.Check(name, password); err != nil {
		return token.SignIn{}, nil, err
	}
	end, err := g.damper.Begin(normal(name), from)
	if err != nil {
		return token.SignIn{}, nil, err
	}
	defer end()
	in, limit, err := g.check(ctx, name, password)
	switch {
	case err == nil:
		g.damper.Right(normal(name), from)
	case fault.Is(err, fault.Unauthorized):
		g.damper.Wrong(normal(name), from)
		g.refused(name, from, "wrong name or password")
	}
	return in, limit, err
}

func (g *Guard) check(ctx context.Context, name, password string) (token.SignIn, *access.Limit, error) {
	if !strings.HasPrefix(password, user.Prefix) {
		u, err := g.people.Password(ctx, name, password)
		return token.SignIn{User: u}, nil, err
	}
	t, err := g.accounts.CheckToken(password)
	if err != nil {
		return token.SignIn{}, nil, err
	}
	u, err := g.people.Lookup(ctx, name)
	if err == nil && u.Name != t.User { // as the directory spells it, not as it was typed
		err = auth.ErrPassword
	}
	if err != nil {
		return token.SignIn{}, nil, err
	}
	return token.SignIn{User: u, Personal: t.ID}, limitOf(&t), nil
}

// limitOf gives what a personal token is good for; nil: everything.
func limitOf(t *user.Token) *access.Limit {
	if t == nil || len(t.Actions) == 0 {
		return nil
	}
	return &access.Limit{Every: actions(t.Actions)}
}

func actions(names []string) []access.Action {
	var all []access.Action
	for _, n := range names {
		if a := access.Action(n); slices.Contains(access.Actions(), a) {
			all = append(all, a)
		}
	}
	return all
}

// Token is the handler of Docker's token service, for /token.
func (g *Guard) Token() http.Handler {
	return &token.Service{
		Issuer: g.issuer,
		Password: func(ctx context.Context, name, password string, from netip.Addr) (token.SignIn, error) {
			if !g.Guarded() {
				return token.SignIn{}, nil
			}
			if name == localName {
				s, err := g.localSubject(password, from)
				return token.SignIn{User: auth.User{Name: s.Name, Admin: s.Admin}}, err
			}
			in, _, err := g.signIn(ctx, name, password, from)
			return in, err
		},
		Grant:   g.grant,
		Groups:  g.groups,
		Keep:    g.keep,
		Refresh: g.refresh,
		From:    g.From,
		Refuse:  g.refuseToken,
		Log:     g.log,
	}
}

// Keys is the handler of the public keys, for /token/keys.
func (g *Guard) Keys() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/jwk-set+json")
		w.Write(g.issuer.Keys.Public())
	})
}

// grant leaves of a scope what the user may have by the rights as they are now.
func (g *Guard) grant(ctx context.Context, who token.SignIn, asked token.Scope) ([]string, error) {
	if asked.Type == "registry" && asked.Name == "catalog" {
		return asked.Actions, nil // which names are listed is decided by name
	}
	limit, err := g.personal(who)
	if err != nil {
		return nil, err
	}
	if asked.Type == "registry" && asked.Name == "site" {
		// Says what the token is for, and gives nothing: whether he administrates something is asked when he does.
		if who.User.Name != "" && slices.Contains(asked.Actions, string(access.Admin)) && limit.Has("", access.Admin) {
			return []string{string(access.Admin)}, nil
		}
		return nil, nil
	}
	if asked.Type != "repository" {
		return nil, nil
	}
	s := g.subject(who.User, limit)
	var granted []string
	for _, name := range asked.Actions {
		a := access.Action(name)
		if a == access.Admin || !slices.Contains(access.Actions(), a) {
			continue // has a scope of its own, so that no client asks for it by the way: registry:site:admin
		}
		ok, err := g.Allowed(ctx, s, asked.Name, a)
		if err != nil {
			return nil, err
		}
		if ok {
			granted = append(granted, name)
		}
	}
	return granted, nil
}

// personal gives the limit of the personal token that somebody has signed in with.
func (g *Guard) personal(who token.SignIn) (*access.Limit, error) {
	if who.Personal == "" {
		return nil, nil
	}
	t, err := g.accounts.Token(who.Personal)
	if fault.Is(err, fault.NotFound) || err == nil && t.User != who.User.Name {
		return nil, fault.New(fault.Unauthorized, "the token was revoked")
	}
	if err != nil {
		return nil, err
	}
	return limitOf(&t), nil
}

// groups leaves those that an administrator's mark or a right hangs on.
func (g *Guard) groups(u auth.User) []string {
	rules := g.rights.Rules()
	for _, p := range g.admins {
		rules.Site.Admins = append(slices.Clip(rules.Site.Admins), string(p))
	}
	return rules.Named(u.Groups)
}

// keep makes a refresh token, where the user can be looked up when it is used; else docker login stores the password as
// it does with other registries.
func (g *Guard) keep(ctx context.Context, who token.SignIn, service, client string) (string, error) {
	if who.User.Name == "" || who.User.Name == localName {
		return "", nil
	}
	if _, err := g.people.Lookup(ctx, who.User.Name); err != nil {
		return "", nil
	}
	return g.accounts.AddRefresh(user.Refresh{
		User: who.User, Service: service, Client: client, Token: who.Personal,
		Expires: time.Now().UTC().AddDate(0, 0, g.cfg.RefreshDays),
	})
}

// refresh gives the user of a refresh token as he is now, if he still is and his password is still the one of then.
func (g *Guard) refresh(ctx context.Context, service, text string) (token.SignIn, error) {
	r, _, err := g.accounts.CheckRefresh(service, text)
	if err != nil {
		return token.SignIn{}, err
	}
	u, err := g.people.Lookup(ctx, r.User.Name)
	ended := errors.Is(err, auth.ErrNoUser) || errors.Is(err, auth.ErrPassword) ||
		err == nil && (u.Source != r.User.Source || r.Token == "" && u.Stamp != r.User.Stamp)
	if ended {
		g.accounts.RemoveRefresh(text)
		return token.SignIn{}, fault.New(fault.Unauthorized, "the stored sign-in has ended: sign in again with docker login")
	}
	return token.SignIn{User: u, Personal: r.Token}, err
}
