package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/docker/go-connections/nat"
	"github.com/spf13/cobra"

	"berth/base/fault"
	"berth/cli/table"
)

// An exposure is one way to a container, as GET /berth/v1/port/audit tells it.
type exposure struct {
	ContainerID string   `json:"containerID"`
	Container   string   `json:"container"` // name; "" for all containers of the network
	Network     string   `json:"network"`
	Protocol    string   `json:"protocol"` // "" for all
	Port        uint16   `json:"port"`     // 0 for all
	Host        string   `json:"host"`     // what a client connects to
	Reach       string   `json:"reach"`    // from where
	Rule        string   `json:"rule"`
	Notes       []string `json:"notes"`
}

// extendPort adds --audit to port.
func extendPort(c *cobra.Command, d *command.DockerCli) {
	var audit, asJSON, whole bool
	c.Flags().BoolVar(&audit, "audit", false, "Say who can reach which container from where, and by which rule")
	c.Flags().BoolVar(&asJSON, "json", false, "With --audit: print what the engine answered")
	c.Flags().BoolVar(&whole, "no-trunc", false, "With --audit: do not shorten rules")
	c.Use = "port [OPTIONS] [CONTAINER [PRIVATE_PORT[/PROTO]]]"
	c.Example = "  berth port web\n  berth port --audit\n  berth port --audit web"
	check, list := c.Args, c.RunE
	c.Args = func(cmd *cobra.Command, args []string) error {
		if audit && len(args) <= 1 {
			return nil
		}
		return check(cmd, args)
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case !audit && (asJSON || whole):
			return fault.New(fault.Invalid, "--json and --no-trunc are for --audit")
		case !audit:
			return list(cmd, args)
		}
		var all struct{ Exposures []exposure }
		if err := newRemote(d.Client()).call(cmd.Context(), "berth port --audit", http.MethodGet, "/port/audit", nil, &all); err != nil {
			return err
		}
		if len(args) == 1 {
			all.Exposures = slices.DeleteFunc(all.Exposures, func(e exposure) bool {
				return e.Container != strings.TrimPrefix(args[0], "/") && !strings.HasPrefix(e.ContainerID, args[0])
			})
		}
		if asJSON {
			enc := json.NewEncoder(d.Out())
			enc.SetIndent("", "    ")
			return enc.Encode(all.Exposures)
		}
		width := 0
		if _, w := d.Out().GetTtySize(); !whole {
			width = int(w)
		}
		printAudit(d.Out(), all.Exposures, width)
		return nil
	}
}

// printAudit prints a table whose last column, the rule, is cut to fit into width columns; 0: whatever it takes.
func printAudit(out io.Writer, all []exposure, width int) {
	if len(all) == 0 {
		fmt.Fprintln(out, "Nothing can be reached.")
		return
	}
	rows := [][]string{{"CONTAINER", "NETWORK", "PORT", "REACHED AT", "FROM", "RULE"}}
	var notes []string
	for _, e := range all {
		name, port := e.Container, "all"
		if name == "" {
			name = "(all)"
		}
		if e.Port != 0 {
			port = fmt.Sprintf("%d/%s", e.Port, e.Protocol)
		} else if e.Protocol != "" {
			port = "all/" + e.Protocol
		}
		rows = append(rows, []string{name, e.Network, port, e.Host, e.Reach, e.Rule})
		for _, n := range e.Notes {
			if line := name + " " + port + ": " + n; !slices.Contains(notes, line) {
				notes = append(notes, line)
			}
		}
	}
	table.Print(out, rows, width)
	for i, n := range notes {
		if i == 0 {
			fmt.Fprintln(out)
		}
		fmt.Fprintln(out, n)
	}
}

// extendUpdate adds --publish-add and --publish-rm to update.
func extendUpdate(c *cobra.Command, d *command.DockerCli) {
	var add, remove []string
	c.Flags().StringArrayVar(&add, "publish-add", nil, "Publish a further port, as run's --publish; may be repeated")
	c.Flags().StringArrayVar(&remove, "publish-rm", nil, "Publish a port no longer: PORT[/PROTO] for all its bindings, or [IP:]HOSTPORT:PORT[/PROTO]")
	c.Example = "  berth container update --publish-add 8080:80 web\n" +
		"  berth container update --publish-rm 80/tcp --publish-add 127.0.0.1:8081:80 web\n" +
		"  berth container update --memory 512m web"
	update := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(add)+len(remove) == 0 {
			return update(cmd, args)
		}
		change := map[string]any{}
		for name, specs := range map[string][]string{"publish": add, "unpublish": remove} {
			ports, err := parsePorts(specs)
			if err != nil {
				return err
			}
			if len(ports) > 0 {
				change[name] = ports
			}
		}
		r := newRemote(d.Client())
		if err := r.mustBeBerth(cmd.Context(), "berth container update --publish-add and --publish-rm"); err != nil {
			return err
		}
		given := 0
		for _, name := range []string{"publish-add", "publish-rm"} {
			if cmd.Flags().Changed(name) {
				given++
			}
		}
		if cmd.Flags().NFlag() > given {
			if err := update(cmd, args); err != nil {
				return err
			}
		}
		for _, name := range args {
			if err := changePorts(cmd, d, r, name, "/ports", change); err != nil {
				return err
			}
		}
		return nil
	}
}

// parsePorts reads what stands behind --publish.
func parsePorts(specs []string) (nat.PortMap, error) {
	_, ports, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	return ports, nil
}

// changePorts asks for another set of published ports and prints it as `port` does.
func changePorts(cmd *cobra.Command, d *command.DockerCli, r *remote, container, verb string, change any) error {
	var now struct{ Ports nat.PortMap }
	if err := r.call(cmd.Context(), "berth "+cmd.Name(), http.MethodPost, "/containers/"+url.PathEscape(container)+verb, change, &now); err != nil {
		return err
	}
	var lines []string
	for port, bindings := range now.Ports {
		for _, b := range bindings {
			host := b.HostIP
			if strings.Contains(host, ":") {
				host = "[" + host + "]"
			}
			lines = append(lines, fmt.Sprintf("%s -> %s:%s", port, host, b.HostPort))
		}
	}
	slices.Sort(lines)
	fmt.Fprintln(d.Out(), container)
	for _, l := range lines {
		fmt.Fprintln(d.Out(), "  "+l)
	}
	return nil
}

// newHandOver is `container hand-over`.
func newHandOver(d *command.DockerCli) *cobra.Command {
	return &cobra.Command{
		Use:   "hand-over FROM TO [PORT[/PROTO]...]",
		Short: "Let published ports of one container lead to another",
		Long: "Let published ports of one container lead to another, in one step: no connection is refused. Connections that\n" +
			"exist stay with the first container until they end, so that it can be stopped when it is idle. Without ports: all.",
		Example: "  berth container hand-over web-1 web-2\n  berth container hand-over web-1 web-2 80/tcp",
		Args:    cli.RequiresMinArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			change := map[string]any{"to": args[1]}
			if len(args) > 2 {
				ports, err := parsePorts(args[2:])
				if err != nil {
					return err
				}
				change["ports"] = ports
			}
			r := newRemote(d.Client())
			var now struct{ Ports nat.PortMap }
			path := "/containers/" + url.PathEscape(args[0]) + "/ports/hand-over"
			if err := r.call(cmd.Context(), "berth container hand-over", http.MethodPost, path, change, &now); err != nil {
				return err
			}
			fmt.Fprintln(d.Out(), args[1])
			return nil
		},
		DisableFlagsInUseLine: true,
	}
}
