package zoo

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/test/live"
)

// patience bounds one client's whole run.
const patience = 6 * time.Minute

// ryukImage is the name by which testcontainers 10.28 asks for its reaper.
const ryukImage = "testcontainers/ryuk:0.11.0"

func TestMain(m *testing.M) {
	code := m.Run()
	if programsDir != "" {
		os.RemoveAll(programsDir)
	}
	os.Exit(code)
}

var programsDir string // written once, by programs

var programs = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "berth-zoo-")
	if err != nil {
		return "", err
	}
	programsDir = dir
	return dir, live.Build(dir)
})

// start gives an engine with the image box, or skips the test with what this machine lacks.
func start(t *testing.T, args ...string) *live.Engine {
	t.Helper()
	if lacks := live.Lacks(); lacks != "" {
		t.Skip(lacks)
	}
	bin, err := programs()
	if err != nil {
		t.Fatal(err)
	}
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

// run runs a client on the engine's host and gives what it printed. Its whole group ends with it.
func run(t *testing.T, e *live.Engine, env []string, program string, args ...string) string {
	t.Helper()
	out, err := try(t, e, env, program, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", filepath.Base(program), args, err, out)
	}
	return out
}

func try(t *testing.T, e *live.Engine, env []string, program string, args ...string) (string, error) {
	t.Helper()
	cmd, out := client(t, e, env, program, args...)
	if err := e.World.Start(cmd); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })() // may have ended
	err := cmd.Wait()
	return out.String(), err
}

// client prepares a client's command. What it prints is to be read when it has ended.
func client(t *testing.T, e *live.Engine, env []string, program string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+e.Host, "DOCKER_CONFIG="+t.TempDir(), "LC_ALL=C")
	cmd.Env = append(cmd.Env, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 30 * time.Second
	return cmd, &out
}

// importProgram makes an image of one static program, with the CMD that runs it.
func importProgram(t *testing.T, e *live.Engine, image, program string) {
	t.Helper()
	data, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []*tar.Header{
		{Typeflag: tar.TypeDir, Name: "var/run/", Mode: 0o755}, {Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777},
		{Typeflag: tar.TypeReg, Name: "program", Mode: 0o755, Size: int64(len(data))},
	} {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.Call(http.MethodPost, "/images/create?fromSrc=-&repo="+image+"&changes=CMD%20%5B%22/program%22%5D", &b, nil); err != nil {
		t.Fatal(err)
	}
}

// cached gives a directory below .cache that make fills once for each state of the inputs: other test processes wait for it.
func cached(t *testing.T, name string, inputs []string, fill func(dir string) error) string {
	t.Helper()
	root, err := live.Root()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	for _, in := range inputs {
		f, err := os.Open(in)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(sum, f); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	dir := filepath.Join(root, ".cache", "zoo", name+"-"+hex.EncodeToString(sum.Sum(nil)[:6]))
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir
	}
	if err := os.RemoveAll(dir + ".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+".new", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := fill(dir + ".new"); err != nil {
		t.Skipf("needs %s: %v", name, err)
	}
	if err := os.Rename(dir+".new", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// command runs a program that prepares something, and gives the end of what it said as the error.
func command(dir string, env []string, program string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, bytes.TrimSpace(out[max(0, len(out)-500):]))
	}
	return nil
}
