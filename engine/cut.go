package engine

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/process"
	"berth/runtime/keeper"
)

// A keeper that is killed between clone and its journal leaves a process that its successor does not know, and that nobody would ever
// end. It is in the container's cgroup, which the engine knows.

// killCut kills what a container's launch left that was cut off.
func (e *Engine) killCut(c *entry, cg *cgroup.Cgroup, why error) {
	if cg == nil || !fault.Is(why, fault.Unavailable) {
		return
	}
	if err := cg.Kill(); err != nil {
		e.log.Warn("cannot kill what a launch left that was cut off", "container", c.id, "error", err)
	}
}

// killUnheld does the same where the engine died with the keeper: it looks for containers that do not run and have processes that the
// keeper neither holds nor is about to make.
func (e *Engine) killUnheld(ctx context.Context) {
	for cid := range e.cgroupIDs() {
		c := e.index.get(cid)
		if c == nil || c.snapshot().State.Status.Alive() || !c.cgroupBusy() {
			continue
		}
		end, err := e.beginUntilClosed(c, "recovery")
		if err != nil {
			return // the engine ends
		}
		if cg := c.cgroup(); cg != nil && !c.snapshot().State.Status.Alive() && e.unheld(ctx, cid) {
			e.log.Warn("killing processes of a container that does not run", "container", cid)
			e.killCut(c, cg, fault.New(fault.Unavailable, "cut off"))
			e.endRun(c)
		}
		end()
	}
}

// unheld reports that the keeper holds nothing of a container, and has no launch on its way that might be its.
func (e *Engine) unheld(ctx context.Context, cid string) bool {
	ctx, cancel := context.WithTimeout(ctx, keeperPatience)
	defer cancel()
	info, err := e.keeper.Info(ctx)
	if err != nil || info.Launching > 0 {
		return false
	}
	held, err := e.list(ctx)
	return err == nil && !slices.ContainsFunc(held, func(p keeper.ProcState) bool { return p.ID == cid })
}

// killCutExecs does it for execs, whose cgroup is also the container's: among its processes it looks for those that entered the
// container from outside and that the keeper does not hold. What comes from inside has a parent inside, also when its parent has ended;
// where the container shares the host's process ids nobody can tell, and all stay.
func (e *Engine) killCutExecs(ctx context.Context, c *entry) {
	cg := c.cgroup()
	if cg == nil {
		return
	}
	procs, err := cg.Procs()
	if err != nil {
		return
	}
	entered := map[int]int{} // pid → pidfd
	defer func() {
		for _, fd := range entered {
			unix.Close(fd)
		}
	}()
	for _, pid := range procs {
		if fd, err := process.Open(pid); err == nil {
			if hasEntered(pid) {
				entered[pid] = fd
			} else {
				unix.Close(fd)
			}
		}
	}
	// Only now: what had begun before is on its way to be known, is known, or never will be.
	held, ok := e.settledLaunches(ctx)
	if !ok {
		return
	}
	for pid, fd := range entered {
		if slices.ContainsFunc(held, func(p keeper.ProcState) bool { return p.PID == pid }) {
			continue
		}
		e.log.Warn("killing what an exec left that was cut off", "container", c.id, "pid", pid)
		if err := killTree(cg, pid, fd); err != nil {
			e.log.Warn("cannot kill it", "pid", pid, "error", err)
		}
	}
}

// settledLaunches gives what the keeper holds at a moment at which it works on no launch. It gives up after a while.
func (e *Engine) settledLaunches(ctx context.Context) (held []keeper.ProcState, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, settlePatience)
	defer cancel()
	for {
		info, err := e.keeper.Info(ctx)
		if err != nil {
			return nil, false
		}
		if info.Launching == 0 {
			held, err = e.list(ctx)
			return held, err == nil
		}
		if !pause(ctx, 10*time.Millisecond) {
			return nil, false
		}
	}
}

// killTree kills a process of a cgroup and what it has started there. It is stopped first, so that nothing of that is handed to the
// container's first process, and hidden there, while we look.
func killTree(cg *cgroup.Cgroup, pid, pidfd int) error {
	if err := process.Signal(pidfd, int(unix.SIGSTOP)); err != nil {
		return gone(err)
	}
	procs, err := cg.Procs()
	if err != nil {
		return err
	}
	for _, p := range procs {
		if st, err := process.ReadStat(p); err != nil || st.PPID != pid {
			continue
		}
		if fd, err := process.Open(p); err == nil {
			err = killTree(cg, p, fd)
			unix.Close(fd)
			if err != nil {
				return err
			}
		}
	}
	return gone(process.Signal(pidfd, int(unix.SIGKILL)))
}

func gone(err error) error {
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// hasEntered reports that a process is in a namespace of process ids below ours, and its parent is in ours.
func hasEntered(pid int) bool {
	st, err := process.ReadStat(pid)
	return err == nil && namespaces(pid) > 1 && namespaces(st.PPID) == 1
}

// namespaces gives in how many namespaces of process ids, from ours on, a process has an id (proc_pid_status(5), NSpid); 0: it is gone.
func namespaces(pid int) int {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(status), "\nNSpid:")
	ids, _, _ := strings.Cut(rest, "\n")
	return len(strings.Fields(ids))
}
