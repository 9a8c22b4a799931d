package remote

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"berth/base/fault"
	"berth/base/ref"
)

// maxHosts bounds a hosts.toml.
const maxHosts = 1 << 20

// hostsConfig is what a directory HOST of HostsDirs says.
type hostsConfig struct {
	mirrors []hostEntry
	server  hostEntry // its url is nil when the file names no server
}

// hostEntry is one server of a hosts.toml.
type hostEntry struct {
	url          *url.URL
	capabilities capability // 0: not said
	skipVerify   *bool
	overridePath bool
	dial         time.Duration // 0: not said
	ca           []string
	client       [][2]string // certificate, key ("" when the certificate's file holds it)
	header       http.Header
}

// readHosts reads a registry's directory; nil when there is none.
func (c *Client) readHosts(domain string) (*hostsConfig, error) {
	for _, name := range hostDirNames(domain) { // what is said of the host comes before any _default
		for _, dir := range c.cfg.HostsDirs {
			d := filepath.Join(dir, name)
			if info, err := os.Stat(d); err != nil || !info.IsDir() {
				continue
			}
			return readHostDir(d)
		}
	}
	return nil, nil
}

// hostDirNames gives the directory names under which a registry may be configured: HOST:PORT, containerd's spelling
// without colon, and _default for all that have none. A domain that is no plain name has none: it never leaves HostsDirs.
func hostDirNames(domain string) []string {
	if domain == "" || strings.HasPrefix(domain, ".") || strings.HasPrefix(domain, "_") || strings.ContainsAny(domain, "/\\\x00") {
		return nil
	}
	names := []string{domain}
	if i := strings.LastIndexByte(domain, ':'); i > 0 {
		names = append(names, domain[:i]+"_"+domain[i+1:]+"_")
	}
	if domain == ref.DefaultDomain {
		names = append(names, hubHost, hubIndex)
	}
	return append(names, "_default")
}

// readHostDir reads hosts.toml, or else Docker's certificates, of a directory.
func readHostDir(dir string) (*hostsConfig, error) {
	content, err := os.ReadFile(filepath.Join(dir, "hosts.toml"))
	if err == nil {
		conf, err := parseHosts(content, dir)
		return conf, fault.In(err, "%s", filepath.Join(dir, "hosts.toml"))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, fault.Wrap(fault.Internal, err, "registry settings")
	}
	ca, client, err := readCertDir(dir)
	if err != nil {
		return nil, err
	}
	return &hostsConfig{server: hostEntry{ca: ca, client: client}}, nil
}

// readCertDir finds a host's certificates as Docker names them: NAME.crt is an authority, NAME.cert with NAME.key is ours.
func readCertDir(dir string) (ca []string, client [][2]string, err error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fault.Wrap(fault.Internal, err, "registry certificates")
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	for _, e := range entries {
		name := e.Name()
		switch filepath.Ext(name) {
		case ".crt":
			ca = append(ca, filepath.Join(dir, name))
		case ".cert":
			key := strings.TrimSuffix(name, ".cert") + ".key"
			if !has(key) {
				return nil, nil, fault.New(fault.Invalid, "missing key %s for client certificate %s. CA certificates must use the extension .crt", key, filepath.Join(dir, name))
			}
			client = append(client, [2]string{filepath.Join(dir, name), filepath.Join(dir, key)})
		case ".key":
			cert := strings.TrimSuffix(name, ".key") + ".cert"
			if !has(cert) {
				return nil, nil, fault.New(fault.Invalid, "missing client certificate %s for key %s", cert, filepath.Join(dir, name))
			}
		}
	}
	return ca, client, nil
}

// tomlHost is a server's table in the file. Some values may be one thing or a list.
type tomlHost struct {
	Capabilities []string       `toml:"capabilities"`
	CA           any            `toml:"ca"`
	Client       any            `toml:"client"`
	SkipVerify   *bool          `toml:"skip_verify"`
	Header       map[string]any `toml:"header"`
	OverridePath bool           `toml:"override_path"`
	DialTimeout  string         `toml:"dial_timeout"`
}

type tomlFile struct {
	tomlHost
	Server string              `toml:"server"`
	Host   map[string]tomlHost `toml:"host"`
}

// parseHosts reads a hosts.toml. Paths in it are relative to dir.
func parseHosts(content []byte, dir string) (*hostsConfig, error) {
	if len(content) > maxHosts {
		return nil, fault.New(fault.Invalid, "larger than %d bytes", maxHosts)
	}
	var f tomlFile
	if err := toml.NewDecoder(bytes.NewReader(content)).Decode(&f); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	conf := &hostsConfig{}
	var err error
	if conf.server, err = f.tomlHost.entry(f.Server, dir); err != nil {
		return nil, fault.In(err, "server %q", f.Server)
	}
	order, err := hostOrder(content)
	if err != nil {
		return nil, err
	}
	for _, name := range order {
		h, ok := f.Host[name]
		if !ok {
			continue
		}
		if name == "" {
			return nil, fault.New(fault.Invalid, "a [host] table has no name")
		}
		entry, err := h.entry(name, dir)
		if err != nil {
			return nil, fault.In(err, "host %q", name)
		}
		conf.mirrors = append(conf.mirrors, entry)
	}
	return conf, nil
}

