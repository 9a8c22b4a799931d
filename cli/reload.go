package cli

import (
	"fmt"
	"net/http"

	"berth/cli/table"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

// setting is one line of the answer to /berth/v1/reload.
type setting struct {
	Key, Old, New string
	Live          bool
}

func newReload(d *command.DockerCli) *cobra.Command {
	plan := false
	c := &cobra.Command{
		Use:   "reload [OPTIONS]",
		Short: "Let the engine read daemon.json again",
		Long: "Let the engine read daemon.json again, as SIGHUP and `systemctl reload berth` do. What can take effect at once does;\n" +
			"the rest waits until the engine starts again, which containers do not notice. A file with a mistake changes nothing.",
		Example: "  berth system reload --plan\n  berth system reload",
		Args:    cli.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			method := http.MethodPost
			if plan {
				method = http.MethodGet
			}
			var all []setting
			if err := newRemote(d.Client()).call(cmd.Context(), "berth system reload", method, "/reload", nil, &all); err != nil {
				return err
			}
			if len(all) == 0 {
				fmt.Fprintln(d.Out(), "Nothing differs from what is in force.")
				return nil
			}
			_, width := d.Out().GetTtySize()
			rows := [][]string{{"SETTING", "TAKES EFFECT", "IN FORCE", "IN THE FILE"}}
			for _, s := range all {
				when := "at the engine's next start"
				if s.Live {
					when = "at once"
				}
				rows = append(rows, []string{s.Key, when, orDefault(s.Old), orDefault(s.New)})
			}
			table.Print(d.Out(), rows, int(width))
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	c.Flags().BoolVar(&plan, "plan", false, "Print what would change, and change nothing")
	return c
}

func orDefault(json string) string {
	if json == "" {
		return "(default)"
	}
	return json
}
