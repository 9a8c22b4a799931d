package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"berth/base/fault"
)

// tlsSettings are what a connection's TLS is made of; equal settings share their connections.
type tlsSettings struct {
	skipVerify bool
	ca         []string
	client     [][2]string
	dial       time.Duration // for a connection; 0: 30 s
	foreign    bool          // for layers at addresses that a manifest names: no private hosts
}

// with adds what hosts.toml or certs.d say of a server.
func (t tlsSettings) with(h hostEntry) tlsSettings {
	t.ca, t.client, t.dial = h.ca, h.client, h.dial
	if h.skipVerify != nil {
		t.skipVerify = *h.skipVerify
	}
	return t
}

// key names the settings together with the state of the files, so that a renewed certificate is used.
func (t tlsSettings) key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%t %t %v", t.skipVerify, t.foreign, t.dial)
	stamp := func(file string) {
		if file == "" {
			return
		}
		info, err := os.Stat(file)
		if err != nil {
			fmt.Fprintf(&b, "\n%s: %v", file, err)
			return
		}
		fmt.Fprintf(&b, "\n%s %d %d", file, info.Size(), info.ModTime().UnixNano())
	}
	for _, f := range t.ca {
		stamp(f)
	}
	for _, p := range t.client {
		stamp(p[0])
		stamp(p[1])
	}
	return b.String()
}

// transport gives the connections of the settings.
func (c *Client) transport(t tlsSettings) (*http.Transport, error) {
	key := t.key()
	c.mu.Lock()
	tr := c.transports[key]
	c.mu.Unlock()
	if tr != nil {
		return tr, nil
	}
	conf, err := t.config()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	if t.dial > 0 {
		dialer.Timeout = t.dial
	}
	dial := dialer.DialContext
	if t.foreign {
		dial = publicOnly(dialer)
	}
	tr = &http.Transport{
		Proxy:           c.cfg.Proxy,
		DialContext:     dial,
		TLSClientConfig: conf,
		// Blobs are fetched over several connections: one HTTP/2 connection would make them wait for each other's lost
		// packets, and its flow control windows cost more copies.
		TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
		TLSHandshakeTimeout:    15 * time.Second,
		MaxIdleConnsPerHost:    16,
		IdleConnTimeout:        60 * time.Second,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		DisableCompression:     true, // a digest is of the bytes as they were pushed
		WriteBufferSize:        64 << 10,
		ReadBufferSize:         32 << 10,
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if other := c.transports[key]; other != nil {
		return other, nil
	}
	c.transports[key] = tr
	return tr, nil
}

// config reads the files.
func (t tlsSettings) config() (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: t.skipVerify} // only where the operator said so
	if len(t.ca) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		for _, f := range t.ca {
			pem, err := os.ReadFile(f)
			if err != nil {
				return nil, fault.Wrap(fault.Internal, err, "registry's certificate authority")
			}
			if !pool.AppendCertsFromPEM(pem) {
				return nil, fault.New(fault.Invalid, "%s has no certificate in PEM form", f)
			}
		}
		conf.RootCAs = pool
	}
	for _, p := range t.client {
		key := p[1]
		if key == "" {
			key = p[0]
		}
		cert, err := tls.LoadX509KeyPair(p[0], key)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "client certificate %s", p[0])
		}
		conf.Certificates = append(conf.Certificates, cert)
	}
	return conf, nil
}

// publicOnly dials public addresses only: an address in a manifest is its author's, who must not reach our network with it.
// The addresses are looked up once, so that a name cannot change between the check and the call.
func publicOnly(d *net.Dialer) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return nil, err
		}
		last := fmt.Errorf("%s has no public address", host)
		for _, a := range addrs {
			if !isPublic(a) {
				continue
			}
			conn, err := d.DialContext(ctx, network, net.JoinHostPort(a.Unmap().String(), port))
			if err == nil {
				return conn, nil
			}
			last = err
		}
		return nil, last
	}
}

// isPublic reports whether an address is one of the internet's.
func isPublic(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsGlobalUnicast() && !a.IsPrivate() && !netip.MustParsePrefix("100.64.0.0/10").Contains(a) &&
		!netip.MustParsePrefix("64:ff9b::/96").Contains(a)
}
