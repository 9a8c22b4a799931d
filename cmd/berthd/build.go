package main

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"berth/api/buildkit"
	"berth/base/fault"
	"berth/base/id"
	"berth/build"
	"berth/build/cache"
	"berth/build/exec"
	"berth/engine"
	"berth/engine/cdi"
	"berth/engine/container"
	"berth/image/layer"
	"berth/kernel/idmap"
	"berth/kernel/probe"
	"berth/network"
)

// retainBuilds holds the layers of the cache of builds while the image store opens: the builder itself opens with the first build.
func (r *rooms) retainBuilds(cfg config) func(*layer.Store) error {
	r.unretain = func() {}
	return func(l *layer.Store) (err error) {
		r.unretain, err = cache.Retain(filepath.Join(cfg.DataRoot, "build"), l)
		return err
	}
}

// openBuild opens the builder, which opens its own parts with the first build.
func (r *rooms) openBuild(cfg config, ec engine.Config) (err error) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fault.Wrap(fault.Internal, err, "asking for the limit of open files")
	}
	r.builder, err = build.Open(build.Config{
		DataRoot: cfg.DataRoot, ExecRoot: cfg.ExecRoot, CgroupParent: ec.CgroupParent,
		Images: r.images, Transfer: r.transfer, Networks: stepNetworks{r.networks, r.engine}, UserNS: stepUsers{r.engine}, Devices: stepDevices{cdi.New(ec.CDIDirs)},
		Security: stepSecurity{r.engine}, SeccompProfile: ec.SeccompProfile,
		Remote: r.remote, InUserNS: cfg.Rootless, CgroupNS: cfg.DefaultCgroupNS, NofileHard: files.Max, Retained: func() { r.unretain() },
		Entitlements: cfg.Build.Entitlements, Policy: cfg.Build.Policy, NoGC: cfg.Build.NoGC, MaxRecords: cfg.Build.MaxRecords, MaxAge: cfg.Build.MaxAge, ProvenanceFacts: cfg.Build.Facts, Parallel: cfg.Build.Parallel,
		Labels: hostGateway(r.networks), Version: version, Facts: probe.Host(), Log: r.log,
	})
	if err != nil {
		return err
	}
	r.buildWire = buildkit.New(buildkit.Config{Builder: r.builder, Log: r.log})
	return r.serveBuildKit(filepath.Join(cfg.ExecRoot, buildSocket))
}

// buildSocket is the socket below the exec root at which BuildKit's own clients (buildctl, buildx's remote driver) find the builder.
const buildSocket = "buildkit.sock"

// serveBuildKit lets root in there, without the rest of the API.
func (r *rooms) serveBuildKit(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.Internal, err, "serving BuildKit's protocol")
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		return fault.Wrap(fault.Internal, err, "serving BuildKit's protocol")
	}
	go func() { // ends with the door
		if err := r.buildWire.Serve(l); err != nil {
			r.log.Debug("BuildKit's socket is closed", "error", err)
		}
	}()
	return nil
}

// hostGateway tells clients what --add-host NAME:host-gateway means in a build, by the label at which they look for it.
func hostGateway(n *network.Networks) map[string]string {
	bridge, err := n.Get("bridge")
	if err != nil {
		return nil // there is no default network
	}
	for _, p := range bridge.IPAM.Pools {
		if p.Gateway.Is4() {
			return map[string]string{"org.mobyproject.buildkit.worker.moby.host-gateway-ip": p.Gateway.String()}
		}
	}
	return nil
}

// stepNetworks joins the steps of builds to the engine's networks.
type stepNetworks struct {
	networks *network.Networks
	engine   *engine.Engine
}

// Join gives a step a place on the network that its build names, or on the default one, where it does not want the engine's network or none.
func (n stepNetworks) Join(ctx context.Context, step string, mode exec.Mode, on string, ids *idmap.Pair) (exec.Attached, error) {
	if mode != exec.Bridge {
		return exec.Attached{Leave: func() {}}, nil
	}
	if name, ok := strings.CutPrefix(on, "container:"); ok {
		return n.share(ctx, name, ids)
	}
	bridge := cmp.Or(on, "bridge")
	cid := id.New() // what the room takes for a container: its next engine takes away what this one left
	s, err := n.networks.Join(ctx, network.Want{ContainerID: cid, Name: "build-" + step, Hostname: "buildkitsandbox", Mode: bridge, Endpoints: []network.EndpointSpec{{Network: bridge}}, IDMap: ids})
	if err != nil {
		return exec.Attached{}, fault.In(err, "giving a step a network")
	}
	return exec.Attached{NetNS: s.Key, Resolv: n.engine.ResolvConf(s), Leave: func() {
		// The step is over: what a client waits for no longer must not keep its address.
		_ = n.networks.Leave(context.WithoutCancel(ctx), cid)
	}}, nil
}

// share gives a step the network of a container. Its own may end before the step does, which then has none.
func (n stepNetworks) share(ctx context.Context, name string, ids *idmap.Pair) (exec.Attached, error) {
	if ids != nil {
		return exec.Attached{}, fault.New(fault.NotImplemented, "a step in a user namespace of its own cannot use the network of container %s", name)
	}
	c, err := n.engine.Inspect(ctx, name)
	if err != nil {
		return exec.Attached{}, err
	}
	s, ok := n.networks.Sandbox(c.ID)
	switch {
	case !c.State.Running:
		return exec.Attached{}, fault.New(fault.Conflict, "cannot join network of a non running container: %s", c.ID)
	case !ok:
		return exec.Attached{}, fault.New(fault.NotImplemented, "container %s has no network of its own that a step could join", name)
	}
	return exec.Attached{NetNS: s.Key, Resolv: n.engine.ResolvConf(s), Leave: func() {}}, nil
}

// stepUsers gives steps a user namespace as containers have one that say nothing about it.
type stepUsers struct{ *engine.Engine }

// Take gives a step's mapping.
func (u stepUsers) Take(id string) (*idmap.Pair, func(), error) { return u.StepIDs(id) }

// stepDevices gives steps the devices that containers can have.
type stepDevices struct{ *cdi.Devices }

// List gives all devices.
func (d stepDevices) List() (list []exec.Device) {
	for _, one := range d.Described() {
		list = append(list, exec.Device{Name: one.Name, Annotations: one.Annotations})
	}
	return list
}

// Inject edits a step's specification for devices by their names.
func (d stepDevices) Inject(s *specs.Spec, names []string) error {
	return d.Devices.Inject(s, []container.DeviceRequest{{Driver: "cdi", DeviceIDs: names}})
}

// stepSecurity confines steps as containers are that ask for nothing.
type stepSecurity struct{ *engine.Engine }

// Confine decides the profile and the labels of a step.
func (s stepSecurity) Confine(ctx context.Context, shared bool) (exec.Confined, error) {
	c, err := s.ConfineStep(ctx, shared)
	return exec.Confined{AppArmor: c.AppArmor, ProcessLabel: c.ProcessLabel, MountLabel: c.MountLabel, Free: c.Free}, err
}
