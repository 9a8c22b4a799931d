package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/cli/debug"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

// Compatible is the version of buildx whose commands and flags these are. Tools ask for it before they use them.
const Compatible = "v0.37.0"

// NewBuildx is the tree of Docker's buildx. There is one builder, the engine itself: what would make others is refused with the reason.
func NewBuildx(d *command.DockerCli, h Hooks) *cobra.Command {
	c := &cobra.Command{
		Use:         "buildx",
		Short:       "Builds, their history and their cache",
		Example:     "  berth buildx bake\n  berth buildx du --verbose\n  berth buildx history logs",
		Long:        "What docker buildx does, for the one builder that there is: the engine.",
		Args:        cli.NoArgs,
		RunE:        command.ShowHelp(d.Err()),
		Annotations: map[string]string{Docker: "buildx"},
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if on, err := cmd.Flags().GetBool("debug"); err == nil && on {
				debug.Enable()
			}
			if up := cmd.Root().PersistentPreRunE; up != nil {
				if err := up(cmd, args); err != nil {
					return err
				}
			}
			return knownBuilder(cmd, d)
		},
		DisableFlagsInUseLine: true,
	}
	c.PersistentFlags().String("builder", "", "Override the configured builder instance")
	c.PersistentFlags().BoolP("debug", "D", false, "Enable debug logging")
	c.AddCommand(
		New(d, h), NewBake(d, h), newList(d), newInspect(d), newUse(d), newVersion(d, h), newUsage(d), newPrune(d), newHistory(d), newImageTools(d), newDialStdio(d),
		noBuilder("create", "Create a new builder instance"), noBuilder("rm", "Remove one or more builder instances"),
		noBuilder("stop", "Stop builder instance"), nothingToDo("install", "Install buildx as a 'docker builder' alias"),
		nothingToDo("uninstall", "Uninstall the 'docker builder' alias"),
	)
	for _, sub := range c.Commands() {
		if sub.Annotations == nil {
			sub.Annotations = map[string]string{}
		}
		sub.Annotations[Docker] = "buildx"
		delete(sub.Annotations, "category-top")
	}
	return c
}

// knownBuilder refuses the name of a builder that is not there.
func knownBuilder(cmd *cobra.Command, d *command.DockerCli) error {
	f := cmd.Flags().Lookup("builder")
	if f == nil {
		return nil
	}
	name := f.Value.String()
	if name == "" || name == command.DefaultContextName || name == builderName(d) {
		return nil
	}
	return cli.StatusError{Status: fmt.Sprintf("ERROR: no builder %q found", name), StatusCode: 1}
}

// noBuilder is a command of Docker's that needs other builders than the engine.
func noBuilder(name, short string) *cobra.Command {
	return &cobra.Command{
		Use:                name,
		Short:              short,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(*cobra.Command, []string) error {
			return cli.StatusError{Status: "ERROR: buildx " + name + " is not supported: the engine is the builder, for all platforms, outputs and caches; other builders need Docker's own buildx plugin", StatusCode: 1}
		},
	}
}

func nothingToDo(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short, Hidden: true, Args: cli.NoArgs, RunE: func(*cobra.Command, []string) error { return nil }}
}

func newUse(d *command.DockerCli) *cobra.Command {
	c := &cobra.Command{
		Use:     "use [OPTIONS] NAME",
		Short:   "Set the current builder instance",
		Example: "  berth buildx use default",
		Args:    cli.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if args[0] == command.DefaultContextName || args[0] == builderName(d) {
				return nil
			}
			return fmt.Errorf("ERROR: failed to find instance %q: %w", args[0], errors.New("no such builder; an engine elsewhere is reached by a context: berth context use"))
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().Bool("default", false, "Set builder as default for current context")
	c.Flags().Bool("global", false, "Builder persists context changes")
	return c
}

func newVersion(d *command.DockerCli, h Hooks) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Show buildx version information",
		Example: "  berth buildx version",
		Args:    cli.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintf(d.Out(), "github.com/docker/buildx %s berth-%s\n", Compatible, h.Version)
			return err
		},
	}
}

// A node is what ls and inspect show of a builder.
type node struct {
	Name      string            `json:"Name"`
	Endpoint  string            `json:"Endpoint"`
	Status    string            `json:"Status"`
	Version   string            `json:"Version,omitempty"`
	Platforms []string          `json:"Platforms,omitempty"`
	Labels    map[string]string `json:"Labels,omitempty"`
	Error     string            `json:"Err,omitempty"`
	policies  [][2]string
	devices   [][2]string
}

