package build

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/sys/atomicwriter"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"

	"berth/cli/build/records"
)

func newHistoryTrace(d *command.DockerCli) *cobra.Command {
	var other, addr string
	c := &cobra.Command{
		Use:   "trace [OPTIONS] [REF]",
		Short: "Show the OpenTelemetry trace of a build record",
		Long: "Show when each step of a build began and how long it took. To a pipe or file it is\n" +
			"written as JSON, which Jaeger's user interface takes.",
		Example: "  berth buildx history trace\n  berth buildx history trace --compare ^1\n  berth buildx history trace > trace.json",
		Args:    cli.RequiresMaxArgs(1),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			if addr != "" {
				return errors.New("--addr is not supported: there is no user interface to serve; Jaeger's takes what this command writes to a file")
			}
			t, err := b.trace(ctx, args)
			if err != nil {
				return err
			}
			if other != "" {
				before, err := b.trace(ctx, []string{other})
				if err != nil {
					return fmt.Errorf("failed to load trace for %s: %w", other, err)
				}
				return t.Compare(d.Out(), before)
			}
			if d.Out().IsTerminal() {
				return t.Print(d.Out())
			}
			return records.PrintJaeger(d.Out(), t)
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVar(&addr, "addr", "", "Address to bind the UI server")
	c.Flags().StringVar(&other, "compare", "", "Compare with another build record")
	_ = c.Flags().MarkHidden("addr")
	return c
}

// trace reads the trace of the build that words name.
func (c *conn) trace(ctx context.Context, words []string) (records.Trace, error) {
	found, err := c.find(ctx, words)
	if err != nil {
		return nil, err
	}
	r, err := c.finalized(ctx, found[0].record)
	if err != nil {
		return nil, err
	}
	if r.Trace == nil {
		return nil, fmt.Errorf("build record %q is missing a trace", r.Ref)
	}
	text, err := c.blob(ctx, ocispec.Descriptor{MediaType: r.Trace.MediaType, Digest: digest.Digest(r.Trace.Digest), Size: r.Trace.Size})
	if err != nil {
		return nil, err
	}
	return records.ReadTrace(text)
}

// finalized gives a record that has its trace, if there will be one: an engine may write it a little after the build.
func (c *conn) finalized(ctx context.Context, r *control.BuildHistoryRecord) (*control.BuildHistoryRecord, error) {
	if r.CompletedAt == nil {
		return nil, fmt.Errorf("build %q is not completed", r.Ref)
	}
	if r.Trace != nil {
		return r, nil
	}
	if _, err := c.ControlClient().UpdateBuildHistory(ctx, &control.UpdateBuildHistoryRequest{Ref: r.Ref, Finalize: true}); err != nil {
		return nil, err
	}
	now, err := c.record(ctx, r.Ref)
	if err == nil && now == nil {
		err = fmt.Errorf("build record %q was deleted", r.Ref)
	}
	return now, err
}

func newHistoryExport(d *command.DockerCli) *cobra.Command {
	var output string
	var all, finalize bool
	c := &cobra.Command{
		Use:     "export [OPTIONS] [REF...]",
		Short:   "Export build records into Docker Desktop bundle",
		Example: "  berth buildx history export -o build.dockerbuild\n  berth buildx history export --all > builds.dockerbuild",
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			if all && len(args) > 0 {
				return errors.New("cannot specify refs when using --all")
			}
			if output == "" && d.Out().IsTerminal() {
				return errors.New("refusing to write to console, use --output to specify a file")
			}
			list, err := b.completed(ctx, args, all)
			if err != nil {
				return err
			}
			if finalize {
				for i := range list {
					if list[i], err = b.finalized(ctx, list[i]); err != nil {
						return err
					}
				}
			}
			platform := ""
			if p := b.worker.Platforms; len(p) > 0 {
				platform = platforms.FormatAll(platforms.Normalize(p[0]))
			}
			read := func(desc ocispec.Descriptor) ([]byte, error) { return b.blob(ctx, desc) }
			if output == "" {
				return records.Bundle(d.Out(), list, platform, read)
			}
			var text bytes.Buffer
			if err := records.Bundle(&text, list, platform, read); err != nil {
				return err
			}
			if err := atomicwriter.WriteFile(output, text.Bytes(), 0o644); err != nil {
				return fmt.Errorf("failed to create output file %q: %w", output, err)
			}
			return nil
		}),
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVarP(&output, "output", "o", "", "Output file path")
	c.Flags().BoolVar(&all, "all", false, "Export all build records for the builder")
	c.Flags().BoolVar(&finalize, "finalize", false, "Ensure build records are finalized before exporting")
	return c
}

