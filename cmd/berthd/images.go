package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"berth/api/server"
	"berth/api/server/wire"
	"berth/base/event"
	"berth/base/fault"
	pluginclient "berth/base/plugin"
	"berth/engine/plugin"
	"berth/image/policy"
	"berth/image/remote"
	"berth/image/transfer"
)

// imageOptions is what the command line and daemon.json ask of pulling and pushing.
type imageOptions struct {
	Mirrors      []string // of the Hub, URLs
	Insecure     []string // HOST[:PORT] or CIDR
	ConfigDirs   []string // directories of HOST/hosts.toml and certificates
	Downloads    int      // layers of one pull at once
	Uploads      int      // layers of one push at once
	Attempts     int      // tries of one download
	KeepBlobs    bool     // compressed layers stay beside the unpacked ones
	StaleIfError bool     // a copy that is here will do where a registry does not answer
	Policy       string   // file of rules for what may be pulled; "" none
	HTTPProxy    string
	HTTPSProxy   string
	NoProxy      string
}

// Directories of settings for single registries, unless others are named: our own, and Docker's.
var defaultConfigDirs = []string{"/etc/berth/certs.d", "/etc/docker/certs.d"}

// transferOptions lists the options that concern pulling and pushing.
func transferOptions(o *imageOptions) []option {
	return []option{
		{"registry-mirror", "", "registry-mirrors", "Mirror of Docker Hub to ask first, a URL; may be repeated. Mirrors of other registries: hosts.toml, see --registry-config", &list{to: &o.Mirrors, check: checkMirror}},
		{"insecure-registry", "", "insecure-registries", "Registry, HOST[:PORT] or CIDR, that may do without TLS or with a certificate nobody knows; may be repeated", &list{to: &o.Insecure, check: checkInsecure}},
		{"registry-config", "", "registry-config", "Directory with HOST/hosts.toml and certificates of single registries; may be repeated (default " + strings.Join(defaultConfigDirs, ", ") + ")", &list{to: &o.ConfigDirs, check: checkDir}},
		{"max-concurrent-downloads", "", "max-concurrent-downloads", "Layers of one pull that are fetched at once", newCount(&o.Downloads, 3)},
		{"max-concurrent-uploads", "", "max-concurrent-uploads", "Layers of one push that are sent at once", newCount(&o.Uploads, 5)},
		{"max-download-attempts", "", "max-download-attempts", "Tries of one download", newCount(&o.Attempts, 5)},
		{"keep-blobs", "", "keep-blobs", "Keep compressed layers beside the unpacked ones, for hosts that must be able to push or save them without their source", &boolean{to: &o.KeepBlobs}},
		{"stale-if-error", "", "stale-if-error", "When a registry does not answer or has too much to do, a pull takes the copy that is here and says how old it is", &boolean{to: &o.StaleIfError}},
		{"image-policy", "", "image-policy", "File of rules for what may be pulled: accept, reject, require a digest or a signature", newText(&o.Policy, "")},
		{"http-proxy", "", "", "Proxy for http:// registries (default HTTP_PROXY)", newText(&o.HTTPProxy, "")},
		{"https-proxy", "", "", "Proxy for https:// registries (default HTTPS_PROXY)", newText(&o.HTTPSProxy, "")},
		{"no-proxy", "", "", "Hosts that are reached without a proxy (default NO_PROXY)", newText(&o.NoProxy, "")},
		{key: "proxies", value: &proxies{to: o}},
	}
}

// proxies are those that were configured, else those that the environment names.
func (o imageOptions) proxies() *httpproxy.Config {
	c := httpproxy.FromEnvironment()
	for to, v := range map[*string]string{&c.HTTPProxy: o.HTTPProxy, &c.HTTPSProxy: o.HTTPSProxy, &c.NoProxy: o.NoProxy} {
		if v != "" {
			*to = v
		}
	}
	return c
}

// proxy finds the proxy of a request.
func (o imageOptions) proxy() func(*http.Request) (*url.URL, error) {
	f := o.proxies().ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return f(r.URL) }
}

func (o imageOptions) configDirs() []string {
	if len(o.ConfigDirs) > 0 {
		return o.ConfigDirs
	}
	return defaultConfigDirs
}

// checkMirror refuses what dockerd refuses: a mirror is a host and perhaps a path, nothing else.
func checkMirror(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return fmt.Errorf("invalid mirror: %q is not a valid URI: %w", s, err)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("invalid mirror: no scheme specified for %q: must use either 'https://' or 'http://'", s)
	case u.Host == "":
		return fmt.Errorf("invalid mirror: %q names no host", s)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("invalid mirror: query or fragment at end of the URI %q", s)
	case u.User != nil:
		return fmt.Errorf("invalid mirror: username/password not allowed in URI %q", u.Redacted())
	}
	return nil
}

// checkInsecure refuses URLs, the usual mistake.
func checkInsecure(s string) error {
	if _, err := netip.ParsePrefix(s); err == nil {
		return nil
	}
	if s == "" || strings.Contains(s, "://") || strings.ContainsAny(s, "/ ") {
		return fmt.Errorf("insecure registry %q: write HOST, HOST:PORT or a CIDR", s)
	}
	return nil
}

