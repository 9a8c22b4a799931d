package examples

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/live"
)

func programs(t *testing.T, names ...string) string {
	t.Helper()
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	dir := t.TempDir()
	if err := live.Build(dir, names...); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestBundle(t *testing.T) {
	dir := programs(t, "berth-oci")
	cmd := exec.Command("bundle/run.sh", "sh", "-c", `echo "quoted & kept"; id -u; exit 7`)
	cmd.Env = append(os.Environ(), "BERTH_OCI="+filepath.Join(dir, "berth-oci"))
	out, err := cmd.CombinedOutput()
	if code := cmd.ProcessState.ExitCode(); code != 7 || string(out) != "quoted & kept\n0\n" {
		t.Errorf("code %d (%v), printed:\n%s", code, err, out)
	}
}

func TestAPI(t *testing.T) {
	dir := programs(t)
	api := filepath.Join(dir, "api")
	if out, err := exec.Command("go", "build", "-o", api, "./api").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	config, err := os.ReadFile("daemon.json")
	if err != nil {
		t.Fatal(err)
	}
	// The socket is the test's own: hosts may not be named twice.
	mine := strings.Replace(string(config), `  "hosts": ["unix:///run/berth/berth.sock"],`+"\n", "", 1)
	e, err := live.StartConfigured(dir, mine)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if err := e.ImportBox(); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(api, "-socket", e.Socket, "box", "sh", "-c", "echo out; echo err >&2; exit 3")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the code says it
	if code := cmd.ProcessState.ExitCode(); code != 3 || out.String() != "out\n" || errs.String() != "err\n" {
		t.Errorf("code %d, output %q, errors %q", code, &out, &errs)
	}
}
