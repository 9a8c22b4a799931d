package remote

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"berth/base/fault"
	"berth/base/ref"
)

// The Hub's servers.
const (
	hubHost   = "registry-1.docker.io"
	hubIndex  = "index.docker.io"
	freshFor  = 5 * time.Minute // how long what was learnt of an endpoint is believed
	maxServer = 1 << 20         // bytes of an error body, a token or a page that are read at most
)

// capability says what an endpoint may be asked for, in hosts.toml's words.
type capability uint8

const (
	canPull    capability = 1 << iota // blobs and manifests by digest
	canResolve                        // manifests by tag
	canPush
	canSearch // never asked by containerd; here a mirror can say that it answers /v1/search
)

func (c capability) String() string {
	switch {
	case c&canPush != 0:
		return "push"
	case c&canResolve != 0:
		return "resolve tags"
	case c&canSearch != 0:
		return "search"
	}
	return "pull"
}

// An endpoint is one server that may be asked for a registry's content.
type endpoint struct {
	base      url.URL // with the path in front of /NAME/manifests: https://registry-1.docker.io/v2
	plain     *url.URL
	mirror    bool
	can       capability
	ns        string       // sent as ?ns= so that a mirror of many knows whose content is meant
	header    http.Header  // of hosts.toml
	own       *Credentials // that stood in a mirror's URL
	insecure  bool         // may be unverified or plain
	transport *http.Transport
}

// key names the endpoint in the Client's knowledge and in token caches.
func (e *endpoint) key() string { return e.base.String() }

// host gives what people call the endpoint.
func (e *endpoint) host() string { return e.base.Host }

// endpoints gives the servers of a registry in the order in which they are asked. The registry itself is the last.
func (c *Client) endpoints(domain string) ([]*endpoint, error) {
	conf, err := c.readHosts(domain)
	if err != nil {
		return nil, err
	}
	var list []*endpoint
	if domain == ref.DefaultDomain {
		for _, m := range c.mirrors {
			e, err := c.mirrorEndpoint(m)
			if err != nil {
				return nil, err
			}
			list = append(list, e)
		}
	}
	if conf != nil {
		more, err := c.configured(domain, conf)
		return append(list, more...), err
	}
	e, err := c.plainRegistry(domain)
	return append(list, e), err
}

// plainRegistry gives the endpoint of a registry that has no configuration of its own.
func (c *Client) plainRegistry(domain string) (*endpoint, error) {
	host := domain
	if domain == ref.DefaultDomain {
		host = hubHost
	}
	if u, err := url.Parse("https://" + host); err != nil || u.Host != host || u.Hostname() == "" {
		return nil, fault.New(fault.Invalid, "%q is not a registry's host", domain)
	}
	e := &endpoint{base: url.URL{Scheme: "https", Host: host, Path: "/v2"}, can: canPull | canResolve | canPush}
	e.insecure = c.isInsecure(host)
	if e.insecure {
		p := e.base
		p.Scheme = "http"
		e.plain = &p
	}
	var err error
	e.transport, err = c.transport(tlsSettings{skipVerify: e.insecure})
	return e, err
}

// mirrorEndpoint gives the endpoint of a --registry-mirror.
func (c *Client) mirrorEndpoint(m *url.URL) (*endpoint, error) {
	e := &endpoint{base: *m, mirror: true, can: canPull | canResolve, insecure: m.Scheme == "http" || c.isInsecure(m.Host)}
	if m.User != nil {
		pass, _ := m.User.Password()
		e.own = &Credentials{Username: m.User.Username(), Password: pass}
		e.base.User = nil
	}
	e.base.Path = m.Path + "/v2"
	tls := tlsSettings{skipVerify: c.isInsecure(m.Host)}
	if conf, err := c.readHosts(m.Host); err != nil {
		return nil, err
	} else if conf != nil {
		tls = tls.with(conf.server)
	}
	var err error
	e.transport, err = c.transport(tls)
	return e, err
}

// isInsecure reports whether a host may be spoken to without a known certificate. As in Docker a name is resolved, and
// any of its addresses in one of the networks is enough: that is how "localhost" is covered.
func (c *Client) isInsecure(host string) bool {
	if c.insecure.hosts[strings.ToLower(host)] {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
		if c.insecure.hosts[strings.ToLower(h)] {
			return true
		}
	}
	name = strings.Trim(name, "[]")
	if strings.EqualFold(name, "localhost") {
		return true
	}
	var addrs []netip.Addr
	if a, err := netip.ParseAddr(name); err == nil {
		addrs = []netip.Addr{a}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		addrs, _ = net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	}
	for _, a := range addrs {
		a = a.Unmap().WithZone("")
		for _, p := range c.insecure.nets {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// knowledge is what one endpoint has told about itself.
type knowledge struct {
	mu         sync.Mutex // held while the endpoint is asked: others wait for the answer
	at         time.Time  // zero: not asked yet
	base       url.URL    // base or plain, whichever answered
	challenges []challenge
}

// know asks an endpoint GET /v2/ unless its answer is still fresh, and tells under which URL it is to be asked and how
// it wants to know who we are. Several callers ask once.
func (s *session) know(ctx context.Context, e *endpoint) (url.URL, []challenge, error) {
	s.c.mu.Lock()
	k := s.c.known[e.key()]
	if k == nil {
		k = &knowledge{}
		s.c.known[e.key()] = k
	}
	s.c.mu.Unlock()

	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.at.IsZero() && time.Since(k.at) < freshFor {
		return k.base, k.challenges, nil
	}
	base, challenges, err := s.ping(ctx, e)
	if err != nil {
		return base, nil, err
	}
	k.at, k.base, k.challenges = time.Now(), base, challenges
	return base, challenges, nil
}

// ping asks https first and, where that is allowed, plain HTTP when nothing on the other side speaks TLS.
func (s *session) ping(ctx context.Context, e *endpoint) (url.URL, []challenge, error) {
	challenges, err := s.pingOne(ctx, e, e.base)
	if err == nil || e.plain == nil || ctx.Err() != nil || refusalOf(err) != nil {
		return e.base, challenges, err
	}
	s.c.log.Debug("registry does not answer by TLS, plain HTTP is tried", "host", e.host(), "error", err)
	challenges, err = s.pingOne(ctx, e, *e.plain)
	return *e.plain, challenges, err
}

func (s *session) pingOne(ctx context.Context, e *endpoint, base url.URL) ([]challenge, error) {
	u := base
	u.Path += "/"
	resp, err := s.retrying(ctx, e, func() (*http.Response, error) {
		return s.roundTrip(ctx, e, base, &request{method: http.MethodGet, url: &u, any: true}, "")
	}, false)
	if err != nil {
		return nil, err
	}
	defer drain(resp)
	if resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests {
		return nil, refusal(resp)
	}
	return challengesOf(resp), nil
}
