package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newHistory(d *command.DockerCli) *cobra.Command {
	c := &cobra.Command{
		Use:                   "history",
		Short:                 "Commands to work on build records",
		Args:                  cli.NoArgs,
		RunE:                  command.ShowHelp(d.Err()),
		DisableFlagsInUseLine: true,
	}
	c.AddCommand(newHistoryList(d), newHistoryLogs(d), newHistoryInspect(d), newHistoryRemove(d))
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

// past gives the history, newest first.
func (c *conn) past(ctx context.Context) ([]pastBuild, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := c.ControlClient().ListenBuildHistory(ctx, &control.BuildHistoryRequest{EarlyExit: true})
	if err != nil {
		return nil, err
	}
	records := map[string]*control.BuildHistoryRecord{}
	for {
		e, err := events.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if e.Type == control.BuildHistoryEventType_DELETED {
			delete(records, e.Record.GetRef())
		} else if e.Record != nil {
			records[e.Record.Ref] = e.Record
		}
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
		Use:   "ls [OPTIONS]",
		Short: "List build records",
		Args:  cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := connect(cmd.Context(), d)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			list, err := b.past(cmd.Context())
			if err != nil {
				return failure(d, err, nil)
			}
			for _, f := range filters {
				k, v, _ := strings.Cut(f, "=")
				keep, ok := map[string]func(pastBuild) string{
					"ref":    func(b pastBuild) string { return b.Ref },
					"status": func(b pastBuild) string { return strings.ToLower(b.Status) },
					"name":   func(b pastBuild) string { return b.Name },
				}[k]
				if !ok {
					return fmt.Errorf("invalid filter %q: ref, status or name", k)
				}
				list = slices.DeleteFunc(list, func(b pastBuild) bool { return keep(b) != v })
			}
			if format == "json" {
				for _, b := range list {
					name := builderName(d)
					b.Ref = name + "/" + name + "/" + b.Ref
					if err := json.NewEncoder(d.Out()).Encode(b); err != nil {
						return err
					}
				}
				return nil
			}
			if format != "table" {
				for _, b := range list {
					if err := printTemplate(d.Out(), format, b); err != nil {
						return err
					}
				}
				return nil
			}
			w := tabwriter.NewWriter(d.Out(), 10, 1, 3, ' ', 0)
			fmt.Fprintln(w, "BUILD ID\tNAME\tSTATUS\tCREATED AT\tDURATION")
			for _, b := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\t%s\n", b.Ref, b.Name, b.Status, units.HumanDuration(time.Since(b.record.CreatedAt.AsTime())), b.Duration)
			}
			return w.Flush()
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&format, "format", "table", "Format the output")
	c.Flags().StringArrayVar(&filters, "filter", nil, `Provide filter values (e.g., "status=error")`)
	c.Flags().Bool("no-trunc", false, "Don't truncate output")
	return c
}

func newHistoryLogs(d *command.DockerCli) *cobra.Command {
	var progress string
	c := &cobra.Command{
		Use:   "logs [OPTIONS] [REF]",
		Short: "Print the logs of a build record",
		Args:  cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			b, err := connect(ctx, d)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			found, err := b.find(ctx, args)
			if err != nil {
				return failure(d, err, nil)
			}
			events, err := b.ControlClient().Status(ctx, &control.StatusRequest{Ref: found[0].Ref})
			if err != nil {
				return failure(d, err, nil)
			}
			ui, err := progressui.NewDisplay(d.Out(), progressui.DisplayMode(progress))
			if err != nil {
				return err
			}
			statuses, done := make(chan *client.SolveStatus), make(chan struct{})
			go func() {
				defer close(done)
				_, _ = ui.UpdateFrom(context.Background(), statuses)
				for range statuses {
				}
			}()
			for {
				e, recvErr := events.Recv()
				if recvErr != nil {
					if !errors.Is(recvErr, io.EOF) {
						err = recvErr
					}
					break
				}
				statuses <- client.NewSolveStatus(e)
			}
			close(statuses)
			<-done
			return failure(d, err, nil)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&progress, "progress", "plain", `Set type of progress output ("plain", "rawjson", "tty")`)
	return c
}

