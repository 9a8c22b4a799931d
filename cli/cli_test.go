package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	cliflags "github.com/docker/cli/cli/flags"
	"github.com/spf13/cobra"
)

var testProgram = program{name: "berth", version: "1.2.3, build 4f2a", title: "Berth"}

func TestNamedBy(t *testing.T) {
	for _, c := range []struct {
		name    string
		opts    cliflags.ClientOptions
		env     map[string]string
		current string
		want    origin
	}{
		{"flag wins", cliflags.ClientOptions{Hosts: []string{"unix:///a"}}, map[string]string{"BERTH_HOST": "b", "DOCKER_HOST": "d"}, "c", byFlag},
		{"a typed context beats the environment", cliflags.ClientOptions{Context: "x"}, map[string]string{"BERTH_HOST": "b"}, "x", byContext},
		{"BERTH_HOST before DOCKER_HOST", cliflags.ClientOptions{}, map[string]string{"BERTH_HOST": "b", "DOCKER_HOST": "d"}, "c", byBerth},
		{"DOCKER_HOST before the current context", cliflags.ClientOptions{}, map[string]string{"DOCKER_HOST": "d"}, "c", byDocker},
		{"current context", cliflags.ClientOptions{}, nil, "c", byCurrent},
		{"the default context is none", cliflags.ClientOptions{}, nil, "default", byDefault},
		{"nothing", cliflags.ClientOptions{}, nil, "", byDefault},
	} {
		if got := namedBy(&c.opts, func(k string) string { return c.env[k] }, c.current); got != c.want {
			t.Errorf("%s: by %s, want %s", c.name, got, c.want)
		}
	}
}

