package remote

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"berth/base/fault"
	"berth/base/ref"
)

// Login asks a registry whether it knows the credentials, as docker login does: GET /v2/ with them, through its token server when it has
// one. Mirrors are not asked. The status is "Login Succeeded"; the identity token, when the server gave one, is to be kept instead of the password.
func (c *Client) Login(ctx context.Context, cred Credentials) (status, identityToken string, err error) {
	domain, err := serverDomain(cred.ServerAddress)
	if err != nil {
		return "", "", err
	}
	list, err := c.endpoints(domain)
	if err != nil {
		return "", "", err
	}
	e := list[len(list)-1]
	s := newSession(c, cred)
	base, challenges, err := s.ping(ctx, e) // not what is known: a login is the time to look again
	if err != nil {
		return "", "", err
	}
	c.unlearn(e) // it may have had no users when it was asked last
	u := base
	u.Path += "/"
	at := u.String()
	header, refresh := "", ""
	for _, ch := range challenges {
		if ch.scheme == "bearer" {
			token, r, err := s.fetchToken(ctx, e, cred, ch, nil, true)
			if err != nil {
				return "", "", fault.In(err, "Get %q", at)
			}
			header, refresh = "Bearer "+token, r
			break
		}
		if ch.scheme == "basic" && header == "" {
			if cred.Username == "" && cred.Password == "" {
				return "", "", fault.New(fault.Unauthorized, "Get %q: no basic auth credentials", at)
			}
			header = basic(cred)
		}
	}
	resp, err := s.retrying(ctx, e, func() (*http.Response, error) {
		return s.roundTrip(ctx, e, base, &request{method: http.MethodGet, url: &u, any: true}, header)
	}, false)
	if err != nil {
		return "", "", err
	}
	defer drain(resp)
	switch {
	case resp.StatusCode == http.StatusOK:
		return "Login Succeeded", refresh, nil
	case resp.StatusCode == http.StatusUnauthorized:
		return "", "", fault.New(fault.Unauthorized, "login attempt to %s failed with status: %s", at, statusText(resp))
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		return "", "", fault.New(fault.Unavailable, "login attempt to %s failed with status: %s", at, statusText(resp))
	}
	return "", "", fault.New(fault.Invalid, "login attempt to %s failed with status: %s", at, statusText(resp))
}

func statusText(resp *http.Response) string { return clean(resp.Status) }

// serverDomain reads the address that a login is for: "", the Hub's old index address, a URL or a host.
func serverDomain(s string) (string, error) {
	if s == "" {
		return ref.DefaultDomain, nil
	}
	if !strings.HasPrefix(s, "https://") && !strings.HasPrefix(s, "http://") {
		s = "https://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return "", fault.New(fault.Invalid, "unable to parse server address: %s", clean(s))
	}
	switch u.Host {
	case hubIndex, hubHost, "docker.io":
		return ref.DefaultDomain, nil
	}
	return u.Host, nil
}

// Ping asks a registry (docker.io, HOST:PORT) whether it answers GET /v2/, also when it answers that one has to sign in.
func (c *Client) Ping(ctx context.Context, domain string) error {
	list, err := c.endpoints(domain)
	if err != nil {
		return err
	}
	_, _, err = newSession(c, Credentials{}).ping(ctx, list[len(list)-1])
	return err
}
