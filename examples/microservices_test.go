package examples

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"berth/test/clients"
	"berth/test/live"
)

// harbour is the example of four services, started by the stock command line with Debian's Compose.
type harbour struct {
	t      *testing.T
	e      *live.Engine
	config string // DOCKER_CONFIG
}

// TestMicroservices builds, starts and uses the example, changes a source and builds again, and restarts it on its data.
func TestMicroservices(t *testing.T) {
	dir := programs(t)
	for _, need := range []string{"docker", "curl"} {
		if _, err := exec.LookPath(need); err != nil {
			t.Skipf("needs %s on PATH", need)
		}
	}
	compose, err := clients.DebianCompose()
	if err != nil {
		t.Skip(err)
	}
	debian, err := live.DebianTar()
	if err != nil {
		t.Skip(err)
	}
	e, err := live.Start(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if t.Failed() {
			t.Logf("berthd's log ends with:\n%s", e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	}()
	h := &harbour{t, e, t.TempDir()}
	if err := clients.Config(h.config, compose); err != nil {
		t.Fatal(err)
	}
	h.docker("import", "--change", `CMD ["bash"]`, debian, "debian:bookworm-slim")

	// A copy, because a source is going to change.
	work := filepath.Join(t.TempDir(), "harbour")
	if err := os.CopyFS(work, os.DirFS("microservices")); err != nil {
		t.Fatal(err)
	}
	h.compose(work, "build")
	before := h.image("harbour-ships")
	h.compose(work, "up", "-d", "--wait")

	if got := h.curl("http://127.0.0.1:8080/"); !strings.Contains(got, "<td>vasa</td><td>1628</td><td>1210 t</td><td>0 t</td>") {
		t.Errorf("the page:\n%s", got)
	}
	var receipt struct {
		Number, Cents int
		Receipt       string
	}
	got := h.curl("-d", `{"ship":"mayflower","tonnes":3}`, "http://127.0.0.1:8080/book")
	if err := json.Unmarshal([]byte(got), &receipt); err != nil || receipt.Number != 1 || receipt.Cents != 2700 || len(receipt.Receipt) != 16 {
		t.Errorf("a booking: %s, %v", got, err)
	}
	if got := h.curl("-d", `{"ship":"mayflower","tonnes":300}`, "http://127.0.0.1:8080/book"); !strings.Contains(got, "carries no more than 180 tonnes") {
		t.Errorf("too much: %s", got)
	}

	// Nothing changed: the same images. A source changed: another one, and its neighbours stay.
	other := h.image("harbour-cargo")
	h.compose(work, "build")
	if now := h.image("harbour-ships"); now != before {
		t.Errorf("built again, nothing changed: %s, before %s", now, before)
	}
	list := filepath.Join(work, "ships", "ships.json")
	b, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(list, bytes.Replace(b, []byte("1628"), []byte("1627"), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	h.compose(work, "up", "-d", "--build", "--wait")
	if h.image("harbour-ships") == before || h.image("harbour-cargo") != other {
		t.Error("a changed source must change its own image, and no other")
	}
	if got := h.curl("http://127.0.0.1:8080/"); !strings.Contains(got, "<td>vasa</td><td>1627</td>") {
		t.Errorf("the page after a change:\n%s", got)
	}

	// What was booked outlives the containers, until the volume goes too.
	h.compose(work, "down")
	h.compose(work, "up", "-d", "--wait")
	if got := h.curl("http://127.0.0.1:8080/"); !strings.Contains(got, "<td>180 t</td><td>3 t</td>") {
		t.Errorf("the page after a restart:\n%s", got)
	}
	h.compose(work, "down", "--volumes")
	if left := h.docker("ps", "-aq") + h.docker("volume", "ls", "-q"); left != "" {
		t.Errorf("left over: %s", left)
	}
}

// TestStackFile checks that the stock command line takes the stack file.
func TestStackFile(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	cmd := exec.Command("docker", "stack", "config", "--compose-file", "microservices/stack.yaml")
	cmd.Env = append(os.Environ(), "DOCKER_HOST=unix:///nonexistent", "DOCKER_CONFIG="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "harbour-tariff:latest") {
		t.Errorf("%v\n%s", err, out)
	}
}

// docker runs the stock command line and gives what it prints.
func (h *harbour) docker(args ...string) string {
	h.t.Helper()
	return h.run("", exec.Command("docker", args...))
}

func (h *harbour) compose(dir string, args ...string) {
	h.t.Helper()
	h.run(dir, exec.Command("docker", append([]string{"compose", "--progress", "plain"}, args...)...))
}

func (h *harbour) run(dir string, cmd *exec.Cmd) string {
	h.t.Helper()
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+h.e.Host, "DOCKER_CONFIG="+h.config)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	begin := time.Now()
	if err := cmd.Run(); err != nil {
		h.t.Fatalf("%v: %v\n%s\n%s", cmd.Args, err, &out, &errs)
	}
	h.t.Logf("%v took %v", cmd.Args, time.Since(begin).Round(time.Millisecond))
	return strings.TrimSpace(out.String())
}

func (h *harbour) image(name string) string {
	return h.docker("image", "inspect", "-f", "{{.Id}}", name)
}

// curl asks on the engine's host.
func (h *harbour) curl(args ...string) string {
	h.t.Helper()
	cmd := exec.Command("curl", append([]string{"-s", "-S", "--max-time", "20"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := h.e.World.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		h.t.Errorf("curl %v: %v\n%s", args, err, &out)
	}
	return out.String()
}
