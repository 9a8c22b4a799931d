package tree

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/cli/cli/command"
)

var update = flag.Bool("update", false, "write words.go anew")

// The table of words is only a guess that Only checks, but a wrong one makes every command slow.
func TestWordsAreCurrent(t *testing.T) {
	d, err := command.NewDockerCli()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range All(d) {
		got = append(got, c.Name())
	}
	if *update {
		text := "package tree\n\n// words names Docker's commands in the order of their registration; go test ./cli/tree -update writes it.\nvar words = []string{\n\t\"" +
			strings.Join(got, "\",\n\t\"") + "\",\n}\n"
		if err := os.WriteFile("words.go", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !slices.Equal(got, words) {
		t.Errorf("registered are %q,\nthe table has %q:\nrun go test ./cli/tree -update", got, words)
	}
	for _, w := range words {
		if c := Only(d, w); c == nil || c.Name() != w {
			t.Errorf("Only(%q) gave %v", w, c)
		}
	}
	if Only(d, "explain") != nil {
		t.Error("Only made up a command")
	}
}
