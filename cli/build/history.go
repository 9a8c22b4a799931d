package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/spf13/cobra"
)

func newHistory(d *command.DockerCli) *cobra.Command {
	c := &cobra.Command{
		Use:                   "history",
		Short:                 "Commands to work on build records",
		Example:               "  berth buildx history ls\n  berth buildx history logs",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		DisableFlagsInUseLine: true,
	}
	c.AddCommand(
		newHistoryList(d), newHistoryLogs(d), newHistoryInspect(d), newHistoryRemove(d), newHistoryTrace(d), newHistoryExport(d), newHistoryImport(d), newHistoryOpen(d),
	)
	return c
}

// A pastBuild is a build of the history as ls shows it.
type pastBuild struct {
	Ref       string `json:"ref"`
	Name      string `json:"name"`
	Status    string `json:"status"`
	CreatedAt string `json:"created_at"`
	Completed string `json:"completed_at,omitempty"`
	Duration  string `json:"-"`
	Total     int32  `json:"total_steps"`
	Done      int32  `json:"completed_steps"`
	Cached    int32  `json:"cached_steps"`
	record    *control.BuildHistoryRecord
}

func pastOf(r *control.BuildHistoryRecord) pastBuild {
	b := pastBuild{
		Ref: r.Ref, Name: buildTitle(r), Status: "Running", Total: r.NumTotalSteps, Done: r.NumCompletedSteps, Cached: r.NumCachedSteps,
		CreatedAt: r.CreatedAt.AsTime().Format(time.RFC3339Nano), record: r,
	}
	end := time.Now()
	if r.CompletedAt != nil {
		end = r.CompletedAt.AsTime()
		b.Completed, b.Status = end.Format(time.RFC3339Nano), "Completed"
		if r.Error != nil {
			b.Status = "Error"
		}
	}
	b.Duration = shortDuration(end.Sub(r.CreatedAt.AsTime()))
	return b
}

// buildTitle is a build's name for people: its context and target.
func buildTitle(r *control.BuildHistoryRecord) string {
	a := r.FrontendAttrs
	name := a["vcs:localdir:context"]
	if name == "" {
		name = a["context"]
	}
	if name == "" {
		name = a["filename"]
	}
	if target := a["target"]; target != "" {
		name += " (" + target + ")"
	}
	return name
}

func shortDuration(t time.Duration) string {
	if t < time.Minute {
		return fmt.Sprintf("%.1fs", t.Seconds())
	}
	return fmt.Sprintf("%dm %2ds", int(t.Minutes()), int(t.Seconds())%60)
}

// atBuilder makes a command's body of one that needs the builder, whose errors are told as those of builds.
func atBuilder(d *command.DockerCli, run func(ctx context.Context, b *conn, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		b, err := connect(cmd.Context(), d)
		if err != nil {
			return failure(d, err, nil)
		}
		defer b.Close()
		return failure(d, run(cmd.Context(), b, args), nil)
	}
}

// records gives the history's records as they are now, by reference: the one that is named, or all.
func (c *conn) records(ctx context.Context, ref string) (map[string]*control.BuildHistoryRecord, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.ControlClient().ListenBuildHistory(ctx, &control.BuildHistoryRequest{Ref: ref, EarlyExit: true})
	if err != nil {
		return nil, err
	}
	all := map[string]*control.BuildHistoryRecord{}
	for {
		e, err := events.Recv()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if e.Type == control.BuildHistoryEventType_DELETED {
			delete(all, e.Record.GetRef())
		} else if e.Record != nil {
			all[e.Record.Ref] = e.Record
		}
	}
}

// past gives the history, newest first.
func (c *conn) past(ctx context.Context) ([]pastBuild, error) {
	records, err := c.records(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []pastBuild
	for _, r := range records {
		list = append(list, pastOf(r))
	}
	slices.SortFunc(list, func(a, b pastBuild) int { return b.record.CreatedAt.AsTime().Compare(a.record.CreatedAt.AsTime()) })
	return list, nil
}

// find gives the builds that words name: a reference (its last part is enough), ^N for the Nth before the last, nothing for the last.
func (c *conn) find(ctx context.Context, words []string) ([]pastBuild, error) {
	list, err := c.past(ctx)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 {
		words = []string{"^0"}
	}
	var found []pastBuild
	for _, w := range words {
		if n, ok := strings.CutPrefix(w, "^"); ok {
			i, err := strconv.Atoi(n)
			if err != nil || i < 0 {
				return nil, fmt.Errorf("invalid offset %q", w)
			}
			if i >= len(list) {
				return nil, fmt.Errorf("no record found for ref %q", w)
			}
			found = append(found, list[i])
			continue
		}
		ref := w[strings.LastIndexByte(w, '/')+1:]
		i := slices.IndexFunc(list, func(b pastBuild) bool { return b.Ref == ref })
		if i < 0 {
			return nil, fmt.Errorf("no record found for ref %q", w)
		}
		found = append(found, list[i])
	}
	return found, nil
}

func newHistoryList(d *command.DockerCli) *cobra.Command {
	var format string
	var filters []string
	c := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Short:   "List build records",
		Example: "  berth buildx history ls\n  berth buildx history ls --filter status=error",
		Args:    cli.NoArgs,
		RunE: atBuilder(d, func(ctx context.Context, b *conn, _ []string) error {
			list, err := b.past(ctx)
			if err == nil {
				list, err = filtered(list, filters)
			}
			if err != nil {
				return err
			}
			switch format {
			case "table":
				return printPastTable(d.Out(), list)
			case "json":
				name := builderName(d)
				for i := range list {
					list[i].Ref = name + "/" + name + "/" + list[i].Ref
				}
				format = "{{json .}}"
			}
			for _, one := range list {
				if err := printTemplate(d.Out(), format, one); err != nil {
					return err
				}
			}
			return nil
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&format, "format", "table", "Format the output")
	c.Flags().StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g., "status=error")`)
	c.Flags().Bool("no-trunc", false, "Don't truncate output")
	return c
}

// filtered keeps the builds that each filter holds for.
func filtered(list []pastBuild, filters []string) ([]pastBuild, error) {
	for _, f := range filters {
		k, v, _ := strings.Cut(f, "=")
		of, ok := map[string]func(pastBuild) string{
			"ref":    func(b pastBuild) string { return b.Ref },
			"status": func(b pastBuild) string { return strings.ToLower(b.Status) },
			"name":   func(b pastBuild) string { return b.Name },
		}[k]
		if !ok {
			return nil, fmt.Errorf("invalid filter %q: ref, status or name", k)
		}
		list = slices.DeleteFunc(list, func(b pastBuild) bool { return of(b) != v })
	}
	return list, nil
}

func printPastTable(out io.Writer, list []pastBuild) error {
	w := tabwriter.NewWriter(out, 10, 1, 3, ' ', 0)
	fmt.Fprintln(w, "BUILD ID\tNAME\tSTATUS\tCREATED AT\tDURATION")
	for _, b := range list {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\t%s\n", b.Ref, b.Name, b.Status, units.HumanDuration(time.Since(b.record.CreatedAt.AsTime())), b.Duration)
	}
	return w.Flush()
}
