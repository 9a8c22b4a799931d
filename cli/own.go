package cli

import (
	"fmt"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"berth/cli/build"
	"berth/cli/build/stepshell"
	"berth/cli/registry"
)

// ownCommands are the top-level words that docker/cli has not, or that cli/tree leaves out.
var ownCommands = map[string]func(*command.DockerCli) *cobra.Command{
	"access":       newAccess,
	"bake":         func(d *command.DockerCli) *cobra.Command { return build.NewBake(d, buildHooks(d)) },
	"build":        func(d *command.DockerCli) *cobra.Command { return build.New(d, buildHooks(d)) },
	"buildx":       func(d *command.DockerCli) *cobra.Command { return build.NewBuildx(d, buildHooks(d)) },
	"debug":        newDebug,
	"explain":      newExplain,
	"init":         func(d *command.DockerCli) *cobra.Command { return build.NewInit(d) },
	"recreate":     newRecreate,
	"registry":     func(d *command.DockerCli) *cobra.Command { return registry.New(d, becomeDaemon) },
	"stack":        newStack,
	stepshell.Word: newStepShell,
	"trash":        newTrash,
}

// extend adds to one of Docker's commands what only Berth has.
func extend(c *cobra.Command, d *command.DockerCli) {
	switch c.Name() {
	case "builder":
		replace(c, build.New(d, buildHooks(d)))
		for _, sub := range c.Commands() {
			if sub.Name() == "prune" && sub.Example == "" {
				sub.Example = "  berth builder prune\n  berth builder prune --force --filter until=72h"
			}
		}
	case "run":
		extendShare(c, d)
		extendPullMode(c, d)
		extendUserns(c)
		c.RunE = unreachableIs125(c.RunE)
	case "create":
		extendShare(c, d)
		extendPullMode(c, d)
		extendUserns(c)
	case "logs":
		extendLogs(c, d)
	case "pull":
		extendPull(c, d)
	case "push":
		extendPush(c, d)
	case "search":
		extendSearch(c)
	case "image":
		extendImage(c, d)
	case "port":
		extendPort(c, d)
	case "update":
		extendUpdate(c, d)
	case "inspect":
		extendInspect(c, d)
	case "network":
		extendNetwork(c, d)
	case "volume":
		extendVolume(c, d)
	case "container":
		c.AddCommand(newHandOver(d))
		for _, sub := range c.Commands() {
			if sub.Name() == "prune" {
				extendPrune(sub, d, "containers", nil)
			}
			extend(sub, d)
		}
	case "info":
		extendInfo(c, d)
	case "system":
		c.Short = "Manage Berth"
		for _, sub := range c.Commands() {
			switch sub.Name() {
			case "info":
				extendInfo(sub, d)
			case "prune":
				extendSystemPrune(sub, d)
			case "df":
				extendUsage(sub, d)
			}
		}
		c.AddCommand(newShutdown(d), newCheck(d), newWaits(d), newReload(d), newSupportBundle(d))
	}
}

// unreachableIs125 keeps run's documented promise that 125 means Docker itself failed: the library, which
// asks the engine's system before it creates anything, lets the plain error of that first request through.
func unreachableIs125(run func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if client.IsErrConnectionFailed(err) {
			return cli.StatusError{
				Cause:      err,
				Status:     fmt.Sprintf("docker: %v\n\nRun 'docker run --help' for more information", err),
				StatusCode: 125,
			}
		}
		return err
	}
}