func TestOurWords(t *testing.T) {
	for in, want := range map[string]string{
		"docker: Error response from daemon: No such image: x\n\nRun 'docker run --help' for more information": "berth: Error response from daemon: No such image: x\n\nRun 'berth run --help' for more information",
		"berth: 'berth ps' accepts no arguments":                     "berth: 'berth ps' accepts no arguments",
		"Error response from daemon: exec: \"docker: x\": not found": "Error response from daemon: exec: \"docker: x\": not found",
		"See 'docker --help'.":                                       "See 'berth --help'.",
		"Run 'dockerize'":                                            "Run 'dockerize'",
	} {
		if got := ourWords(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
	if got := ourAliases("docker container ls, docker ps"); got != "berth container ls, berth ps" {
		t.Errorf("aliases became %q", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
		says bool
	}{
		{nil, 0, false},
		{errors.New("x"), 1, true},
		{cli.StatusError{StatusCode: 127, Status: "not found"}, 127, true},
		{cli.StatusError{StatusCode: 3}, 3, false},
		{fmt.Errorf("wrapped: %w", cli.StatusError{StatusCode: 125, Status: "y"}), 125, true},
		{signalled{syscall.SIGINT}, 130, false},
		{signalled{syscall.SIGTERM}, 143, false},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: code %d, want %d", c.err, got, c.want)
		}
		if says := testProgram.message(c.err) != ""; says != c.says {
			t.Errorf("%v: message %q", c.err, testProgram.message(c.err))
		}
	}
}

type fakeEngine struct {
	version string
	info    command.ServerInfo
	asked   *bool
}

func (f fakeEngine) CurrentVersion() string         { *f.asked = true; return f.version }
func (f fakeEngine) ServerInfo() command.ServerInfo { *f.asked = true; return f.info }

func TestSupportedAsksOnlyWhenItMust(t *testing.T) {
	newCommand := func() *cobra.Command {
		c := &cobra.Command{Use: "run"}
		c.Flags().Bool("plain", false, "")
		c.Flags().Bool("new", false, "")
		c.Flags().Bool("try", false, "")
		_ = c.Flags().SetAnnotation("new", "version", []string{"1.52"})
		_ = c.Flags().SetAnnotation("try", "experimental", nil)
		return c
	}
	for _, c := range []struct {
		set   string
		asked bool
		want  string
	}{
		{"plain", false, ""},
		{"new", true, `"--new" requires API version 1.52, but the Docker daemon API version is 1.45`},
		{"try", true, `"--try" is only supported on a Docker daemon with experimental features enabled`},
	} {
		var asked bool
		cmd := newCommand()
		if err := cmd.Flags().Set(c.set, "true"); err != nil {
			t.Fatal(err)
		}
		err := supported(cmd, fakeEngine{version: "1.45", asked: &asked})
		if asked != c.asked || err == nil && c.want != "" || err != nil && err.Error() != c.want {
			t.Errorf("--%s: asked %v, said %v; want %v, %q", c.set, asked, err, c.asked, c.want)
		}
	}
	parent := &cobra.Command{Use: "swarm", Annotations: map[string]string{"version": "1.50"}}
	child := &cobra.Command{Use: "init"}
	parent.AddCommand(child)
	var asked bool
	if err := supported(child, fakeEngine{version: "1.40", asked: &asked}); err == nil || !strings.HasPrefix(err.Error(), "swarm init requires API version 1.50") {
		t.Errorf("a parent's need was not seen: %v", err)
	}
}

// serve answers on a socket of its own and gives the -H value that leads there.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return "unix://" + path
}

// berth runs a command line as Main does and gives what it wrote. Docker's configuration is an empty one.
func berth(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	d, err := command.NewDockerCli(command.WithOutputStream(&out), command.WithErrorStream(&errs))
	if err != nil {
		t.Fatal(err)
	}
	err = testProgram.run(context.Background(), d, append([]string{"--config", t.TempDir()}, args...))
	if text := testProgram.message(err); text != "" {
		fmt.Fprintln(&errs, text)
	}
	return out.String(), errs.String(), exitCode(err)
}

func TestExplain(t *testing.T) {
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "_ping"):
			w.Header().Set("Api-Version", "1.56")
			w.Header().Set(versionHeader, "1")
		case r.Method == http.MethodGet && r.URL.Path == "/berth/v1/containers/web/explain":
			_ = json.NewEncoder(w).Encode(explanation{ID: "4f2a", Name: "/web", Program: "clone3(…)\nexecve(\"/bin/true\")\n",
				Limits: []string{"memory 64 MiB (memory.max)"}, Cgroup: "/berth/4f2a", Ended: "killed for memory", Details: []string{"memory.max was hit 3 times"}})
		default:
			http.Error(w, `{"message":"No such container: nope"}`, http.StatusNotFound)
		}
	})
	out, errs, code := berth(t, "-H", host, "explain", "web")
	want := `container web (4f2a)

why it ended
  killed for memory
  - memory.max was hit 3 times

limits (cgroup /berth/4f2a)
  memory 64 MiB (memory.max)

launch program
  clone3(…)
  execve("/bin/true")
`
	if out != want || code != 0 {
		t.Errorf("code %d, stderr %q, got:\n%s\nwant:\n%s", code, errs, out, want)
	}
	_, errs, code = berth(t, "-H", host, "explain", "nope")
	if code != 1 || errs != "Error response from daemon: No such container: nope\n" {
		t.Errorf("code %d, stderr %q", code, errs)
	}
}

func TestAnotherEngineIsToldWhatNeedsBerth(t *testing.T) {
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "_ping") {
			w.Header().Set("Api-Version", "1.45")
			return
		}
		http.Error(w, `{"message":"page not found"}`, http.StatusNotFound)
	})
	for _, args := range [][]string{{"explain", "x"}, {"info", "--kernel"}, {"system", "shutdown"}} {
		_, errs, code := berth(t, append([]string{"-H", host}, args...)...)
		if code != 1 || !strings.Contains(errs, "needs a Berth engine") {
			t.Errorf("%v: code %d, stderr %q", args, code, errs)
		}
	}
}

