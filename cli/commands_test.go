package cli

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"testing"

	"github.com/docker/cli/cli/command"
	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"berth/cli/build"
	"berth/cli/tree"
)

var update = flag.Bool("update", false, "write generated pages anew")

// docs/commands.md tells what Berth's command line has more than Docker's. It is made by comparing the two trees.
func TestCommandPageIsCurrent(t *testing.T) {
	const page = "../docs/commands.md"
	got := commandPage(t)
	if *update {
		if err := os.WriteFile(page, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not current; run the test with -update (-want +got):\n%s", page, diff)
	}
}

func commandPage(t *testing.T) []byte {
	t.Helper()
	d, err := command.NewDockerCli(command.WithOutputStream(&bytes.Buffer{}))
	if err != nil {
		t.Fatal(err)
	}
	docker := &cobra.Command{Use: "berth"}
	for _, c := range tree.All(d) {
		docker.AddCommand(c)
	}
	berth := &cobra.Command{Use: "berth"}
	for _, c := range tree.All(d) {
		if ownCommands[c.Name()] == nil {
			extend(c, d)
			berth.AddCommand(c)
		}
	}
	for word, own := range ownCommands {
		if word != "stack" { // Docker's
			berth.AddCommand(own(d))
		}
	}
	var flags, commands bytes.Buffer
	compare(berth, docker, &flags, &commands)
	var b bytes.Buffer
	b.WriteString(`# What Berth's command line has more than Docker's

<!-- Made from the command tree by "go test ./cli -update". Do not edit. -->

Everything that ` + "`docker`" + ` has is there with Docker's flags, output and exit codes. These flags and commands are Berth's own.

## Flags of Docker's commands

| Command | Flag | |
|---|---|---|
`)
	b.Write(flags.Bytes())
	b.WriteString("\n## Commands\n")
	b.Write(commands.Bytes())
	return b.Bytes()
}

// compare writes what is in ours and not in theirs, by name.
func compare(ours, theirs *cobra.Command, flags, commands *bytes.Buffer) {
	if ours.Annotations[build.Docker] != "" {
		ours.Flags().VisitAll(func(f *pflag.Flag) {
			if _, own := f.Annotations[build.Own]; own && !ours.Parent().HasParent() {
				fmt.Fprintf(flags, "| `%s` | `%s` | %s |\n", path(ours), flagText(f), strings.ReplaceAll(f.Usage, "|", "\\|"))
			}
		})
		theirs = ours
	} else if theirs != nil && ours.HasParent() {
		ours.Flags().VisitAll(func(f *pflag.Flag) {
			if was := theirs.Flags().Lookup(f.Name); was == nil || was.Usage != f.Usage {
				fmt.Fprintf(flags, "| `%s` | `%s` | %s |\n", path(ours), flagText(f), strings.ReplaceAll(f.Usage, "|", "\\|"))
			}
		})
	}
	if theirs == nil && ours.HasParent() {
		describe(ours, commands)
	}
	below := ours.Commands()
	sort.Slice(below, func(i, j int) bool { return below[i].Name() < below[j].Name() })
	for _, c := range below {
		var other *cobra.Command
		if theirs != nil {
			for _, o := range theirs.Commands() {
				if o.Name() == c.Name() {
					other = o
				}
			}
		}
		if c.Name() == "help" || c.Name() == "completion" || c.Hidden && other == nil {
			continue
		}
		compare(c, other, flags, commands)
	}
}

func path(c *cobra.Command) string { return c.CommandPath() }

func flagText(f *pflag.Flag) string {
	text := "--" + f.Name
	if kind := f.Value.Type(); kind != "bool" {
		text += " " + kind
	}
	return text
}

func describe(c *cobra.Command, out *bytes.Buffer) {
	fmt.Fprintf(out, "\n### %s\n\n", path(c))
	text := c.Short
	if c.Long != "" {
		text = c.Long
	}
	if strings.Contains(text, "\n\n") {
		fmt.Fprintf(out, "```\n%s\n```\n", text)
	} else {
		fmt.Fprintf(out, "%s\n", strings.TrimRight(strings.ReplaceAll(text, "\n", " "), ".")+".")
	}
	if c.Runnable() && !c.HasSubCommands() {
		fmt.Fprintf(out, "\n    %s\n", c.UseLine())
	}
	first := true
	list := func(f *pflag.Flag) {
		if f.Name == "help" {
			return
		}
		if first {
			fmt.Fprintln(out)
			first = false
		}
		fmt.Fprintf(out, "* `%s`: %s\n", flagText(f), f.Usage)
	}
	c.LocalFlags().VisitAll(list)
	if c.Example != "" {
		fmt.Fprintf(out, "\n```sh\n%s\n```\n", strings.ReplaceAll(strings.TrimPrefix(c.Example, "  "), "\n  ", "\n"))
	}
}
