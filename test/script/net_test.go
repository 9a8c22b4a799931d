package script

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"berth/test/live"

	"github.com/rogpeppe/go-internal/testscript"
)

// TestNetworks tries what the command lines say of networks, ports and volumes from inside of containers and from a second host.
// Each script has a world and an engine of its own, so it may change its host's firewall as it likes; with the verb daemon it
// gets another of each, whose engine has other flags.
func TestNetworks(t *testing.T) { worldScripts(t, "net") }

// TestRegistries tries pulling, pushing, searching and plugins with registries of ours on the engine's host.
func TestRegistries(t *testing.T) { worldScripts(t, "registry") }

// worldScripts runs the scripts of a directory, each with a world of its own.
func worldScripts(t *testing.T, dir string) {
	if *against != "" {
		t.Skip("needs an engine of ours: the scripts change its host's firewall")
	}
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("needs the stock docker command line on PATH")
	}
	scripts, err := filepath.Glob("testdata/" + dir + "/*.txtar")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			now := startWithPeer(t)
			servers := map[string]*exec.Cmd{}
			verbs := map[string]func(*testscript.TestScript, bool, []string){
				"host":    func(ts *testscript.TestScript, neg bool, args []string) { runAt(ts, neg, args, now.World.Start) },
				"outside": func(ts *testscript.TestScript, neg bool, args []string) { runAt(ts, neg, args, now.World.StartOutside) },
				"daemon": func(ts *testscript.TestScript, neg bool, args []string) {
					if bus := ts.Getenv(busVariable); bus != "" {
						// Engines of other scripts may inherit it too: they ask no bus, since their hosts have no firewalld.
						ts.Check(os.Setenv(busVariable, bus))
						t.Cleanup(func() { os.Unsetenv(busVariable) })
					}
					now = startWithPeer(t, args...)
					ts.Setenv("DOCKER_HOST", now.Host)
					ts.Setenv("ENGINE_DIR", now.Dir)
				},
				"intro": func(ts *testscript.TestScript, neg bool, args []string) {
					at := slices.IndexFunc(introImages, func(i introImage) bool { return len(args) == 2 && i.name == args[0] })
					if neg || at < 0 {
						ts.Fatalf("usage: intro IMAGE NAME")
					}
					ts.Check(introImages[at].importInto(docker, now, args[1]))
				},
				"registry": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) < 2 {
						ts.Fatalf("usage: registry start NAME HOST:PORT FLAGS… | registry kill NAME | registry stop NAME")
					}
					ts.Check(registry(t, now, servers, ts.Getenv("WORK"), args))
				},
				"engine": func(ts *testscript.TestScript, neg bool, args []string) {
					if neg || len(args) != 1 {
						ts.Fatalf("usage: engine kill | run | restart")
					}
					ts.Check(engine(now, args[0]))
				},
			}
			testscript.Run(t, testscript.Params{
				Files:           []string{file},
				UpdateScripts:   *update,
				Condition:       netConditions,
				ContinueOnError: true,
				Cmds:            verbs,
				Setup: func(env *testscript.Env) error {
					prepare(env, "docker", docker, now.Host)
					env.Setenv("BERTH", filepath.Join(now.Bin, "berth"))
					env.Setenv("BERTHD", filepath.Join(now.Bin, "berthd"))
					env.Setenv("PEER", filepath.Join(now.Bin, "peer"))
					env.Setenv("ENGINE_DIR", now.Dir)
					if dir == "registry" {
						plugin, err := pluginDir()
						if err != nil {
							return err
						}
						env.Setenv("PLUGIN", plugin)
					}
					return os.Chmod(env.WorkDir, 0o755)
				},
			})
		})
	}
}

