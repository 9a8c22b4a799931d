package runtimes

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"berth/base/fault"
	"berth/runtime/foreign"
)

// Place is where the files of one container of a runtime are.
type Place struct {
	Dir   string // bundle: config.json, rootfs, and what commands leave behind
	State string // the runtime's own state, of all its containers
	ID    string
}

// Patience is how long the commands that make a process may take in all.
const Patience = 30 * time.Second

// commandPatience bounds the short commands.
const commandPatience = 10 * time.Second

// environment is that of every command: nothing of the engine's but the way to other programs.
func environment() []string {
	path := os.Getenv("PATH")
	if path == "" {
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	}
	return []string{"PATH=" + path, "LANG=C", "XDG_RUNTIME_DIR=/run"}
}

// base is the beginning of every command line.
func (r *Runtime) base(w Place, log string) (foreign.Command, error) {
	program, err := r.program()
	if err != nil {
		return nil, err
	}
	c := append(foreign.Command{program}, r.Args...)
	c = append(c, "--root", w.State)
	if log != "" {
		c = append(c, "--log", log, "--log-format", "json")
	}
	return c, nil
}

func with(base foreign.Command, words ...string) foreign.Command {
	return append(append(foreign.Command(nil), base...), words...)
}

// Create gives the program that makes and starts a container of the bundle in w.
func (r *Runtime) Create(w Place, terminal bool) (*foreign.Program, error) {
	p := &foreign.Program{
		Name: r.Name, Dir: w.Dir, Env: environment(), PidFile: filepath.Join(w.Dir, "pid"), Log: filepath.Join(w.Dir, "log.json"), Patience: Patience,
	}
	base, err := r.base(w, p.Log)
	if err != nil {
		return nil, err
	}
	create := with(base, "create", "--bundle", w.Dir, "--pid-file", p.PidFile)
	if terminal {
		p.Console = filepath.Join(w.Dir, "tty.sock")
		create = append(create, "--console-socket", p.Console)
	}
	p.Steps = []foreign.Command{append(create, w.ID), with(base, "start", w.ID)}
	p.Undo = []foreign.Command{with(base, "delete", "--force", w.ID)}
	return p, nil
}

// Exec gives the program that runs a further process in the container. name tells it from others; its description is written to a file.
func (r *Runtime) Exec(w Place, name string, process []byte, terminal bool) (*foreign.Program, error) {
	name = name[:min(len(name), 12)]
	file := filepath.Join(w.Dir, name+".json")
	if err := os.WriteFile(file, process, 0o600); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "runtime %s: exec", r.Name)
	}
	p := &foreign.Program{
		Name: r.Name, Dir: w.Dir, Env: environment(), PidFile: filepath.Join(w.Dir, name+".pid"), Log: filepath.Join(w.Dir, name+".log"), Patience: Patience,
	}
	base, err := r.base(w, p.Log)
	if err != nil {
		return nil, err
	}
	c := with(base, "exec", "--detach", "--process", file, "--pid-file", p.PidFile)
	if terminal {
		p.Console = filepath.Join(w.Dir, name+".sock")
		c = append(c, "--tty", "--console-socket", p.Console)
	}
	p.Steps, p.Remove = []foreign.Command{append(c, w.ID)}, []string{file, p.PidFile, p.Log}
	return p, nil
}

// Run runs one of the runtime's short commands on a container.
func (r *Runtime) Run(ctx context.Context, w Place, words ...string) error {
	base, err := r.base(w, "")
	if err != nil {
		return err
	}
	_, err = r.output(ctx, with(base, words...))
	return err
}

// output runs a command with a deadline; what it leaves is killed with it.
func (r *Runtime) output(ctx context.Context, c foreign.Command) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, c[0], c[1:]...)
	cmd.Env, cmd.Dir = environment(), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second // a busy machine may be late to read what it said
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&out, 1 << 20}, &limited{&complaint, 4 << 10}
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fault.New(fault.Deadline, "runtime %s: %s did not end within %v, and was killed", r.Name, strings.Join(c[1:], " "), commandPatience)
	case err != nil:
		text := strings.TrimSpace(complaint.String())
		if i := strings.LastIndexByte(text, '\n'); i >= 0 {
			text = text[i+1:]
		}
		return nil, fault.Wrap(fault.Internal, err, "runtime %s: %s", r.Name, text)
	}
	return out.Bytes(), nil
}

// limited keeps the beginning of what is written.
type limited struct {
	to   *bytes.Buffer
	left int
}

func (l *limited) Write(b []byte) (int, error) {
	n := min(len(b), l.left)
	l.to.Write(b[:n])
	l.left -= n
	return len(b), nil
}

// cache keeps what runtimes say of themselves.
type cache struct {
	mu     sync.Mutex
	byPath map[string]said
}

type said struct {
	features string
	stamp    time.Time // of the program's file
}

// Features asks a runtime what it can do: the JSON text of `features` (runtime-spec, features.md), "" where it does not say. The
// answer is kept as long as the program is the same.
func (s *Set) Features(ctx context.Context, r *Runtime) string {
	path, err := r.program()
	if err != nil {
		return ""
	}
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	key := path + "\x00" + strings.Join(r.Args, "\x00")
	s.features.mu.Lock()
	known, ok := s.features.byPath[key]
	s.features.mu.Unlock()
	if ok && known.stamp.Equal(info.ModTime()) {
		return known.features
	}
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := r.output(short, append(append(foreign.Command{path}, r.Args...), "features"))
	if ctx.Err() != nil { // who asked has left: that says nothing about the runtime
		return ""
	}
	known = said{stamp: info.ModTime()}
	var compact bytes.Buffer
	if err == nil && json.Compact(&compact, out) == nil {
		known.features = compact.String()
	}
	s.features.mu.Lock()
	defer s.features.mu.Unlock()
	if s.features.byPath == nil {
		s.features.byPath = map[string]said{}
	}
	s.features.byPath[key] = known
	return known.features
}
