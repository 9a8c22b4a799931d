package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	others "berth/test/clients"

	"github.com/rogpeppe/go-internal/testscript"
)

// builder is a program that builds: what stands before "build", "bake" and the other verbs of buildx in the scripts, as the program bx.
type builder struct {
	name   string
	plugin func() (string, error) // of the stock command line; nil: berth itself
}

var builders = []builder{
	{"berth", nil},
	{"buildx-debian", others.DebianBuildx},
	{"buildx-current", others.Buildx},
}

// TestBuild runs the scripts of testdata/build with each program that builds, against one engine for each; those of testdata/build/alone, which
// forget or count all that was built, have an engine each. Beside each engine is a registry at 127.0.0.1:5000. Beyond the verbs of all scripts
// these have host and outside, and
//
//	bx VERB ARGS…   buildx's verb by the program that is tried; the condition [NAME] tells which it is
func TestBuild(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	for _, b := range builders {
		t.Run(b.name, func(t *testing.T) {
			var plugins []string
			if b.plugin != nil {
				plugin, err := b.plugin()
				if err != nil {
					t.Skip(err)
				}
				plugins = append(plugins, plugin)
			}
			together, _ := filepath.Glob("testdata/build/*.txtar")
			b.run(t, docker, plugins, together...)
			alone, _ := filepath.Glob("testdata/build/alone/*.txtar")
			for _, script := range alone {
				b.run(t, docker, plugins, script)
			}
		})
	}
}

// run runs scripts against one engine.
func (b builder) run(t *testing.T, docker string, plugins []string, scripts ...string) {
	e := start(t)
	if err := registry(t, e, map[string]*exec.Cmd{}, t.TempDir(), []string{"start", "r", "127.0.0.1:5000"}); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	program := fmt.Sprintf("#!/bin/sh\nexec %s buildx \"$@\"\n", docker)
	if b.plugin == nil {
		program = fmt.Sprintf("#!/bin/sh\nexec %s buildx \"$@\"\n", filepath.Join(e.Bin, "berth"))
	}
	if err := os.WriteFile(filepath.Join(dir, "bx"), []byte(program), 0o755); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Files:         scripts,
		UpdateScripts: *update,
		Condition: func(cond string) (bool, error) {
			for _, other := range builders {
				if cond == other.name {
					return cond == b.name, nil
				}
			}
			return conditions("docker")(cond)
		},
		ContinueOnError: true,
		Cmds:            places(e.World),
		Setup: func(env *testscript.Env) error {
			prepare(env, "docker", docker, e.Host)
			if err := others.Config(env.Getenv("DOCKER_CONFIG"), plugins...); err != nil {
				return err
			}
			env.Setenv("BUILDKIT_PROGRESS", "plain")
			env.Setenv("PATH", dir+string(os.PathListSeparator)+env.Getenv("PATH"))
			env.Setenv("BERTH", filepath.Join(e.Bin, "berth"))
			return nil
		},
	})
}
