package zoo

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/test/live"
)

// traefik gives the program with Traefik's Docker provider, built once; skips the test where that cannot be.
func traefik(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("traefik")
	if err != nil {
		t.Fatal(err)
	}
	inputs := []string{"traefik/go.mod", "traefik/go.sum", "traefik/main.go"}
	made := cached(t, "traefik", inputs, func(to string) error {
		return command(dir, []string{"CGO_ENABLED=0", "GOFLAGS=-mod=readonly"}, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(to, "traefik"), ".")
	})
	return filepath.Join(made, "traefik")
}

// A router of Traefik's follows the containers, on the engine's own socket and on one that may do nothing but read.
func TestTraefik(t *testing.T) {
	program := traefik(t)
	e := start(t)
	var socket struct{ Path string }
	if err := e.Call(http.MethodPost, "/berth/v1/access", map[string]any{"name": "traefik", "readOnly": true, "hideEnv": true}, &socket); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"own": e.Socket, "read-only": socket.Path} {
		t.Run(name, func(t *testing.T) { follow(t, e, program, "unix://"+path, name) })
	}
	out, err := exec.Command("curl", "-s", "--unix-socket", socket.Path, "-X", "POST", "-H", "Content-Type: application/json", "-d", `{"Image":"box","HostConfig":{"Binds":["/:/host"]}}`,
		"http://berth/containers/create").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "message") {
		t.Errorf("a container was made on the socket that may read: %s %v", out, err)
	}
}

// follow runs the provider and changes containers under it.
func follow(t *testing.T, e *live.Engine, program, endpoint, name string) {
	cmd := exec.Command(program, endpoint)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.World.Start(cmd); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it goes on for ever
		_ = cmd.Wait()
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for in := bufio.NewReader(pipe); ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-t.Context().Done():
				return
			}
		}
	}()

	// It lists containers and asks for events afterwards: what starts in between it sees when anything else starts.
	nudge := func() {
		body := map[string]any{"Image": "box", "Cmd": []string{"true"}, "HostConfig": map[string]any{"AutoRemove": true}}
		var made struct{ ID string }
		if err := e.Call(http.MethodPost, "/containers/create", body, &made); err != nil {
			t.Fatal(err)
		}
		if err := e.Call(http.MethodPost, "/containers/"+made.ID+"/start", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	first := routed(t, e, name+"-one")
	await(t, lines, nudge, name+"-one", func(c *dynamic) bool {
		return c.HTTP.Routers[name+"-one"].Rule == "Host(`"+name+"-one.example`)" && c.server(name+"-one") == fmt.Sprintf("http://%s:8080", first)
	})
	second := routed(t, e, name+"-two")
	await(t, lines, nudge, name+"-two", func(c *dynamic) bool {
		return c.server(name+"-one") != "" && c.server(name+"-two") == fmt.Sprintf("http://%s:8080", second)
	})
	if err := e.Call(http.MethodPost, "/containers/"+name+"-one/stop?t=0", nil, nil); err != nil {
		t.Fatal(err)
	}
	await(t, lines, nudge, name+"-one stopped", func(c *dynamic) bool { return c.server(name+"-one") == "" && c.server(name+"-two") != "" })
	for _, one := range []string{"-one", "-two"} {
		if err := e.Call(http.MethodDelete, "/containers/"+name+one+"?force=1", nil, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// routed starts a container that wants to be found, and gives its address.
func routed(t *testing.T, e *live.Engine, name string) string {
	t.Helper()
	labels := map[string]string{
		"traefik.http.routers." + name + ".rule":                           "Host(`" + name + ".example`)",
		"traefik.http.services." + name + ".loadbalancer.server.port":      "8080",
		"traefik.http.routers." + name + ".service":                        name,
		"traefik.http.middlewares." + name + "-strip.stripprefix.prefixes": "/api",
	}
	body := map[string]any{"Image": "box", "Cmd": []string{"sleep", "1000"}, "Labels": labels, "ExposedPorts": map[string]any{"80/tcp": struct{}{}, "8080/tcp": struct{}{}}}
	if err := e.Call(http.MethodPost, "/containers/create?name="+name, body, nil); err != nil {
		t.Fatal(err)
	}
	if err := e.Call(http.MethodPost, "/containers/"+name+"/start", nil, nil); err != nil {
		t.Fatal(err)
	}
	var info struct {
		NetworkSettings struct {
			Networks map[string]struct{ IPAddress string }
		}
	}
	if err := e.Call(http.MethodGet, "/containers/"+name+"/json", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info.NetworkSettings.Networks["bridge"].IPAddress
}

// dynamic is the part of Traefik's configuration that is looked at.
type dynamic struct {
	HTTP struct {
		Routers  map[string]struct{ Rule string }
		Services map[string]struct {
			LoadBalancer struct{ Servers []struct{ URL string } }
		}
	}
}

func (c *dynamic) server(name string) string {
	if s := c.HTTP.Services[name].LoadBalancer.Servers; len(s) == 1 {
		return s[0].URL
	}
	return ""
}

// await reads configurations until one fits. When none has come for a while the provider is nudged.
func await(t *testing.T, lines <-chan string, nudge func(), what string, fits func(*dynamic) bool) {
	t.Helper()
	last := ""
	patience := time.After(2 * time.Minute)
	for {
		select {
		case line, more := <-lines:
			if !more {
				t.Fatalf("traefik ended before %s", what)
			}
			var c dynamic
			if err := json.Unmarshal([]byte(line), &c); err != nil {
				t.Fatalf("%v: %s", err, line)
			}
			if last = line; fits(&c) {
				return
			}
		case <-time.After(3 * time.Second):
			nudge()
		case <-patience:
			t.Fatalf("traefik does not show %s: %s", what, last)
		}
	}
}
