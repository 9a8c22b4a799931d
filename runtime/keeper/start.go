package keeper

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"berth/base/failpoint"
	"berth/base/fault"
	"berth/kernel/process"

	"golang.org/x/sys/unix"
)

// StartConfig says how to start a keeper.
type StartConfig struct {
	ExecRoot string // directory of keeper.sock, keeper.lock, keeper.journal, keeper.log; made 0711 if missing
	Binary   string // path of berth-keeper; "": beside the running binary, then on PATH

	// CgroupProcs are cgroup.procs files of the keeper's own leaf, one for each hierarchy; it moves
	// itself there before it launches anything. The caller makes the directories.
	CgroupProcs []string

	OOMScoreAdj int // wanted for the keeper itself, for instance -999; what was got stands in Info

	Unit      string        // systemd unit to start where systemd is pid 1, for instance "berth-keeper.service", made for this ExecRoot; "": a transient one
	NoSystemd bool          // never through systemd
	Timeout   time.Duration // until it answers; 0: ten seconds
}

// Start starts a keeper for the exec root, detached from the caller, unless one answers already.
// Only one can live in an exec root: a second that is started at the same time finds the lock held.
//
// Where systemd is pid 1 the keeper gets a unit of its own, so that stopping the caller's unit does
// not touch it: the installed Unit if there is one, else a transient one through systemd-run.
func Start(ctx context.Context, cfg StartConfig) error {
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, cfg.Timeout)
	defer cancel()
	if answers(ctx, cfg.ExecRoot) == nil {
		return nil
	}
	if !filepath.IsAbs(cfg.ExecRoot) {
		return fault.New(fault.Invalid, "start the keeper: exec root %q is not absolute", cfg.ExecRoot)
	}
	if err := os.MkdirAll(cfg.ExecRoot, 0o711); err != nil {
		return fault.Wrap(fault.Internal, err, "start the keeper")
	}
	args, err := cfg.args()
	if err != nil {
		return err
	}
	if !cfg.NoSystemd && systemdRuns() {
		if err := cfg.throughSystemd(ctx, args); err != nil {
			return err
		}
		return cfg.await(ctx, false)
	}
	for {
		serves, err := cfg.spawn(ctx, args)
		if serves || err != nil {
			return err
		}
		// Another was faster, or is about to end.
		if err := cfg.await(ctx, true); !errors.Is(err, errNoHolder) {
			return err
		}
	}
}

// args is the keeper's command line.
func (cfg *StartConfig) args() ([]string, error) {
	binary := cfg.Binary
	if binary == "" {
		if self, err := os.Executable(); err == nil {
			binary = filepath.Join(filepath.Dir(self), "berth-keeper")
		}
		if _, err := os.Stat(binary); err != nil {
			if binary, err = exec.LookPath("berth-keeper"); err != nil {
				return nil, fault.Wrap(fault.NotFound, err, "start the keeper: berth-keeper is neither beside this binary nor on PATH")
			}
		}
	}
	args := []string{binary, "--exec-root", cfg.ExecRoot}
	for _, f := range cfg.CgroupProcs {
		args = append(args, "--cgroup-procs", f)
	}
	if cfg.OOMScoreAdj != 0 {
		args = append(args, "--oom-score-adj", strconv.Itoa(cfg.OOMScoreAdj))
	}
	return args, nil
}

