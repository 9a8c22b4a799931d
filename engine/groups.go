package engine

import (
	"context"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"

	"berth/base/fault"
	"berth/kernel/cgroup"
	"berth/kernel/cgroup/systemd"
)

// groups makes and removes the cgroups of runs: plain directories, or scopes of systemd's.
type groups interface {
	// path gives a container's cgroup below each hierarchy's root. parent is the container's own, "" for the engine's.
	path(parent, cid string) (string, error)
	// make makes it. joined is called once the container's process is in it, or will never be.
	make(ctx context.Context, setup cgroup.Setup, r *specs.LinuxResources) (cg *cgroup.Cgroup, joined func(), err error)
	// update changes the limits that are set in r, all or none. before is what held so far, for drivers that cannot look. undo takes it back.
	update(ctx context.Context, path string, cg *cgroup.Cgroup, r, before *specs.LinuxResources) (undo func() error, err error)
	// remove takes it away; its processes are gone.
	remove(ctx context.Context, path string, cg *cgroup.Cgroup) error
	close()
}

// newGroups gives the driver that was configured.
func newGroups(ctx context.Context, cfg *Config, l cgroup.Layout) (groups, error) {
	switch cfg.CgroupDriver {
	case "", driverDirectories:
		d := directories{parent: cfg.CgroupParent, layout: l, period: cfg.CPURealtimePeriod, runtime: cfg.CPURealtimeRuntime}
		return d, d.budget(d.parent)
	case driverSystemd:
		if cfg.CPURealtimePeriod != 0 || cfg.CPURealtimeRuntime != 0 {
			return nil, fault.New(fault.Invalid, "cpu-rt-period and cpu-rt-runtime: not with the cgroup driver %s; leave them out or use %s", driverSystemd, driverDirectories)
		}
		return newScopes(ctx, cfg, l)
	}
	return nil, fault.New(fault.Invalid, "there is no cgroup driver %q; there are %s and %s", cfg.CgroupDriver, driverDirectories, driverSystemd)
}

const (
	driverDirectories = "cgroupfs"
	driverSystemd     = "systemd"
)

// directories are cgroups that the engine makes itself.
type directories struct {
	parent string
	layout cgroup.Layout
	// What all containers may take together of the time of real-time processes, in microseconds; 0 nothing. cgroup v1 only.
	period, runtime int64
}

// budget gives a parent of containers the engine's time for real-time processes, without which no container can have any.
func (d directories) budget(parent string) error {
	if d.period == 0 && d.runtime == 0 {
		return nil
	}
	return fault.In(d.layout.Realtime(parent, d.period, d.runtime), "cpu-rt-period and cpu-rt-runtime")
}

// budgetFor does that where the limits need it.
func (d directories) budgetFor(group string, r *specs.LinuxResources) error {
	if r == nil || r.CPU == nil || r.CPU.RealtimeRuntime == nil && r.CPU.RealtimePeriod == nil {
		return nil
	}
	return d.budget(path.Dir(group))
}

func (d directories) path(parent, cid string) (string, error) {
	if parent == "" {
		parent = d.parent
	}
	if strings.HasSuffix(parent, ".slice") {
		return "", fault.New(fault.Invalid, "cgroup-parent %q is a slice of systemd's, and the cgroup driver is %s", parent, driverDirectories)
	}
	return "/" + strings.Trim(parent, "/") + "/" + cid, nil
}

func (d directories) make(_ context.Context, setup cgroup.Setup, r *specs.LinuxResources) (*cgroup.Cgroup, func(), error) {
	if err := d.budgetFor(setup.Path, r); err != nil {
		return nil, nil, err
	}
	cg, err := setup.Apply()
	return cg, func() {}, err
}

func (d directories) update(_ context.Context, group string, cg *cgroup.Cgroup, r, _ *specs.LinuxResources) (func() error, error) {
	if err := d.budgetFor(group, r); err != nil {
		return nil, err
	}
	return cg.Change(r)
}

func (directories) remove(_ context.Context, _ string, cg *cgroup.Cgroup) error { return cg.Remove() }
func (directories) close()                                                      {}

// manager is what the engine needs of systemd; *systemd.Manager has it.
type manager interface {
	Scope(ctx context.Context, l cgroup.Layout, u systemd.Unit, pid int, r *specs.LinuxResources, extra []systemd.Property) (*cgroup.Cgroup, error)
	Update(ctx context.Context, l cgroup.Layout, u systemd.Unit, r *specs.LinuxResources) error
	Stop(ctx context.Context, u systemd.Unit) error
	Path(u systemd.Unit) string
	Close() error
}

// scopes are cgroups that systemd makes. A scope begins around a process that exists, and the container's process wants to be born in
// its cgroup; so a holder, which does nothing, opens the scope and leaves once the process is in.
type scopes struct {
	connect func(context.Context) (manager, error)
	layout  cgroup.Layout
	slice   string // the engine's
	holder  string // a binary that waits with --hold until its input ends

	mu sync.Mutex // guards m
	m  manager    // nil: not connected
}

