package tree

import (
	"slices"

	"github.com/docker/cli/cli/command"
	_ "github.com/docker/cli/cli/command/builder"
	_ "github.com/docker/cli/cli/command/checkpoint"
	_ "github.com/docker/cli/cli/command/config"
	_ "github.com/docker/cli/cli/command/container"
	_ "github.com/docker/cli/cli/command/context"
	_ "github.com/docker/cli/cli/command/image"
	_ "github.com/docker/cli/cli/command/manifest"
	_ "github.com/docker/cli/cli/command/network"
	_ "github.com/docker/cli/cli/command/node"
	_ "github.com/docker/cli/cli/command/plugin"
	_ "github.com/docker/cli/cli/command/registry"
	_ "github.com/docker/cli/cli/command/secret"
	_ "github.com/docker/cli/cli/command/service"
	_ "github.com/docker/cli/cli/command/swarm"
	_ "github.com/docker/cli/cli/command/system"
	_ "github.com/docker/cli/cli/command/volume"
	"github.com/spf13/cobra"
	_ "unsafe" // for go:linkname
)

// registered is docker/cli's list of constructors, in the order in which its packages start.
//
//go:linkname registered github.com/docker/cli/internal/commands.Commands
func registered() []func(command.Cli) *cobra.Command

// Only builds the one command that is called word (or has it as an alias). It gives nil when Docker
// has none, or when the table is out of date: All is right in both cases.
func Only(cli command.Cli, word string) *cobra.Command {
	list := registered()
	i := slices.Index(words, word)
	if i < 0 || i >= len(list) {
		return nil
	}
	if c := list[i](cli); c.Name() == word {
		return c
	}
	return nil
}

// All builds every command.
func All(cli command.Cli) []*cobra.Command {
	var all []*cobra.Command
	for _, build := range registered() {
		all = append(all, build(cli))
	}
	return all
}
