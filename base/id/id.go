package id

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

const (
	// Len is the length of a full id in hex digits.
	Len = 64
	// ShortLen is the length of the form that people see.
	ShortLen = 12
)

// New gives a random id. Its short form is never all decimal digits: it becomes the container's
// host name, and a name that reads as a number is taken for an address by some resolvers.
func New() string {
	var b [Len / 2]byte
	for {
		rand.Read(b[:]) // never fails: it ends the process instead (crypto/rand since Go 1.24)
		s := hex.EncodeToString(b[:])
		if !allDecimal(s[:ShortLen]) {
			return s
		}
	}
}

// Short gives the form shown to people: the first 12 digits, without the algorithm of a digest.
// What is shorter stays as it is.
func Short(id string) string {
	if _, after, ok := strings.Cut(id, ":"); ok {
		id = after
	}
	if len(id) > ShortLen {
		return id[:ShortLen]
	}
	return id
}

// Valid reports whether s is a full id.
func Valid(s string) bool { return len(s) == Len && IsHex(s) }

// IsHex reports whether s is one or more lower-case hex digits, so that it may be (a prefix of) an id.
func IsHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return s != ""
}

func allDecimal(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