const (
	scopePrefix = "berth"
	// systemdPatience bounds one job of systemd's.
	systemdPatience = 30 * time.Second
)

func newScopes(ctx context.Context, cfg *Config, l cgroup.Layout) (*scopes, error) {
	if !systemd.Running() {
		return nil, fault.New(fault.Invalid, "native.cgroupdriver=systemd: systemd does not run this machine; leave the option out")
	}
	if cfg.InitPath == "" {
		return nil, fault.New(fault.Invalid, "native.cgroupdriver=systemd: berth-init is needed beside berthd")
	}
	s := &scopes{layout: l, slice: "system.slice", holder: cfg.InitPath, connect: func(ctx context.Context) (manager, error) { return systemd.Connect(ctx, false) }}
	if strings.HasSuffix(cfg.CgroupParent, ".slice") {
		s.slice = cfg.CgroupParent
	}
	_, err := s.manager(ctx)
	return s, err
}

// manager gives the connection, made anew where it is lost.
func (s *scopes) manager(ctx context.Context) (manager, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m != nil {
		return s.m, nil
	}
	m, err := s.connect(ctx)
	if err != nil {
		return nil, fault.In(err, "connecting to systemd")
	}
	s.m = m
	return m, nil
}

// call does one thing with systemd. A connection that broke is made anew, once.
func (s *scopes) call(ctx context.Context, do func(context.Context, manager) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), systemdPatience)
	defer cancel()
	m, err := s.manager(ctx)
	if err != nil {
		return err
	}
	if err = do(ctx, m); !fault.Is(err, fault.Unavailable) {
		return err
	}
	s.mu.Lock()
	if s.m == m {
		s.m = nil
	}
	s.mu.Unlock()
	m.Close()
	if m, err = s.manager(ctx); err != nil {
		return err
	}
	return do(ctx, m)
}

func (s *scopes) path(parent, cid string) (string, error) {
	if parent == "" {
		parent = s.slice
	}
	if !strings.HasSuffix(parent, ".slice") {
		return "", fault.New(fault.Invalid, "cgroup-parent for systemd cgroup should be a valid slice named as \"xxx.slice\"")
	}
	u, err := systemd.Parse(parent+":"+scopePrefix+":"+cid, scopePrefix, cid, false)
	if err != nil {
		return "", err
	}
	var path string
	err = s.call(context.Background(), func(_ context.Context, m manager) error { path = m.Path(u); return nil })
	return path, err
}

// unitOf gives the unit behind a path that s.path made.
func unitOf(path string) systemd.Unit {
	dirs := strings.Split(strings.Trim(path, "/"), "/")
	u := systemd.Unit{Name: dirs[len(dirs)-1], Slice: "-.slice"}
	if len(dirs) > 1 {
		u.Slice = dirs[len(dirs)-2]
	}
	return u
}

func (s *scopes) make(ctx context.Context, setup cgroup.Setup, r *specs.LinuxResources) (cg *cgroup.Cgroup, joined func(), err error) {
	h, err := startHolder(s.holder)
	if err != nil {
		return nil, nil, err
	}
	err = s.call(ctx, func(ctx context.Context, m manager) (err error) {
		cg, err = m.Scope(ctx, s.layout, unitOf(setup.Path), h.cmd.Process.Pid, r, nil)
		return err
	})
	if err != nil {
		h.leave()
		return nil, nil, err
	}
	return cg, h.leave, nil
}

func (s *scopes) update(ctx context.Context, path string, _ *cgroup.Cgroup, r, before *specs.LinuxResources) (func() error, error) {
	set := func(r *specs.LinuxResources) error {
		return s.call(ctx, func(ctx context.Context, m manager) error { return m.Update(ctx, s.layout, unitOf(path), r) })
	}
	undo := func() error { return set(before) }
	if err := set(r); err != nil {
		return nil, errors.Join(err, undo()) // systemd may have taken a part of it
	}
	return undo, nil
}

func (s *scopes) remove(ctx context.Context, path string, _ *cgroup.Cgroup) error {
	return s.call(ctx, func(ctx context.Context, m manager) error { return m.Stop(ctx, unitOf(path)) })
}

func (s *scopes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m != nil {
		s.m.Close()
		s.m = nil
	}
}

// holder is a process that keeps a scope alive until it is told to leave.
type holder struct {
	cmd   *exec.Cmd
	input io.Closer
}

func startHolder(binary string) (*holder, error) {
	cmd := exec.Command(binary, "--hold")
	input, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "starting the process that holds a scope")
	}
	return &holder{cmd, input}, nil
}

// leave ends the holder.
func (h *holder) leave() { errors.Join(h.input.Close(), h.cmd.Wait()) }
