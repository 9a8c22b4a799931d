package wire

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/moby/moby/api/types/registry"

	"berth/image/remote"
)

// Registries is what info tells of how registries are reached.
type Registries struct {
	Mirrors    []string // of the Hub, URLs
	Insecure   []string // HOST[:PORT] or CIDR
	HTTPProxy  string   // a password in them is not told
	HTTPSProxy string
	NoProxy    string
}

// Credentials are a client's credentials in the words of the room that uses them.
func Credentials(a *registry.AuthConfig) remote.Credentials {
	return remote.Credentials{
		Username: a.Username, Password: a.Password, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken, ServerAddress: a.ServerAddress,
	}
}

// LoggedIn is the answer to POST /auth at API version v. Until 1.51 the token was there even when it was empty.
func LoggedIn(status, token string, v Version) any {
	if v >= 52 {
		return &registry.AuthResponse{Status: status, IdentityToken: token}
	}
	return &struct{ IdentityToken, Status string }{token, status}
}

// SearchResult is one repository in the answer to GET /images/search. No repository is automated any more.
func SearchResult(r remote.SearchResult) registry.SearchResult {
	return registry.SearchResult{Name: r.Name, Description: r.Description, StarCount: r.Stars, IsOfficial: r.Official}
}

// config is the part of info about registries: the Hub with its mirrors, and those that may do without TLS.
func (r *Registries) config() *registry.ServiceConfig {
	c := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{}, Mirrors: r.Mirrors,
		IndexConfigs: map[string]*registry.IndexInfo{"docker.io": {Name: "docker.io", Mirrors: list(r.Mirrors), Secure: true, Official: true}},
	}
	seen := map[netip.Prefix]bool{}
	for _, text := range append(append([]string{}, r.Insecure...), "::1/128", "127.0.0.0/8") {
		if p, err := netip.ParsePrefix(text); err == nil {
			if p = p.Masked(); !seen[p] {
				seen[p] = true
				c.InsecureRegistryCIDRs = append(c.InsecureRegistryCIDRs, p)
			}
			continue
		}
		c.IndexConfigs[text] = &registry.IndexInfo{Name: text, Mirrors: []string{}}
	}
	return c
}

// Masked takes user and password out of a proxy's URL, as dockerd shows it: "xxxxx" in their place, and in that of a URL that cannot be read.
func Masked(proxy string) string {
	u, err := url.Parse(proxy)
	switch {
	case err != nil && strings.Contains(proxy, "@"):
		return "xxxxx"
	case err != nil || u.User == nil:
		return proxy
	}
	u.User = url.UserPassword("xxxxx", "xxxxx")
	return u.String()
}
