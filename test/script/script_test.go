package script

import (
	"crypto/rand"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

var (
	against = flag.String("against", "", "run the scripts against the engine at this `host` instead of one of ours")
	update  = flag.Bool("update", false, "write what cmp compares into the scripts")
)

// A tidy run takes away what the tests of one process shared.
type tidy struct{ m *testing.M }

func (r tidy) Run() int {
	code := r.m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	return code
}

func TestMain(m *testing.M) {
	testscript.Main(tidy{m}, map[string]func(){
		"code":    codeMain,
		"within":  withinMain,
		"collect": collectMain,
		"pty":     ptyMain,
		"ask":     askMain,

		"lazyregistry": lazyRegistryMain,
	})
}

// codeMain is the program `code N PROGRAM ARGS…`.
func codeMain() {
	want, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fail("code: %v", err)
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	if cmd.ProcessState == nil {
		fail("code: %v", err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		fail("exit code %d, want %d", got, want)
	}
}

// withinMain is the program `within TIME PROGRAM ARGS…`. It prints what the last try printed.
func withinMain() {
	patience, err := time.ParseDuration(os.Args[1])
	if err != nil {
		fail("within: %v", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		cmd := exec.Command(os.Args[2], os.Args[3:]...)
		out, err := cmd.CombinedOutput()
		if err == nil || time.Now().After(deadline) {
			os.Stdout.Write(out)
			if err != nil {
				fail("not within %v: %v", patience, err)
			}
			return
		}
	}
}

var programsDir string // where programs put them; written once, by the first test that needs them

// programs builds the tree's programs once per test process.
var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth-programs-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	if *against != "" {
		return dir, live.Build(dir, "berth", "berth-compose")
	}
	return dir, live.Build(dir)
})

// asked gives the engine that the command lines of a test ask: one of their own, started with args, or the one that -against names.
func asked(t *testing.T, args ...string) (host, bin string, verbs map[string]func(*testscript.TestScript, bool, []string)) {
	t.Helper()
	if *against == "" {
		e := start(t, args...)
		return e.Host, e.Bin, places(e.World)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	importBox(t, filepath.Join(bin, "berth"), *against)
	return *against, bin, nil
}

// start gives a running engine with the image box, or skips the test with what this machine lacks.
func start(t *testing.T, args ...string) *live.Engine {
	t.Helper()
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	bin, args = withOwnFiles(t, bin, args)
	e, err := live.Start(bin, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("berthd's log ends with:\n%s", e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Errorf("stop the engine: %v", err)
		}
	})
	if err := e.ImportBox(); err != nil {
		t.Fatal(err)
	}
	return e
}

// clients are the command lines that the scripts are run with, and where they are.
func clients(t *testing.T, bin string) map[string]string {
	found := map[string]string{"berth": filepath.Join(bin, "berth")}
	if path, err := exec.LookPath("docker"); err == nil {
		found["docker"] = path
	} else {
		t.Run("docker", func(t *testing.T) { t.Skip("needs the stock docker command line on PATH") })
	}
	return found
}

func TestCommandLines(t *testing.T) {
	host, bin, verbs := asked(t)
	for name, path := range clients(t, bin) {
		t.Run(name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:           "testdata/cli",
				UpdateScripts: *update,
				Condition:     conditions(name),
				Cmds:          verbs,
				Setup: func(env *testscript.Env) error {
					prepare(env, name, path, host)
					return nil
				},
			})
		})
	}
}

// TestCrashes runs each script with an engine of its own, which it may kill.
func TestCrashes(t *testing.T) {
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	scripts, err := filepath.Glob("testdata/crash/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			e := start(t)
			verbs := places(e.World)
			verbs["engine"] = func(ts *testscript.TestScript, neg bool, args []string) {
				if neg || len(args) != 1 {
					ts.Fatalf("usage: engine kill | run | restart | kill-keeper")
				}
				ts.Check(engine(e, args[0]))
			}
			testscript.Run(t, testscript.Params{
				Files:     []string{file},
				Condition: conditions("berth"),
				Cmds:      verbs,
				Setup: func(env *testscript.Env) error {
					prepare(env, "berth", filepath.Join(e.Bin, "berth"), e.Host)
					return nil
				},
			})
		})
	}
}

// engine does to e what a crash script asks for.
func engine(e *live.Engine, verb string) error {
	switch verb {
	case "kill":
		e.Kill()
		return nil
	case "run":
		return e.Run()
	case "restart":
		e.Kill()
		return e.Run()
	case "kill-keeper":
		pid := e.KeeperPID()
		if pid == 0 {
			return fmt.Errorf("there is no keeper")
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("engine %s: no such verb", verb)
}

// prepare sets a script's environment: a command line, an engine, and no configuration of anybody.
func prepare(env *testscript.Env, name, path, host string) {
	unique := make([]byte, 4)
	_, _ = rand.Read(unique) // never fails
	env.Setenv("CLI", path)
	env.Setenv("N", hex.EncodeToString(unique))
	env.Setenv("SUBNET", fmt.Sprintf("10.%d.%d", 64+unique[0]&63, unique[1])) // the first three bytes of one that scripts may use
	env.Setenv("DOCKER_HOST", host)
	env.Setenv("DOCKER_CONFIG", filepath.Join(env.WorkDir, ".docker"))
	env.Setenv("DOCKER_CLI_HINTS", "false")
	env.Setenv("LC_ALL", "C")
	env.Setenv("TERM", "dumb")
}

func conditions(client string) func(string) (bool, error) {
	return func(cond string) (bool, error) {
		switch cond {
		case "berth", "docker":
			return client == cond, nil
		case "ours":
			return *against == "", nil
		case "cgroup2":
			_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
			return err == nil, nil
		}
		return false, fmt.Errorf("unknown condition %q", cond)
	}
}

// importBox makes the image box at an engine that is not ours.
func importBox(t *testing.T, berth, host string) {
	t.Helper()
	box, err := live.BoxTar()
	if err != nil {
		t.Skipf("needs busybox-static: %v", err)
	}
	cmd := exec.Command(berth, "-H", host, "import", "--change", `CMD ["sh"]`, "-", "box")
	cmd.Stdin = strings.NewReader(string(box))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("import box: %v\n%s", err, out)
	}
}