// hostOrder gives the names of the [host."…"] tables in the file's order, which is the order of asking. A decoded map has lost it.
func hostOrder(content []byte) ([]string, error) {
	var order []string
	p := unstable.Parser{}
	p.Reset(content)
	for p.NextExpression() {
		e := p.Expression()
		if e.Kind != unstable.Table && e.Kind != unstable.KeyValue {
			continue
		}
		it := e.Key()
		if !it.Next() || string(it.Node().Data) != "host" || !it.Next() {
			continue
		}
		if name := string(it.Node().Data); !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	if err := p.Error(); err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	return order, nil
}

// entry checks one table. An empty address leaves the url nil.
func (h tomlHost) entry(address, dir string) (hostEntry, error) {
	e := hostEntry{skipVerify: h.SkipVerify, overridePath: h.OverridePath, header: http.Header{}}
	if address != "" {
		if !strings.Contains(address, "://") {
			address = "https://" + address
		}
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" {
			return e, fault.New(fault.Invalid, "is not the URL of a server (https://HOST[:PORT][/PATH])")
		}
		e.url = u
	}
	for _, w := range h.Capabilities {
		switch strings.ToLower(w) {
		case "pull":
			e.capabilities |= canPull
		case "resolve":
			e.capabilities |= canResolve
		case "push":
			e.capabilities |= canPush
		case "search":
			e.capabilities |= canSearch
		case "dial", "referrers": // other clients' words for what pull includes here
		default:
			return e, fault.New(fault.Invalid, "unknown capability %q: pull, resolve, push and search are known", w)
		}
	}
	if h.DialTimeout != "" {
		d, err := time.ParseDuration(h.DialTimeout)
		if err != nil || d <= 0 {
			return e, fault.New(fault.Invalid, "dial_timeout %q is not a time like \"3s\"", h.DialTimeout)
		}
		e.dial = d
	}
	ca, err := words(h.CA)
	if err != nil {
		return e, fault.In(err, "ca")
	}
	for _, f := range ca {
		e.ca = append(e.ca, below(dir, f))
	}
	if e.client, err = clientPairs(h.Client, dir); err != nil {
		return e, err
	}
	for name, v := range h.Header {
		values, err := words(v)
		if err != nil || !validHeader(name, values) {
			return e, fault.New(fault.Invalid, "header %q is not a text or a list of texts", name)
		}
		e.header[http.CanonicalHeaderKey(name)] = values
	}
	return e, nil
}

// clientPairs reads containerd's four spellings: "cert", ["cert", "cert"], [["cert", "key"]] and mixtures.
func clientPairs(v any, dir string) ([][2]string, error) {
	wrong := fault.New(fault.Invalid, "client is not a certificate's file or a list of [certificate, key]")
	var list []any
	switch v := v.(type) {
	case nil:
	case string:
		list = []any{v}
	case []any:
		list = v
	default:
		return nil, wrong
	}
	var pairs [][2]string
	for _, item := range list {
		files, err := words(item)
		if err != nil || len(files) < 1 || len(files) > 2 {
			return nil, wrong
		}
		p := [2]string{below(dir, files[0])}
		if len(files) == 2 && files[1] != "" {
			p[1] = below(dir, files[1])
		}
		pairs = append(pairs, p)
	}
	return pairs, nil
}

// words reads a text or a list of texts.
func words(v any) ([]string, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{v}, nil
	case []any:
		var out []string
		for _, x := range v {
			s, ok := x.(string)
			if !ok {
				return nil, fault.New(fault.Invalid, "%v is not a text", x)
			}
			out = append(out, s)
		}
		return out, nil
	}
	return nil, fault.New(fault.Invalid, "%v is not a text or a list of texts", v)
}

// validHeader keeps out what would break a request's head.
func validHeader(name string, values []string) bool {
	if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r >= 127 || r == ':' }) {
		return false
	}
	return !slices.ContainsFunc(values, func(v string) bool { return strings.ContainsAny(v, "\r\n\x00") })
}

func below(dir, file string) string {
	if filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// configured turns a hosts.toml into endpoints.
func (c *Client) configured(domain string, conf *hostsConfig) ([]*endpoint, error) {
	var list []*endpoint
	for _, h := range conf.mirrors {
		e, err := c.fromEntry(h, domain)
		if err != nil {
			return nil, err
		}
		e.mirror = true
		list = append(list, e)
	}
	home, err := c.plainRegistry(domain)
	if err != nil {
		return nil, err
	}
	if conf.server.url == nil {
		tls := tlsSettings{skipVerify: home.insecure}.with(conf.server)
		home.transport, err = c.transport(tls)
		home.header = conf.server.header
		if conf.server.capabilities != 0 {
			home.can = conf.server.capabilities
		}
		return append(list, home), err
	}
	e, err := c.fromEntry(conf.server, domain)
	if err != nil {
		return nil, err
	}
	if e.base.Host == ref.DefaultDomain { // "https://docker.io" is how people write the Hub there
		e.base.Host = hubHost
	}
	e.mirror = false
	if e.base.Host == home.base.Host {
		e.ns = ""
	}
	return append(list, e), nil
}

// fromEntry makes the endpoint of a server that hosts.toml names.
func (c *Client) fromEntry(h hostEntry, domain string) (*endpoint, error) {
	e := &endpoint{base: *h.url, can: h.capabilities, header: h.header, ns: domain}
	if e.can == 0 {
		e.can = canPull | canResolve | canPush
	}
	if u := h.url.User; u != nil {
		pass, _ := u.Password()
		e.own = &Credentials{Username: u.Username(), Password: pass}
		e.base.User = nil
	}
	e.base.Path = strings.TrimRight(h.url.Path, "/")
	if !h.overridePath {
		e.base.Path += "/v2"
	}
	insecure := c.isInsecure(h.url.Host)
	e.insecure = insecure || h.url.Scheme == "http" || h.skipVerify != nil && *h.skipVerify
	if insecure && e.base.Scheme == "https" {
		p := e.base
		p.Scheme = "http"
		e.plain = &p
	}
	var err error
	e.transport, err = c.transport(tlsSettings{skipVerify: insecure}.with(h))
	return e, err
}
