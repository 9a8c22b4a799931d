package oci

import (
	"fmt"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/nofile"
	"berth/kernel/process"
	"berth/runtime/launch"
	"berth/runtime/oci/config"
	"berth/runtime/spec"
)

// execFailed is exec's exit status when there was no process whose status it could be.
const execFailed = 255

// exec runs another process in a running container.
func (t *tool) exec(f *flagSet) (int, error) {
	code, err := t.execProcess(f)
	if err != nil {
		return execFailed, &exit{execFailed, fmt.Errorf("exec failed: %w", err)}
	}
	return code, nil
}

func (t *tool) execProcess(f *flagSet) (int, error) {
	extra, err := extraFiles(int(f.int("preserve-fds")))
	if err != nil {
		return 0, err
	}
	c, err := t.load(f.arg(0))
	if err != nil {
		return 0, err
	}
	switch s := c.status(); {
	case s == stopped:
		return 0, fault.New(fault.Conflict, "cannot exec in a stopped container")
	case s == paused && !f.bool("ignore-paused"):
		return 0, fault.New(fault.Conflict, "cannot exec in a paused container (use --ignore-paused to override)")
	}
	cfg, err := c.config()
	if err != nil {
		return 0, err
	}
	p, err := execDescription(f, cfg.Spec)
	if err != nil {
		return 0, err
	}
	t.warnOfCapabilities(p)
	detach := f.bool("detach")
	if err := checkConsole(p.Terminal, detach, f.text("console-socket")); err != nil {
		return 0, err
	}
	p.Env = extra.tell(p.Env)
	extra.keepOthers()
	program, err := t.compileExec(c, cfg, p, f, launch.Options{Bundle: c.rec.Bundle, PreserveFDs: extra.all(), Gate: !detach && p.Terminal, OpenFiles: openFiles(), Unprivileged: unix.Geteuid() != 0, InUserNS: inUserNamespace()})
	if err != nil {
		return 0, err
	}
	t.logProgram(program)
	return t.startExec(c, cfg, p, f, program, detach)
}

// openFiles is the limit of open files that we were started with, which Go has raised for us alone; nil if
// it has not.
func openFiles() *unix.Rlimit {
	soft, hard, changed := nofile.AtStart()
	if !changed {
		return nil
	}
	return &unix.Rlimit{Cur: soft, Max: hard}
}

// compileExec makes the launch program for a process in the container.
func (t *tool) compileExec(c *container, cfg *configuration, p *specs.Process, f *flagSet, o launch.Options) (*launch.Program, error) {
	var err error
	if o.Seccomp, err = t.filter(cfg); err != nil {
		return nil, err
	}
	if o.Cgroup, err = c.attachBelow(f.list("cgroup")); err != nil {
		return nil, err
	}
	if !c.alive() {
		return nil, errNotRunning
	}
	p.Env = completeEnv(p.Env, p.User.UID, c.rootNow(), nil)
	return launch.CompileExec(p, cfg.Spec, launch.Target{PID: c.rec.PID}, o)
}

// rootNow is the path at which a running container's root is seen from here.
func (c *container) rootNow() string { return "/proc/" + strconv.Itoa(c.rec.PID) + "/root" }

// attachBelow is how a process gets into the container's cgroup, or into one below it.
func (c *container) attachBelow(words []string) (cgroup.Attach, error) {
	cg, err := c.cgroup()
	if err != nil || cg == nil {
		return cgroup.Attach{}, err
	}
	return below(cg, words)
}

// below gives the place of a process in cgroups below the container's, which must exist. The words are
// "path" on v2 and "controller[,controller…]:path" on v1.
func below(cg *cgroup.Cgroup, words []string) (cgroup.Attach, error) {
	a := cg.Attach()
	seen := map[string]bool{}
	for _, word := range words {
		names, path, named := strings.Cut(word, ":")
		if !named {
			if len(words) != 1 {
				return a, fault.New(fault.Invalid, "invalid --cgroup argument: %s (missing <controller>: prefix)", word)
			}
			names, path = "", word
		}
		for name := range strings.SplitSeq(names, ",") {
			switch {
			case named && name == "":
				return a, fault.New(fault.Invalid, "invalid --cgroup argument: %s (empty <controller> prefix)", word)
			case seen[name]:
				return a, fault.New(fault.Invalid, "invalid --cgroup argument(s): controller %s specified multiple times", name)
			}
			seen[name] = true
			if err := enterBelow(cg, &a, name, path); err != nil {
				return a, err
			}
		}
	}
	return a, nil
}

