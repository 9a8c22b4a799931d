package plugin

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
	"berth/kernel/mount"
)

// Runner is what the manager needs of the engine.
type Runner interface {
	Create(ctx context.Context, name string, s container.Spec) (engine.CreateResult, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o engine.StopOptions) error
	Remove(ctx context.Context, ref string, o engine.RemoveOptions) error
	Inspect(ctx context.Context, ref string) (container.Info, error)
	Plugins() []container.Info // containers of managed plugins, which no list shows
}

// patience is how long a plugin's socket may take after its start, unless the request says otherwise.
const patience = 30 * time.Second

// Attach begins to run plugins: those that are enabled and do not run are started, containers of plugins that are not enabled
// removed. A plugin that does not start stays enabled, and is logged.
func (m *Manager) Attach(ctx context.Context, r Runner) {
	m.changing.Lock()
	defer m.changing.Unlock()
	m.runner = r
	ours := map[string]bool{}
	on := true
	for _, p := range m.List(nil, &on) {
		ours[p.Container] = true
		if info, err := r.Inspect(ctx, p.Container); err == nil && info.State.Running {
			continue
		}
		next, err := m.start(ctx, p)
		if err != nil {
			m.log.Error("an enabled plugin does not start", "plugin", p.Name, "err", err)
			continue
		}
		ours[next.Container] = true
	}
	for _, c := range r.Plugins() {
		if ours[c.ID] {
			continue
		}
		if err := r.Remove(ctx, c.ID, engine.RemoveOptions{Force: true}); err != nil {
			m.log.Warn("remove what is left of a plugin", "container", c.ID, "err", err)
		}
	}
}

// Enable runs a plugin and waits until its socket takes connections; timeout 0 is half a minute.
func (m *Manager) Enable(ctx context.Context, name string, timeout time.Duration) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	p, err := m.Get(name)
	if err != nil {
		return err
	}
	if p.Enabled {
		return fault.New(fault.Conflict, "plugin %s is already enabled", p.Name)
	}
	if m.runner == nil {
		return fault.New(fault.Unavailable, "the engine is starting")
	}
	next, err := m.start(ctx, p)
	if err != nil {
		return err
	}
	if timeout <= 0 {
		timeout = patience
	}
	if err := m.await(ctx, next, timeout); err != nil {
		if _, derr := m.disable(context.WithoutCancel(ctx), next, true); derr != nil {
			m.log.Warn("stop a plugin that did not start", "plugin", p.Name, "err", derr)
		}
		return err
	}
	m.emit("enable", next)
	return nil
}

// start makes the plugin's container and starts it. The record stands before the start, so that a crash leaves nothing unknown.
func (m *Manager) start(ctx context.Context, p *Plugin) (*Plugin, error) {
	if p.Container != "" {
		if err := m.runner.Remove(ctx, p.Container, engine.RemoveOptions{Force: true}); err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	if err := m.prepare(p); err != nil {
		return nil, err
	}
	made, err := m.runner.Create(ctx, "", m.spec(p))
	if err != nil {
		return nil, fault.In(err, "plugin %s", p.Name)
	}
	next := *p
	next.Enabled, next.Container = true, made.ID
	if err := m.write(&next); err != nil {
		return nil, errors.Join(err, m.runner.Remove(ctx, made.ID, engine.RemoveOptions{Force: true}))
	}
	if err := m.runner.Start(ctx, made.ID); err != nil {
		_, derr := m.disable(context.WithoutCancel(ctx), &next, true)
		return nil, errors.Join(fault.In(err, "plugin %s", p.Name), derr)
	}
	return &next, nil
}

// prepare makes the directories that a plugin's container needs on the host.
func (m *Manager) prepare(p *Plugin) error {
	socket := filepath.Join(m.runDir(p.ID), p.Config.Interface.Socket)
	if err := os.MkdirAll(m.runDir(p.ID), 0o700); err != nil {
		return fault.In(err, "plugin %s", p.Name)
	}
	if p.Config.Interface.Socket != "" {
		// One that an earlier run left would refuse connections.
		if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.In(err, "plugin %s", p.Name)
		}
	}
	if p.Config.PropagatedMount == "" {
		return nil
	}
	if err := os.MkdirAll(m.propagated(p), 0o755); err != nil {
		return fault.In(err, "plugin %s", p.Name)
	}
	return fault.In(mount.Share(m.propagated(p)), "plugin %s", p.Name)
}

