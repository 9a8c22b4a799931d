package cli

import (
	"testing"

	"github.com/spf13/pflag"
)

func TestPlansAreAppliedAlone(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{[]string{"--apply", "p.json"}, true},
		{[]string{"--apply", "p.json", "--force"}, true},
		{[]string{"--plan", "--all", "--filter", "label=a", "--volumes"}, true},
		{[]string{"--apply", "p.json", "--filter", "label=a"}, false},
		{[]string{"--apply", "p.json", "--all"}, false},
		{[]string{"--apply", "p.json", "--volumes"}, false},
	} {
		var p planFlags
		f := pflag.NewFlagSet("prune", pflag.ContinueOnError)
		p.add(f)
		f.Bool("all", false, "")
		f.Bool("volumes", false, "")
		f.Bool("force", false, "")
		f.String("filter", "", "")
		if err := f.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		if err := p.alone(f); (err == nil) != c.want {
			t.Errorf("%q: %v", c.args, err)
		}
	}
}
