package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

// An explanation is what the engine answers to GET /berth/v1/containers/ID/explain.
type explanation struct {
	ID, Name string
	Program  string   // the launch program, one system call a line
	Limits   []string // one a line, with the cgroup file that holds it
	Cgroup   string
	Ended    string // one sentence; "" while it runs or before it was started
	Details  []string
}

func newExplain(d *command.DockerCli) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "explain [OPTIONS] CONTAINER",
		Short: "Show how a container is isolated, its limits, and why it ended",
		Long: "Show the system calls by which a container was started, one a line, the limits that hold for it with\n" +
			"the files that hold them, and for one that ended the reason: its exit code or signal, the memory it\n" +
			"was killed for, the program or loader that was not there, the system call that was not allowed.",
		Example: "  berth explain web\n  berth explain --json web",
		Args:    cli.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var e explanation
			path := "/containers/" + url.PathEscape(args[0]) + "/explain"
			if err := newRemote(d.Client()).call(cmd.Context(), "berth explain", http.MethodGet, path, nil, &e); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(d.Out())
				enc.SetIndent("", "    ")
				return enc.Encode(e)
			}
			printExplanation(d.Out(), e)
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print what the engine answered")
	return cmd
}

// printExplanation is for people: the 64 digits of the id stand in the first line and are cut to their
// first 12 in every path after it.
func printExplanation(w io.Writer, e explanation) {
	short := strings.NewReplacer()
	if len(e.ID) > 12 {
		short = strings.NewReplacer(e.ID, e.ID[:12]+"…")
	}
	fmt.Fprintf(w, "container %s (%s)\n", strings.TrimPrefix(e.Name, "/"), e.ID)
	if e.Ended != "" {
		fmt.Fprintf(w, "\nwhy it ended\n  %s\n", e.Ended)
		for _, line := range e.Details {
			fmt.Fprintf(w, "  - %s\n", short.Replace(line))
		}
	}
	fmt.Fprintf(w, "\nlimits")
	if e.Cgroup != "" {
		fmt.Fprintf(w, " (cgroup %s)", short.Replace(e.Cgroup))
	}
	fmt.Fprintln(w)
	if len(e.Limits) == 0 {
		fmt.Fprintln(w, "  none")
	}
	for _, line := range e.Limits {
		fmt.Fprintln(w, "  "+short.Replace(line))
	}
	if e.Program != "" {
		fmt.Fprintln(w, "\nlaunch program")
		for line := range strings.Lines(e.Program) {
			fmt.Fprintln(w, "  "+short.Replace(strings.TrimRight(line, "\n")))
		}
	}
}
