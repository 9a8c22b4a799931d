package build

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/docker/cli/cli/command"

	"berth/cli/build/expand"
	"berth/cli/build/request"
)

// printExpanded prints the Dockerfile with INCLUDE, IF and FOR lowered. No engine is asked.
func printExpanded(d *command.DockerCli, spec *request.Spec) error {
	src := expand.Source{Name: spec.Dockerfile, Dir: ".", Args: spec.Args}
	var err error
	switch {
	case spec.Dockerfile == "-" || spec.Context == "-" && spec.Dockerfile == "":
		src.Name = "stdin"
		src.Text, err = io.ReadAll(d.In())
	case spec.Dockerfile != "":
		src.Text, err = os.ReadFile(spec.Dockerfile)
	default:
		src.Name = filepath.Join(spec.Context, "Dockerfile")
		src.Text, err = os.ReadFile(src.Name)
	}
	if err != nil {
		return fmt.Errorf("--print-expanded: %w", err)
	}
	src.Root, src.Dir = request.ExpandRoot(spec)
	out, err := expand.Expand(src)
	if err != nil {
		return failure(d, err, nil)
	}
	_, err = d.Out().Write(out.Text)
	return err
}
