package classic

import (
	"context"
	"strings"

	"github.com/moby/buildkit/session/auth"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/moby/api/types/registry"
	"google.golang.org/grpc"

	"berth/base/id"
	"berth/build/session"
	"berth/build/tarcontext"
)

// Session serves a context (nil: none) and credentials by registry to builds, from within this process: a build cannot tell the client
// of the classic API from any other. It gives the session's id and a function that ends it. Nothing of the context is kept for another
// session: two tars may have files of one name, size and time with different content.
func Session(ctx context.Context, to *session.Manager, from *tarcontext.Context, credentials map[string]registry.AuthConfig) (string, func(), error) {
	serves := []session.Attachable{&keys{known: credentials}}
	if from != nil {
		serves = append(serves, filesync.NewFSSyncProvider(filesync.StaticDirSource{"context": from.FS(), "dockerfile": from.FS()}))
	}
	return to.Local(ctx, session.Once+id.New(), serves...)
}

// keys answers builds that ask how to sign in.
type keys struct {
	auth.UnimplementedAuthServer
	known map[string]registry.AuthConfig // by the registry's name, as clients write it
}

// Register makes keys a service of a session.
func (k *keys) Register(s *grpc.Server) { auth.RegisterAuthServer(s, k) }

// Credentials gives what the client sent for a host; nothing where it sent none. The Hub has a name of its own among credentials.
func (k *keys) Credentials(_ context.Context, r *auth.CredentialsRequest) (*auth.CredentialsResponse, error) {
	for name, a := range k.known {
		host := strings.TrimPrefix(strings.TrimPrefix(name, "https://"), "http://")
		host, _, _ = strings.Cut(host, "/")
		if host != r.Host && !(hub[host] && hub[r.Host]) {
			continue
		}
		if a.IdentityToken != "" {
			return &auth.CredentialsResponse{Secret: a.IdentityToken}, nil
		}
		return &auth.CredentialsResponse{Username: a.Username, Secret: a.Password}, nil
	}
	return &auth.CredentialsResponse{}, nil
}

// hub are the names of Docker's own registry.
var hub = map[string]bool{"docker.io": true, "index.docker.io": true, "registry-1.docker.io": true}
