package peer

import (
	"net/url"
	"regexp"
	"strings"

	"berth/base/fault"
)

// Account is a user at a registry, and how the registry is reached.
type Account struct {
	Registry string // HOST[:PORT]
	Username string
	Insecure bool // plain HTTP or an unknown certificate will do
}

// Keeps reports whether an account that is changed to b without a password keeps that of a: it goes to no other host and to no other
// user, nor in the clear where it did not before.
func (a Account) Keeps(b Account) bool {
	return a.Registry == b.Registry && a.Username == b.Username && (a.Insecure || !b.Insecure)
}

var name = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName refuses what cannot be called so; of says what has the name ("a mirror").
func CheckName(s, of string) error {
	if name.MatchString(s) {
		return nil
	}
	return fault.New(fault.Invalid, "%q is no name of %s: small letters, digits, - . _", s, of)
}

// Address reads the address of a registry, as a host that may have a port. insecure is true of http://HOST:PORT.
func Address(text string) (host string, insecure bool, err error) {
	host, insecure = strings.CutPrefix(text, "http://")
	host = strings.TrimSuffix(strings.TrimPrefix(host, "https://"), "/")
	if u, err := url.Parse("https://" + host); err != nil || host == "" || u.Host != host || u.Hostname() == "" {
		return "", false, fault.New(fault.Invalid, "%q is no registry: it is HOST[:PORT], or http://HOST:PORT for one without TLS", text)
	}
	return host, insecure, nil
}
