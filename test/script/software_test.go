package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSoftware builds real software from Debian packages, runs it and uses it: each script of testdata/software is one program. They share an
// engine, which has the image debian, made by mmdebstrap, and a registry beside it at 127.0.0.1:5000. Beyond the verbs of all scripts they have
// host and outside; CA is a file with the certificates that this machine trusts, and GOPROXY its Go module proxy.
func TestSoftware(t *testing.T) {
	debian, err := live.DebianTar()
	if err != nil {
		t.Skip(err)
	}
	ca := trusted()
	if ca == "" {
		t.Skip("needs ca-certificates: a file with the certificates that this machine trusts")
	}
	proxy, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Skip("needs go on PATH")
	}
	e := start(t)
	if err := registry(t, e, map[string]*exec.Cmd{}, t.TempDir(), []string{"start", "r", "127.0.0.1:5000"}); err != nil {
		t.Fatal(err)
	}
	berth := filepath.Join(e.Bin, "berth")
	if out, err := exec.Command(berth, "-H", e.Host, "import", "--change", `CMD ["bash"]`, debian, "debian").CombinedOutput(); err != nil {
		t.Fatalf("import debian: %v\n%s", err, out)
	}
	testscript.Run(t, testscript.Params{
		Dir:             "testdata/software",
		UpdateScripts:   *update,
		Condition:       conditions("berth"),
		ContinueOnError: true,
		Cmds:            places(e.World),
		Setup: func(env *testscript.Env) error {
			prepare(env, "berth", berth, e.Host)
			env.Setenv("BUILDKIT_PROGRESS", "plain")
			env.Setenv("CA", ca)
			env.Setenv("GOPROXY", string(proxy[:max(0, len(proxy)-1)]))
			return nil
		},
	})
}

// trusted finds the file with the certificates that this machine trusts.
func trusted() string {
	for _, p := range []string{os.Getenv("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"} {
		if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() {
			return p
		}
	}
	return ""
}
