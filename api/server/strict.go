package server

import (
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"berth/base/fault"
)

// What two programs may read differently is refused, so that a proxy, a plugin or a log in front of the engine cannot be made to see
// another request than the one that is carried out.

// wellFormed refuses requests whose form no honest client uses.
func wellFormed(r *http.Request) error {
	raw := strings.ToLower(r.URL.EscapedPath())
	switch {
	case r.URL.Scheme != "" || r.URL.Host != "" || r.URL.Opaque != "":
		return fault.New(fault.Invalid, "the request's target must be a path: this is no proxy")
	case strings.Contains(raw, "%2e"):
		return fault.New(fault.Invalid, "the path has an encoded dot: write dots as they are")
	case strings.ContainsFunc(r.URL.Path, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return fault.New(fault.Invalid, "the path has a control character")
	case strings.Contains(raw, "%2f") && cleanPath(r.URL.Path) != r.URL.Path:
		return fault.New(fault.Invalid, "the path has encoded slashes that make other steps of it")
	}
	for _, v := range r.Header.Values("Upgrade") {
		if !slices.Contains([]string{"tcp", "h2c", "websocket"}, strings.ToLower(v)) {
			return fault.New(fault.Invalid, "the connection cannot be upgraded: protocol %q is not supported", v)
		}
	}
	return nil
}

// encodedSlash stands for "%2F" while a route is looked for: a slash that was encoded belongs to a name, and never parts the path.
// Control characters do not get this far.
const encodedSlash = "\x00"

// routed gives the path by which a route is looked for.
func routed(u *url.URL) string {
	raw := u.EscapedPath()
	if !strings.Contains(raw, "%2F") && !strings.Contains(raw, "%2f") {
		return u.Path
	}
	p, err := url.PathUnescape(strings.NewReplacer("%2F", "%00", "%2f", "%00").Replace(raw))
	if err != nil {
		return u.Path
	}
	return p
}

// ofBrowser refuses what web pages send to a TCP socket that asks nobody who he is. A page may send requests to any address that the
// browser can reach, the loopback included; by a name of the page's own that suddenly means 127.0.0.1 it can read the answers, too (DNS
// rebinding). Unix sockets are out of a page's reach. A browser that holds a client's certificate shows it for any page: there, pages of
// other sites are refused.
func ofBrowser(r *http.Request) error {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		if elsewhere(r) {
			return fault.New(fault.Forbidden, "requests of other sites' web pages are refused")
		}
		return nil
	}
	local, tcp := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !tcp {
		return nil
	}
	if site := r.Header.Get("Sec-Fetch-Site"); r.Header.Get("Origin") != "" || site != "" && site != "none" {
		return fault.New(fault.Forbidden, "requests of web pages are refused on a TCP socket without client certificates")
	}
	if local.IP.IsLoopback() && !ownName(r.Host) {
		return fault.New(fault.Forbidden, "the Host header %q is no name of this machine's loopback: use 127.0.0.1, localhost or the host's name", r.Host)
	}
	return nil
}

// elsewhere tells requests of a page that came from another place than this server.
func elsewhere(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Site") {
	case "cross-site", "same-site":
		return true
	}
	origin := r.Header.Get("Origin")
	if origin == "" {
		return false
	}
	u, err := url.Parse(origin)
	return err != nil || !strings.EqualFold(u.Host, r.Host)
}

// ownName tells whether a Host header may mean the loopback: an address, localhost, the machine's name, or any name without a dot, which
// nobody can have in public DNS; Docker's clients send "docker" at times.
func ownName(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.ToLower(strings.Trim(name, "[]"))
	if name == "" || net.ParseIP(name) != nil || !strings.Contains(name, ".") || strings.HasSuffix(name, ".localhost") {
		return true
	}
	own, err := os.Hostname()
	own = strings.ToLower(own)
	return err == nil && own != "" && (name == own || strings.HasPrefix(name, own+"."))
}
