package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/version"
	"github.com/sirupsen/logrus"
)

// Build says which build of berth this is.
type Build struct {
	Version, Commit string
}

// Main runs one command line (args without the program's name) and gives the exit code: what the
// command says, as with Docker 125 when it could not be run, 126 and 127 when the program in the
// container could not be started, 128+n after a signal.
func Main(b Build, args []string) int {
	version.PlatformName, version.Version, version.GitCommit = "Berth", b.Version, b.Commit
	version.BuildTime = "reproducibly"

	ctx, stop := untilSignalled(context.Background())
	defer stop()
	d, err := command.NewDockerCli(
		command.WithBaseContext(ctx),
		command.WithUserAgent("Berth-Client/"+b.Version+" ("+runtime.GOOS+")"),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	logrus.SetOutput(d.Err()) // the library's warnings

	err = run(ctx, d, args)
	if errdefs.IsCanceled(err) {
		err = context.Cause(ctx) // the signal, where one was the reason
	}
	if text := message(err); text != "" {
		fmt.Fprintln(d.Err(), text)
	}
	return exitCode(err)
}

// A signalled is the reason of a context that a signal ended.
type signalled struct{ signal os.Signal }

func (s signalled) Error() string { return "ended by " + s.signal.String() }

// untilSignalled gives a context that the first SIGINT or SIGTERM cancels. Two more end the process
// at once: a command that does not watch its context must not be unstoppable.
func untilSignalled(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		n := 0
		for s := range signals {
			cancel(signalled{s})
			if n++; n == 3 {
				fmt.Fprintln(os.Stderr, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting")
				os.Exit(1)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel(nil)
	}
}

// message is what the user reads of err; "" when it says nothing he does not know.
func message(err error) string {
	var s signalled
	if err == nil || errors.As(err, &s) {
		return ""
	}
	return ourWords(err.Error())
}

// exitCode is the process's exit code for err.
func exitCode(err error) int {
	var s signalled
	var status cli.StatusError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		if n, ok := s.signal.(syscall.Signal); ok {
			return 128 + int(n)
		}
	case errors.As(err, &status) && status.StatusCode != 0:
		return status.StatusCode
	}
	return 1
}
