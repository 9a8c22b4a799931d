package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/content/proxy"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newHistoryLogs(d *command.DockerCli) *cobra.Command {
	var progress string
	c := &cobra.Command{
		Use:     "logs [OPTIONS] [REF]",
		Short:   "Print the logs of a build record",
		Example: "  berth buildx history logs\n  berth buildx history logs ^1",
		Args:    cli.RequiresMaxArgs(1),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			found, err := b.find(ctx, args)
			if err != nil {
				return err
			}
			events, err := b.ControlClient().Status(ctx, &control.StatusRequest{Ref: found[0].Ref})
			if err != nil {
				return err
			}
			ui, err := progressui.NewDisplay(screen(d), progressui.DisplayMode(progress))
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
			return err
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&progress, "progress", "plain", `Set type of progress output ("plain", "rawjson", "tty")`)
	return c
}

func newHistoryInspect(d *command.DockerCli) *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:     "inspect [OPTIONS] [REF]",
		Short:   "Inspect a build record",
		Example: "  berth buildx history inspect\n  berth buildx history inspect --format json ^1",
		Args:    cli.RequiresMaxArgs(1),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			found, err := b.find(ctx, args)
			if err != nil {
				return err
			}
			if format == "json" {
				return json.NewEncoder(d.Out()).Encode(found[0].record)
			}
			if format != "" && format != "pretty" {
				return printTemplate(d.Out(), format, found[0])
			}
			return printPast(d.Out(), found[0])
		}),
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
		Use:     "attachment [OPTIONS] [REF [DIGEST]]",
		Short:   "Inspect a build record attachment",
		Example: "  berth buildx history inspect attachment --type sbom",
		Args:    cli.RequiresMaxArgs(2),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			found, err := b.find(ctx, args[:min(1, len(args))])
			if err != nil {
				return err
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
					text, err := b.blob(ctx, ocispec.Descriptor{MediaType: at.MediaType, Digest: digest.Digest(at.Digest), Size: at.Size})
					if err != nil {
						return err
					}
					_, err = d.Out().Write(append(text, '\n'))
					return err
				}
			}
			return fmt.Errorf("no attachment found for record %s", found[0].Ref)
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&kind, "type", "provenance", "Type of attachment (provenance, sbom)")
	return c
}

// blob reads what the history keeps for a record.
func (c *conn) blob(ctx context.Context, desc ocispec.Descriptor) ([]byte, error) {
	return content.ReadBlob(ctx, proxy.NewContentStore(c.ContentClient()), desc)
}

func newHistoryRemove(d *command.DockerCli) *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use:     "rm [OPTIONS] [REF...]",
		Short:   "Remove build records",
		Example: "  berth buildx history rm ^0\n  berth buildx history rm --all",
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			if all == (len(args) > 0) {
				return errors.New("rm requires references, or --all")
			}
			list, err := b.past(ctx)
			if err == nil && !all {
				list, err = b.find(ctx, args)
			}
			if err != nil {
				return err
			}
			for _, r := range list {
				if _, err := b.ControlClient().UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: r.Ref, Delete: true}); err != nil {
					return err
				}
			}
			return nil
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().BoolVar(&all, "all", false, "Remove all build records")
	return c
}
