package build

import (
	"context"

	"github.com/docker/cli/cli/command"
	gateway "github.com/moby/buildkit/frontend/gateway/client"

	"berth/cli/build/request"
)

func shellIn(d *command.DockerCli, spec *request.Spec) (func(context.Context, gateway.Client, error) error, error) {
	return nil, nil
}
