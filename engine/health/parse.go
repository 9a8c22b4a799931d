package health

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"berth/base/fault"
)

// Kind says how a probe is made.
type Kind string

// The kinds of probes.
const (
	Command Kind = "command" // a process in the container; exit code 0 is healthy
	HTTP    Kind = "http"    // a GET; status 200 to 399 is healthy
	HTTPS   Kind = "https"   // the same over TLS; the certificate is not verified
	TCP     Kind = "tcp"     // a connection that is accepted
	GRPC    Kind = "grpc"    // grpc.health.v1.Health/Check that answers SERVING
)

// Probe is what a check's test asks for.
type Probe struct {
	Kind Kind
	Args []string // of a command

	Host netip.Addr // of a question; the zero value: the container's loopback, 127.0.0.1 and then ::1
	Port uint16
	Path string // of http and https, with its query: "/healthz?full"
	Name string // of grpc: the service that is asked for, "" the server
}

// defaultShell runs a CMD-SHELL test where the image names no other.
var defaultShell = []string{"/bin/sh", "-c"}

// Parse reads the test of a check. ok is false where none is to be made: NONE, no test, and a word that nobody knows, as in Docker. shell
// is the image's.
//
// A test of a single word that begins with http:, https:, tcp: or grpc: is a question:
//
//	http:8080/healthz     https:8443/     tcp:5432     grpc:9090/my.Service     http://10.0.0.7:80/     tcp://[fd00::1]:53
func Parse(test, shell []string) (p Probe, ok bool, err error) {
	if len(test) == 0 || test[0] != "CMD" && test[0] != "CMD-SHELL" {
		return p, false, nil
	}
	args := test[1:]
	if len(args) == 0 { // Docker takes it, and dies of it at the first probe
		return p, false, fault.New(fault.Invalid, "Healthcheck: %s needs a command", test[0])
	}
	if len(args) == 1 {
		if p, ok, err = question(strings.TrimSpace(args[0])); ok || err != nil {
			return p, ok, err
		}
	}
	if test[0] == "CMD-SHELL" {
		if len(shell) == 0 {
			shell = defaultShell
		}
		args = slices.Concat(shell, args)
	}
	return Probe{Kind: Command, Args: args}, true, nil
}

// question reads a probe that is no command; ok is false where the text is one.
func question(text string) (p Probe, ok bool, err error) {
	scheme, rest, ok := strings.Cut(text, ":")
	if !ok || strings.ContainsFunc(text, unicode.IsSpace) {
		return p, false, nil
	}
	p.Kind = Kind(scheme)
	if !slices.Contains([]Kind{HTTP, HTTPS, TCP, GRPC}, p.Kind) {
		return Probe{}, false, nil
	}
	if p, err = p.target(rest); err != nil {
		return Probe{}, false, fault.New(fault.Invalid, "Healthcheck: %q: %v (wanted: http:PORT/PATH, https:PORT/PATH, tcp:PORT or grpc:PORT/SERVICE; //ADDRESS:PORT where it is not the container's loopback)", text, err)
	}
	return p, true, nil
}

func (p Probe) target(rest string) (Probe, error) {
	rest, named := strings.CutPrefix(rest, "//")
	address, path := rest, ""
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		address, path = rest[:i], rest[i:]
	}
	port := address
	if named {
		var host string
		var err error
		if host, port, err = net.SplitHostPort(address); err != nil {
			return p, plain("the address needs a port")
		}
		if host != "localhost" {
			if p.Host, err = netip.ParseAddr(host); err != nil {
				return p, plain("the address must be a number or localhost: names are not looked up")
			}
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return p, plain("the port is no number from 1 to 65535")
	}
	p.Port = uint16(n)
	return p.tail(path)
}

// tail reads what follows the port.
func (p Probe) tail(path string) (Probe, error) {
	switch p.Kind {
	case TCP:
		if path != "" {
			return p, plain("tcp has no path")
		}
	case GRPC:
		p.Name = strings.TrimPrefix(path, "/")
	default:
		if !strings.HasPrefix(path, "/") {
			path = "/" + path
		}
		u, err := url.ParseRequestURI(path)
		if err != nil || strings.ContainsFunc(path, unicode.IsControl) {
			return p, plain("the path is not one of a URL")
		}
		p.Path = u.RequestURI()
	}
	return p, nil
}

type plain string

// Error gives the sentence.
func (p plain) Error() string { return string(p) }

// addresses are where the question is asked, one after the other.
func (p Probe) addresses() []netip.AddrPort {
	if p.Host.IsValid() {
		return []netip.AddrPort{netip.AddrPortFrom(p.Host, p.Port)}
	}
	return []netip.AddrPort{
		netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Port),
		netip.AddrPortFrom(netip.IPv6Loopback(), p.Port),
	}
}
