package oci

import (
	"errors"
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/runtime/launch"
)

// create makes a container whose process waits to be started.
func (t *tool) create(f *flagSet) (int, error) {
	b := &birth{t: t, f: f, wait: true, detach: true}
	done, code, err := b.read()
	if !done && err == nil {
		err = b.give()
	}
	if err != nil {
		return 1, fmt.Errorf("%s create failed: %w", t.name, err)
	}
	return code, nil
}

// runCommand makes a container and starts it; unless detached, it stays until the container's end and
// cleans up.
func (t *tool) runCommand(f *flagSet) (int, error) {
	b := &birth{t: t, f: f, detach: f.bool("detach")}
	code, err := b.run()
	var r *reworded
	if errors.As(err, &r) && r.whole {
		fmt.Fprintln(t.err, r.text)
		return execFailed, nil
	}
	if err != nil {
		return 1, fmt.Errorf("%s run failed: %w", t.name, err)
	}
	return code, nil
}

func (b *birth) run() (int, error) {
	if done, code, err := b.read(); done || err != nil {
		return code, err
	}
	if b.detach {
		if err := b.give(); err != nil {
			return 1, err
		}
		if err := b.afterStart(); err != nil {
			b.ready.close()
			return 0, err
		}
		b.c.release() // a container may take its time, and must be killable
		return 0, b.ready.await(b.proc.PID, b.proc.PidFD)
	}
	fg, err := newForeground(b.t, !b.f.bool("no-subreaper"))
	if err != nil {
		return 1, err
	}
	defer fg.close()
	b.fg = fg
	if err := b.give(); err != nil {
		return 1, err
	}
	if err := b.afterStart(); err != nil {
		return 1, err
	}
	b.c.release() // others may act on it while we wait
	code, err := fg.wait()
	if err != nil {
		return 1, err
	}
	if b.f.bool("keep") {
		return code, nil
	}
	return code, b.end()
}

// end removes a container whose process has ended.
func (b *birth) end() error {
	if b.cg != nil && !b.c.rec.PIDNS {
		_ = b.cg.Kill() // what the process left behind dies with its container
	}
	err := b.c.destroy(b.cg)
	b.t.runPoststop(b.c.rec, b.cfg.Spec)
	return err
}

// afterStart runs the poststart hooks. Up to version 1.2.0 of the specification a failure changed
// nothing; since then it ends the container.
func (b *birth) afterStart() error {
	err := b.t.runPoststart(b.c, b.cfg)
	if err != nil {
		b.hooked = true
		b.undo()
	}
	return err
}

// runPoststart runs the hooks that follow the program's start, as the configuration's version of the
// specification has it: since 1.2.1 an error must end the container, before it was told and the
// remaining hooks ran.
func (t *tool) runPoststart(c *container, cfg *configuration) error {
	hooks := poststart.hooks(cfg.Spec)
	if len(hooks) == 0 {
		return nil
	}
	state := stateJSON(c.rec, running, c.rec.PID)
	if atLeast(cfg.Spec.Version, 1, 2, 1) {
		return t.runHooks(poststart, hooks, state, inRuntime(c.rec.Bundle))
	}
	t.tryHooks(poststart, hooks, state, c.rec.Bundle)
	return nil
}

// handOut sends the terminal's master and a handle on the process to the sockets that flags name.
func handOut(f *flagSet, p *launch.Process) error {
	if socket := f.text("console-socket"); socket != "" && p.Console >= 0 {
		if err := sendFD(socket, "/dev/ptmx", p.Console); err != nil {
			return err
		}
	}
	if socket := f.text("pidfd-socket"); socket != "" {
		return sendFD(socket, "pidfd", p.PidFD)
	}
	return nil
}

// start lets a created container's process go on to its program.
func (t *tool) start(f *flagSet) (int, error) {
	c, err := t.loadLocked(f.arg(0))
	if err != nil {
		return 1, err
	}
	switch s := c.status(); s {
	case created:
	case stopped:
		return 1, fault.New(fault.Conflict, "cannot start a container that has stopped")
	case running:
		return 1, fault.New(fault.Conflict, "cannot start an already running container")
	default:
		return 1, fault.New(fault.Conflict, "cannot start a container in the %s state", s)
	}
	cfg, err := c.config()
	if err != nil {
		return 1, err
	}
	if err := t.runStartContainer(c, cfg, c.rec.PID); err != nil {
		t.abort(c, cfg)
		return 1, err
	}
	ready, err := c.listenReady()
	if err != nil {
		return 1, err
	}
	if err := c.open(); err != nil {
		ready.close()
		return 1, err
	}
	if err := t.runPoststart(c, cfg); err != nil {
		ready.close()
		t.abort(c, cfg)
		return 1, err
	}
	if ready == nil {
		return 0, nil
	}
	return c.awaitReady(ready)
}

// awaitReady stays until a started container is ready.
func (c *container) awaitReady(r *readiness) (int, error) {
	c.release() // it may take its time, and must be killable
	fd, err := c.openPIDFD()
	if err != nil {
		r.close()
		return 0, nil // it has ended already
	}
	defer unix.Close(fd)
	if err := r.await(c.rec.PID, fd); err != nil {
		return 1, err
	}
	return 0, nil
}

// open opens the gate: the process waits for a byte in the fifo. It holds the only other end, which closes
// when it calls execve, or ends: then the start is over.
func (c *container) open() error {
	path := c.dir + "/" + fifoFile
	fifo, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err == unix.ENXIO {
		return fault.New(fault.Conflict, "container process is already dead")
	}
	if err != nil {
		return fmt.Errorf("open exec fifo: %w", err)
	}
	defer unix.Close(fifo)
	if _, err := unix.Write(fifo, []byte{'0'}); err != nil {
		return fmt.Errorf("write exec fifo: %w", err)
	}
	for {
		fds := []unix.PollFd{{Fd: int32(fifo)}} // POLLERR, which needs no asking: no reader is left
		n, err := unix.Poll(fds, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("poll: %w", err)
		}
		if n > 0 {
			break
		}
	}
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove exec fifo: %w", err)
	}
	return nil
}

// abort ends and removes a container whose hooks have failed.
func (t *tool) abort(c *container, cfg *configuration) {
	if err := c.kill(); err != nil {
		t.log.Warn(err.Error())
	}
	cg, _ := c.cgroup()
	if err := c.destroy(cg); err != nil {
		t.log.Warn(err.Error())
	}
	t.runPoststop(c.rec, cfg.Spec)
}

// absolute makes a path that a flag named absolute; "" stays as it is.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	return filepath.Abs(path)
}
