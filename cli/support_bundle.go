package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"berth/base/fault"
	"berth/cli/bundle"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

func newSupportBundle(d *command.DockerCli) *cobra.Command {
	file := ""
	c := &cobra.Command{
		Use:   "support-bundle [OPTIONS]",
		Short: "Gather what somebody needs who is to help, without secrets",
		Long: "Gather what the engine tells of itself, of its containers, networks and the kernel, into one compressed archive, for somebody\n" +
			"who is to help. Values of environment variables, passwords, tokens and keys are taken out; what containers wrote is not\n" +
			"in it. Where the engine is on this machine its log, configuration and mounts are in it too. Look through it before you send it.",
		Example: "  berth system support-bundle\n  berth system support-bundle --output bundle.tar.gz\n  berth -H ssh://host system support-bundle -o - | tar -tzf -",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			now := time.Now()
			if file == "" {
				file = "berth-support-" + now.UTC().Format("20060102-150405") + ".tar.gz"
			}
			return supportBundle(cmd.Context(), d, file, now)
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().StringVarP(&file, "output", "o", "", `File to write, "-" for standard output (default berth-support-DATE.tar.gz)`)
	return c
}

func supportBundle(ctx context.Context, d *command.DockerCli, file string, now time.Time) error {
	r := newRemote(d.Client())
	o := bundle.Options{
		Local: strings.HasPrefix(d.DockerEndpoint().Host, "unix://"), Now: now,
		Ask: func(ctx context.Context, path string) ([]byte, error) {
			resp, err := r.send(ctx, http.MethodGet, path, "", nil)
			if err != nil {
				return nil, err
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(io.LimitReader(resp.Body, bundle.PageMax+1))
			if err == nil && resp.StatusCode != http.StatusOK {
				err = fault.New(fault.Unavailable, "%s: %s", resp.Status, strings.TrimSpace(string(text)))
			}
			return text, err
		},
	}
	if file == "-" {
		if d.Out().IsTerminal() {
			return fault.New(fault.Invalid, "an archive on a terminal is of no use: name a file with --output, or redirect")
		}
		return bundle.Write(ctx, d.Out(), o)
	}
	o.Tell = func(name string) {
		if d.Err().IsTerminal() {
			fmt.Fprintf(d.Err(), "\r\x1b[K%s", name)
		}
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "writing the bundle")
	}
	err = bundle.Write(ctx, f, o)
	if d.Err().IsTerminal() {
		fmt.Fprint(d.Err(), "\r\x1b[K")
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(file)
		return fault.Wrap(fault.Internal, err, "writing the bundle")
	}
	fmt.Fprintf(d.Out(), "%s\nSecrets that could be found are taken out. Look through it before you send it: tar -xzf %s\n", file, file)
	return nil
}
