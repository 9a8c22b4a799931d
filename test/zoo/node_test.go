package zoo

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/test/live"
)

// node gives the directory with node_modules, or skips the test with what is missing.
func node(t *testing.T) string {
	t.Helper()
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s: %v", program, err)
		}
	}
	if out, err := exec.Command("node", "-p", "Number(process.versions.node.split('.')[0]) >= 20").Output(); err != nil || strings.TrimSpace(string(out)) != "true" {
		t.Skip("needs node 20 or newer")
	}
	lists := []string{"testdata/node/package.json", "testdata/node/package-lock.json"}
	return cached(t, "node", lists, func(dir string) error {
		for _, from := range lists {
			data, err := os.ReadFile(from)
			if err != nil {
				return err
			}
			if err := os.WriteFile(filepath.Join(dir, filepath.Base(from)), data, 0o644); err != nil {
				return err
			}
		}
		return command(dir, nil, "npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error")
	})
}

// script gives the path of a script of ours where node finds the modules: beside them.
func script(t *testing.T, modules, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/node", name))
	if err != nil {
		t.Fatal(err)
	}
	// Not into the shared directory: it is in the cache of all runs.
	dir := t.TempDir()
	if err := os.Symlink(filepath.Join(modules, "node_modules"), filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDockerode(t *testing.T) {
	modules := node(t)
	e := start(t)
	t.Log(run(t, e, []string{"DOCKER_SOCKET=" + e.Socket}, "node", script(t, modules, "dockerode.js")))
}

// Testcontainers starts a reaper beside its containers, which takes them away when the tests are gone, however they went.
func TestTestcontainers(t *testing.T) {
	modules := node(t)
	e := start(t)
	if err := buildRyuk(t, e); err != nil {
		t.Fatal(err)
	}
	// The library makes its images' names of what it finds; its address of published ports is the engine's host.
	env := []string{"TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE=" + e.Socket, "TESTCONTAINERS_HOST_OVERRIDE=127.0.0.1", "HOME=" + t.TempDir()}
	path := script(t, modules, "testcontainers.js")
	t.Log(run(t, e, env, "node", path))

	// One that is killed leaves its containers, its network and its volume to the reaper.
	cmd, out := client(t, e, env, "node", path, "and-die")
	if err := e.World.Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "left behind") {
		t.Fatalf("it was to be killed: %v\n%s", err, out)
	}
	var left []struct{ Names []string }
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if err := e.Call(http.MethodGet, "/containers/json?all=1", nil, &left); err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the reaper left %v", left)
		}
	}
	var networks []struct{ Name string }
	if err := e.Call(http.MethodGet, "/networks?filters=%7B%22type%22:%5B%22custom%22%5D%7D", nil, &networks); err != nil || len(networks) > 0 {
		t.Errorf("the reaper left %v %v", networks, err)
	}
}

// buildRyuk makes the image of the reaper.
func buildRyuk(t *testing.T, e *live.Engine) error {
	t.Helper()
	root, err := live.Root()
	if err != nil {
		return err
	}
	program := filepath.Join(t.TempDir(), "ryuk")
	if err := command(root, []string{"CGO_ENABLED=0"}, "go", "build", "-o", program, "./test/zoo/ryuk"); err != nil {
		return err
	}
	name, tag, _ := strings.Cut(ryukImage, ":")
	importProgram(t, e, name+"&tag="+tag, program)
	return nil
}

// Dev containers: a workspace that is a container, found again by its labels, with commands run inside.
func TestDevcontainers(t *testing.T) {
	modules := node(t)
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	e := start(t)
	workspace := t.TempDir()
	if err := os.MkdirAll(filepath.Join(workspace, ".devcontainer"), 0o755); err != nil {
		t.Fatal(err)
	}
	config := `{"image": "box:latest", "remoteUser": "sailor", "updateRemoteUserUID": false, "containerEnv": {"FROM_CONFIG": "yes"}, "mounts": ["source=dev-cache,target=/cache,type=volume"],
	"runArgs": ["--label", "zoo=devcontainers"], "onCreateCommand": "echo created >/tmp/on-create", "postStartCommand": "echo started >>/tmp/post-start", "forwardPorts": [8080]}`
	if err := os.WriteFile(filepath.Join(workspace, ".devcontainer", "devcontainer.json"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(workspace, "source.txt"), []byte("from the workspace\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cli := filepath.Join(modules, "node_modules", "@devcontainers", "cli", "devcontainer.js")
	env := []string{"HOME=" + t.TempDir()}
	dev := func(args ...string) string {
		t.Helper()
		return run(t, e, env, "node", append([]string{cli, args[0], "--docker-path", docker, "--workspace-folder", workspace}, args[1:]...)...)
	}
	up := firstUp(t, e, env, cli, docker, workspace)
	if !strings.Contains(up, `"outcome":"success"`) || !strings.Contains(up, `"remoteUser":"sailor"`) {
		t.Fatalf("up: %s", up)
	}
	inside := dev("exec", "sh", "-c", "id -un; cat source.txt /tmp/on-create /tmp/post-start; echo $FROM_CONFIG; test -d /cache && echo cache")
	for _, want := range []string{"sailor\n", "from the workspace\n", "created\n", "started\n", "yes\n", "cache\n"} {
		if !strings.Contains(inside, want) {
			t.Errorf("exec lacks %q: %s", want, inside)
		}
	}
	again := dev("up")
	var running []struct{ ID string }
	if err := e.Call(http.MethodGet, "/containers/json?filters=%7B%22label%22:%5B%22zoo=devcontainers%22%5D%7D", nil, &running); err != nil || len(running) != 1 {
		t.Fatalf("a second up made another container: %v %v\n%s", running, err, again)
	}
	if !strings.Contains(again, fmt.Sprintf("%q", running[0].ID)) {
		t.Errorf("a second up found another container than %s: %s", running[0].ID, again)
	}
	var log bytes.Buffer
	log.WriteString(dev("read-configuration"))
	if !strings.Contains(log.String(), `"workspaceFolder"`) {
		t.Errorf("read-configuration: %s", log.String())
	}
}

// firstUp makes a dev container. The client starts docker events beside docker run and then waits for the start. On a busy machine the events may
// be asked for when the container has long been started: then it waits for ever, and has to be asked again.
func firstUp(t *testing.T, e *live.Engine, env []string, cli, docker, workspace string) string {
	t.Helper()
	args := []string{cli, "up", "--docker-path", docker, "--workspace-folder", workspace}
	for range 3 {
		cmd, _ := client(t, e, env, "node", args...)
		out := &watched{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := e.World.Start(cmd); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		missed := false
		for deadline := time.Now().Add(patience); ; {
			select {
			case err := <-ended:
				if err != nil && !missed {
					t.Fatalf("up: %v\n%s", err, out.text())
				}
			case <-time.After(time.Second):
				missed = strings.HasSuffix(out.text(), "Container started") && out.quiet() > time.Minute
				if missed || time.Now().After(deadline) {
					_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
				}
				continue
			}
			break
		}
		if !missed {
			return out.text()
		}
		t.Log("the events came too late for the client")
		args = append(args[:6:6], "--remove-existing-container")
	}
	t.Fatal("up: the events came too late each time")
	return ""
}

// watched is what a program has said so far, and since when it says nothing.
type watched struct {
	mu   sync.Mutex
	said bytes.Buffer
	last time.Time
}

func (w *watched) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = time.Now()
	return w.said.Write(b)
}

func (w *watched) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.TrimSpace(w.said.String())
}

func (w *watched) quiet() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Since(w.last)
}
