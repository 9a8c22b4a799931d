package oci

import (
	"context"
	"fmt"
	"syscall"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/cgroup/systemd"
)

// unitPrefix begins the names of scopes that a configuration does not name itself.
const unitPrefix = "berth-oci"

// With --systemd-cgroup the cgroup is a scope of systemd's. A scope is made around a process that
// exists, and the container's process wants to be born in its cgroup (a cgroup namespace, and v2's cheap
// attaching, need that). So a holder, which is this program waiting for its input to end, opens the
// scope, and leaves once the container's process is in.

// holdWord is the one argument of a holder.
const holdWord = "__hold"

// hold waits until the standard input is closed.
func hold() {
	buf := make([]byte, 1)
	for {
		if n, err := unix.Read(0, buf); n <= 0 && err != unix.EINTR {
			return
		}
	}
}

// holder is a process that keeps a scope alive.
type holder struct {
	pid, input int
}

func startHolder() (*holder, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		return nil, fmt.Errorf("pipe2: %w", err)
	}
	defer unix.Close(fds[0])
	pid, err := syscall.ForkExec("/proc/self/exe", []string{unitPrefix, holdWord}, &syscall.ProcAttr{
		Env: []string{}, Files: []uintptr{uintptr(fds[0])},
	})
	if err != nil {
		unix.Close(fds[1])
		return nil, fmt.Errorf("start the process that holds the scope: %w", err)
	}
	return &holder{pid, fds[1]}, nil
}

// leave ends the holder. It may be called on nil.
func (h *holder) leave() {
	if h != nil {
		unix.Close(h.input)
		_, _ = reap(h.pid)
	}
}

// systemdCgroup makes the container's cgroup as a scope; b.holder keeps it until the process is in.
func (b *birth) systemdCgroup() error {
	s := b.cfg.Spec
	user := unix.Geteuid() != 0
	u, err := systemd.Parse(s.Linux.CgroupsPath, unitPrefix, b.c.id, user)
	if err != nil {
		return err
	}
	extra, err := systemd.FromAnnotations(s.Annotations)
	if err != nil {
		return err
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	ctx := context.Background()
	m, err := systemd.Connect(ctx, user)
	if err != nil {
		return err
	}
	defer m.Close()
	if b.holder, err = startHolder(); err != nil {
		return err
	}
	// Told before it is made: what a crash leaves can be found by the record.
	b.c.rec.Scope, b.c.rec.UserScope, b.c.rec.Cgroup = u.Name, user, m.Path(u)
	if err := b.c.save(); err != nil {
		return err
	}
	b.cg, err = m.Scope(ctx, layout, u, b.holder.pid, s.Linux.Resources, extra)
	return err
}

// stopScope makes systemd forget a container's scope. The container is gone by then: what fails is told.
func (c *container) stopScope() {
	ctx := context.Background()
	m, err := systemd.Connect(ctx, c.rec.UserScope)
	if err == nil {
		defer m.Close()
		err = m.Stop(ctx, systemd.Unit{Name: c.rec.Scope})
	}
	if err != nil {
		c.tool.log.Warn(err.Error())
	}
}

// updateScope changes limits in systemd's book and in the files.
func (c *container) updateScope(r *specs.LinuxResources) error {
	cfg, err := c.config()
	if err != nil {
		return err
	}
	u, err := systemd.Parse(cfg.Spec.Linux.CgroupsPath, unitPrefix, c.id, c.rec.UserScope)
	if err != nil {
		return err
	}
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	ctx := context.Background()
	m, err := systemd.Connect(ctx, c.rec.UserScope)
	if err != nil {
		return fault.In(err, "update container %s", c.id)
	}
	defer m.Close()
	return m.Update(ctx, layout, u, r)
}