func newHistoryInspect(d *command.DockerCli) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "inspect [OPTIONS] [REF]",
		Short: "Inspect a build record",
		Args:  cli.RequiresMaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := connect(cmd.Context(), d)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			found, err := b.find(cmd.Context(), args)
			if err != nil {
				return failure(d, err, nil)
			}
			if format == "json" {
				return json.NewEncoder(d.Out()).Encode(found[0].record)
			}
			if format != "" && format != "pretty" {
				return printTemplate(d.Out(), format, found[0])
			}
			return printPast(d.Out(), found[0])
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&format, "format", "pretty", "Format the output")
	c.AddCommand(newHistoryAttachment(d))
	return c
}

func printPast(out io.Writer, b pastBuild) error {
	r := b.record
	w := tabwriter.NewWriter(out, 1, 8, 1, '\t', 0)
	line := func(k, v string) {
		if v != "" {
			fmt.Fprintf(w, "%s:\t%s\n", k, v)
		}
	}
	a := r.FrontendAttrs
	line("Name", b.Name)
	line("Context", a["context"])
	line("Dockerfile", a["filename"])
	line("Target", a["target"])
	line("Platforms", a["platform"])
	fmt.Fprintln(w)
	line("Started", r.CreatedAt.AsTime().Local().Format("2006-01-02 15:04:05"))
	line("Duration", b.Duration)
	line("Build Steps", fmt.Sprintf("%d/%d (%.0f%% cached)", b.Done, b.Total, 100*float64(b.Cached)/float64(max(b.Total, 1))))
	line("Status", b.Status)
	if r.Error != nil {
		line("Error", r.Error.Message)
	}
	var args []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if name, ok := strings.CutPrefix(k, "build-arg:"); ok {
			args = append(args, fmt.Sprintf("%s\t%s", name, a[k]))
		}
	}
	if len(args) > 0 {
		fmt.Fprintf(w, "\nBUILD ARG\tVALUE\n%s\n", strings.Join(args, "\n"))
	}
	if r.Result != nil && len(r.Result.Attestations) > 0 {
		fmt.Fprintln(w, "\nDIGEST\tTYPE")
		for _, at := range r.Result.Attestations {
			fmt.Fprintf(w, "%s\t%s\n", at.Digest, at.Annotations["in-toto.io/predicate-type"])
		}
	}
	return w.Flush()
}

func newHistoryAttachment(d *command.DockerCli) *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use:   "attachment [OPTIONS] [REF [DIGEST]]",
		Short: "Inspect a build record attachment",
		Args:  cli.RequiresMaxArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			b, err := connect(ctx, d)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			found, err := b.find(ctx, args[:min(1, len(args))])
			if err != nil {
				return failure(d, err, nil)
			}
			want := kind
			if len(args) == 2 {
				want = args[1]
			}
			results := []*control.BuildResultInfo{found[0].record.Result}
			for _, r := range found[0].record.Results {
				results = append(results, r)
			}
			for _, r := range results {
				if r == nil {
					continue
				}
				for _, at := range r.Attestations {
					predicate := at.Annotations["in-toto.io/predicate-type"]
					if want != at.Digest && (want == "" || !strings.Contains(predicate, map[string]string{"provenance": "slsa.dev/provenance", "sbom": "spdx.dev"}[want]) || strings.HasPrefix(want, "sha256:")) {
						continue
					}
					text, err := content.ReadBlob(ctx, proxy.NewContentStore(b.ContentClient()), ocispec.Descriptor{MediaType: at.MediaType, Digest: digest.Digest(at.Digest), Size: at.Size})
					if err != nil {
						return failure(d, err, nil)
					}
					_, err = d.Out().Write(append(text, '\n'))
					return err
				}
			}
			return failure(d, fmt.Errorf("no attachment found for record %s", found[0].Ref), nil)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&kind, "type", "provenance", "Type of attachment (provenance, sbom)")
	return c
}

func newHistoryRemove(d *command.DockerCli) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:   "rm [OPTIONS] [REF...]",
		Short: "Remove build records",
		RunE: func(cmd *cobra.Command, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("rm requires references, or --all")
			}
			ctx := cmd.Context()
			b, err := connect(ctx, d)
			if err != nil {
				return failure(d, err, nil)
			}
			defer b.Close()
			list, err := b.past(ctx)
			if err == nil && !all {
				list, err = b.find(ctx, args)
			}
			if err != nil {
				return failure(d, err, nil)
			}
			for _, r := range list {
				if _, err := b.ControlClient().UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: r.Ref, Delete: true}); err != nil {
					return failure(d, err, nil)
				}
			}
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().BoolVar(&all, "all", false, "Remove all build records")
	return c
}
