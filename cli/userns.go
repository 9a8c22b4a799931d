package cli

import (
	"github.com/spf13/cobra"
)

// extendUserns lets --userns of run and create say more than "host", which is all that the command line of Docker lets pass: it is handed to
// the engine as a security option.
func extendUserns(c *cobra.Command) {
	flag := c.Flags().Lookup("userns")
	if flag == nil || c.RunE == nil {
		return
	}
	flag.Usage = `User namespace to use: "host", "auto[:size=N]", "container:NAME"`
	create := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if mode := flag.Value.String(); mode != "" && mode != "host" {
			if err := cmd.Flags().Set("security-opt", "userns="+mode); err != nil {
				return err
			}
			if err := flag.Value.Set(""); err != nil {
				return err
			}
		}
		return create(cmd, args)
	}
}
