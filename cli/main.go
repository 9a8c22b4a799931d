package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"berth/cli/build"

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

// Main runs one command line, args[0] being the program's name, and gives the exit code: what the
// command says, as with Docker 125 when it could not be run, 126 and 127 when the program in the
// container could not be started, 128+n after a signal. Called by the name docker it is docker, in
// its own words too.
func Main(b Build, args []string) int {
	p := program{name: "berth", version: b.Version + ", build " + b.Commit, title: "Berth"}
	switch strings.TrimSuffix(filepath.Base(args[0]), ".exe") {
	case "docker":
		p = program{name: "docker", version: libraryVersion() + ", build berth-" + b.Commit, title: "Docker"}
	case pluginName:
		if tellPlugin(args[1:]) {
			return 0
		}
		p = program{name: "docker", plugin: true, version: build.Compatible, title: "Docker"}
	}
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

	err = p.run(ctx, d, args[1:])
	if errdefs.IsCanceled(err) {
		err = context.Cause(ctx) // the signal, where one was the reason
	}
	if text := p.message(err); text != "" {
		fmt.Fprintln(d.Err(), text)
	}
	return exitCode(err)
}

// A program is who we say we are.
type program struct {
	name    string // berth, or docker when called by that name
	version string // what --version prints after the title
	title   string
	plugin  bool // called as Docker's plugin for builds
}

// libraryVersion is the version of docker/cli that is built in: the one whose commands, flags and
// output these are. Tools that parse `docker --version` compare it with Docker's releases.
func libraryVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "0.0.0"
	}
	for _, m := range info.Deps {
		if m.Path == "github.com/docker/cli" {
			return strings.TrimSuffix(strings.TrimPrefix(m.Version, "v"), "+incompatible")
		}
	}
	return "0.0.0"
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
func (p program) message(err error) string {
	var s signalled
	if err == nil || errors.As(err, &s) {
		return ""
	}
	if p.name == "docker" {
		return err.Error()
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
