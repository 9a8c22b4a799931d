package zoo

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"berth/test/clients"
)

// Libraries build by the classic API; what they are told while it goes on is what they were written for.

func TestPythonBuild(t *testing.T) {
	if out, err := exec.Command(python, "-c", "import docker").CombinedOutput(); err != nil {
		t.Skipf("needs the Debian package python3-docker: %v %s", err, out)
	}
	e := start(t)
	t.Log(run(t, e, nil, python, "testdata/python/build.py"))
}

func TestDockerodeBuild(t *testing.T) {
	modules := node(t)
	e := start(t)
	t.Log(run(t, e, []string{"DOCKER_SOCKET=" + e.Socket}, "node", script(t, modules, "build.js")))
}

// plugins makes a DOCKER_CONFIG with plugins of the stock command line, or skips the test.
func plugins(t *testing.T, list ...func() (string, error)) (docker, env string) {
	t.Helper()
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	var paths []string
	for _, get := range list {
		p, err := get()
		if err != nil {
			t.Skip(err)
		}
		paths = append(paths, p)
	}
	dir := t.TempDir()
	if err := clients.Config(dir, paths...); err != nil {
		t.Fatal(err)
	}
	return docker, "DOCKER_CONFIG=" + dir
}

// files makes a directory with these files.
func files(t *testing.T, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Compose builds with BuildKit in it where it finds one behind the engine.
func TestComposeBuild(t *testing.T) {
	docker, config := plugins(t, clients.DebianCompose, clients.DebianBuildx)
	e := start(t)
	dir := files(t, map[string]string{
		"compose.yaml": `
name: zoo
services:
  web:
    build:
      context: web
      args: {COLOUR: green}
      target: final
      labels: {from: compose}
      secrets: [pw]
    command: cat /colour
  db:
    image: zoo-own-name:1
    build:
      dockerfile_inline: |
        FROM box
        RUN echo inline > /kind
    command: cat /kind
secrets:
  pw:
    file: pw.txt
`,
		"pw.txt": "swordfish",
		"web/Dockerfile": "FROM box AS base\nARG COLOUR\nCOPY kept.txt /\nRUN --mount=type=secret,id=pw test \"$(cat /run/secrets/pw)\" = swordfish\nRUN echo $COLOUR > /colour\n" +
			"FROM base AS final\nFROM box AS never\nRUN exit 9\n",
		"web/kept.txt": "x",
	})
	compose := func(args ...string) string {
		t.Helper()
		return run(t, e, []string{config, "BUILDKIT_PROGRESS=plain", "HOME=" + t.TempDir()}, docker, append([]string{"compose", "--project-directory", dir, "-f", filepath.Join(dir, "compose.yaml")}, args...)...)
	}
	t.Log(compose("build"))
	if out := compose("build"); !strings.Contains(out, "CACHED") {
		t.Errorf("a second build found nothing: %s", out)
	}
	out := compose("up", "--build")
	for _, want := range []string{"green", "inline"} {
		if !strings.Contains(out, want) {
			t.Errorf("up lacks %q: %s", want, out)
		}
	}
	compose("down", "--rmi", "all")
	var image struct {
		Config struct{ Labels map[string]string }
	}
	if err := e.Call(http.MethodGet, "/images/zoo-web/json", nil, &image); err == nil {
		t.Errorf("down --rmi left zoo-web: %+v", image)
	}
}

// Dev containers whose image is built of a Dockerfile, and the build alone.
func TestDevcontainersBuild(t *testing.T) {
	modules := node(t)
	docker, config := plugins(t, clients.DebianBuildx)
	e := start(t)
	workspace := files(t, map[string]string{
		".devcontainer/devcontainer.json": `{"build": {"dockerfile": "Dockerfile", "context": "..", "args": {"WHO": "sailor"}}, "remoteUser": "sailor", "updateRemoteUserUID": false}`,
		".devcontainer/Dockerfile":        "FROM box\nARG WHO\nCOPY tool.sh /usr/bin/tool\nRUN chmod +x /usr/bin/tool && echo built for $WHO > /built\n",
		"tool.sh":                         "#!/bin/sh\necho a tool\n",
	})
	cli := filepath.Join(modules, "node_modules", "@devcontainers", "cli", "devcontainer.js")
	env := []string{config, "HOME=" + t.TempDir()}
	dev := func(args ...string) string {
		t.Helper()
		return run(t, e, env, "node", append([]string{cli, args[0], "--docker-path", docker, "--workspace-folder", workspace}, args[1:]...)...)
	}
	if out := dev("build", "--image-name", "dev-built:1"); !strings.Contains(out, `"outcome":"success"`) {
		t.Fatalf("build: %s", out)
	}
	var image struct{ ID string }
	if err := e.Call(http.MethodGet, "/images/dev-built:1/json", nil, &image); err != nil {
		t.Fatal(err)
	}
	if out := firstUp(t, e, env, cli, docker, workspace); !strings.Contains(out, `"outcome":"success"`) {
		t.Fatalf("up: %s", out)
	}
	if out := dev("exec", "sh", "-c", "cat /built; tool"); !strings.Contains(out, "built for sailor") || !strings.Contains(out, "a tool") {
		t.Errorf("exec: %s", out)
	}
}
