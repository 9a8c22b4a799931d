package session

import (
	"context"
	"time"

	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/secrets"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"

	"berth/base/fault"
	"berth/image/remote"
)

// askPatience is how long a client may take to answer: its credential helper may have a person type something.
const askPatience = time.Minute

// hubHost is what clients look the Hub's credentials up by.
const hubHost = "registry-1.docker.io"

// Credentials asks the group's clients how to sign in at a registry (docker.io, HOST:PORT). One that fetches tokens itself keeps its password: it
// is asked for each token, and for the password only by a registry that takes nothing else. Nobody who knows any is no error: the zero value
// is anonymous.
func (m *Manager) Credentials(ctx context.Context, g Group, domain string) (remote.Credentials, error) {
	if len(IDs(g)) == 0 {
		return remote.Credentials{}, nil
	}
	host := domain
	if domain == "docker.io" {
		host = hubHost
	}
	fetches, err := m.fetchesTokens(ctx, g, host)
	switch {
	case err != nil:
		return remote.Credentials{}, fault.In(err, "ask the client for the credentials of %s", domain)
	case fetches:
		return remote.Credentials{Asker: &asker{m: m, g: g}}, nil
	}
	return m.password(ctx, g, host, domain)
}

// password asks for name and password.
func (m *Manager) password(ctx context.Context, g Group, host, domain string) (cred remote.Credentials, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	err = m.Any(ctx, g, func(ctx context.Context, _ string, c Caller) error {
		resp, err := auth.NewAuthClient(c.Conn()).Credentials(ctx, &auth.CredentialsRequest{Host: host})
		if grpcerrors.Code(err) == codes.Unimplemented {
			return nil
		}
		if err != nil {
			return err
		}
		cred = remote.Credentials{Username: resp.Username, Password: resp.Secret, ServerAddress: domain}
		if resp.Username == "" && resp.Secret != "" {
			cred.Password, cred.IdentityToken = "", resp.Secret // what a login got instead of the password
		}
		return nil
	})
	if err != nil {
		return remote.Credentials{}, fault.In(err, "ask the client for the credentials of %s", domain)
	}
	return cred, nil
}

// fetchesTokens reports whether a client of the group fetches tokens itself. It says so by having a key to prove later that it is the one
// who fetched them; we give tokens to nobody else, so the key is not needed.
func (m *Manager) fetchesTokens(ctx context.Context, g Group, host string) (yes bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	err = m.Any(ctx, g, func(ctx context.Context, _ string, c Caller) error {
		if !c.Supports(auth.Auth_GetTokenAuthority_FullMethodName) || !c.Supports(auth.Auth_FetchToken_FullMethodName) {
			return nil
		}
		resp, err := auth.NewAuthClient(c.Conn()).GetTokenAuthority(ctx, &auth.GetTokenAuthorityRequest{Host: host, Salt: m.salt})
		switch grpcerrors.Code(err) {
		case codes.Unimplemented, codes.Unavailable: // switched off by its user
			return nil
		}
		yes = err == nil && len(resp.PublicKey) > 0
		return err
	})
	return yes, err
}

// asker has a group's clients fetch tokens. The group may grow: whoever is in it when a token is wanted is asked.
type asker struct {
	m *Manager
	g Group
}

// clientID is what clients tell token servers of us, as for BuildKit.
const clientID = "buildkit-client"

// Token has a client fetch a token.
func (a *asker) Token(ctx context.Context, q remote.TokenQuestion) (t remote.Token, err error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	err = a.m.Any(ctx, a.g, func(ctx context.Context, _ string, c Caller) error {
		resp, err := auth.NewAuthClient(c.Conn()).FetchToken(ctx, &auth.FetchTokenRequest{ClientID: clientID, Host: q.Host, Realm: q.Realm, Service: q.Service, Scopes: q.Scopes})
		if err != nil {
			return err
		}
		t = remote.Token{Text: resp.Token, Life: time.Duration(resp.ExpiresIn) * time.Second}
		return nil
	})
	return t, fault.In(err, "ask the client for a token of %s", q.Host)
}

// Password asks a client for name and password.
func (a *asker) Password(ctx context.Context, host string) (remote.Credentials, error) {
	return a.m.password(ctx, a.g, host, host)
}

// Secret asks the group's clients for a secret. NotFound means that none has it. The value must not be kept longer than it is
// needed, and never be written where it stays.
func (m *Manager) Secret(ctx context.Context, g Group, id string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var value []byte
	err := m.Any(ctx, g, func(ctx context.Context, _ string, c Caller) error {
		resp, err := secrets.NewSecretsClient(c.Conn()).GetSecret(ctx, &secrets.GetSecretRequest{ID: id})
		switch code := grpcerrors.Code(err); {
		case err == nil:
			value = resp.Data
			return nil
		case code == codes.NotFound, code == codes.Unimplemented:
			return fault.Wrap(fault.NotFound, secrets.ErrNotFound, "secret %s", id)
		}
		return err
	})
	return value, err
}
