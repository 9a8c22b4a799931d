package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

func newDialStdio(d *command.DockerCli) *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use:     "dial-stdio",
		Short:   "Proxy current stdio streams to builder instance",
		Long:    "Connect the standard streams to the builder, for programs that speak BuildKit's protocol.",
		Example: "  berth --host ssh://build.example.com buildx dial-stdio",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if platform != "" { // it picks one of several builders; here is one, for all
				if _, err := platforms.Parse(platform); err != nil {
					return failure(d, fmt.Errorf("invalid platform %q: %w", platform, err), nil)
				}
			}
			conn, err := d.Client().DialHijack(cmd.Context(), "/grpc", "h2c", nil)
			if err != nil {
				return failure(d, err, nil)
			}
			return failure(d, relay(cmd.Context(), conn, d.In(), d.Out()), nil)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&platform, "platform", "", "Target platform: this is used for node selection")
	c.Flags().String("progress", "none", `Set type of progress output ("auto", "plain", "rawjson", "tty")`)
	return c
}

// relay passes on what comes from either side until the builder has nothing more to say.
func relay(ctx context.Context, conn net.Conn, in io.Reader, out io.Writer) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	sent, received := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, in)
		if half, ok := conn.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		sent <- err
	}()
	go func() {
		_, err := io.Copy(out, conn)
		received <- err
	}()
	var err error
	for err == nil {
		select {
		case err = <-sent:
		case err = <-received:
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err == nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
		}
	}
	return err
}
