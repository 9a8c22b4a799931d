// Command berth is what a person types. See package cli.
package main

import (
	"os"

	"berth/cli"
)

// Set by the linker, see Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	os.Exit(cli.Main(cli.Build{Version: version, Commit: commit}, os.Args))
}
