package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"berth/base/fault"
)

// MaxPassword is the longest password that is looked at, in bytes. Longer ones are refused before any work is done.
const MaxPassword = 1024

// MaxName is the longest user name that is looked at, in bytes.
const MaxName = 256

// User is somebody whose password was right.
type User struct {
	Name   string   // as the authenticator spells it, not as it was typed: rights are given to this name
	Groups []string // names of groups, sorted, without duplicates
	Admin  bool     // administrator of the site
	Source string   // which authenticator knows him: "htpasswd", "ldap", "accounts"
	Stamp  string   // changes with the password; "" when the source cannot tell. Tokens that were given for the old one end
}

// Authenticator checks passwords. Errors: ErrNoUser when it does not know the name, Unauthorized when the password is
// wrong or the account is closed, Unavailable when it could not find out.
type Authenticator interface {
	Password(ctx context.Context, user, password string) (User, error)
}

// Directory is an authenticator that can tell what it knows of a user without his password: whether he still exists and
// in which groups he is, for tokens that he was given before. Errors: ErrNoUser, also when the account is closed;
// Unavailable when it could not find out; NotImplemented when it never can.
type Directory interface {
	Lookup(ctx context.Context, user string) (User, error)
}

// ErrNoUser is what an authenticator answers that does not know the name. It is Unauthorized to whoever asked.
var ErrNoUser = fault.New(fault.Unauthorized, "incorrect username or password")

// ErrPassword is what an authenticator answers that knows the name but not with this password. Its words are those of
// ErrNoUser, so that nobody learns which names exist.
var ErrPassword = fault.New(fault.Unauthorized, "incorrect username or password")

// Check refuses what no authenticator needs to see: an empty name, an empty password (which a directory would take for
// an anonymous bind that succeeds, RFC 4513 section 5.1.2), control characters, text that is not UTF-8, and sizes out of
// measure. Errors are Unauthorized.
func Check(user, password string) error {
	switch {
	case user == "" || password == "":
		return ErrPassword
	case len(user) > MaxName || len(password) > MaxPassword:
		return ErrPassword
	case !utf8.ValidString(user) || strings.ContainsFunc(user, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return ErrPassword
	case strings.ContainsRune(password, 0):
		return ErrPassword
	}
	return nil
}

// Chain asks several authenticators in turn. The first that knows the name decides, so that a name in an earlier one
// hides the same name in a later one. When an earlier one cannot be reached the later ones are not asked: they could
// let somebody in under a name that is not his.
type Chain []Authenticator

// Password asks the authenticators in turn.
func (c Chain) Password(ctx context.Context, user, password string) (User, error) {
	if err := Check(user, password); err != nil {
		return User{}, err
	}
	for _, a := range c {
		u, err := a.Password(ctx, user, password)
		if errors.Is(err, ErrNoUser) {
			continue
		}
		return u, err
	}
	return User{}, ErrNoUser
}

// Lookup asks the authenticators in turn that can look up.
func (c Chain) Lookup(ctx context.Context, user string) (User, error) {
	for _, a := range c {
		d, ok := a.(Directory)
		if !ok {
			continue
		}
		u, err := d.Lookup(ctx, user)
		if errors.Is(err, ErrNoUser) {
			continue
		}
		return u, err
	}
	return User{}, ErrNoUser
}

// Groups sorts names of groups and drops empty ones and duplicates.
func Groups(names []string) []string {
	kept := slices.DeleteFunc(slices.Clone(names), func(s string) bool { return s == "" })
	slices.Sort(kept)
	return slices.Compact(kept)
}
