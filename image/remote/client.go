package remote

import (
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"berth/base/fault"
	"berth/base/ref"
)

// Config says how registries are reached. The zero Config reaches them as dockerd without settings does.
type Config struct {
	// HostsDirs are directories with HOST[:PORT]/hosts.toml (containerd's format) and *.crt, *.cert, *.key (Docker's
	// certs.d). The first that has the host wins. They are read again when a registry is next asked.
	HostsDirs []string
	// Mirrors are the URLs of --registry-mirror, asked for the Hub's content before the Hub.
	Mirrors []string
	// Insecure are hosts (HOST[:PORT]) and networks (CIDR) that may have an unknown certificate or speak plain HTTP.
	// 127.0.0.0/8 and ::1 always may.
	Insecure []string
	// Proxy chooses the proxy of a request; nil: the environment's.
	Proxy func(*http.Request) (*url.URL, error)
	// UserAgent is what registries read of us; "" is "berth".
	UserAgent string
	// Stall is how long a server may send nothing, and the time over which its rate is taken; 0: 30 s.
	Stall time.Duration
	// MinRate is the least number of bytes per second that a server may send over Stall while we wait for it; 0: 256.
	MinRate int64
	// Attempts is how often a transfer is tried that breaks without a megabyte of progress; 0: 7.
	Attempts int
	Log      *slog.Logger
}

// Credentials are what a caller says to be let in, as in Docker's X-Registry-Auth. The zero value is anonymous.
type Credentials struct {
	Username, Password string
	IdentityToken      string // a refresh token that a login gave instead of the password
	RegistryToken      string // a bearer token to be sent as it is
	ServerAddress      string // the registry that they are for; asked by Login only
	Asker              Asker  // who fetches tokens himself instead of telling what is above; nil: nobody
}

// anonymous reports whether c itself says nothing about the caller.
func (c Credentials) anonymous() bool {
	return c.Username == "" && c.Password == "" && c.IdentityToken == "" && c.RegistryToken == ""
}

// Client talks to registries. It holds their connections and what is known of them, and is safe for concurrent use.
type Client struct {
	cfg   Config
	log   *slog.Logger
	sleep func(context.Context, time.Duration) error
	reach atomic.Pointer[reach]

	mu         sync.Mutex
	transports map[string]*http.Transport // by what their TLS settings are made of
	known      map[string]*knowledge      // by endpoint
	resolved   map[string]resolution      // by name
	search     map[string]searching       // by endpoint
}

// New checks the settings and makes a Client. Nothing is asked of any server.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, log: cfg.Log, sleep: sleep, transports: map[string]*http.Transport{}, known: map[string]*knowledge{},
		resolved: map[string]resolution{}, search: map[string]searching{}}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	if c.cfg.Proxy == nil {
		c.cfg.Proxy = http.ProxyFromEnvironment
	}
	if c.cfg.UserAgent == "" {
		c.cfg.UserAgent = "berth"
	}
	if c.cfg.Stall <= 0 {
		c.cfg.Stall = 30 * time.Second
	}
	if c.cfg.MinRate <= 0 {
		c.cfg.MinRate = 256
	}
	if c.cfg.Attempts <= 0 {
		c.cfg.Attempts = 7
	}
	return c, c.Configure(cfg.Mirrors, cfg.Insecure)
}

// reach is the part of the settings that may change while the client lives.
type reach struct {
	insecure insecureSet
	mirrors  []*url.URL
}

// Configure replaces the settings Mirrors and Insecure. What is under way goes on as it began; what was learnt of servers is forgotten.
// When one of them means nothing, none changes.
func (c *Client) Configure(mirrors, insecure []string) (err error) {
	r := &reach{}
	if r.insecure, err = parseInsecure(insecure); err != nil {
		return err
	}
	for _, m := range mirrors {
		u, err := parseMirror(m)
		if err != nil {
			return err
		}
		r.mirrors = append(r.mirrors, u)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reach.Store(r)
	clear(c.known)
	clear(c.resolved)
	return nil
}

// Close drops idle connections. Requests that are under way go on.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// Repository gives the name's repository as seen with the credentials. It costs nothing; tag and digest of the name
// only matter in messages.
func (c *Client) Repository(name ref.Ref, cred Credentials) *Repository {
	return &Repository{session: newSession(c, cred), name: name}
}

// Repository is one name at a registry with one caller's credentials. It is safe for concurrent use.
type Repository struct {
	*session
	name ref.Ref

	mu       sync.Mutex
	list     []*endpoint // nil until they are needed
	distrust map[string]bool
	uploads  map[string]string // digest → upload session that a refused mount left open
}

// Name gives the repository's name as it was asked for.
func (r *Repository) Name() ref.Ref { return r.name }

// endpoints gives the servers that can do what is wanted, in the order in which they are asked.
func (r *Repository) endpoints(want capability) ([]*endpoint, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.list == nil {
		list, err := r.c.endpoints(r.name.Domain)
		if err != nil {
			return nil, err
		}
		r.list = list
	}
	var can []*endpoint
	for _, e := range r.list {
		if e.can&want == want {
			can = append(can, e)
		}
	}
	if len(can) == 0 {
		return nil, fault.New(fault.Forbidden, "no host that is configured for %s may be asked to %s", r.name.Domain, want)
	}
	return can, nil
}

// home gives the endpoint that content is given to.
func (r *Repository) home() (*endpoint, error) {
	list, err := r.endpoints(canPush)
	if err != nil {
		return nil, err
	}
	return list[len(list)-1], nil // the registry itself stands last; it lacks canPush only when hosts.toml says so
}

// path gives the path below an endpoint's base of something in the repository: path("manifests", "latest").
func (r *Repository) path(parts ...string) string {
	return "/" + r.name.Path + "/" + strings.Join(parts, "/")
}

// insecureSet holds what --insecure-registry was given.
type insecureSet struct {
	hosts map[string]bool
	nets  []netip.Prefix
}

func parseInsecure(list []string) (insecureSet, error) {
	s := insecureSet{hosts: map[string]bool{}, nets: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}
	for _, v := range list {
		if p, err := netip.ParsePrefix(v); err == nil {
			s.nets = append(s.nets, p.Masked())
			continue
		}
		if _, rest, ok := strings.Cut(v, "://"); ok {
			return s, fault.New(fault.Invalid, "insecure registry %s should not contain '://': write %s", v, strings.TrimSuffix(rest, "/"))
		}
		if v == "" || strings.ContainsAny(v, "/ @?#") {
			return s, fault.New(fault.Invalid, "insecure registry %q is not valid: it is HOST[:PORT] or a network in CIDR notation", v)
		}
		s.hosts[strings.ToLower(v)] = true
	}
	return s, nil
}

// contains reports whether an address is in one of the networks.
func (s insecureSet) contains(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(s.nets, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseMirror checks a mirror's URL by dockerd's rules: a base without query and fragment, and without a path, because a
// mirror mirrors the whole Hub.
func parseMirror(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, fault.New(fault.Invalid, "invalid mirror: %q is not a valid URI: %v", s, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fault.New(fault.Invalid, "invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", s)
	case u.Host == "":
		return nil, fault.New(fault.Invalid, "invalid mirror: %q has no host", s)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fault.New(fault.Invalid, "invalid mirror: query or fragment at end of the URI %q", s)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}

// sleep waits, or ends with the context.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