// spec says how a plugin runs.
func (m *Manager) spec(p *Plugin) container.Spec {
	c := p.Config
	s := container.Spec{
		Image: reference(p.ID), Plugin: p.ID, Labels: map[string]string{"berth.plugin": p.Name},
		Process: container.Process{
			Entrypoint: c.Entrypoint, Cmd: p.Settings.Args, WorkingDir: c.WorkDir, User: strconv.Itoa(int(c.User.UID)) + ":" + strconv.Itoa(int(c.User.GID)),
			Env: slices.Concat([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, p.Settings.Env),
		},
		Restart: container.Restart{Name: "always"},
		Log:     container.Log{Driver: "json-file", Options: map[string]string{"max-size": "10m", "max-file": "2"}},
		Network: container.Network{Mode: c.Network.Type},
	}
	if s.Process.Cmd == nil {
		s.Process.Cmd = []string{}
	}
	if s.Network.Mode == "" {
		s.Network.Mode = "none"
	}
	s.Security.CapAdd = c.Linux.Capabilities
	if c.IpcHost {
		s.Namespaces.IPC = "host"
	}
	if c.PidHost {
		s.Namespaces.PID = "host"
	}
	if c.Linux.AllowAllDevices {
		s.Resources.DeviceCgroupRules = []string{"a *:* rwm"}
	}
	for _, d := range p.Settings.Devices {
		if d.Path != "" {
			s.Resources.Devices = append(s.Resources.Devices, container.Device{Source: d.Path, Target: d.Path, Permissions: "rwm"})
		}
	}
	s.Mounts = append(s.Mounts, container.Mount{Type: "bind", Source: m.runDir(p.ID), Target: "/run/docker/plugins", FromBinds: true, Propagation: "rprivate"})
	if c.PropagatedMount != "" {
		s.Mounts = append(s.Mounts, container.Mount{Type: "bind", Source: m.propagated(p), Target: c.PropagatedMount, Propagation: "rshared"})
	}
	for _, x := range p.Settings.Mounts {
		s.Mounts = append(s.Mounts, hostMount(x))
	}
	return s
}

// hostMount translates a mount's options, which are those of mount(8).
func hostMount(x Mount) container.Mount {
	if x.Type == "tmpfs" {
		return container.Mount{Type: "tmpfs", Target: x.Destination}
	}
	to := container.Mount{Type: "bind", Source: x.Source, Target: x.Destination, NonRecursive: true}
	for _, o := range x.Options {
		switch o {
		case "rbind":
			to.NonRecursive = false
		case "ro":
			to.ReadOnly = true
		case "shared", "rshared", "slave", "rslave", "private", "rprivate":
			to.Propagation = o
		}
	}
	return to
}

// await waits until a plugin's socket takes connections.
func (m *Manager) await(ctx context.Context, p *Plugin, timeout time.Duration) error {
	if p.Config.Interface.Socket == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	socket := filepath.Join(m.runDir(p.ID), p.Config.Interface.Socket)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			return c.Close()
		}
		if info, ierr := m.runner.Inspect(ctx, p.Container); ierr == nil && !info.State.Running && !info.State.Restarting {
			return fault.New(fault.Internal, "plugin %s ended with exit code %d before its socket %s was there", p.Name, info.State.ExitCode, p.Config.Interface.Socket)
		}
		select {
		case <-ctx.Done():
			return fault.Wrap(fault.Deadline, err, "dial %s: plugin %s does not listen", socket, p.Name)
		case <-tick.C:
		}
	}
}

// Disable stops a plugin; one that is in use only by force.
func (m *Manager) Disable(ctx context.Context, name string, force bool) error {
	m.changing.Lock()
	defer m.changing.Unlock()
	p, err := m.Get(name)
	if err != nil {
		return err
	}
	if !p.Enabled {
		return fault.New(fault.Conflict, "plugin %s is already disabled", p.Name)
	}
	if p, err = m.disable(ctx, p, force); err != nil {
		return err
	}
	m.emit("disable", p)
	return nil
}

func (m *Manager) disable(ctx context.Context, p *Plugin, force bool) (*Plugin, error) {
	if m.cfg.InUse != nil && !force && m.cfg.InUse(p.Name) > 0 {
		return p, fault.New(fault.Conflict, "plugin %s is in use", p.Name)
	}
	if m.runner == nil {
		return p, fault.New(fault.Unavailable, "the engine is starting")
	}
	next := *p
	next.Enabled, next.Container = false, ""
	if err := m.write(&next); err != nil {
		return p, err
	}
	grace := 10
	err := m.runner.Stop(ctx, p.Container, engine.StopOptions{Timeout: &grace})
	if err == nil || fault.Is(err, fault.NotFound) {
		err = m.runner.Remove(ctx, p.Container, engine.RemoveOptions{Force: true})
	}
	if err != nil && !fault.Is(err, fault.NotFound) {
		return &next, fault.In(err, "stop plugin %s", p.Name)
	}
	if p.Config.PropagatedMount != "" {
		if err := mount.UnmountBelow(m.propagated(p)); err != nil {
			m.log.Warn("what the plugin mounted is left", "plugin", p.Name, "err", err)
		}
	}
	return &next, nil
}
