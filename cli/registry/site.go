package registry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/config/types"

	"berth/base/fault"
)

// Environment variables: the site where --url does not name it, and NAME:PASSWORD (or NAME:TOKEN) in place of what a login has left.
const (
	envURL  = "BERTH_REGISTRY"
	envAuth = "BERTH_REGISTRY_AUTH"
)

// A site is a registry as the flags and the credentials of a command see it.
type site struct {
	d        *command.DockerCli
	url      string // flags
	ca       string
	insecure bool
	root     string
	asJSON   bool

	base  *url.URL // found by open: scheme and host, no path
	http  *http.Client
	cred  types.AuthConfig
	token string // bearer token for scope
	scope string
	asked bool // for the password
}

// open finds out where the site is and who we are there. It asks nobody but, where no scheme is given for a host of this machine, the
// site itself whether it speaks TLS.
func (s *site) open(ctx context.Context) error {
	if s.base != nil {
		return nil
	}
	address, err := s.address()
	if err != nil {
		return err
	}
	u, err := parseAddress(address)
	if err != nil {
		return err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: s.insecure}
	if s.ca != "" {
		pem, err := os.ReadFile(s.ca)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "--cacert")
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return fault.New(fault.Invalid, "--cacert %s: no certificate in PEM", s.ca)
		}
	}
	s.http = &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, TLSHandshakeTimeout: 15 * time.Second},
		// Credentials are for the site alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if u.Scheme == "" {
		u.Scheme = "https"
		if loopback(u.Hostname()) && !s.speaks(ctx, u) {
			u.Scheme = "http"
		}
	}
	if s.cred, err = s.credentials(u.Host); err != nil {
		return err
	}
	s.base = u
	return nil
}

// localKey reads the secret by which whoever may read a registry's directory administrates it.
func localKey(root string) (types.AuthConfig, error) {
	key, err := os.ReadFile(filepath.Join(root, "auth", "local.key"))
	if err != nil {
		return types.AuthConfig{}, fault.Wrap(fault.Forbidden, err, "--root: is a registry being served from there?")
	}
	return types.AuthConfig{RegistryToken: strings.TrimSpace(string(key))}, nil
}

// address is what was typed, or where somebody has logged in.
func (s *site) address() (string, error) {
	if s.url != "" {
		return s.url, nil
	}
	if a := os.Getenv(envURL); a != "" {
		return a, nil
	}
	all, err := s.d.ConfigFile().GetAllCredentials()
	if err != nil {
		return "", fault.Wrap(fault.Internal, err, "read the credentials")
	}
	var hosts []string
	for name := range all {
		if h := hostOf(name); !hub(h) && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	slices.Sort(hosts)
	switch len(hosts) {
	case 0:
		return "", fault.New(fault.Invalid, "which registry? Name it with --url or %s, or log in to one: berth login HOST", envURL)
	case 1:
		return hosts[0], nil
	}
	return "", fault.New(fault.Invalid, "which registry? There are credentials for %s: name one with --url or %s", strings.Join(hosts, ", "), envURL)
}

// credentials are those kept for the host; none is no error.
func (s *site) credentials(host string) (types.AuthConfig, error) {
	if s.root != "" {
		return localKey(s.root)
	}
	if name, password, ok := strings.Cut(os.Getenv(envAuth), ":"); ok {
		return types.AuthConfig{Username: name, Password: password}, nil
	}
	a, err := s.d.ConfigFile().GetAuthConfig(host)
	if err != nil {
		return a, fault.Wrap(fault.Internal, err, "read the credentials for %s", host)
	}
	if a.Username != "" || a.IdentityToken != "" || a.RegistryToken != "" {
		return a, nil
	}
	// Old configurations have whole URLs as names.
	all, err := s.d.ConfigFile().GetAllCredentials()
	if err != nil {
		return a, fault.Wrap(fault.Internal, err, "read the credentials for %s", host)
	}
	for name, c := range all {
		if hostOf(name) == host {
			return c, nil
		}
	}
	return types.AuthConfig{}, nil
}

// parseAddress reads HOST[:PORT] or a URL. Without a scheme that of the result is empty.
func parseAddress(text string) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		scheme, rest = "", text
	}
	rest = strings.TrimRight(rest, "/")
	u, err := url.Parse("//" + rest)
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Invalid, err, "%q is no address of a registry", text)
	case scheme != "" && scheme != "http" && scheme != "https":
		return nil, fault.New(fault.Invalid, "%q: a registry is reached by http or https", text)
	case u.Host == "" || u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fault.New(fault.Invalid, "%q: write HOST, HOST:PORT or a URL of nothing else", text)
	}
	u.Scheme = scheme
	return u, nil
}

// hostOf gives the host of what logins are kept under: a host or a URL.
func hostOf(name string) string {
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	host, _, _ := strings.Cut(name, "/")
	return host
}

func hub(host string) bool {
	return host == "docker.io" || strings.HasSuffix(host, ".docker.io")
}

func loopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// speaks reports whether TLS is spoken there. A server that does not answer, or whose certificate nobody knows, counts as speaking it: the
// request that follows says what is wrong.
func (s *site) speaks(ctx context.Context, u *url.URL) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String()+"/v2/", nil)
	if err != nil {
		return true
	}
	resp, err := s.http.Do(req)
	if err == nil {
		resp.Body.Close()
		return true
	}
	var record tls.RecordHeaderError
	return !errors.As(err, &record) && !strings.Contains(err.Error(), "server gave HTTP response")
}
