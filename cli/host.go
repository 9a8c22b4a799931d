package cli

import (
	"context"
	"net"
	"os"
	"runtime"

	"berth/cli/daemon"

	"github.com/docker/cli/cli/command"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/moby/moby/client"
)

// envHost names the engine as -H does; it wins over DOCKER_HOST, so that both tools can be used side
// by side with different engines.
const envHost = "BERTH_HOST"

// An origin says which of the places that may name an engine did. They are asked in this order.
type origin string

const (
	byFlag    origin = "-H"
	byContext origin = "--context"
	byBerth   origin = envHost
	byDocker  origin = client.EnvOverrideHost
	byCurrent origin = "current context"
	byDefault origin = "default"
)

// namedBy finds who names the engine, before docker/cli looks. current is the context that
// DOCKER_CONTEXT or the configuration file selects.
func namedBy(opts *cliflags.ClientOptions, getenv func(string) string, current string) origin {
	switch {
	case len(opts.Hosts) > 0:
		return byFlag
	case opts.Context != "":
		return byContext
	case getenv(envHost) != "":
		return byBerth
	case getenv(client.EnvOverrideHost) != "":
		return byDocker
	case current != "" && current != command.DefaultContextName:
		return byCurrent
	}
	return byDefault
}

// locate decides which engine this command line speaks to and initializes d accordingly. Nothing is
// contacted yet. For the default engine it also arranges that a refused connection starts it, if it may.
func locate(d *command.DockerCli, opts *cliflags.ClientOptions, mayStart bool, initialize func() error) (origin, error) {
	if len(opts.Hosts) == 0 && opts.Context == "" && os.Getenv(envHost) != "" {
		opts.Hosts = []string{os.Getenv(envHost)}
		return byBerth, initialize()
	}
	if err := initialize(); err != nil {
		return "", err
	}
	from := namedBy(opts, os.Getenv, d.CurrentContext())
	if from == byDefault && runtime.GOOS != "windows" {
		// docker/cli reads the options again when the client is first used.
		opts.Hosts = []string{"unix://" + daemon.Socket()}
		if !mayStart {
			return from, nil
		}
		return from, command.WithAPIClientOptions(client.WithDialContext(dialDefault(d)))(d)
	}
	return from, nil
}

// dialDefault connects to the default socket, and starts an engine there when none listens.
func dialDefault(d *command.DockerCli) func(context.Context, string, string) (net.Conn, error) {
	starter, socket := daemon.NewStarter(d.Err()), daemon.Socket()
	return func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		conn, err := dialer.DialContext(ctx, "unix", socket)
		if err == nil || !starter.Wanted(err) {
			return conn, err
		}
		if err := starter.Start(); err != nil {
			return nil, err
		}
		return dialer.DialContext(context.WithoutCancel(ctx), "unix", socket)
	}
}
