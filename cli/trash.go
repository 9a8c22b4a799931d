package cli

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/id"
	"berth/base/removal"
	"berth/cli/table"
)

// trashAnswer is the engine's answer to GET /berth/v1/trash.
type trashAnswer struct {
	Window string
	Items  []removal.Trashed
	Size   int64
}

func newTrash(d *command.DockerCli) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "trash",
		Short: "Restore what was removed",
		Long: "While the engine runs with --trash-window, containers, images and volumes that are removed or pruned can be restored\n" +
			"for that long. Their names are free at once. Containers of `run --rm` and what is collected to make room are deleted\n" +
			"for good, and so are volumes of other drivers, with --force only.",
		Args: cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },

		DisableFlagsInUseLine: true,
	}
	cmd.AddCommand(newTrashList(d), newTrashRestore(d), newTrashEmpty(d))
	return cmd
}

func newTrashList(d *command.DockerCli) *cobra.Command {
	var asJSON, quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List what can be restored", Args: cli.NoArgs,
		Example: "  berth trash ls\n  berth trash ls -q",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var a trashAnswer
			if err := newRemote(d.Client()).call(cmd.Context(), "berth trash ls", http.MethodGet, "/trash", nil, &a); err != nil {
				return err
			}
			switch {
			case asJSON:
				enc := json.NewEncoder(d.Out())
				enc.SetIndent("", "    ")
				return enc.Encode(a)
			case quiet:
				for _, i := range a.Items {
					fmt.Fprintln(d.Out(), i.ID)
				}
				return nil
			}
			_, width := d.Out().GetTtySize()
			printTrash(d.Out(), d.Err(), &a, int(width), time.Now())
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print what the engine answered")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only ids")
	return cmd
}

func printTrash(out, errs io.Writer, a *trashAnswer, width int, now time.Time) {
	rows := [][]string{{"ID", "KIND", "SIZE", "REMOVED", "DELETED", "NAME"}}
	for _, i := range a.Items {
		size := "unknown"
		if i.Size >= 0 {
			size = units.HumanSize(float64(i.Size))
		}
		expires := "soon"
		if left := i.Expires.Sub(now); left > 0 {
			expires = "in " + units.HumanDuration(left)
		}
		name := cmp.Or(strings.Join(i.Names, ", "), i.Name, "<none>")
		if i.With != "" {
			name += " (with " + id.Short(i.With) + ")"
		}
		rows = append(rows, []string{id.Short(i.ID), i.Kind, size, units.HumanDuration(now.Sub(i.Removed)) + " ago", expires, name})
	}
	table.Print(out, rows, width)
	if a.Window == "" {
		fmt.Fprintln(errs, "What is removed now is deleted at once: the engine runs without --trash-window.")
	}
}

func newTrashRestore(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use: "restore ID|NAME [ID|NAME...]", Short: "Bring back what was removed", Args: cli.RequiresMinArgs(1),
		Long: "Bring back what was removed, a container with the volumes that went with it. It is as it was, stopped. Where something else\n" +
			"has its name now it gets another one, which is printed.",
		Example: "  berth trash restore web\n  berth trash restore 4f2a1b",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, a := range args {
				var answer struct{ Restored []removal.Restored }
				if err := newRemote(d.Client()).call(cmd.Context(), "berth trash restore", http.MethodPost, "/trash/"+escapeName(a)+"/restore", nil, &answer); err != nil {
					return err
				}
				for _, r := range answer.Restored {
					fmt.Fprintf(d.Out(), "%s %s\n", r.Kind, cmp.Or(strings.Join(r.Now, ", "), id.Short(r.ID)))
					for _, n := range r.Notes {
						fmt.Fprintf(d.Err(), "  %s\n", n)
					}
				}
			}
			return nil
		},
		DisableFlagsInUseLine: true,
	}
}

func newTrashEmpty(d *command.DockerCli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "empty [OPTIONS] [ID|NAME...]", Short: "Delete what was removed, for good", Args: cobra.ArbitraryArgs,
		Example: "  berth trash empty\n  berth trash empty -f web",
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "everything in the trash"
			if len(args) > 0 {
				what = strings.Join(args, ", ")
			}
			if !force {
				fmt.Fprintf(d.Out(), "WARNING! This deletes %s for good.\nAre you sure you want to continue? [y/N] ", what)
				answer, _ := bufio.NewReader(d.In()).ReadString('\n')
				if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
					return cli.StatusError{StatusCode: 1, Status: "nothing was deleted"}
				}
			}
			paths := []string{"/trash"}
			if len(args) > 0 {
				paths = nil
				for _, a := range args {
					paths = append(paths, "/trash/"+escapeName(a))
				}
			}
			var all removal.Outcome
			for _, p := range paths {
				var out removal.Outcome
				if err := newRemote(d.Client()).call(cmd.Context(), "berth trash empty", http.MethodDelete, p, nil, &out); err != nil {
					return err
				}
				all.Merge(out)
			}
			_, width := d.Out().GetTtySize()
			printOutcome(d.Out(), &all, int(width), time.Now())
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not ask")
	return cmd
}

// extendUsage lets `system df` tell of the trash, and with --verbose of images' last use, below Docker's tables.
func extendUsage(c *cobra.Command, d *command.DockerCli) {
	usage := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if err := usage(cmd, args); err != nil {
			return err
		}
		if f := cmd.Flag("format"); f != nil && f.Changed {
			return nil
		}
		r := newRemote(d.Client())
		if r.mustBeBerth(cmd.Context(), "") != nil {
			return nil
		}
		if f := cmd.Flag("verbose"); f != nil && f.Value.String() == "true" {
			var images struct{ Images []imageUse }
			if err := r.call(cmd.Context(), "berth system df", http.MethodGet, "/images", nil, &images); err == nil {
				fmt.Fprintln(d.Out(), "\nImages by last use:")
				fmt.Fprintln(d.Out())
				printImageUses(d.Out(), images.Images, "", time.Now())
			}
		}
		var a trashAnswer
		if err := r.call(cmd.Context(), "berth system df", http.MethodGet, "/trash", nil, &a); err != nil || a.Window == "" && len(a.Items) == 0 {
			return nil // an engine of before, or one without a trash
		}
		counts := map[string]int{}
		sizes := map[string]int64{}
		for _, i := range a.Items {
			counts[i.Kind]++
			sizes[i.Kind] += max(0, i.Size)
		}
		rows := [][]string{{"TRASH", "TOTAL", "SIZE"}}
		for _, k := range []struct{ kind, name string }{{removal.Image, "Images"}, {removal.Container, "Containers"}, {removal.Volume, "Local Volumes"}} {
			rows = append(rows, []string{k.name, fmt.Sprint(counts[k.kind]), units.HumanSize(float64(sizes[k.kind]))})
		}
		fmt.Fprintln(d.Out())
		table.Print(d.Out(), rows, 0)
		return nil
	}
}
