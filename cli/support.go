package cli

import (
	"errors"
	"fmt"

	"github.com/docker/cli/cli/command"
	"github.com/moby/moby/client/pkg/versions"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// An engine is what the checks need to know of the engine; asking it makes a connection.
type engine interface {
	CurrentVersion() string
	ServerInfo() command.ServerInfo
}

// supported says what the engine is too old for, or cannot do, before the command tries. Commands and
// flags carry their needs as annotations; only those that have some make us ask the engine.
func supported(cmd *cobra.Command, e engine) error {
	for c := cmd; c != nil; c = c.Parent() {
		if err := needs(c.Annotations, cmd.CommandPath(), e); err != nil {
			return err
		}
	}
	var errs []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Changed || len(f.Annotations) == 0 {
			return
		}
		flat := map[string]string{}
		for k, v := range f.Annotations {
			flat[k] = ""
			if len(v) == 1 {
				flat[k] = v[0]
			}
		}
		if err := needs(flat, fmt.Sprintf("%q", "--"+f.Name), e); err != nil {
			errs = append(errs, err)
		}
	})
	return errors.Join(errs...)
}

// needs checks one set of annotations. The sentences are docker's, so that what greps for them finds them.
func needs(annotations map[string]string, what string, e engine) error {
	if v := annotations["version"]; v != "" && versions.LessThan(e.CurrentVersion(), v) {
		return fmt.Errorf("%s requires API version %s, but the Docker daemon API version is %s", what, v, e.CurrentVersion())
	}
	if os := annotations["ostype"]; os != "" {
		if have := e.ServerInfo().OSType; have != "" && have != os {
			return fmt.Errorf("%s is only supported on a Docker daemon running on %s, but the Docker daemon is running on %s", what, os, have)
		}
	}
	if _, ok := annotations["experimental"]; ok && !e.ServerInfo().HasExperimental {
		return fmt.Errorf("%s is only supported on a Docker daemon with experimental features enabled", what)
	}
	return nil
}
