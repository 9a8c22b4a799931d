package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/kernel/netns"
	"berth/test/live"
)

const (
	sampleRepo = "berth/sample"
	downloads  = 3 // at a time, dockerd's default and ours
)

// freight is what the benches of pull, push and load share: an engine, a dockerd where there is one, a registry for each in its own
// network, and the image.
type freight struct {
	o      options
	dir    string
	engine *live.Engine
	berth  *mover
	docker *mover // nil: none
	clean  []func()
}

// mover is an engine that is asked over its API.
type mover struct {
	http     *http.Client
	registry string // host and port, as the engine reaches it
	upload   func(*cargo) error
	pid      int // of the one process that does the work; 0: not known
}

// withFreight makes everything, calls f and takes it away.
func withFreight(t *table, o options, f func(*freight) error) (err error) {
	dir, err := os.MkdirTemp("/var/tmp", "berth-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	w := &freight{o: o, dir: dir}
	defer func() {
		for i := len(w.clean) - 1; i >= 0; i-- {
			w.clean[i]()
		}
	}()
	e, err := live.Start(o.bin)
	if err != nil {
		return err
	}
	defer func() {
		if stop := e.Stop(); err == nil {
			err = stop
		}
	}()
	w.engine = e
	w.berth = &mover{http: e.HTTP, pid: e.PID()}
	if w.berth.registry, w.berth.upload, err = w.startRegistry(t, filepath.Join(dir, "registry"), e.World.Start, e.World.Host); err != nil {
		return err
	}
	if o.docker == "" {
		t.note("no dockerd is running: -docker HOST names one")
	} else if err := w.dockerSide(t, filepath.Join(dir, "registry-docker")); err != nil {
		t.note("the dockerd at " + o.docker + " is left out: " + err.Error())
	}
	return f(w)
}

// each makes an image for each round, all different: where files were deleted a moment ago, ext4 is slow to make new ones, and what one side
// did before is no concern of the other. Images are removed when all is over. atRegistry: the registries get it.
func (w *freight) each(t *table, atRegistry bool, f func(s *cargo) error) error {
	for i := range rounds(w.o) {
		s, err := makeSample(filepath.Join(w.dir, "sample"), i)
		if err != nil {
			return err
		}
		if i == 0 {
			t.note(fmt.Sprintf("the image: %d layers, %d files, %.0f MB of tar, %.0f MB compressed; %d rounds", sampleLayers, sampleLayers*sampleFiles,
				float64(s.unpacked)/1e6, float64(s.packed)/1e6, rounds(w.o)))
		}
		if atRegistry {
			if err := w.berth.upload(s); err != nil {
				return err
			}
			if w.docker != nil {
				if err := w.docker.upload(s); err != nil {
					return err
				}
			}
		}
		unix.Sync()
		if err := f(s); err != nil {
			return err
		}
		if err := os.RemoveAll(s.dir); err != nil {
			return err
		}
	}
	return nil
}

// rounds of the benches that move images: each is seconds and a gigabyte.
func rounds(o options) int { return max(1, min(o.n/10, 4)) }

// startRegistry starts a registry in a network.
func (w *freight) startRegistry(t *table, root string, start func(*exec.Cmd) error, ns *os.File) (host string, upload func(*cargo) error, err error) {
	if err := os.Mkdir(root, 0o755); err != nil {
		return "", nil, err
	}
	const port = "5077"
	host = "127.0.0.1:" + port
	cmd, what, err := registryCommand(w.o, root, host)
	if err != nil {
		return "", nil, err
	}
	log, err := os.Create(root + ".log")
	if err != nil {
		return "", nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := start(cmd); err != nil {
		return "", nil, err
	}
	w.clean = append(w.clean, func() {
		_ = cmd.Process.Kill() // it has nothing to lose
		_ = cmd.Wait()
	})
	c := clientIn(ns)
	for range 500 {
		resp, err := c.Get("http://" + host + "/v2/")
		if err == nil {
			resp.Body.Close()
			t.note("registry: " + what)
			return host, func(s *cargo) error { return s.upload(c, host, sampleRepo, s.tag()) }, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	b, _ := os.ReadFile(root + ".log")
	return "", nil, fmt.Errorf("the registry does not answer: %s", b[max(0, len(b)-500):])
}

// registryCommand is our own registry, or Debian's.
func registryCommand(o options, root, host string) (*exec.Cmd, string, error) {
	berthd := filepath.Join(o.bin, "berthd")
	if !o.debian {
		return exec.Command(berthd, "registry", "serve", "--addr", host, "--root", root), "berth registry serve", nil
	}
	path, err := exec.LookPath("docker-registry")
	if err != nil {
		return nil, "", errors.New("docker-registry is not installed")
	}
	config := filepath.Join(filepath.Dir(root), filepath.Base(root)+".yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: %s}, cache: {blobdescriptor: inmemory}}\nhttp: {addr: %q}\n", root, host)
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, "", err
	}
	return exec.Command(path, "serve", config), "Debian's docker-registry", nil
}

// clientIn makes requests from a network namespace.
func clientIn(ns *os.File) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = netns.Do(ns, func() (err error) {
			c, err = net.Dial(network, address)
			return err
		})
		return c, err
	}}}
}

