package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/cli/opts"
	"github.com/docker/go-units"
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

// prunePlan is what the engine answers when it is asked what a prune would remove.
type prunePlan struct {
	Remove []struct {
		Name string
		Size int64 // bytes; -1 unknown
	}
	Reclaimable int64
}

// extendPrune adds --plan to a prune. filters completes the filters as the command would before it asks.
func extendPrune(c *cobra.Command, d *command.DockerCli, noun string, filters func(client.Filters) client.Filters) {
	var plan bool
	c.Flags().BoolVar(&plan, "plan", false, "Say what would be removed, and remove nothing")
	c.Example = "  berth " + strings.TrimSuffix(noun, "s") + " prune --plan"
	prune := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if !plan {
			return prune(cmd, args)
		}
		asked := client.Filters{}
		if f, ok := cmd.Flag("filter").Value.(*opts.FilterOpt); ok {
			asked = f.Value()
		}
		text, err := json.Marshal(filters(command.PruneFilters(d, asked)))
		if err != nil {
			return err
		}
		var p prunePlan
		path := "/" + noun + "/prune?" + url.Values{"filters": {string(text)}}.Encode()
		if err := newRemote(d.Client()).call(cmd.Context(), "berth "+strings.TrimSuffix(noun, "s")+" prune --plan", http.MethodGet, path, nil, &p); err != nil {
			return err
		}
		return printPlan(d.Out(), noun, p)
	}
}

func printPlan(out io.Writer, noun string, p prunePlan) error {
	if len(p.Remove) == 0 {
		fmt.Fprintf(out, "No %s would be removed.\n", noun)
		return nil
	}
	if len(p.Remove) == 1 {
		fmt.Fprintf(out, "Would remove 1 %s:\n", strings.TrimSuffix(noun, "s"))
	} else {
		fmt.Fprintf(out, "Would remove %d %s:\n", len(p.Remove), noun)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, r := range p.Remove {
		size := ""
		switch {
		case noun == "networks":
		case r.Size < 0:
			size = "size unknown"
		default:
			size = units.HumanSize(float64(r.Size))
		}
		if size == "" {
			fmt.Fprintf(w, "  %s\n", r.Name)
		} else {
			fmt.Fprintf(w, "  %s\t%s\n", r.Name, size)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if p.Reclaimable > 0 {
		fmt.Fprintf(out, "\nSpace that would be reclaimed: %s\n", units.HumanSize(float64(p.Reclaimable)))
	}
	return nil
}
