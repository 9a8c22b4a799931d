package oci

import (
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/process"
)

// kill sends a signal to a container.
func (t *tool) kill(f *flagSet) (int, error) {
	c, err := t.load(f.arg(0))
	if err != nil {
		return 1, err
	}
	word := f.arg(1)
	if word == "" {
		word = "SIGTERM"
	}
	sig, err := parseSignal(word)
	if err != nil {
		return 1, err
	}
	if f.bool("all") {
		if err := c.signalAll(sig); err != errNotRunning {
			return 0, err
		}
		return 0, nil // as runc has it: a stopped container has none to signal
	}
	return 0, c.signal(sig)
}

// parseSignal reads a number (0 only asks whether the process is there), or a name with or without SIG.
func parseSignal(word string) (int, error) {
	if n, err := strconv.Atoi(word); err == nil && n >= 0 && n <= process.SIGRTMAX {
		return n, nil
	}
	if n, ok := process.SignalNumber(word); ok {
		return n, nil
	}
	return 0, fault.New(fault.Invalid, "unknown signal %q", word)
}

// signal sends a signal to the container's first process. Without a pid namespace of its own SIGKILL
// goes to all processes: they would not die with the first.
func (c *container) signal(sig int) error {
	fd, err := c.openPIDFD()
	if err != nil {
		if sig == int(unix.SIGKILL) && !c.rec.PIDNS {
			return c.signalAll(sig) // the first is gone, others may not be
		}
		return err
	}
	unix.Close(fd)
	if sig == int(unix.SIGKILL) && !c.rec.PIDNS {
		return c.signalAll(sig)
	}
	return c.signalFirst(sig)
}

// signalFirst sends a signal to the container's first process, whatever namespaces it has.
func (c *container) signalFirst(sig int) error {
	fd, err := c.openPIDFD()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if c.rec.PIDNS && ends(sig) && c.status() == created {
		// A first process without handlers is deaf to all but SIGKILL (pid_namespaces(7)), and while it waits to
		// be started it has none; runc's has Go's.
		sig = int(unix.SIGKILL)
	}
	switch err := process.Signal(fd, sig); {
	case err == nil:
	case fault.Is(err, fault.NotFound):
		return errNotRunning
	default:
		return fault.In(err, "unable to signal init")
	}
	if sig == int(unix.SIGKILL) {
		c.thawIfFrozen() // on v1 a frozen process does not even die
		// Whoever kills deletes next: a moment of patience here saves him the error.
		_, _ = process.Ended(fd, 100*time.Millisecond)
	}
	return nil
}

// ends reports whether people send the signal to end a process.
func ends(sig int) bool {
	switch unix.Signal(sig) {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGABRT, unix.SIGTERM:
		return true
	}
	return false
}

func (c *container) thawIfFrozen() {
	cg, err := c.cgroup()
	if err != nil || cg == nil {
		return
	}
	if frozen, err := cg.Frozen(); err == nil && frozen {
		_ = cg.Thaw()
	}
}

// signalAll sends a signal to every process of the container. For SIGKILL that there are none is fine.
func (c *container) signalAll(sig int) error {
	cg, err := c.cgroup()
	switch {
	case fault.Is(err, fault.NotFound) || err == nil && cg == nil:
		if !c.alive() {
			return errNotRunning
		}
		return c.signalFirst(sig)
	case err != nil:
		return err
	case sig == int(unix.SIGKILL):
		return cg.Kill()
	}
	pids, err := cg.Procs()
	if err != nil {
		return err
	}
	if len(pids) == 0 {
		return errNotRunning
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.Signal(sig)); err != nil && err != unix.ESRCH {
			return fmt.Errorf("signal process %d: %w", pid, err)
		}
	}
	return nil
}

// killPatience is how long a process may take to die of SIGKILL.
const killPatience = 10 * time.Second

// kill ends every process of the container and waits until its first one is gone.
func (c *container) kill() error {
	if c.alive() {
		fd, err := c.openPIDFD()
		if err == nil {
			defer unix.Close(fd)
			_ = process.Signal(fd, int(unix.SIGKILL))
			c.thawIfFrozen()
			if ended, err := process.Ended(fd, killPatience); err == nil && !ended {
				return fault.New(fault.Deadline, "container init still running")
			}
		}
	}
	cg, err := c.cgroup()
	if err != nil || cg == nil {
		return nil
	}
	return killAll(cg)
}

// killAll ends what is left in a cgroup, unless nothing is.
func killAll(cg *cgroup.Cgroup) error {
	if pids, err := cg.Procs(); err == nil && len(pids) == 0 {
		return nil
	}
	return cg.Kill()
}

// delete removes a container that has stopped, or with --force any.
func (t *tool) delete(f *flagSet) (int, error) {
	id, force := f.arg(0), f.bool("force")
	c, err := t.find(id)
	if err == errNotExist && force {
		return 0, nil
	}
	if err != nil {
		return 1, err
	}
	if err := c.acquire(); err != nil {
		if err == errNotExist && force {
			return 0, nil
		}
		return 1, err
	}
	if err := c.read(); err != nil && c.rec != nil {
		return 1, err
	}
	if c.rec == nil {
		return t.deleteRest(c, force)
	}
	switch s := c.status(); {
	case force, s == created, s == stopped && !c.rec.PIDNS:
		if err := c.kill(); err != nil {
			return 1, err
		}
	case s != stopped:
		return 1, fault.New(fault.Conflict, "cannot delete container %s that is not stopped: %s", id, s)
	}
	cfg, err := c.config() // before it is removed
	cg, _ := c.cgroup()
	if err := c.destroy(cg); err != nil {
		return 1, err
	}
	if err == nil {
		t.runPoststop(c.rec, cfg.Spec)
	}
	return 0, nil
}

// deleteRest removes what a create left that never got to its end. Whoever it belonged to is gone, since
// we have the lock.
func (t *tool) deleteRest(c *container, force bool) (int, error) {
	if cg := c.plannedCgroup(); cg != nil {
		if err := killAll(cg); err != nil {
			return 1, err
		}
	}
	if err := c.destroy(nil); err != nil {
		return 1, err
	}
	if force {
		return 0, nil
	}
	return 1, errNotExist
}
