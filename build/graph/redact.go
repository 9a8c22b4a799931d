package graph

import (
	"net/url"
	"strings"

	digest "github.com/opencontainers/go-digest"
)

// Redact takes user and password out of an address, as far as it has them, for people, records and provenance to read. Other texts stay as they are,
// user@host:path too: there is no password in it.
func Redact(address string) string {
	const mask = "xxxxx"
	u, err := url.Parse(address)
	if err != nil { // a password with a stray character: what stands before the last @ may be one
		if scheme, rest, ok := strings.Cut(address, "://"); ok {
			if i := strings.LastIndexByte(rest, '@'); i >= 0 && !isPin(scheme, rest[i+1:]) {
				return scheme + "://" + mask + rest[i:]
			}
		}
		return address
	}
	if u.User == nil || u.Host == "" {
		return address
	}
	if _, has := u.User.Password(); has {
		u.User = url.UserPassword(mask, mask)
	} else {
		u.User = url.User(mask)
	}
	return u.String()
}

// isPin reports whether what stands behind the @ is the digest of an image: oci-layout://name@sha256:… parses as no address, and a name is no password.
func isPin(scheme, behind string) bool {
	if !strings.HasPrefix(scheme, "docker-image") && !strings.HasPrefix(scheme, "oci-layout") {
		return false
	}
	_, err := digest.Parse(behind)
	return err == nil
}