// enterBelow changes one hierarchy's entry of a; an empty name is v2's.
func enterBelow(cg *cgroup.Cgroup, a *cgroup.Attach, name, path string) error {
	base := cg.V2Dir()
	if name != "" {
		if base = cg.Dir(name); base == "" {
			return fault.New(fault.Invalid, "unknown controller %s in SubCgroupPaths", name)
		}
	} else if cg.Layout().Mode != cgroup.V2 {
		return enterAllBelow(cg, a, path)
	}
	dir, err := cleanBelow(base, path)
	if err != nil {
		return err
	}
	if base == cg.V2Dir() {
		a.V2Dir = dir
		return nil
	}
	for i, file := range a.V1Procs {
		if rest, ok := strings.CutPrefix(file, base+"/"); ok && !strings.Contains(rest, "/") {
			a.V1Procs[i] = dir + "/" + rest
		}
	}
	return nil
}

// enterAllBelow is for a path without a controller where there are several hierarchies: it counts in all.
func enterAllBelow(cg *cgroup.Cgroup, a *cgroup.Attach, path string) error {
	for i, file := range a.V1Procs {
		cut := strings.LastIndexByte(file, '/')
		dir, err := cleanBelow(file[:cut], path)
		if err != nil {
			return err
		}
		a.V1Procs[i] = dir + file[cut:]
	}
	if a.V2Dir == "" {
		return nil
	}
	dir, err := cleanBelow(a.V2Dir, path)
	if err == nil {
		a.V2Dir = dir
	}
	return err
}

// cleanBelow joins a path that must not leave its base and must exist.
func cleanBelow(base, path string) (string, error) {
	for part := range strings.SplitSeq(path, "/") {
		if part == ".." {
			return "", fault.New(fault.Invalid, "bad sub cgroup path: %s is not a sub cgroup path", path)
		}
	}
	dir := strings.TrimSuffix(base+"/"+strings.Trim(path, "/"), "/")
	if err := unix.Access(dir, unix.F_OK); err != nil {
		return "", fault.New(fault.NotFound, "error adding pid to cgroups: open %s/cgroup.procs: %v", dir, err)
	}
	return dir, nil
}

// startExec starts the process and, unless detached, stays until its end.
func (t *tool) startExec(c *container, cfg *configuration, p *specs.Process, f *flagSet, program *launch.Program, detach bool) (int, error) {
	var fg *foreground
	if !detach {
		var err error
		if fg, err = newForeground(t, false); err != nil {
			return 0, err
		}
		defer fg.close()
	}
	l, err := launch.NewLauncher(false)
	if err != nil {
		return 0, err
	}
	in, err := c.openPIDFD() // the process that state.json names must be the one whose namespaces are entered
	if err != nil {
		return 0, err
	}
	defer unix.Close(in)
	proc, err := l.StartHooked(program, launch.Stdio{In: 0, Out: 1, Err: 2, Rows: rows(p), Cols: columns(p), Within: []int{in}}, launch.Hooks{
		Listener: func(pid, fd int) error { return sendListener(c, cfg, running, pid, fd) },
	})
	if err != nil {
		return 0, describe(err, c.rootNow())
	}
	if err := execOut(f, proc); err != nil {
		abandon(proc)
		return 0, err
	}
	if detach {
		return 0, nil
	}
	if err := fg.attach(proc); err != nil {
		abandon(proc)
		return 0, err
	}
	if p.Terminal {
		if err := proc.Release(); err != nil {
			abandon(proc)
			return 0, describe(err, c.rootNow())
		}
	}
	return fg.wait()
}