// dockerSide finds the dockerd's network and starts a registry there: 127.0.0.1 is where dockerd needs no TLS.
func (w *freight) dockerSide(t *table, root string) error {
	path, ok := strings.CutPrefix(w.o.docker, "unix://")
	if !ok {
		return errors.New("only a unix socket tells where dockerd's network is")
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var cerr error
	err = raw.Control(func(fd uintptr) { cred, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	conn.Close()
	if err := errors.Join(err, cerr); err != nil {
		return err
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", cred.Pid))
	if err != nil {
		return err
	}
	w.clean = append(w.clean, func() { ns.Close() })
	d := &mover{http: &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dial net.Dialer
		return dial.DialContext(ctx, "unix", path)
	}}}}
	d.registry, d.upload, err = w.startRegistry(t, root, func(cmd *exec.Cmd) error { return netns.Do(ns, cmd.Start) }, ns)
	if err != nil {
		return err
	}
	w.docker = d
	return nil
}

// call makes a request whose answer is a stream of messages, and reads it to the end.
func (c *mover) call(method, path string, body io.Reader, header ...string) error {
	req, err := http.NewRequest(method, "http://engine"+path, body)
	if err != nil {
		return err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s", method, path, resp.Status, bytes.TrimSpace(raw))
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	for {
		var m struct{ Error string }
		if dec.Decode(&m) != nil {
			return nil
		}
		if m.Error != "" {
			return fmt.Errorf("%s %s: %s", method, path, m.Error)
		}
	}
}

const noAuth = "e30=" // {}

func (c *mover) pull(tag string) error {
	return c.call(http.MethodPost, api+"/images/create?fromImage="+url.QueryEscape(c.registry+"/"+sampleRepo)+"&tag="+tag, nil)
}

func (c *mover) push(repo, tag string) error {
	return c.call(http.MethodPost, api+"/images/"+c.registry+"/"+repo+"/push?tag="+tag, nil, "X-Registry-Auth", noAuth)
}

func (c *mover) load(archive string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	return c.call(http.MethodPost, api+"/images/load?quiet=1", f, "Content-Type", "application/x-tar")
}

// remove takes images away, as far as they are there.
func (c *mover) remove(names ...string) {
	for _, n := range names {
		_ = c.call(http.MethodDelete, api+"/images/"+n+"?force=1", nil) // it is not measured any more
	}
}

// timed measures one thing that a contender does.
func (c *mover) timed(f func() error) (sample, error) {
	before, err := c.spent()
	if err != nil {
		return sample{}, err
	}
	began := time.Now()
	if err := f(); err != nil {
		return sample{}, err
	}
	s := sample{wall: time.Since(began)}
	after, err := c.spent()
	s.cpu = after - before
	return s, err
}

func (c *mover) spent() (time.Duration, error) {
	if c.pid == 0 {
		return 0, nil
	}
	return processTime(c.pid)
}

// peak is the most memory that a process has had since forget, in MB.
func peak(pid int) (float64, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "VmHWM:" {
			kb, err := strconv.ParseFloat(f[1], 64)
			return kb / 1024, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no VmHWM", pid)
}

// forget begins peak anew (proc(5), clear_refs).
func forget(pid int) error {
	return os.WriteFile(filepath.Join("/proc", strconv.Itoa(pid), "clear_refs"), []byte("5"), 0)
}
