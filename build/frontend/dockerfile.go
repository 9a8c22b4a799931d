package frontend

import (
	"context"
	"strings"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/frontend/dockerfile/builder"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
)

// Names of the frontends.
const (
	dockerfileName = "dockerfile.v0"
	gatewayName    = "gateway.v0"
)

// dockerfileImages are the images of the frontend that is in this process, all their tags and digests: what they
// can, this one can.
var dockerfileImages = [...]string{"docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"}

// buildDockerfile is dockerfile.v0.
func buildDockerfile(ctx context.Context, c *Client) (*gwclient.Result, error) {
	return builder.Build(ctx, c)
}

// inProcess reports whether the call is of that frontend.
func (c *Call) inProcess() bool { return c != nil && c.Frontend == dockerfileName }

// builtIn reports whether a gateway's options name the frontend of this process. A client that gives the
// frontend's image itself (a named context) wants that one.
func builtIn(opts map[string]string) bool {
	source := opts[keySource]
	for k := range opts {
		if named, ok := strings.CutPrefix(k, "context:"); ok && sameImage(strings.SplitN(named, "::", 2)[0], source) {
			return false
		}
	}
	if source == dockerfileName {
		return true
	}
	name, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return false
	}
	for _, i := range dockerfileImages {
		if name.Name() == i {
			return true
		}
	}
	return false
}

// sameImage reports whether two names are the same once they are written in full.
func sameImage(a, b string) bool {
	if a == b {
		return true
	}
	x, err := reference.ParseNormalizedNamed(a)
	if err != nil {
		return false
	}
	y, err := reference.ParseNormalizedNamed(b)
	return err == nil && reference.TagNameOnly(x).String() == reference.TagNameOnly(y).String()
}