func describe(ctx context.Context, d *command.DockerCli, limit time.Duration) node {
	n := node{Name: builderName(d), Endpoint: builderName(d), Status: "running"}
	c, err := within(ctx, d, limit)
	if err != nil {
		n.Status, n.Error = "error", err.Error()
		return n
	}
	defer c.Close()
	n.Labels = c.worker.Labels
	for _, p := range c.worker.Platforms {
		n.Platforms = append(n.Platforms, platforms.Format(platforms.Normalize(p)))
	}
	if info, err := c.Info(ctx); err == nil {
		n.Version = info.BuildkitVersion.Version
	}
	for _, dev := range c.worker.CDIDevices {
		n.devices = append(n.devices, [2]string{"\tName:", dev.Name}, [2]string{"\tAutomatically allowed:", fmt.Sprint(dev.AutoAllow)})
	}
	for i, rule := range c.worker.GCPolicy {
		add := func(k, v string) { n.policies = append(n.policies, [2]string{k, v}) }
		add(fmt.Sprintf("GC Policy rule#%d:", i), "")
		add("\tAll:", fmt.Sprint(rule.All))
		if len(rule.Filter) > 0 {
			add("\tFilters:", strings.Join(rule.Filter, " "))
		}
		if rule.KeepDuration > 0 {
			add("\tKeep Duration:", rule.KeepDuration.String())
		}
		for _, size := range []struct {
			name  string
			bytes int64
		}{{"\tReserved Space:", rule.ReservedSpace}, {"\tMax Used Space:", rule.MaxUsedSpace}, {"\tMin Free Space:", rule.MinFreeSpace}} {
			if size.bytes > 0 {
				add(size.name, units.BytesSize(float64(size.bytes)))
			}
		}
	}
	return n
}

// patience is --timeout: how long a builder may take to say what it is.
func patience(c *cobra.Command) *time.Duration {
	return c.Flags().Duration("timeout", 20*time.Second, "Override the default timeout for loading builder status")
}

// within connects to the builder, or gives up in time.
func within(ctx context.Context, d *command.DockerCli, limit time.Duration) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return connect(ctx, d)
}

func newList(d *command.DockerCli) *cobra.Command {
	var format string
	var limit *time.Duration
	c := &cobra.Command{
		Use:     "ls",
		Short:   "List builder instances",
		Example: "  berth buildx ls\n  berth buildx ls --format json",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			n := describe(cmd.Context(), d, *limit)
			builder := struct {
				Name, Driver string
				Current      bool
				Nodes        []node
			}{n.Name, "docker", true, []node{n}}
			switch format {
			case "table":
			case "json":
				return json.NewEncoder(d.Out()).Encode(builder)
			default:
				return printTemplate(d.Out(), format, builder)
			}
			w := tabwriter.NewWriter(d.Out(), 10, 1, 3, ' ', 0)
			fmt.Fprintln(w, "NAME/NODE\tDRIVER/ENDPOINT\tSTATUS\tBUILDKIT\tPLATFORMS")
			fmt.Fprintf(w, "%s*\tdocker\t\t\t\n", n.Name)
			fmt.Fprintf(w, " \\_ %s\t \\_ %s\t%s\t%s\t%s\n", n.Name, n.Endpoint, n.Status, n.Version, strings.Join(n.Platforms, ", "))
			if err := w.Flush(); err != nil {
				return err
			}
			if n.Error != "" {
				fmt.Fprintf(d.Err(), "\nCannot load builder %s: %s\n", n.Name, n.Error)
			}
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	limit = patience(c)
	c.Flags().StringVar(&format, "format", "table", "Format the output")
	c.Flags().Bool("no-trunc", false, "Don't truncate output")
	return c
}

func newInspect(d *command.DockerCli) *cobra.Command {
	var limit *time.Duration
	c := &cobra.Command{
		Use:     "inspect [NAME]",
		Short:   "Inspect current builder instance",
		Example: "  berth buildx inspect",
		Args:    cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != command.DefaultContextName && args[0] != builderName(d) {
				return cli.StatusError{Status: fmt.Sprintf("ERROR: no builder %q found", args[0]), StatusCode: 1}
			}
			n := describe(cmd.Context(), d, *limit)
			w := tabwriter.NewWriter(d.Out(), 0, 0, 1, ' ', 0)
			fmt.Fprintf(w, "Name:\t%s\nDriver:\tdocker\n\nNodes:\nName:\t%s\nEndpoint:\t%s\n", n.Name, n.Name, n.Endpoint)
			if n.Error != "" {
				fmt.Fprintf(w, "Error:\t%s\n", n.Error)
				return w.Flush()
			}
			fmt.Fprintf(w, "Status:\t%s\n", n.Status)
			if n.Version != "" {
				fmt.Fprintf(w, "BuildKit version:\t%s\n", n.Version)
			}
			if len(n.Platforms) > 0 {
				fmt.Fprintf(w, "Platforms:\t%s\n", strings.Join(n.Platforms, ", "))
			}
			if len(n.Labels) > 0 {
				fmt.Fprintln(w, "Labels:")
				keys := make([]string, 0, len(n.Labels))
				for k := range n.Labels {
					keys = append(keys, k)
				}
				slices.Sort(keys)
				for _, k := range keys {
					fmt.Fprintf(w, "\t%s:\t%s\n", k, n.Labels[k])
				}
			}
			if len(n.devices) > 0 {
				fmt.Fprintln(w, "Devices:")
			}
			for _, p := range append(n.devices, n.policies...) {
				fmt.Fprintf(w, "%s\t%s\n", p[0], p[1])
			}
			return w.Flush()
		},
		DisableFlagsInUseLine: true,
	}
	limit = patience(c)
	c.Flags().Bool("bootstrap", false, "Ensure builder has booted before inspecting")
	return c
}
