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

// Credentials asks the group's clients how to sign in at a registry (docker.io, HOST:PORT). Nobody who knows any is no error: the zero
// value is anonymous.
func (m *Manager) Credentials(ctx context.Context, g Group, domain string) (remote.Credentials, error) {
	if len(IDs(g)) == 0 {
		return remote.Credentials{}, nil
	}
	host := domain
	if domain == "docker.io" {
		host = hubHost
	}
	ctx, cancel := context.WithTimeout(ctx, askPatience)
	defer cancel()
	var cred remote.Credentials
	err := m.Any(ctx, g, func(ctx context.Context, _ string, c Caller) error {
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
