package script

import (
	"os/exec"
	"path/filepath"
	"testing"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestInit lets berth init write the files of small projects, builds and runs them: each script of testdata/init is one kind. They share an engine,
// which has the image debian, made by mmdebstrap; each makes of it what stands for the official image of its language, with Debian's packages.
func TestInit(t *testing.T) {
	debian, err := live.DebianTar()
	if err != nil {
		t.Skip(err)
	}
	e := start(t)
	berth := filepath.Join(e.Bin, "berth")
	if out, err := exec.Command(berth, "-H", e.Host, "import", "--change", `CMD ["bash"]`, debian, "debian").CombinedOutput(); err != nil {
		t.Fatalf("import debian: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:             "testdata/init",
		UpdateScripts:   *update,
		Condition:       conditions("berth"),
		ContinueOnError: true,
		Cmds:            places(e.World),
		Setup: func(env *testscript.Env) error {
			prepare(env, "berth", berth, e.Host)
			env.Setenv("BUILDKIT_PROGRESS", "plain")
			return nil
		},
	})
}
