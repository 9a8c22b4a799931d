package cli

import (
	"fmt"
	"net/http"
	"text/tabwriter"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

// A facility is one thing newer kernels have, as GET /berth/v1/kernel tells it.
type facility struct {
	Name   string
	Since  string // the kernel version that brought it
	Have   bool
	Detail string // what is used instead, or how it was found
}

type kernelReport struct {
	Release    string
	Floor      string
	Cgroup     string
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
	fmt.Fprintf(d.Out(), "Linux %s (Berth needs %s or newer), cgroup %s\n\n", r.Release, r.Floor, r.Cgroup)
	w := tabwriter.NewWriter(d.Out(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FACILITY\tSINCE\tHERE\tNOTE")
	for _, f := range r.Facilities {
		here := "no"
		if f.Have {
			here = "yes"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", f.Name, f.Since, here, f.Detail)
	}
	return w.Flush()
}
