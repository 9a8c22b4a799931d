package build

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"

	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	moby "github.com/moby/moby/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"berth/cli/build/request"
)

// Labels of an engine's worker.
const (
	labelSnapshotter = "org.mobyproject.buildkit.worker.snapshotter"
	labelGateway     = "org.mobyproject.buildkit.worker.moby.host-gateway-ip"
)

// A conn is a connection to an engine's builder.
type conn struct {
	*client.Client
	worker *client.WorkerInfo
}

// connect reaches the builder of the engine that d speaks to.
func connect(ctx context.Context, d *command.DockerCli) (*conn, error) {
	// Walking and sending a context makes short-lived garbage: beginning with the 4 MB that the collector starts with, it would run
	// every few hundred files. This costs a build of 100,000 files 30 MB.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	api := d.Client()
	c, err := client.New(ctx, "",
		client.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return api.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		client.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return api.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		return nil, err
	}
	workers, err := c.ListWorkers(ctx)
	if err == nil && len(workers) == 0 {
		err = errors.New("the engine has no builder")
	}
	if err != nil {
		c.Close()
		return nil, unreachable(ctx, d, err)
	}
	return &conn{Client: c, worker: workers[0]}, nil
}

// unreachable tells of a failed connection as Docker's client does: gRPC's words hide the reason.
func unreachable(ctx context.Context, d *command.DockerCli, err error) error {
	if status.Code(err) != codes.Unavailable && !strings.Contains(err.Error(), "code = Unavailable") {
		return err
	}
	if _, pinged := d.Client().ServerVersion(ctx, moby.ServerVersionOptions{}); pinged != nil {
		return pinged
	}
	return fmt.Errorf("the engine at %s does not build with BuildKit: %w", d.Client().DaemonHost(), err)
}

// engine is what a request has to know.
func (c *conn) engine(d *command.DockerCli) request.Engine {
	return request.Engine{
		Attests: c.worker.Labels[labelSnapshotter] != "",
		HostGateway: func() (string, error) {
			if ip := c.worker.Labels[labelGateway]; net.ParseIP(ip) != nil {
				return ip, nil
			}
			return "", errors.New("host-gateway IP not found")
		},
		Proxy: proxyArgs(d),
		Fetch: c.fetch,
	}
}

// proxyArgs are the proxies that the configuration file has for this engine. The map is of pointers because a build argument without value is one, too.
func proxyArgs(d *command.DockerCli) map[string]string {
	args := map[string]string{}
	for k, v := range d.ConfigFile().ParseProxyConfig(d.Client().DaemonHost(), nil) {
		if v != nil {
			args[k] = *v
		}
	}
	return args
}

// maxDockerfile is how large a Dockerfile at a URL may be.
const maxDockerfile = 2 << 20

// fetch reads a URL through the engine, which may reach what we cannot.
func (c *conn) fetch(ctx context.Context, url string) ([]byte, error) {
	var text []byte
	_, err := c.Build(ctx, client.SolveOpt{Internal: true, FrontendAttrs: map[string]string{}}, product, func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		def, err := llb.HTTP(url, llb.Filename("Dockerfile"), llb.WithCustomNamef("[internal] load %s", url)).Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := g.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB()})
		if err != nil {
			return nil, err
		}
		ref, err := res.SingleRef()
		if err != nil {
			return nil, err
		}
		fi, err := ref.StatFile(ctx, gateway.StatRequest{Path: "Dockerfile"})
		if err != nil {
			return nil, err
		}
		if fi.Size > maxDockerfile {
			return nil, fmt.Errorf("the Dockerfile at %s is bigger than allowed max size (2MB)", url)
		}
		text, err = ref.ReadFile(ctx, gateway.ReadRequest{Filename: "Dockerfile"})
		return nil, err
	}, nil)
	return text, err
}
