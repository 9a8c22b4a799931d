package server

import (
	"context"
	"path/filepath"
	"strings"

	networktypes "github.com/moby/moby/api/types/network"

	"berth/base/fault"
	"berth/engine/container"
)

// sight is what the gate tells a policy of the things that a request names.
type sight struct {
	g   *gate
	ctx context.Context // of the one request that this value lives for
}

// Container implements access.Sight.
func (w sight) Container(ref string) (string, []container.MountPoint, bool) {
	info, ok := w.g.container(w.ctx, ref)
	if !ok {
		return "", nil, false
	}
	return info.ID, info.Mounts, true
}

// Volume implements access.Sight.
func (w sight) Volume(name string) (exists, inScope bool) {
	if w.g.plain.cfg.Volumes == nil {
		return false, false
	}
	v, err := w.g.plain.cfg.Volumes.Get(w.ctx, name)
	if fault.Is(err, fault.NotFound) {
		return false, false
	}
	return true, err == nil && w.g.seesVolume(w.ctx, &v)
}

// Network implements access.Sight.
func (w sight) Network(ref string) (id, driver string, ok bool) {
	if w.g.plain.cfg.Networks == nil {
		return "", "", ref == networktypes.NetworkBridge
	}
	n, ok := w.g.network(ref)
	if w.g.policy.Scoped() && !predefined(n.Name) {
		id = n.ID
	}
	return id, n.Driver, ok
}

// HoldsEngine implements access.Sight. Links are followed: what is mounted is what they lead to.
func (w sight) HoldsEngine(path string) bool {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		real = filepath.Clean(path)
	}
	var own []string
	for _, h := range w.g.plain.about().Hosts {
		if socket, ok := strings.CutPrefix(h, "unix://"); ok {
			own = append(own, socket)
		}
	}
	own = append(own, "/run/docker.sock", "/run/berth", "/run/containerd", "/var/lib/berth", "/var/lib/docker", "/etc/berth", "/etc/docker")
	if w.g.plain.cfg.System != nil {
		f := w.g.plain.cfg.System.Info(w.ctx)
		own = append(own, f.DataRoot, f.ExecRoot)
	}
	for _, o := range own {
		if o == "" {
			continue
		}
		if r, err := filepath.EvalSymlinks(o); err == nil {
			o = r
		}
		if within(real, o) || within(o, real) {
			return true
		}
	}
	return false
}

// within tells whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || dir == "/" || strings.HasPrefix(path, dir+"/")
}

// DefaultRuntime implements access.Sight.
func (w sight) DefaultRuntime() string {
	if w.g.plain.cfg.System == nil {
		return w.g.plain.cfg.Defaults.Runtime
	}
	return w.g.plain.cfg.System.Info(w.ctx).DefaultRuntime
}
