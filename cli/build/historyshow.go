package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

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
