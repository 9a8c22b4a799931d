package cli

import (
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

// A facility is one thing that newer kernels have, as GET /berth/v1/kernel tells it.
type facility struct {
	Name  string
	Has   bool
	Since string // the Linux version that brought it
	Why   string // why not, when it is not here
}

type kernelReport struct {
	Release    string
	Facilities []facility
}

// extendInfo adds --kernel to Docker's info command.
func extendInfo(c *cobra.Command, d *command.DockerCli) {
	var kernel bool
	c.Flags().BoolVar(&kernel, "kernel", false, "Show what the engine's kernel has and what Berth does where it lacks something")
	whole := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !kernel {
			return whole(cmd, args)
		}
		var r kernelReport
		if err := newRemote(d.Client()).call(cmd.Context(), "berth info --kernel", http.MethodGet, "/kernel", nil, &r); err != nil {
			return err
		}
		return printKernel(d, r)
	}
}

func printKernel(d *command.DockerCli, r kernelReport) error {
	fmt.Fprintf(d.Out(), "Linux %s\n\n", r.Release)
	w := tabwriter.NewWriter(d.Out(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FACILITY\tSINCE\tHERE\tNOTE")
	for _, f := range r.Facilities {
		here := "no"
		if f.Has {
			here = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Name, f.Since, here, f.Why)
	}
	return w.Flush()
}
