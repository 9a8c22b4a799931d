package script

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"berth/test/world"

	"github.com/rogpeppe/go-internal/testscript"
)

// placePatience bounds a command run by "host" or "outside".
const placePatience = 4 * time.Minute

// How long askMain waits for an answer: a busy machine may need long to give one. The variable askVariable says otherwise, for a question that must
// not be answered, or that is repeated.
const (
	askPatience   = 30 * time.Second
	briefPatience = 3 * time.Second
	askVariable   = "BERTH_TEST_ASK"
)

// places are the verbs of scripts that run a command somewhere else than beside the test: on the engine's host, or outside of it.
//
//	host curl -s http://127.0.0.1:8080/
//	outside curl -s http://198.51.100.2:8080/
func places(w *world.World) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"host":    func(ts *testscript.TestScript, neg bool, args []string) { runAt(ts, neg, args, w.Start) },
		"outside": func(ts *testscript.TestScript, neg bool, args []string) { runAt(ts, neg, args, w.StartOutside) },
	}
}

func runAt(ts *testscript.TestScript, neg bool, args []string, start func(*exec.Cmd) error) {
	if len(args) == 0 {
		ts.Fatalf("usage: host|outside PROGRAM [ARGUMENT...]")
	}
	cmd := exec.Command(lookPath(args[0], ts.Getenv("PATH")), args[1:]...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "LC_ALL=C", "DOCKER_HOST="+ts.Getenv("DOCKER_HOST"), "DOCKER_CONFIG="+ts.Getenv("DOCKER_CONFIG"), "PATH="+ts.Getenv("PATH"))
	if neg || args[0] == "within" { // nobody is to answer, where waiting longer proves no more; or it is asked again
		cmd.Env = append(cmd.Env, askVariable+"="+briefPatience.String())
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = 30 * time.Second // what it left in the background may hold its output
	ts.Check(start(cmd))
	timer := time.AfterFunc(placePatience, func() { _ = cmd.Process.Kill() }) // it may have ended
	defer timer.Stop()
	err := cmd.Wait()
	_, _ = ts.Stdout().Write(stdout.Bytes())
	_, _ = ts.Stderr().Write(stderr.Bytes())
	switch {
	case neg && err == nil:
		ts.Fatalf("unexpected success of %q", args)
	case !neg && err != nil:
		ts.Fatalf("%q: %v", args, err)
	}
}

// lookPath finds a program in a script's PATH, which has the programs of this package too.
func lookPath(name, path string) string {
	for _, dir := range filepath.SplitList(path) {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && !st.IsDir() {
			return filepath.Join(dir, name)
		}
	}
	return name
}
