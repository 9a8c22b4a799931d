package live

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/test/world"
)

// An Engine is one berthd on its own directories. It is used from one goroutine, but for its HTTP client.
type Engine struct {
	Dir    string // everything of it lies below
	Bin    string // directory of the programs
	Socket string
	Host   string // Socket as DOCKER_HOST wants it
	HTTP   *http.Client
	World  *world.World // its host is where berthd runs: the machine's own network is not touched

	args  []string
	tmpfs bool
	cmd   *exec.Cmd
	ended chan struct{} // closed when cmd has been reaped
}

// Start makes the directories and starts an engine there with the programs of bin; args are added to
// berthd's own. The caller stops it with Stop, also when a later step of his fails.
func Start(bin string, args ...string) (*Engine, error) {
	return start(bin, "{}\n", args)
}

// StartConfigured is Start with a daemon.json.
func StartConfigured(bin, config string) (*Engine, error) {
	return start(bin, config, nil)
}

func start(bin, config string, args []string) (*Engine, error) {
	dir, err := os.MkdirTemp("/var/tmp", "berth-test-"+strconv.Itoa(os.Getpid())+"-")
	if err != nil {
		return nil, err
	}
	e := &Engine{Dir: dir, Bin: bin, Socket: filepath.Join(dir, "s"), args: args}
	if e.World, err = world.New(); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	e.Host = "unix://" + e.Socket
	e.HTTP = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", e.Socket)
		},
	}}
	if err := os.Chmod(dir, 0o711); err != nil {
		return nil, err
	}
	var fs syscall.Statfs_t
	const overlayMagic = 0x794c7630
	if err := syscall.Statfs(dir, &fs); err == nil && int64(fs.Type) == overlayMagic {
		// We are in a container ourselves: overlay does not stack on overlay.
		if err := syscall.Mount("berth-test", dir, "tmpfs", 0, "mode=711"); err != nil {
			return nil, fmt.Errorf("a place for layers that is not overlayfs: %w", err)
		}
		e.tmpfs = true
	}
	if err := os.WriteFile(e.configFile(), []byte(config), 0o644); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	if err := e.Run(); err != nil {
		return nil, errors.Join(err, e.Stop())
	}
	return e, nil
}

// ExecRoot is the engine's --exec-root.
func (e *Engine) ExecRoot() string { return filepath.Join(e.Dir, "run") }

func (e *Engine) configFile() string { return filepath.Join(e.Dir, "daemon.json") }

// LogFile is where berthd's own output goes.
func (e *Engine) LogFile() string { return filepath.Join(e.Dir, "berthd.log") }