// registry starts a registry on the engine's host, or ends one. What it says goes to NAME.log.
func registry(t *testing.T, e *live.Engine, servers map[string]*exec.Cmd, dir string, args []string) error {
	verb, name := args[0], args[1]
	if verb != "start" {
		cmd := servers[name]
		if cmd == nil {
			return fmt.Errorf("no registry %s", name)
		}
		delete(servers, name)
		sig := map[string]syscall.Signal{"kill": syscall.SIGKILL, "stop": syscall.SIGTERM}[verb]
		if err := cmd.Process.Signal(sig); err != nil {
			return err
		}
		_ = cmd.Wait() // how it ended was asked for
		return nil
	}
	if len(args) < 3 {
		return fmt.Errorf("registry start NAME HOST:PORT FLAGS…")
	}
	cmd := exec.Command(filepath.Join(e.Bin, "berthd"), append([]string{"registry", "serve", "--addr", args[2], "--root", filepath.Join(dir, name)}, args[3:]...)...)
	cmd.Dir = dir
	out, err := os.OpenFile(filepath.Join(dir, name+".log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := e.World.Start(cmd); err != nil {
		return err
	}
	servers[name] = cmd
	t.Cleanup(func() {
		if servers[name] == cmd {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		c, err := e.World.Dial(e.World.Host, "tcp", args[2])
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(out.Name())
			return fmt.Errorf("the registry does not listen: %w\n%s", err, text)
		}
	}
}

// pluginDir is a directory for docker plugin create: the example of examples/volume-plugin.
var pluginDir = sync.OnceValues(func() (string, error) {
	bin, err := programs()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(bin, "plugin")
	for _, d := range []string{"mnt", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, "rootfs", d), 0o755); err != nil {
			return "", err
		}
	}
	config, err := os.ReadFile("../../examples/volume-plugin/config.json")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), config, 0o644); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", filepath.Join(dir, "rootfs", "volume-plugin"), "berth/examples/volume-plugin")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return dir, err
})

// peerTar is the root file system of the image peer: that of box, and the program peer.
var peerTar = sync.OnceValues(func() ([]byte, error) {
	dir, err := programs()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", dir+"/peer", "./peer")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0") // the box has no C library
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w\n%s", err, out)
	}
	program, err := os.ReadFile(dir + "/peer")
	if err != nil {
		return nil, err
	}
	box, err := live.BoxTar()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "usr/bin/peer", Mode: 0o755, Size: int64(len(program))})
	if _, werr := w.Write(program); err == nil {
		err = werr
	}
	if ferr := w.Flush(); err == nil {
		err = ferr
	}
	return append(buf.Bytes(), box...), err
})

// startWithPeer is start with the image peer beside box.
func startWithPeer(t *testing.T, args ...string) *live.Engine {
	t.Helper()
	e := start(t, args...)
	root, err := peerTar()
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Call(http.MethodPost, "/images/create?fromSrc=-&repo=peer&changes=CMD+peer&changes=EXPOSE+80+90/udp", bytes.NewReader(root), nil); err != nil {
		t.Fatal(err)
	}
	return e
}

// busVariable is where the engine and firewalld find the system's bus.
const busVariable = "DBUS_SYSTEM_BUS_ADDRESS"

// netConditions are what a script of TestNetworks may ask the machine for: [file:PATH] and [proto:NAME], and those of all scripts.
func netConditions(cond string) (bool, error) {
	what, which, _ := strings.Cut(cond, ":")
	switch what {
	case "file":
		_, err := os.Stat(which)
		return err == nil, nil
	case "proto":
		return fileHas("/proc/net/protocols", which), nil
	}
	return conditions("docker")(cond)
}

// fileHas tells whether a word stands in a file of the kernel's.
func fileHas(path, word string) bool {
	data, err := os.ReadFile(path)
	if err != nil {
		return false
	}
	for _, w := range strings.Fields(string(data)) {
		if w == word {
			return true
		}
	}
	return false
}

// askMain is the program `ask tcp|udp HOST:PORT [TEXT]`: it connects, sends TEXT and a line's end, and prints what comes back: over
// TCP all until the other side closes, over UDP the first datagram.
func askMain() {
	if len(os.Args) < 3 {
		fail("usage: ask tcp|udp HOST:PORT [TEXT]")
	}
	patience := askPatience
	if d, err := time.ParseDuration(os.Getenv(askVariable)); err == nil {
		patience = d
	}
	c, err := net.DialTimeout(os.Args[1], os.Args[2], patience)
	if err != nil {
		fail("ask: %v", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience)) // sockets can
	if _, err := fmt.Fprintln(c, strings.Join(os.Args[3:], " ")); err != nil {
		fail("ask: %v", err)
	}
	if strings.HasPrefix(os.Args[1], "tcp") {
		if _, err := io.Copy(os.Stdout, c); err != nil {
			fail("ask: %v", err)
		}
		return
	}
	buf := make([]byte, 1500)
	n, err := c.Read(buf)
	if err != nil {
		fail("ask: %v", err)
	}
	os.Stdout.Write(buf[:n])
}