// abandon ends a process that nobody will stand by.
func abandon(p *launch.Process) {
	_ = process.Signal(p.PidFD, int(unix.SIGKILL))
	_, _ = reap(p.PID)
}

// execOut tells the world about the new process.
func execOut(f *flagSet, proc *launch.Process) error {
	if err := handOut(f, proc); err != nil {
		return err
	}
	path, err := absolute(f.text("pid-file"))
	if err != nil || path == "" {
		return err
	}
	return writePIDFile(path, proc.PID)
}

// execDescription is the process that flags and words describe: a file of its own, or the container's
// own process with other arguments.
func execDescription(f *flagSet, c *specs.Spec) (*specs.Process, error) {
	if path := f.text("process"); path != "" {
		text, err := readFile(path)
		if err != nil {
			return nil, err
		}
		p, err := config.ParseProcess(text)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "%s", path)
		}
		return p, spec.ValidateProcess(p)
	}
	if len(f.args) < 2 {
		return nil, fault.New(fault.Invalid, "exec args cannot be empty")
	}
	p := *c.Process
	p.Args = f.args[1:]
	p.Terminal, p.ConsoleSize = f.bool("tty"), nil
	for flag, field := range map[string]*string{"cwd": &p.Cwd, "apparmor": &p.ApparmorProfile, "process-label": &p.SelinuxLabel} {
		if v := f.text(flag); v != "" {
			*field = v
		}
	}
	if f.given("no-new-privs") {
		p.NoNewPrivileges = f.bool("no-new-privs")
	}
	p.Env = append(p.Env[:len(p.Env):len(p.Env)], f.list("env")...)
	p.Capabilities = addCapabilities(p.Capabilities, f.list("cap"))
	if err := setUser(&p.User, f.text("user"), f.list("additional-gids")); err != nil {
		return nil, err
	}
	return &p, spec.ValidateProcess(&p)
}

// addCapabilities adds capabilities to the sets that decide what the process may. They become ambient
// only where the container's own are inheritable: without that the kernel refuses.
func addCapabilities(had *specs.LinuxCapabilities, names []string) *specs.LinuxCapabilities {
	if len(names) == 0 {
		return had
	}
	var c specs.LinuxCapabilities
	if had != nil {
		c = *had
	}
	add := func(set []string) []string { return append(set[:len(set):len(set)], names...) }
	c.Bounding, c.Effective, c.Permitted = add(c.Bounding), add(c.Effective), add(c.Permitted)
	if c.Inheritable != nil {
		c.Ambient = add(c.Ambient)
	}
	return &c
}

// setUser reads --user UID[:GID] and --additional-gids.
func setUser(u *specs.User, user string, more []string) error {
	if user != "" {
		uids, gids, both := strings.Cut(user, ":")
		if both {
			gid, err := strconv.ParseUint(gids, 10, 32)
			if err != nil {
				return fault.Wrap(fault.Invalid, err, "bad gid")
			}
			u.GID = uint32(gid)
		}
		uid, err := strconv.ParseUint(uids, 10, 32)
		if err != nil {
			return fault.Wrap(fault.Invalid, err, "bad uid")
		}
		u.UID = uint32(uid)
	}
	gids := u.AdditionalGids[:len(u.AdditionalGids):len(u.AdditionalGids)]
	for _, word := range more {
		gid, err := strconv.ParseUint(word, 10, 32)
		if err != nil {
			return fault.New(fault.Invalid, "additional-gids must be a positive number %s", word)
		}
		gids = append(gids, uint32(gid))
	}
	u.AdditionalGids = gids
	return nil
}

// rows and columns are the size that the description gives the terminal; 0 leaves it to the kernel.
func rows(p *specs.Process) uint16 {
	if p.ConsoleSize == nil {
		return 0
	}
	return uint16(min(p.ConsoleSize.Height, 1<<16-1))
}

func columns(p *specs.Process) uint16 {
	if p.ConsoleSize == nil {
		return 0
	}
	return uint16(min(p.ConsoleSize.Width, 1<<16-1))
}
