package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"berth/base/fault"
)

// logStatus is what the engine answers to GET /berth/v1/containers/NAME/logs.
type logStatus struct {
	Driver string `json:"driver"`
	Bytes  int64  `json:"bytes"`
	Files  int    `json:"files"`
	Limit  int64  `json:"limit"`
	Lost   uint64 `json:"lost"`

	Collector *struct {
		Sent    uint64     `json:"sent"`
		Dropped uint64     `json:"dropped"`
		Behind  int64      `json:"behind"`
		Error   string     `json:"error"`
		Since   *time.Time `json:"since,omitempty"`
	} `json:"collector,omitempty"`
}

// extendLogs adds --clear and --status to logs.
func extendLogs(c *cobra.Command, d *command.DockerCli) {
	var clearIt, status, asJSON bool
	c.Flags().BoolVar(&clearIt, "clear", false, "Throw away what is kept of the output, instead of showing it")
	c.Flags().BoolVar(&status, "status", false, "Tell how large the log is, and how a collector of it is doing")
	c.Flags().BoolVar(&asJSON, "json", false, "With --status: print what the engine answered")
	check, show := c.Args, c.RunE
	c.Args = func(cmd *cobra.Command, args []string) error {
		if clearIt {
			return cli.RequiresMinArgs(1)(cmd, args)
		}
		return check(cmd, args)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case clearIt && status:
			return fault.New(fault.Invalid, "--clear and --status are not for the same command line")
		case asJSON && !status:
			return fault.New(fault.Invalid, "--json is for --status")
		case clearIt:
			for _, name := range args {
				if err := newRemote(d.Client()).call(cmd.Context(), "berth logs --clear", http.MethodPost, "/containers/"+url.PathEscape(name)+"/logs/clear", nil, nil); err != nil {
					return err
				}
				fmt.Fprintln(d.Out(), name)
			}
			return nil
		case status:
			var st logStatus
			if err := newRemote(d.Client()).call(cmd.Context(), "berth logs --status", http.MethodGet, "/containers/"+url.PathEscape(args[0])+"/logs", nil, &st); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(d.Out())
				enc.SetIndent("", "    ")
				return enc.Encode(st)
			}
			printLogStatus(d.Out(), &st)
			return nil
		}
		return show(cmd, args)
	}
}

func printLogStatus(w io.Writer, st *logStatus) {
	fmt.Fprintf(w, "driver     %s\n", st.Driver)
	limit := "no limit"
	if st.Limit > 0 {
		limit = "of " + units.BytesSize(float64(st.Limit))
	}
	fmt.Fprintf(w, "on disk    %s in %d files, %s\n", units.BytesSize(float64(st.Bytes)), st.Files, limit)
	if st.Lost > 0 {
		fmt.Fprintf(w, "lost       %s that the disk refused\n", units.BytesSize(float64(st.Lost)))
	}
	x := st.Collector
	if x == nil {
		return
	}
	fmt.Fprintf(w, "collector  %d lines taken, %d dropped, %s waiting\n", x.Sent, x.Dropped, units.BytesSize(float64(x.Behind)))
	if x.Error != "" {
		since := ""
		if x.Since != nil {
			since = " for " + units.HumanDuration(time.Since(*x.Since))
		}
		fmt.Fprintf(w, "           takes nothing%s: %s\n", since, x.Error)
	}
}
