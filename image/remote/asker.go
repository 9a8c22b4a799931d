package remote

import (
	"context"
	"net/url"
	"strings"
	"time"

	"berth/base/fault"
)

// Asker lets a caller in who keeps his password to himself: he is asked for each token, and fetches it. A build's client does so. It is safe for
// concurrent use, and what implements it can be compared.
type Asker interface {
	// Token gives a bearer token. An error is the caller's: nobody else is asked.
	Token(ctx context.Context, q TokenQuestion) (Token, error)
	// Password gives name and password for a server that takes nothing else; the zero value is anonymous.
	Password(ctx context.Context, host string) (Credentials, error)
}

// TokenQuestion is what a registry said that a token is to be for (the distribution specification's token authentication).
type TokenQuestion struct {
	Host    string   // the registry (or its mirror) that wants the token: HOST[:PORT]
	Realm   string   // URL of the token server
	Service string   // what the registry calls itself
	Scopes  []string // "repository:library/busybox:pull"
}

// Token is what Asker gives.
type Token struct {
	Text string
	Life time.Duration // 0: a minute
}

// ask gets a token from the caller himself. The realm is checked before: what a client sends there is a password.
func (s *session) ask(ctx context.Context, e *endpoint, a Asker, realm *url.URL, service string, scopes []string) (tokenAnswer, error) {
	t, err := a.Token(ctx, TokenQuestion{Host: e.host(), Realm: realm.String(), Service: service, Scopes: scopes})
	if err != nil && ctx.Err() == nil && unreached(err) {
		// The server may be in reach of us alone, or have a certificate that only we know.
		if cred, perr := a.Password(ctx, e.host()); perr == nil {
			return s.getToken(ctx, e, realm, cred, service, scopes, false)
		}
	}
	if err != nil {
		return tokenAnswer{}, fault.Wrap(fault.Unauthorized, err, "a token of %s", realm.Host)
	}
	return tokenAnswer{Token: t.Text, ExpiresIn: int64(t.Life / time.Second)}, nil
}

// basicFor gives the header for a server that wants a password, "" for none. Who is asked for it is asked once: a person may have to type it.
func (s *session) basicFor(ctx context.Context, e *endpoint, cred Credentials) (string, error) {
	if cred.Asker != nil {
		s.tokens.Lock()
		known, ok := s.tokens.basic[e.key()]
		s.tokens.Unlock()
		if ok {
			return known, nil
		}
		var err error
		if cred, err = cred.Asker.Password(ctx, e.host()); err != nil {
			return "", fault.Wrap(fault.Unauthorized, err, "the password for %s", e.host())
		}
		header := ""
		if cred.Username != "" || cred.Password != "" {
			header = basic(cred)
		}
		s.tokens.Lock()
		s.tokens.basic[e.key()] = header
		s.tokens.Unlock()
		return header, nil
	}
	if cred.Username == "" && cred.Password == "" {
		return "", nil
	}
	return basic(cred), nil
}

// unreached reports that a token server has not been reached, and so has refused nobody. An Asker at the other end of a connection only has words
// for it: containerd's library, which clients use, says "unexpected status" of every answer that is no token.
func unreached(err error) bool { return !strings.Contains(err.Error(), "unexpected status") }
