package rootless

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/capability"
	"berth/kernel/idmap"
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
	unlock, err := lock(cfg.ExecRoot)
	if err != nil {
		return 1, err
	}
	h, ok := found(cfg.ExecRoot)
	if ok {
		h, err = cfg.rejoin(ctx, h)
	} else {
		endNetwork(cfg.ExecRoot, h) // of namespaces that are gone
		h, err = cfg.make(ctx)
	}
	unlock()
	if err != nil {
		return 1, err
	}
	t := newTender(ctx, cfg)
	go t.tend(h)
	defer t.stop()
	return stay(join(h, append(os.Environ(), Variable+"="+stageInside, cgroupVariable+"="+cfg.Cgroup, portVariable+"="+strconv.Itoa(lowestPort()))))
}

// lock keeps two engines that are started at once from making two pairs of namespaces.
func lock(execRoot string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(execRoot, "rootless.lock"), os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "rootless")
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return func() { f.Close() }, fault.Wrap(fault.Internal, err, "rootless")
}

// rejoin sees to it that packets are carried for the namespaces of an earlier engine.
func (cfg Config) rejoin(ctx context.Context, h holder) (holder, error) {
	if h.Network.alive() {
		return h, nil
	}
	endNetwork(cfg.ExecRoot, holder{}) // one that nobody has written down
	cfg.lead(ctx, &h, findWayOut(ctx))
	return h, h.write(cfg.ExecRoot)
}

// lead opens the way out; an engine without one serves all the same.
func (cfg Config) lead(ctx context.Context, h *holder, out wayOut) {
	text, _ := os.ReadFile("/etc/resolv.conf")
	forward := insideResolver(string(text), out.resolver()) != string(text)
	pid, err := out.open(ctx, h.PID, cfg.ExecRoot, forward)
	if err != nil {
		cfg.Log.Warn("containers reach nobody outside, and nobody reaches them", "error", err)
		return
	}
	if h.Network, err = taskOf(pid); err != nil {
		cfg.Log.Warn("what carries packets has ended", "program", out.name, "error", err)
	}
	if out.name != "pasta" {
		cfg.Log.Warn("published ports are reached from inside only: pasta (package passt) is not installed", "instead", out.name)
	}
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
	out := findWayOut(ctx)
	cmd.Env = append(os.Environ(), Variable+"="+stageGate, resolverVariable+"="+out.resolver())
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
	if err = idmap.WriteByHelpers(pid, ids); err != nil {
		return h, fault.In(err, "give the namespace its ids")
	}
	if _, err = write.Write([]byte{'g'}); err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	if n, _ := ready.Read(make([]byte, 1)); n != 1 {
		err = fault.New(fault.Internal, "the namespaces could not be prepared: see what was written above")
		return h, err
	}
	if h.task, err = taskOf(pid); err != nil {
		return h, err
	}
	cfg.lead(ctx, &h, out)
	defer func() {
		if err != nil {
			h.Network.end()
		}
	}()
	if err = h.write(cfg.ExecRoot); err != nil {
		return h, err
	}
	if _, err = write.Write([]byte{'k'}); err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	// The holder's descriptor closes as it becomes sleep(1). While it does, another thread than the first may be taking the first one's place
	// (execve(2)), and for a moment /proc has no namespaces of the process: nobody could join them.
	if _, err = io.Copy(io.Discard, ready); err != nil {
		return h, fault.Wrap(fault.Internal, err, "rootless")
	}
	if _, err = os.Stat("/proc/" + strconv.Itoa(pid) + "/ns/net"); err != nil { // it has ended instead, and said why
		return h, fault.Wrap(fault.Internal, err, "what keeps the namespaces has ended")
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

// patience bounds each step of the preparation.
const patience = 10 * time.Second

// Variables that tell the inner process more.
const (
	cgroupVariable   = "_BERTH_ROOTLESS_CGROUP"   // Config.Cgroup
	portVariable     = "_BERTH_ROOTLESS_PORT"     // the first port of the host that ordinary users may bind
	resolverVariable = "_BERTH_ROOTLESS_RESOLVER" // what takes the place of a resolver on the loopback
)

// Cgroup is the inner engine's parent cgroup for containers; "" where it has none of its own.
func Cgroup() string { return os.Getenv(cgroupVariable) }

// LowestPort is the first port that the inner engine can publish outside; 0: all, since this is the machine's engine.
func LowestPort() uint16 {
	n, _ := strconv.ParseUint(os.Getenv(portVariable), 10, 16) // ours
	return uint16(n)
}

// lowestPort asks the host, see ip_unprivileged_port_start in ip_sysctl.rst.
func lowestPort() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 1024
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 1024
	}
	return n
}