// spawn starts the keeper as a detached child: a session of its own, nothing of ours but stdio. It
// says through a pipe that it serves, or why not. It does not serve, without an error, when another
// holds the lock.
func (cfg *StartConfig) spawn(ctx context.Context, args []string) (serves bool, err error) {
	log, err := os.OpenFile(cfg.ExecRoot+"/keeper.log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return false, fault.Wrap(fault.Internal, err, "start the keeper")
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return false, fault.Wrap(fault.Unavailable, err, "start the keeper")
	}
	defer r.Close()
	cmd := exec.Command(args[0], append(args[1:], "--ready-fd", "3")...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	if points := os.Getenv(failpoint.Env); points != "" {
		cmd.Env = append(cmd.Env, failpoint.Env+"="+points)
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return false, fault.Wrap(fault.Internal, err, "start the keeper")
	}
	go cmd.Wait() // it outlives us, or we reap it
	if deadline, ok := ctx.Deadline(); ok {
		_ = r.SetReadDeadline(deadline)
	}
	word, _ := bufio.NewReader(r).ReadString('\n')
	switch word = strings.TrimSpace(word); {
	case word == "ready":
		return true, nil
	case strings.HasPrefix(word, "locked"):
		return false, nil
	case word == "":
		return false, fault.New(fault.Unavailable, "the keeper did not start; see %s/keeper.log", cfg.ExecRoot)
	default:
		return false, fault.New(fault.Unavailable, "the keeper did not start: %s", word)
	}
}

// systemdRuns reports that systemd is pid 1 (sd_booted(3)).
func systemdRuns() bool {
	st, err := os.Lstat("/run/systemd/system")
	return err == nil && st.IsDir()
}

// throughSystemd has systemd start the keeper.
func (cfg *StartConfig) throughSystemd(ctx context.Context, args []string) error {
	if cfg.Unit != "" {
		out, err := exec.CommandContext(ctx, "systemctl", "start", "--no-ask-password", cfg.Unit).CombinedOutput()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || !strings.Contains(string(out), "not found") {
			return cfg.notStarted(ctx, "the keeper's unit "+cfg.Unit, err, out)
		}
	}
	out, err := exec.CommandContext(ctx, "systemd-run", systemdRunArgs(cfg, args)...).CombinedOutput()
	if err != nil {
		return cfg.notStarted(ctx, "the keeper through systemd-run", err, out)
	}
	return nil
}

func (cfg *StartConfig) notStarted(ctx context.Context, what string, err error, out []byte) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) { // the command was killed by us, which says nothing
		return fault.New(fault.Unavailable, "start %s: systemd has not done it within %v; is the machine overloaded?", what, cfg.Timeout)
	}
	return fault.New(fault.Unavailable, "start %s: %v: %s", what, err, strings.TrimSpace(string(out)))
}

// systemdRunArgs is the command line of a transient unit. Containers are in other cgroups than its own;
// KillMode=process spares what programs in the host's cgroup namespace have moved into it.
func systemdRunArgs(cfg *StartConfig, args []string) []string {
	unit := "berth-keeper-" + strings.Trim(strings.ReplaceAll(cfg.ExecRoot, "/", "-"), "-")
	run := []string{
		"--quiet", "--collect", "--unit=" + unit, "--description=Berth: parent of all containers",
		"--property=KillMode=process", "--property=Type=exec",
		"--property=LimitNOFILE=infinity", "--property=TasksMax=infinity",
		"--property=StandardOutput=append:" + cfg.ExecRoot + "/keeper.log",
		"--property=StandardError=append:" + cfg.ExecRoot + "/keeper.log",
	}
	if cfg.OOMScoreAdj != 0 {
		run = append(run, fmt.Sprintf("--property=OOMScoreAdjust=%d", cfg.OOMScoreAdj))
	}
	return append(append(run, "--"), args...)
}

// errNoHolder is an exec root that nobody holds.
var errNoHolder = errors.New("nobody holds the keeper's lock")

// await waits until a keeper answers; with held only as long as one holds the lock.
func (cfg *StartConfig) await(ctx context.Context, held bool) error {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		err := answers(ctx, cfg.ExecRoot)
		if err == nil {
			return nil
		}
		if held && lockHolder(cfg.ExecRoot) == "" {
			return errNoHolder
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			if pid := lockHolder(cfg.ExecRoot); pid != "" {
				return fault.New(fault.Unavailable, "the keeper of %s (pid %s) does not answer", cfg.ExecRoot, pid)
			}
			return fault.Wrap(fault.Unavailable, err, "start the keeper; see %s/keeper.log", cfg.ExecRoot)
		}
	}
}

// Stopped tells whether the keeper of an exec root is stopped (SIGSTOP, a debugger): whoever asks it anything then waits for as
// long as it stays so. The error, fault.Unavailable, names its process; nil where there is none, or it is fine.
func Stopped(execRoot string) error {
	pid, err := strconv.Atoi(lockHolder(execRoot))
	if err != nil {
		return nil
	}
	st, err := process.ReadStat(pid)
	if err != nil || st.State != 'T' && st.State != 't' {
		return nil
	}
	return fault.New(fault.Unavailable, "the keeper of %s, process %d, is stopped and does not answer; let it go on with: kill -CONT %d", execRoot, pid, pid)
}

// answers tries whether somebody serves the socket. It says no hello: that could end an adoption.
func answers(ctx context.Context, execRoot string) error {
	u, err := dialPacket(ctx, execRoot)
	if err != nil {
		return err
	}
	return u.Close()
}

// lockHolder is the pid in keeper.lock if somebody holds it. To find out it takes the lock for a
// moment; a keeper that starts right then tries again.
func lockHolder(execRoot string) string {
	f, err := os.OpenFile(execRoot+"/keeper.lock", os.O_RDWR, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
		return ""
	}
	b := make([]byte, 32)
	n, _ := f.Read(b)
	return strings.TrimSpace(string(b[:n]))
}
