package remote

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"berth/base/fault"
	"berth/base/ref"
)

// The Hub's servers.
const (
	hubHost  = "registry-1.docker.io"
	hubIndex = "index.docker.io"

	freshFor      = 5 * time.Minute  // how long what was learnt of an endpoint is believed
	pauseFor      = 30 * time.Second // for which a mirror that does not answer is not asked again
	mirrorTimeout = 10 * time.Second // for a mirror's first answer
	resolvedFor   = time.Minute      // how long the addresses of a name are believed to be insecure or not
	maxServer     = 1 << 20          // bytes of a token's answer that are read at most
	maxRefusal    = 64 << 10         // bytes of an error's body that are read at most
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
		for _, m := range c.reach.Load().mirrors {
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
// any of its addresses in one of the networks is enough.
func (c *Client) isInsecure(host string) bool {
	host = strings.ToLower(host)
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	insecure := c.reach.Load().insecure
	if insecure.hosts[host] || insecure.hosts[name] || name == "localhost" {
		return true
	}
	name = strings.Trim(name, "[]")
	if a, err := netip.ParseAddr(name); err == nil {
		return insecure.contains(a)
	}
	if name == hubHost || name == hubIndex {
		return false
	}
	c.mu.Lock()
	known, ok := c.resolved[name]
	c.mu.Unlock()
	if ok && time.Since(known.at) < resolvedFor {
		return known.insecure
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	addrs, _ := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	found := resolution{at: time.Now(), insecure: slices.ContainsFunc(addrs, insecure.contains)}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.resolved) > 1000 {
		clear(c.resolved)
	}
	c.resolved[name] = found
	return found.insecure
}

// resolution remembers whether one of a name's addresses is insecure.
type resolution struct {
	at       time.Time
	insecure bool
}

// knowledge is what one endpoint has told about itself. gate is held while the endpoint is asked: others wait for the answer.
type knowledge struct {
	gate       gate
	at         time.Time // zero: not asked yet
	base       url.URL   // base or plain, whichever answered
	challenges []challenge
	err        error // it did not answer: told to all who waited; a mirror is left in peace for a while
}

// know asks an endpoint GET /v2/ unless its answer is still fresh, and tells under which URL it is to be asked and how
// it wants to know who we are. Several callers ask once.
func (s *session) know(ctx context.Context, e *endpoint) (url.URL, []challenge, error) {
	k, came := s.c.knowledgeOf(e), time.Now()
	if err := k.gate.lock(ctx); err != nil {
		return e.base, nil, err
	}
	defer k.gate.unlock()
	switch age := time.Since(k.at); {
	case k.at.IsZero():
	case k.err == nil && age < freshFor, k.err != nil && (k.at.After(came) || e.mirror && age < pauseFor):
		return k.base, k.challenges, k.err
	}
	asking := ctx
	if e.mirror {
		var cancel context.CancelFunc
		asking, cancel = context.WithTimeoutCause(ctx, mirrorTimeout, errSilent)
		defer cancel()
	}
	base, challenges, err := s.ping(asking, e)
	if ctx.Err() != nil {
		return base, nil, err // it is our caller who went away
	}
	k.at, k.base, k.challenges, k.err = time.Now(), base, challenges, err
	return base, challenges, err
}

// knowledgeOf gives what is known of an endpoint.
func (c *Client) knowledgeOf(e *endpoint) *knowledge {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.known[e.key()]
	if k == nil {
		k = &knowledge{gate: newGate()}
		c.known[e.key()] = k
	}
	return k
}

// unlearn forgets what was known of an endpoint: it does not answer as it did.
func (c *Client) unlearn(e *endpoint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, e.key())
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
