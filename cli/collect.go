package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/base/id"
	"berth/base/removal"
	"berth/cli/table"
)

// collectPlan is the engine's answer to GET /berth/v1/images/gc.
type collectPlan struct {
	removal.Plan
	Due             bool
	High, Low, Disk string
}

func newImageCollect(d *command.DockerCli) *cobra.Command {
	var p planFlags
	var now bool
	cmd := &cobra.Command{
		Use:   "gc [OPTIONS]",
		Short: "Delete images that were not used for longest, to make room",
		Long: "Delete images that were not used for longest until the disk is no fuller than the engine's --gc-low, if it is fuller than\n" +
			"--gc-high: what the engine does by itself while both are set. Images of containers, running or not, those that --gc-keep\n" +
			"names, and those younger than --gc-min-age stay. Without watermarks nothing goes but with --now.",
		Example: "  berth image gc --plan\n  berth image gc --plan --now\n  berth image gc --now",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := p.check(); err != nil {
				return err
			}
			r := newRemote(d.Client())
			if p.apply != "" {
				return applyPlan(cmd.Context(), d, r, "berth image gc --apply", "/images/gc", p.apply)
			}
			path := "/images/gc"
			if now {
				path += "?now=1"
			}
			var raw json.RawMessage
			if err := r.call(cmd.Context(), "berth image gc", http.MethodGet, path, nil, &raw); err != nil {
				return err
			}
			var plan collectPlan
			if err := json.Unmarshal(raw, &plan); err != nil {
				return fault.Wrap(fault.Internal, err, "understand the engine's answer")
			}
			if p.save != "-" {
				if plan.High == "off" {
					fmt.Fprintf(d.Out(), "The disk is %s; the engine collects no images by itself: it runs without --gc-high.\n", plan.Disk)
				} else {
					fmt.Fprintf(d.Out(), "The disk is %s; images are collected from %s on, until it is %s.\n", plan.Disk, plan.High, plan.Low)
				}
			}
			if p.plan {
				return p.show(d, "images", &plan.Plan, raw)
			}
			if len(plan.Remove) == 0 {
				fmt.Fprintln(d.Out(), "No images are to be deleted.")
				return nil
			}
			var out removal.Outcome
			if err := r.call(cmd.Context(), "berth image gc", http.MethodPost, "/images/gc", raw, &out); err != nil {
				return err
			}
			_, width := d.Out().GetTtySize()
			printOutcome(d.Out(), &out, int(width), time.Now())
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	p.add(cmd.Flags())
	cmd.Flags().BoolVar(&now, "now", false, "As if the disk were fuller than --gc-high; without watermarks: all images that nothing uses")
	return cmd
}

// imageUse is one of the engine's answer to GET /berth/v1/images.
type imageUse struct {
	ID                string
	RepoTags          []string
	Size              int64
	Created, LastUsed time.Time
	Containers        int
}

// extendImageList adds --last-used to `image ls`.
func extendImageList(c *cobra.Command, d *command.DockerCli) {
	var used bool
	c.Flags().BoolVar(&used, "last-used", false, "Show when a container of each image was last made or started, the longest ago last")
	list := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !used {
			return list(cmd, args)
		}
		var a struct{ Images []imageUse }
		if err := newRemote(d.Client()).call(cmd.Context(), "berth image ls --last-used", http.MethodGet, "/images", nil, &a); err != nil {
			return err
		}
		name := ""
		if len(args) > 0 {
			name = args[0]
		}
		printImageUses(d.Out(), a.Images, name, time.Now())
		return nil
	}
}

func printImageUses(out io.Writer, all []imageUse, only string, now time.Time) {
	sortByUse(all)
	rows := [][]string{{"IMAGE", "ID", "SIZE", "CONTAINERS", "CREATED", "LAST USED"}}
	for _, i := range all {
		tags := i.RepoTags
		if len(tags) == 0 {
			tags = []string{"<none>"}
		}
		for _, t := range tags {
			if only != "" && t != only && !strings.HasPrefix(t, only+":") {
				continue
			}
			last := "never noted"
			if !i.LastUsed.IsZero() {
				last = units.HumanDuration(now.Sub(i.LastUsed)) + " ago"
			}
			made := "unknown"
			if !i.Created.IsZero() {
				made = units.HumanDuration(now.Sub(i.Created)) + " ago"
			}
			rows = append(rows, []string{t, id.Short(i.ID), units.HumanSize(float64(i.Size)), fmt.Sprint(i.Containers), made, last})
		}
	}
	table.Print(out, rows, 0)
}

// sortByUse puts what was used last first.
func sortByUse(all []imageUse) {
	slices.SortStableFunc(all, func(a, b imageUse) int { return b.LastUsed.Compare(a.LastUsed) })
}
