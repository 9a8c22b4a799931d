package zoo

import (
	"os/exec"
	"testing"
)

// Debian's python, not whatever stands first on PATH: the package python3-docker is for that one.
const python = "/usr/bin/python3"

func TestPythonDocker(t *testing.T) {
	if out, err := exec.Command(python, "-c", "import docker, websocket; print(docker.__version__)").CombinedOutput(); err != nil {
		t.Skipf("needs the Debian package python3-docker: %v %s", err, out)
	}
	e := start(t)
	t.Log(run(t, e, nil, python, "testdata/python/zoo.py"))
}