func checkDir(s string) error {
	if !strings.HasPrefix(s, "/") {
		return fmt.Errorf("%q is no absolute path", s)
	}
	return nil
}

// count is a number of at least one.
type count struct{ number }

func newCount(to *int, init int) *count { return &count{*newNumber(to, init)} }

func (c *count) Set(s string) error { return c.positive(c.number.Set(s)) }

func (c *count) setJSON(raw json.RawMessage) error { return c.positive(c.number.setJSON(raw)) }

func (c *count) positive(err error) error {
	if err == nil && *c.to < 1 {
		err = fmt.Errorf("%d is less than 1", *c.to)
	}
	return err
}

// proxies is daemon.json's object of that name.
type proxies struct {
	to  *imageOptions
	set bool
}

func (p *proxies) String() string   { return "" }
func (p *proxies) Type() string     { return "proxies" }
func (p *proxies) given() bool      { return p.set }
func (p *proxies) Set(string) error { return fmt.Errorf("only in daemon.json") }

func (p *proxies) setJSON(raw json.RawMessage) error {
	fields, err := objectFields(raw)
	if err != nil {
		return err
	}
	places := map[string]*string{"http-proxy": &p.to.HTTPProxy, "https-proxy": &p.to.HTTPSProxy, "no-proxy": &p.to.NoProxy}
	var conflicts []string
	for _, f := range fields {
		to, ok := places[f.name]
		if !ok {
			return fmt.Errorf("%s is unknown; there are http-proxy, https-proxy and no-proxy", f.name)
		}
		flag := *to
		if err := json.Unmarshal(f.value, to); err != nil {
			return err
		}
		if flag != "" {
			conflicts = append(conflicts, fmt.Sprintf("%s: (from flag: %s, from file: %s)", f.name, wire.Masked(flag), wire.Masked(*to)))
		}
	}
	if len(conflicts) > 0 {
		slices.Sort(conflicts)
		return fmt.Errorf("the following directives are specified both as a flag and in the configuration file: %s", strings.Join(conflicts, ", "))
	}
	p.set = true
	return nil
}

// mirrors gives the Hub's mirrors as dockerd shows them: with a slash at the end.
func (o imageOptions) mirrors() []string {
	all := slices.Clone(o.Mirrors)
	for i, m := range all {
		all[i] = strings.TrimRight(m, "/") + "/"
	}
	return all
}

// openTransfer opens what talks to registries: the client, pulls and pushes, and the plugins that come from there.
func (r *rooms) openTransfer(ctx context.Context, cfg config) (err error) {
	o := cfg.Image
	r.remote, err = remote.New(remote.Config{
		HostsDirs: o.configDirs(), Mirrors: o.mirrors(), Insecure: o.Insecure, Proxy: o.proxy(), UserAgent: "berth/" + version, Attempts: o.Attempts, Log: r.log,
	})
	if err != nil {
		return err
	}
	if err := r.openLazy(ctx, cfg); err != nil {
		return err
	}
	var verify transfer.Verifier // stays nil without a policy
	if o.Policy != "" {
		if verify, err = policy.Open(o.Policy); err != nil {
			return err
		}
	}
	r.transfer = transfer.New(transfer.Config{
		Images: r.images, Remote: r.remote, Verify: verify, Lazy: r.lazy, MaxDownloads: o.Downloads, MaxUploads: o.Uploads, KeepBlobs: o.KeepBlobs, StaleIfError: o.StaleIfError, Log: r.log,
	})
	r.plugins, err = plugin.Open(plugin.ManagerConfig{
		Root: filepath.Join(cfg.DataRoot, "plugin"), Run: filepath.Join(cfg.ExecRoot, "plugin"), Remote: r.remote, Verify: verify, InUse: r.pluginUses, Emit: r.pluginEvent, Log: r.log,
	})
	return err
}

// pluginUses counts the volumes and networks of a plugin.
func (r *rooms) pluginUses(name string) (n int) {
	same := func(driver string) bool { return driver == name || driver+":latest" == name }
	for _, x := range r.networks.List() {
		if same(x.Driver) {
			n++
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), openPatience)
	defer cancel()
	volumes, _, err := r.volumes.List(ctx)
	if err != nil {
		return n
	}
	for _, x := range volumes {
		if same(x.Driver) {
			n++
		}
	}
	return n
}

// pluginEvent passes on what happened to a managed plugin.
func (r *rooms) pluginEvent(action, id, name string) {
	r.events.Publish(event.Event{Type: "plugin", Action: action, ID: id, Attributes: map[string]string{"name": name}})
}

// authorizers finds the plugins that decide about requests, when a request comes; their names may change meanwhile.
func (r *rooms) authorizers(names []string) func(context.Context) ([]server.Authorizer, error) {
	r.authzNames.Store(&names)
	r.authz = pluginclient.New(pluginclient.Config{Managed: r.plugins, Log: r.log})
	return func(ctx context.Context) (list []server.Authorizer, err error) {
		for _, n := range *r.authzNames.Load() {
			p, err := r.authz.Get(ctx, n, "authz")
			if err != nil {
				return nil, fault.Wrap(fault.Internal, err, "authorization plugin %s", n)
			}
			list = append(list, p)
		}
		return list, nil
	}
}
