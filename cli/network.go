package cli

import (
	"io"
	"net/http"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// extendNetwork adds to `network` what only Berth has.
func extendNetwork(c *cobra.Command, d *command.DockerCli) {
	c.AddCommand(newNetworkRules(d))
	for _, sub := range c.Commands() {
		if sub.Name() == "prune" {
			extendPrune(sub, d, "networks", func(f client.Filters) client.Filters { return f })
		}
	}
}

func newNetworkRules(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:   "rules",
		Short: "Print the firewall rules that Berth has loaded",
		Long: "Print the firewall rules that Berth has loaded, as nft prints them. They are all in a table of Berth's own; where the\n" +
			"host's own firewall would drop what they let through, what was asked of it stands there too.",
		Example: "  berth network rules\n  berth network rules | grep 8080",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := newRemote(d.Client()).open(cmd.Context(), "berth network rules", http.MethodGet, "/network/rules", nil)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = io.Copy(d.Out(), r)
			return err
		},
		DisableFlagsInUseLine: true,
	}
}

// Annotations by which a container asks for its share of the network, and the flags that set them.
var shareFlags = []struct{ flag, annotation, usage string }{
	{"network-rate", "berth.network.rate", "Most that each interface may send and receive (10mbit, 1.5gbit, 500kbit)"},
	{"network-weight", "berth.network.weight", "Share of the network beside others on it, 1 to 1000 (default 100)"},
}

// extendShare adds --network-rate and --network-weight to run and create.
func extendShare(c *cobra.Command, d *command.DockerCli) {
	for _, s := range shareFlags {
		c.Flags().String(s.flag, "", s.usage)
	}
	run := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		for _, s := range shareFlags {
			if !cmd.Flags().Changed(s.flag) {
				continue
			}
			if err := newRemote(d.Client()).mustBeBerth(cmd.Context(), "berth "+cmd.Name()+" --"+s.flag); err != nil {
				return cli.StatusError{StatusCode: 125, Status: "docker: " + err.Error()}
			}
			if err := cmd.Flags().Set("annotation", s.annotation+"="+cmd.Flag(s.flag).Value.String()); err != nil {
				return err
			}
		}
		return run(cmd, args)
	}
	if c.Example == "" {
		c.Example = "  berth " + c.Name() + " --network-rate 10mbit debian sleep 60\n  berth " + c.Name() + " -v /srv/data:/data:idmap debian ls -l /data"
	}
}