// completed gives the builds that words name, the last without words, and all of them; those that still run are none.
func (c *conn) completed(ctx context.Context, words []string, all bool) (list []*control.BuildHistoryRecord, err error) {
	found, err := c.past(ctx)
	if err == nil && len(words) > 0 {
		found, err = c.find(ctx, words)
	}
	if err != nil {
		return nil, err
	}
	for _, b := range found {
		if b.record.CompletedAt == nil {
			if len(words) > 0 {
				return nil, fmt.Errorf("no record found for ref %q: it is not completed", b.Ref)
			}
			continue
		}
		list = append(list, b.record)
		if !all && len(words) == 0 {
			break
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no records found")
	}
	return list, nil
}

// desktopSocket is where Docker Desktop takes build records, below the home directory.
const desktopSocket = ".docker/desktop/docker-desktop-build.sock"

// desktop gives the path of Docker Desktop's socket. Where it is not, the refusal says what else there is.
func desktop() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(home, filepath.FromSlash(desktopSocket))
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("no Docker Desktop is running here (%w); history inspect, logs and trace show the engine's builds", err)
	}
	return path, nil
}

func newHistoryImport(d *command.DockerCli) *cobra.Command {
	var names []string
	c := &cobra.Command{
		Use:     "import [OPTIONS] -",
		Short:   "Import build records into Docker Desktop",
		Example: "  berth buildx history import -f build.dockerbuild",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && args[0] != "-" {
				return fmt.Errorf("invalid argument %q: files are named with -f", args[0])
			}
			if len(names) == 0 {
				names = []string{"-"}
			}
			return failure(d, importRecords(cmd.Context(), d, names), nil)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringArrayVarP(&names, "file", "f", nil, "Import from a file path")
	return c
}

func importRecords(ctx context.Context, d *command.DockerCli, names []string) error {
	socket, err := desktop()
	if err != nil {
		return err
	}
	var urls []string
	for _, name := range names {
		var in io.Reader = d.In()
		if name != "-" {
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			defer f.Close()
			in = f
		}
		refs, err := upload(ctx, socket, in)
		if err != nil {
			return err
		}
		for _, ref := range refs {
			urls = append(urls, desktopURL(".imported/_/"+ref))
		}
	}
	if len(urls) == 0 {
		return errors.New("no build records found in the bundle")
	}
	for _, u := range urls {
		fmt.Fprintln(d.Err(), u)
	}
	return browse(ctx, urls[0])
}

// maxAnswer is how long Docker Desktop's answer may be.
const maxAnswer = 1 << 20

// upload gives a bundle to Docker Desktop, which answers with the records' references.
func upload(ctx context.Context, socket string, in io.Reader) (refs []string, err error) {
	h := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "unix", socket)
		},
	}}
	defer h.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://docker-desktop/upload", in)
	if err != nil {
		return nil, err
	}
	resp, err := h.Do(req)
	if err != nil {
		return nil, fmt.Errorf("failed to send request, check if Docker Desktop is running: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("failed to import build: %s", strings.TrimSpace(string(text)))
	}
	if err := json.Unmarshal(text, &refs); err != nil {
		return nil, fmt.Errorf("failed to decode response: %w", err)
	}
	return refs, nil
}

func newHistoryOpen(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:     "open [OPTIONS] [REF]",
		Short:   "Open a build record in Docker Desktop",
		Example: "  berth buildx history open",
		Args:    cli.RequiresMaxArgs(1),
		RunE: atBuilder(d, func(ctx context.Context, b *conn, args []string) error {
			found, err := b.find(ctx, args)
			if err != nil {
				return err
			}
			if _, err := desktop(); err != nil {
				return err
			}
			name := builderName(d)
			return browse(ctx, desktopURL(name+"/"+name+"/"+found[0].Ref))
		}),
		DisableFlagsInUseLine: true,
	}
}

// desktopURL is what Docker Desktop shows a build at.
func desktopURL(ref string) string { return "docker-desktop://dashboard/build/" + ref }

// browse opens a URL by the desktop's own means.
func browse(ctx context.Context, url string) error {
	out, err := exec.CommandContext(ctx, "xdg-open", url).CombinedOutput()
	if err != nil {
		return fmt.Errorf("open %s: %w: %s", url, err, strings.TrimSpace(string(out)))
	}
	return nil
}