// Run starts berthd, anew after Kill, and waits until it answers.
func (e *Engine) Run() error {
	log, err := os.OpenFile(e.LogFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	args := append([]string{"--data-root", filepath.Join(e.Dir, "data"), "--exec-root", e.ExecRoot(), "-H", e.Host,
		"--config-file", e.configFile()}, e.args...)
	cmd := exec.Command(filepath.Join(e.Bin, "berthd"), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := e.World.Start(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	e.cmd, e.ended = cmd, ended
	go func() {
		_ = cmd.Wait() // how it ended is in ProcessState
		close(ended)
	}()
	deadline := time.Now().Add(time.Minute)
	for {
		if resp, err := e.HTTP.Get("http://berth/_ping"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ended:
			return fmt.Errorf("berthd ended before it served: %v\n%s", cmd.ProcessState, e.Log())
		case <-time.After(2 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("berthd does not answer after a minute\n%s", e.Log())
		}
	}
}

// PID is berthd's process id.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Log gives the end of what berthd wrote.
func (e *Engine) Log() string {
	data, err := os.ReadFile(e.LogFile())
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// Kill ends berthd as a crash does. Containers and keeper go on; Run starts it again.
func (e *Engine) Kill() {
	_ = e.cmd.Process.Kill() // may have ended by itself
	<-e.ended
	e.HTTP.CloseIdleConnections()
}

// KeeperPID finds this engine's keeper by its argument --exec-root; 0 when there is none.
func (e *Engine) KeeperPID() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == e.PID() {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", entry.Name(), "cmdline"))
		if err != nil {
			continue
		}
		argv := strings.Split(strings.TrimRight(string(line), "\x00"), "\x00")
		if filepath.Base(argv[0]) != "berth-keeper" {
			continue
		}
		for i, a := range argv {
			if a == "--exec-root="+e.ExecRoot() || a == "--exec-root" && i+1 < len(argv) && argv[i+1] == e.ExecRoot() {
				return pid
			}
		}
	}
	return 0
}

// Stop ends the containers, the engine and the keeper, and removes everything. What was left over, and
// had to be removed from outside, is the error.
func (e *Engine) Stop() error {
	var errs []error
	if e.cmd != nil {
		errs = append(errs, e.shutdown())
	}
	if left := mountsBelow(e.Dir); len(left) > 0 {
		errs = append(errs, fmt.Errorf("mounts were left over: %q", left))
		for _, m := range left {
			_ = syscall.Unmount(m, syscall.MNT_DETACH) // as much as goes
		}
	}
	if left := e.World.Left(); len(left) > 0 && e.cmd != nil {
		errs = append(errs, fmt.Errorf("the host's network was not left as it was: %q", left))
	}
	if e.tmpfs {
		errs = append(errs, syscall.Unmount(e.Dir, syscall.MNT_DETACH))
	}
	errs = append(errs, os.RemoveAll(e.Dir), e.World.Close())
	return errors.Join(errs...)
}

// shutdown asks berthd to end with all its containers, and makes sure that both processes are gone.
func (e *Engine) shutdown() error {
	var errs []error
	keeper := e.KeeperPID()
	select {
	case <-e.ended: // killed and not run again
	default:
		if err := e.Call(http.MethodPost, "/berth/v1/shutdown", nil, nil); err != nil {
			errs = append(errs, fmt.Errorf("shutdown: %w", err))
			_ = e.cmd.Process.Signal(syscall.SIGTERM)
		}
		select {
		case <-e.ended:
		case <-time.After(60 * time.Second):
			errs = append(errs, fmt.Errorf("berthd did not end within 60 s\n%s", e.Log()))
			e.Kill()
		}
	}
	if keeper == 0 {
		return errors.Join(errs...)
	}
	for deadline := time.Now().Add(30 * time.Second); e.KeeperPID() == keeper; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			errs = append(errs, fmt.Errorf("the keeper, process %d, outlived the shutdown", keeper))
			killTree(keeper)
			break
		}
	}
	return errors.Join(errs...)
}

// killTree kills a keeper that outlived its engine, and the containers it is the parent of.
func killTree(pid int) {
	children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, c := range strings.Fields(string(children)) {
		if child, err := strconv.Atoi(c); err == nil {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
	}
	_ = syscall.Kill(pid, syscall.SIGKILL)
}

// mountsBelow lists mount points strictly below dir, deepest first.
func mountsBelow(dir string) []string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	var list []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") {
			list = append([]string{fields[4]}, list...)
		}
	}
	return list
}

// Call sends a request with in as its JSON body (or a reader's bytes, or none) and decodes the answer
// into out, when it is not nil. An answer of 300 and above is an error with the engine's message.
func (e *Engine) Call(method, path string, in, out any) error {
	var body io.Reader
	kind := "application/json"
	switch in := in.(type) {
	case nil:
	case io.Reader:
		body, kind = in, "application/x-tar"
	default:
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequest(method, "http://berth"+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", kind)
	}
	resp, err := e.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, bytes.TrimSpace(data))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// ImportBox makes the image "box" of BoxTar.
func (e *Engine) ImportBox() error {
	box, err := BoxTar()
	if err != nil {
		return err
	}
	return e.Call(http.MethodPost, "/images/create?fromSrc=-&repo=box&changes=CMD+%5B%22sh%22%5D", bytes.NewReader(box), nil)
}
