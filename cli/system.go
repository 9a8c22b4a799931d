package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"

	"berth/cli/daemon"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

func newShutdown(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:   "shutdown",
		Short: "Stop every container, the engine and its keeper",
		Long: "Stop every container as `berth stop` does, then the engine and the keeper, and wait for it. Stopping\n" +
			"or killing the engine alone (systemctl stop berth, kill) leaves containers running: this ends them too.",
		Example: "  berth system shutdown",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.DockerEndpoint().Host == "unix://"+daemon.Socket() && daemon.Absent() {
				fmt.Fprintf(d.Err(), "berth: no engine listens on %s\n", daemon.Socket())
				return nil
			}
			return shutdown(cmd.Context(), d)
		},
		DisableFlagsInUseLine: true,
	}
}

// shutdown asks the engine to end and, where its process is on this machine, waits until it has. Asking
// it anew instead would wake the engine where systemd listens for it.
func shutdown(ctx context.Context, d *command.DockerCli) error {
	conn, err := d.Client().Dialer()(ctx)
	if err != nil {
		return err
	}
	pid := daemon.PeerPID(conn)
	conn.Close() // a silent connection would hold up the engine's end
	if err := newRemote(d.Client()).call(ctx, "berth system shutdown", http.MethodPost, "/shutdown", nil, nil); err != nil {
		return err
	}
	if pid == 0 {
		fmt.Fprintln(d.Err(), "berth: the engine is stopping its containers and will end then")
		return nil
	}
	return daemon.WaitGone(ctx, pid)
}

// runDaemon runs berthd in our place for what the command line does not link.
func runDaemon(args []string) error {
	path, err := daemon.Find("berthd")
	if err != nil {
		return err
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return cli.StatusError{StatusCode: exit.ExitCode()}
	} else if err != nil {
		return err
	}
	return nil
}

// becomeDaemon is runDaemon for what goes on until it is stopped: it takes our place, so that whoever stops us stops it.
func becomeDaemon(args []string) error {
	path, err := daemon.Find("berthd")
	if err != nil {
		return err
	}
	return daemon.Become(path, args)
}
