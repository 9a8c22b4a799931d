package script

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestSoftware builds real software from Debian packages, runs it and uses it: each script of testdata/software is one program. They share an
// engine, which has the image debian, made by mmdebstrap, and a registry beside it at 127.0.0.1:5000. Beyond the verbs of all scripts they have
// host and outside; CA is a file with the certificates that this machine trusts, and GOPROXY its Go module proxy. The condition [emulated] tells
// whether programs for arm64 run here.
//
// With BERTH_BINFMT=1 they do: the test registers Debian's qemu-user with the kernel for as long as it runs. Without, it does not, because that
// is a setting of the whole machine.
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
	if os.Getenv("BERTH_BINFMT") != "" {
		emulate(t)
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
		Dir:           "testdata/software",
		UpdateScripts: *update,
		Condition: func(cond string) (bool, error) {
			if cond == "emulated" {
				_, err := os.Stat(binfmt + "/qemu-aarch64")
				return err == nil || runtime.GOARCH == "arm64", nil
			}
			return conditions("berth")(cond)
		},
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

const binfmt = "/proc/sys/fs/binfmt_misc"

// aarch64 is binfmt_misc's rule for arm64 programs, as Debian's qemu-user has it: F opens the emulator now, so that containers need not have
// it, and P tells it what the program was called.
const aarch64 = `:qemu-aarch64:M::\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:` +
	`\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff:%s:POCF`

// emulate lets the kernel run programs for arm64 until the test ends.
func emulate(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(binfmt + "/qemu-aarch64"); err == nil || runtime.GOARCH != "amd64" {
		return
	}
	qemu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		dir := t.TempDir()
		cmd := exec.Command("sh", "-ec", "apt-get -qq -o APT::Sandbox::User=root download qemu-user-static; dpkg -x *.deb .")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("needs qemu-user-static, which cannot be had: %v\n%s", err, out)
		}
		qemu = filepath.Join(dir, "usr/bin/qemu-aarch64-static")
	}
	if _, err := os.Stat(binfmt + "/register"); err != nil {
		if err := syscall.Mount("binfmt_misc", binfmt, "binfmt_misc", 0, ""); err != nil {
			t.Skipf("needs binfmt_misc in the kernel: %v", err)
		}
		t.Cleanup(func() { _ = syscall.Unmount(binfmt, 0) })
	}
	if err := os.WriteFile(binfmt+"/register", fmt.Appendf(nil, aarch64, qemu), 0); err != nil {
		t.Skipf("needs binfmt_misc to be writable: %v", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(binfmt+"/qemu-aarch64", []byte("-1"), 0); err != nil {
			t.Errorf("the emulator stays registered: %v", err)
		}
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