func TestWordsOfTheRoot(t *testing.T) {
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock") // none of this asks an engine
	for _, c := range []struct {
		args      []string
		code      int
		out, errs string // contained
	}{
		{[]string{"--version"}, 0, "Berth version 1.2.3, build 4f2a\n", ""},
		{[]string{"-v"}, 0, "Berth version 1.2.3, build 4f2a\n", ""},
		{[]string{"--help"}, 0, "Usage:  berth [OPTIONS] COMMAND", ""},
		{nil, 0, "", "Usage:  berth [OPTIONS] COMMAND"},
		{[]string{"run", "--help"}, 0, "Usage:  berth run [OPTIONS] IMAGE", ""},
		{[]string{"ps", "--help"}, 0, "berth container ls, berth container list, berth container ps, berth ps", ""},
		{[]string{"help", "explain"}, 0, "Usage:  berth explain [OPTIONS] CONTAINER", ""},
		{[]string{"frobnicate"}, 1, "", "berth: unknown command: berth frobnicate\n\nRun 'berth --help' for more information"},
		{[]string{"container", "frobnicate"}, 1, "", "berth: unknown command: berth container frobnicate"},
		{[]string{"ps", "x"}, 1, "", "berth: 'berth ps' accepts no arguments"},
		{[]string{"run"}, 1, "", "berth: 'berth run' requires at least 1 argument"},
		{[]string{"run", "--nonsense", "x"}, 125, "", "unknown flag: --nonsense"},
		{[]string{"--nonsense"}, 125, "", "unknown flag: --nonsense"},
		{[]string{"-H", "unix:///a", "-c", "b", "ps"}, 1, "", "conflicting options: cannot specify both --host and --context"},
		{[]string{"ps"}, 1, "", "failed to connect to the docker API at unix:///nonexistent/engine.sock"},
		{[]string{"run", "x"}, 125, "", "berth: failed to connect to the docker API at unix:///nonexistent/engine.sock"},
		{[]string{"stack", "deploy", "--help"}, 0, "Usage:  berth stack deploy [OPTIONS] STACK", ""},
		{[]string{"__complete", "expl"}, 0, "explain\tShow how a container is isolated", ""},
	} {
		out, errs, code := berth(t, c.args...)
		if code != c.code || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("berth %v: code %d, stdout %.300q, stderr %.300q; want %d, %q, %q", c.args, code, out, errs, c.code, c.out, c.errs)
		}
	}
}

func TestCalledDockerItSpeaksAsDocker(t *testing.T) {
	var out, errs bytes.Buffer
	d, err := command.NewDockerCli(command.WithOutputStream(&out), command.WithErrorStream(&errs))
	if err != nil {
		t.Fatal(err)
	}
	p := program{name: "docker", version: "29.8.2, build berth-4f2a", title: "Docker"}
	if err := p.run(context.Background(), d, []string{"--config", t.TempDir(), "--version"}); err != nil {
		t.Fatal(err)
	}
	if want := "Docker version 29.8.2, build berth-4f2a\n"; out.String() != want {
		t.Errorf("got %q, want %q", &out, want)
	}
	err = p.run(context.Background(), d, []string{"--config", t.TempDir(), "frobnicate"})
	if got := p.message(err); !strings.HasPrefix(got, "docker: unknown command: docker frobnicate") {
		t.Errorf("got %q", got)
	}
}

func TestBerthHostIsUsed(t *testing.T) {
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.56")
		if strings.HasSuffix(r.URL.Path, "/containers/json") {
			fmt.Fprint(w, `[]`)
		}
	})
	t.Setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
	t.Setenv("BERTH_HOST", host)
	if _, errs, code := berth(t, "ps"); code != 0 {
		t.Errorf("code %d, stderr %q", code, errs)
	}
}

func TestPlugin(t *testing.T) {
	config := t.TempDir()
	dir := filepath.Join(config, "cli-plugins")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := "#!/bin/sh\nif [ \"$1\" = docker-cli-plugin-metadata ]; then echo '{\"SchemaVersion\":\"0.1.0\",\"Vendor\":\"x\"}'; exit; fi\nexit 7\n"
	if err := os.WriteFile(filepath.Join(dir, "docker-greet"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	_, errs, code := berth(t, "--config", config, "greet")
	if code != 7 {
		t.Errorf("code %d, stderr %q", code, errs)
	}
}
