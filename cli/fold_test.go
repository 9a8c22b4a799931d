package cli

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

func TestFold(t *testing.T) {
	long := strings.Repeat("word ", 20) + "end"
	for _, c := range []struct{ name, in, want string }{
		{"short lines stay", "one\ntwo", "one\ntwo"},
		{"one is filled with its neighbours", long + "\nmore", strings.TrimSpace(strings.Repeat("word ", 16)) + "\nword word word word end more"},
		{"paragraphs stay apart", "a\n\n" + long + "\n\nb", "a\n\n" + strings.TrimSpace(strings.Repeat("word ", 16)) + "\nword word word word end\n\nb"},
		{"indented lines are left alone", "  " + long, "  " + long},
		{"a word too long has a line of its own", "a " + strings.Repeat("x", 90) + " b", "a\n" + strings.Repeat("x", 90) + "\nb"},
		{"nothing", "", ""},
	} {
		if got := fold(c.in); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// What our own commands say of themselves fits the terminal that everybody has.
func TestOwnHelpFits(t *testing.T) {
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		for l := range strings.SplitSeq(fold(c.Long)+"\n"+c.Example, "\n") {
			if n := utf8.RuneCountInString(l); n > helpWidth {
				t.Errorf("%s: %d columns: %s", c.CommandPath(), n, l)
			}
		}
		for _, sub := range c.Commands() {
			look(sub)
		}
	}
	d, err := command.NewDockerCli()
	if err != nil {
		t.Fatal(err)
	}
	for _, own := range ownCommands {
		look(own(d))
	}
}

func TestMisplacedFlags(t *testing.T) {
	flags := newRecreate(nil).Flags()
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"web", "--with", "memory=1g"}, true},
		{[]string{"web", "--with=memory=1g"}, true},
		{[]string{"web", "--plan"}, true},
		{[]string{"web", "--port", "80"}, false}, // for its entrypoint
		{[]string{"web", "--", "--plan"}, false},
		{[]string{"web", "sh", "--plan"}, false},
		{[]string{"web"}, false},
	} {
		if err := misplaced(flags, c.args); (err != nil) != c.want {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}
