package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/spf13/cobra"

	"berth/cli/build/starter"
)

// NewInit is the command that writes a project's first Dockerfile.
func NewInit(d *command.DockerCli) *cobra.Command {
	var kind string
	var port int
	var print bool
	c := &cobra.Command{
		Use:   "init [OPTIONS] [DIR]",
		Short: "Write a Dockerfile, .dockerignore and compose file for a project",
		Long: "Look at a project in Go, Rust, Java, Node or Python, or at a static site, and write a\n" +
			"Dockerfile with stages and caches, a .dockerignore and a compose.yaml for it.\n" +
			"Files that are there are left as they are. No engine is needed.",
		Example: "  berth init\n  berth init --print web\n  berth init --type python --port 8080",
		Args:    cli.RequiresMaxArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			dir := "."
			if len(args) == 1 {
				dir = args[0]
			}
			abs, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			fi, err := os.Stat(dir)
			if err != nil {
				return err
			}
			if !fi.IsDir() {
				return fmt.Errorf("%s is no directory", dir)
			}
			p, err := starter.Look(os.DirFS(dir), starter.Kind(kind), filepath.Base(abs))
			if err != nil {
				return fmt.Errorf("berth init: %w", err)
			}
			if port != 0 {
				p.Port = port
			}
			files, err := p.Files()
			if err != nil {
				return err
			}
			if print {
				for _, f := range files {
					fmt.Fprintf(d.Out(), "==> %s <==\n%s\n", f.Name, f.Text)
				}
				return nil
			}
			wrote, found, err := starter.Write(dir, files)
			if err != nil {
				return err
			}
			tellInit(d, p, wrote, found)
			return nil
		},
		DisableFlagsInUseLine: true,
	}
	f := c.Flags()
	f.IntVar(&port, "port", 0, "The `port` that the program listens on")
	f.BoolVar(&print, "print", false, "Print the files instead of writing them")
	f.StringVar(&kind, "type", "", "The `kind` of project: go, rust, java, node, python, static")
	return c
}

func tellInit(d *command.DockerCli, p *starter.Project, wrote, found []string) {
	fmt.Fprintf(d.Out(), "A %s project: %s\n", p.Kind, p.Name)
	if len(found) > 0 {
		fmt.Fprintf(d.Out(), "Left as they are: %s\n", strings.Join(found, ", "))
	}
	if len(wrote) == 0 {
		return
	}
	fmt.Fprintf(d.Out(), "Written: %s\n", strings.Join(wrote, ", "))
	for _, a := range p.Assumed {
		fmt.Fprintf(d.Out(), "Assumed: %s\n", a)
	}
	fmt.Fprintf(d.Out(), "\nBuild it with   berth build -t %[1]s .\nRun it with     berth run --rm -p %[2]d:%[3]d %[1]s\n", p.Name, p.Published(), p.Port)
}
