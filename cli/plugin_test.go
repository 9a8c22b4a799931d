package cli

import (
	"slices"
	"testing"

	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"
)

// docker calls its plugin with the plugin's word, Compose without.
func TestAsPlugin(t *testing.T) {
	for _, c := range []struct{ in, want []string }{
		{nil, []string{"buildx"}},
		{[]string{"buildx", "build", "."}, []string{"buildx", "build", "."}},
		{[]string{"bake", "-f", "-"}, []string{"buildx", "bake", "-f", "-"}},
		{[]string{"__complete", "buildx", ""}, []string{"__complete", "buildx", ""}},
	} {
		if got := asPlugin(c.in); !slices.Equal(got, c.want) {
			t.Errorf("%q becomes %q, want %q", c.in, got, c.want)
		}
	}
}

func TestBuildHasManyNames(t *testing.T) {
	d, err := command.NewDockerCli()
	if err != nil {
		t.Fatal(err)
	}
	root := &cobra.Command{Use: "berth"}
	addAll(root, d)
	for _, path := range [][]string{{"build"}, {"image", "build"}, {"builder", "build"}, {"buildx", "build"}, {"bake"}, {"buildx", "bake"}} {
		c, _, err := root.Find(path)
		if err != nil || c.Flag("metadata-file") == nil {
			t.Errorf("%q: %v, %v", path, c.CommandPath(), err)
		}
	}
}
