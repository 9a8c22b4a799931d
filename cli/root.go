package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"

	"berth/cli/tree"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli-plugins/manager"
	"github.com/docker/cli/cli-plugins/metadata"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// run is one command line: global flags, the engine's place, the command.
func (p program) run(ctx context.Context, d *command.DockerCli, args []string) error {
	root := p.newRoot(d)
	opts, _ := cli.SetupRootCommand(root)
	p.dress(root, d)
	top := cli.NewTopLevelCommand(root, d, opts, root.Flags())
	top.SetArgs(args)
	_, rest, err := top.HandleGlobalFlags()
	if err != nil {
		return err
	}
	initialize := func() error { return top.Initialize() }
	var from origin
	if p.plugin { // the engine is the docker command's, found as it finds it
		rest = asPlugin(rest)
		err = initialize()
	} else {
		// Pressing TAB must not start an engine: completion only looks.
		from, err = locate(d, opts, !completing(rest), initialize)
	}
	if err != nil {
		return err
	}
	if !addOnly(root, d, rest) {
		addAll(root, d)
		if completing(rest) {
			if err := manager.AddPluginCommandStubs(d, root); err != nil {
				return err
			}
		} else if ran, err := runPlugin(ctx, d, root, rest, from); ran {
			return err
		}
	}
	root.SetArgs(rest)
	return root.ExecuteContext(ctx)
}

func (p program) newRoot(d *command.DockerCli) *cobra.Command {
	root := &cobra.Command{
		Use:                   p.name + " [OPTIONS] COMMAND [ARG...]",
		Short:                 "A container platform: run, build, ship and watch containers",
		SilenceUsage:          true,
		SilenceErrors:         true,
		TraverseChildren:      true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{HiddenDefaultCmd: true},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return command.ShowHelp(d.Err())(cmd, args)
			}
			return fmt.Errorf("%[1]s: unknown command: %[1]s %[2]s\n\nRun '%[1]s --help' for more information", p.name, args[0])
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return supported(cmd, d) },
	}
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	root.SetIn(d.In())
	root.SetOut(d.Out())
	root.SetErr(d.Err())
	return root
}

// dress puts our words on what cli.SetupRootCommand prepared.
func (p program) dress(root *cobra.Command, d *command.DockerCli) {
	root.Version = p.version
	root.SetVersionTemplate(p.title + " version {{.Version}}\n")
	root.Flags().BoolP("version", "v", false, "Print version information and quit")
	root.Annotations["additionalHelp"] = "Docker's commands, flags and output are Docker's. What only Berth has: access, registry, init, build --plan and --on-error, explain, debug, recreate, inspect --format run, info --kernel, logs --clear and --status, system check, system shutdown,\npull and push --plan, run --pull=lazy, image fsck and sources, network rules, port --audit, container hand-over,\ncontainer update --publish-add, run --network-rate, volume export, import, clone, snapshot and rename, prune --plan."
	if f := root.Flags().Lookup("context"); f != nil {
		f.Usage = `Name of the context to use to connect to the daemon (overrides ` + envHost + `, ` + client.EnvOverrideHost + ` and the default context set with "berth context use")`
	}
	if f := root.Flags().Lookup("host"); f != nil {
		f.Usage = `Engine to connect to (default: ` + envHost + `, ` + client.EnvOverrideHost + `, the context, else Berth's own socket)`
	}
	ownHelp := root.HelpFunc()
	root.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		if aliases := cmd.Annotations["aliases"]; aliases != "" && p.name != "docker" {
			cmd.Annotations["aliases"] = ourAliases(aliases)
		}
		if !cmd.HasParent() {
			// A broken plugin is told by `berth info`; help goes on without it.
			_ = manager.AddPluginCommandStubs(d, cmd)
			for _, c := range cmd.Commands() { // a plugin whose work we do ourselves is no mistake of anybody's
				if c.Annotations[metadata.CommandAnnotationPluginInvalid] != "" && ownCommands[c.Name()] != nil {
					cmd.RemoveCommand(c)
				}
			}
			if bake, _, err := cmd.Find([]string{"bake"}); err == nil && bake != cmd {
				bake.Hidden = !hasCommand(cmd, "buildx")
			}
		}
		cmd.Long = fold(cmd.Long)
		if more := cmd.Annotations["additionalHelp"]; more != "" {
			cmd.Annotations["additionalHelp"] = fold(more)
		}
		ownHelp(cmd, args)
	})
	_ = root.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		list, err := d.ContextStore().List()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, c := range list {
			names = append(names, c.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	})
	_ = root.RegisterFlagCompletionFunc("log-level", cobra.FixedCompletions(
		[]string{"debug", "info", "warn", "error", "fatal"}, cobra.ShellCompDirectiveNoFileComp))
}

func hasCommand(root *cobra.Command, name string) bool {
	return slices.ContainsFunc(root.Commands(), func(c *cobra.Command) bool { return c.Name() == name })
}

// addOnly adds the one command that args name and reports whether it did. It is false for help,
// completion, plugins and words nobody knows: they want to see the whole tree.
func addOnly(root *cobra.Command, d *command.DockerCli, args []string) bool {
	if len(args) == 0 {
		return root.Flags().Changed("version")
	}
	if own, ok := ownCommands[args[0]]; ok {
		root.AddCommand(own(d))
		return true
	}
	c := tree.Only(d, args[0])
	if c == nil {
		return false
	}
	extend(c, d)
	root.AddCommand(c)
	return true
}

// addAll adds every command there is.
func addAll(root *cobra.Command, d *command.DockerCli) {
	for _, c := range tree.All(d) {
		if ownCommands[c.Name()] == nil {
			extend(c, d)
			root.AddCommand(c)
		}
	}
	for _, own := range ownCommands {
		root.AddCommand(own(d))
	}
}

func completing(args []string) bool {
	return len(args) > 0 && (args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd)
}

// runPlugin runs `docker-WORD` from Docker's plugin directories when no command is called WORD. It
// reports whether there was one.
func runPlugin(ctx context.Context, d *command.DockerCli, root *cobra.Command, args []string, from origin) (bool, error) {
	if len(args) == 0 || hasCommand(root, args[0]) || args[0] == "help" || args[0] == "completion" {
		return false, nil
	}
	cmd, err := manager.PluginRunCommand(d, args[0], root)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return true, err
	}
	if from == byBerth || from == byDefault { // what a plugin could not find out by itself
		cmd.Env = append(cmd.Env, client.EnvOverrideHost+"="+d.DockerEndpoint().Host)
	}
	if err := cmd.Start(); err != nil {
		return true, err
	}
	// On a terminal the signal reached the plugin too; elsewhere we pass it on.
	ended := context.AfterFunc(ctx, func() {
		if !d.Out().IsTerminal() {
			_ = cmd.Process.Signal(os.Interrupt)
		}
	})
	defer ended()
	var exit *exec.ExitError
	if err := cmd.Wait(); errors.As(err, &exit) {
		return true, cli.StatusError{StatusCode: exit.ExitCode()}
	} else if err != nil {
		return true, err
	}
	return true, nil
}
