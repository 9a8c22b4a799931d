package rootless

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/kernel/capability"
	"berth/kernel/idmap"
	"berth/kernel/process"
)

// Variable tells an inner berthd what it is; its value is a stage below.
const Variable = "_BERTH_ROOTLESS"

// Stages of Variable.
const (
	stageGate   = "gate"   // wait at descriptor 3, then prepare the namespaces
	stageInside = "inside" // everything is prepared: be the engine
)

// Config is what an engine of a user needs to know before there is one.
type Config struct {
	ExecRoot string // absolute; rootless.json lives here
	Cgroup   string // parent cgroup for containers, in the unified hierarchy; "" the best there is
	Log      *slog.Logger
}

// Inside reports whether this process is the inner engine of a user: root of a namespace, not of the machine.
func Inside() bool { return os.Getenv(Variable) == stageInside }

// Wanted reports whether this process is that of an ordinary user, who needs a namespace first.
func Wanted() bool { return os.Geteuid() != 0 }

// Become runs this very command line inside the user's namespaces, which it makes or finds, and gives its exit code. It returns only
// when the inner process has ended, or when there can be none.
func Become(ctx context.Context, cfg Config) (code int, err error) {
	if err := os.MkdirAll(cfg.ExecRoot, 0o700); err != nil {
		return 1, fault.Wrap(fault.Internal, err, "making the engine's directory")
	}
	env := append(os.Environ(), Variable+"="+stageInside, cgroupVariable+"="+cfg.Cgroup)
	if h, ok := found(cfg.ExecRoot); ok {
		return stay(join(h, env))
	}
	h, err := cfg.make(ctx)
	if err != nil {
		return 1, err
	}
	return stay(join(h, env))
}

// Prepare is the inner process's first step where Variable says so: it waits until its ids are mapped, prepares its mounts, and becomes
// the holder. It does not return.
func Prepare() {
	if os.Getenv(Variable) != stageGate {
		return
	}
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "rootless:", err)
		os.Exit(1)
	}
}

// holder is who keeps the namespaces.
type holder struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // its time of start, in clock ticks after the boot: a number may be used again
	Boot  string `json:"boot"`
	Pasta int    `json:"network"` // process that carries packets; 0: nobody does
}

func stateFile(execRoot string) string { return filepath.Join(execRoot, "rootless.json") }

// found gives the holder of an earlier engine, if it lives.
func found(execRoot string) (h holder, ok bool) {
	text, err := os.ReadFile(stateFile(execRoot))
	if err != nil || json.Unmarshal(text, &h) != nil || h.Boot != bootID() {
		return h, false
	}
	start, err := startOf(h.PID)
	return h, err == nil && start == h.Start
}

func bootID() string {
	text, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(text))
}

func startOf(pid int) (uint64, error) {
	st, err := process.ReadStat(pid)
	return st.StartTicks, err
}

// make makes the namespaces and their holder, and leads packets out of them.
func (cfg Config) make(ctx context.Context) (h holder, err error) {
	ids, err := mapping()
	if err != nil {
		return h, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	defer write.Close()
	ready, told, err := os.Pipe()
	if err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	defer ready.Close()
	var caps []uintptr
	for n := 0; n <= capability.Last(); n++ {
		caps = append(caps, uintptr(n)) // kept through execve, although no id is mapped yet
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), Variable+"="+stageGate)
	cmd.ExtraFiles = []*os.File{read, told}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET, AmbientCaps: caps, Setsid: true}
	err = cmd.Start()
	read.Close()
	told.Close()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) {
		return h, fault.New(fault.Forbidden, "this machine lets ordinary users make no user namespaces (%v): see /proc/sys/user/max_user_namespaces, kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns", err)
	}
	if err != nil {
		return h, fault.Wrap(fault.Internal, err, "make a user namespace")
	}
	pid := cmd.Process.Pid
	defer func() {
		if err != nil {
			_ = cmd.Process.Kill()
			_, _ = cmd.Process.Wait()
		}
	}()
	if err := idmap.WriteByHelpers(pid, ids); err != nil {
		return h, fault.In(err, "give the namespace its ids")
	}
	if _, err := write.Write([]byte{'g'}); err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	if n, _ := ready.Read(make([]byte, 1)); n != 1 {
		return h, fault.New(fault.Internal, "the namespaces could not be prepared: see what was written above")
	}
	h = holder{PID: pid, Boot: bootID()}
	if h.Start, err = startOf(pid); err != nil {
		return h, err
	}
	if h.Pasta, err = leadOut(ctx, pid, cfg.ExecRoot); err != nil {
		cfg.Log.Warn("containers reach nobody outside, and nobody reaches them", "error", err)
		err = nil
	}
	text, _ := json.Marshal(h) // a struct of numbers
	if err = atomicfile.Write(stateFile(cfg.ExecRoot), text, 0o600); err != nil {
		return h, err
	}
	return h, cmd.Process.Release()
}

// mapping gives root the user's own ids, and the rest his subordinate ones, as every rootless engine does.
func mapping() (p idmap.Pair, err error) {
	me, err := user.Current()
	if err != nil {
		return p, fault.Wrap(fault.Internal, err, "who we are")
	}
	for _, side := range []struct {
		file string
		own  int
		m    *idmap.Map
	}{{"/etc/subuid", os.Getuid(), &p.Users}, {"/etc/subgid", os.Getgid(), &p.Groups}} {
		blocks, err := idmap.Subordinate(side.file, me.Username, os.Getuid())
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return p, err
		}
		if len(blocks) == 0 {
			return p, fault.New(fault.Invalid, "%s has no ids for %s: as root, usermod --add-subuids 100000-165535 --add-subgids 100000-165535 %s", side.file, me.Username, me.Username)
		}
		*side.m = idmap.Map{{Inside: 0, Outside: uint32(side.own), Size: 1}}
		next := uint32(1)
		for _, r := range idmap.Lines(blocks) {
			*side.m = append(*side.m, idmap.Range{Inside: next, Outside: r.Outside, Size: r.Size})
			next += r.Size
		}
	}
	return p, p.Check()
}

// join is a command that runs our own command line in the holder's namespaces, as their root.
func join(h holder, env []string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	args := append([]string{"--preserve-credentials", "--user", "--mount", "--net", "--target", strconv.Itoa(h.PID), "--", self}, os.Args[1:]...)
	cmd := exec.Command("nsenter", args...)
	cmd.Env = env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM} // the engine's end, not that of its containers
	return cmd
}

// stay runs a command, passes signals on, and gives its exit code.
func stay(cmd *exec.Cmd) (int, error) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1)
	if err := cmd.Start(); err != nil {
		return 1, fault.Wrap(fault.Internal, err, "enter the user's namespaces (nsenter is in the package util-linux)")
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case s := <-signals:
			_ = cmd.Process.Signal(s)
		case err := <-ended:
			var exit *exec.ExitError
			if errors.As(err, &exit) {
				return max(exit.ExitCode(), 1), nil
			}
			return 0, err
		}
	}
}

// patience bounds each step of the preparation.
const patience = 10 * time.Second

// cgroupVariable passes Config.Cgroup on.
const cgroupVariable = "_BERTH_ROOTLESS_CGROUP"

// Cgroup is the inner engine's parent cgroup for containers; "" where it has none of its own.
func Cgroup() string { return os.Getenv(cgroupVariable) }
