package cni

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/network/driver"
)

// Options of a network and of an endpoint.
const (
	OptConf = "conf"
	OptPath = "path"
	OptArgs = "cni.args"
)

const keepIfname = "ifname"

// Config is what a Driver needs. Directories are made.
type Config struct {
	Dir     string        // copies of networks' configurations, libcni's cache of attachments; durable
	RunDir  string        // one empty file for each network that was tidied up since the boot
	Path    []string      // where plugins are; nil: /opt/cni/bin, /usr/lib/cni, /usr/libexec/cni
	ConfDir string        // where configurations are found by name; "": /etc/cni/net.d
	Timeout time.Duration // of one command of a whole list; 0: 2 minutes
	Log     *slog.Logger  // nil: nothing is logged
}

// Driver is the driver "cni". It is safe for concurrent use as far as the plugins are.
type Driver struct {
	cfg Config

	mu     sync.Mutex
	tidied map[string]chan struct{} // by network's id; closed when tidy is done
}

var (
	_ driver.Driver    = (*Driver)(nil)
	_ driver.Publisher = (*Driver)(nil)
)

// New makes the driver. Plugins are run in the namespace of this process.
func New(cfg Config) (*Driver, error) {
	if cfg.Path == nil {
		cfg.Path = []string{"/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"}
	}
	if cfg.ConfDir == "" {
		cfg.ConfDir = "/etc/cni/net.d"
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Minute
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, dir := range []string{cfg.Dir, cfg.RunDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fault.Wrap(fault.Internal, err, "cni")
		}
	}
	return &Driver{cfg: cfg, tidied: map[string]chan struct{}{}}, nil
}

// Traits: plugins do everything, names excepted.
func (d *Driver) Traits() driver.Traits { return driver.Traits{Ports: true, Names: true} }

// Check looks at a configuration that is given as JSON; one in a file is looked at by Create.
func (d *Driver) Check(n driver.Network, _ []driver.Network) error {
	if n.Internal {
		return fault.New(fault.Invalid, "network %s: a CNI network is as internal as its plugins make it", n.Name)
	}
	if text := strings.TrimSpace(n.Options[OptConf]); strings.HasPrefix(text, "{") {
		_, err := parse([]byte(text))
		return err
	}
	return nil
}

// Create makes a copy of the configuration and asks the plugins whether they can serve it.
func (d *Driver) Create(ctx context.Context, n driver.Network) error {
	if _, err := os.Stat(d.copyOf(n)); err == nil {
		return nil
	}
	text, err := d.read(n)
	if err != nil {
		return err
	}
	list, err := parse(text)
	if err != nil {
		return err
	}
	run, end := d.runner(ctx, n)
	defer end()
	if err := run.known(list); err != nil {
		return run.failed(err, fault.Invalid, "network %s", n.Name)
	}
	if err := run.cni.GetStatusNetworkList(run.ctx, list); err != nil {
		return run.failed(err, fault.Unavailable, "network %s: its plugins are not ready", n.Name)
	}
	if err := atomicfile.Write(d.copyOf(n), text, 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "network %s", n.Name)
	}
	return d.markTidy(n)
}

// Delete lets the plugins clean up and forgets the configuration.
func (d *Driver) Delete(ctx context.Context, n driver.Network) error {
	if err := d.GC(ctx, n, nil); err != nil {
		d.cfg.Log.Warn("a CNI network left something behind", "network", n.Name, "err", err)
	}
	os.Remove(d.tidyMark(n))
	return fault.Wrap(fault.Internal, atomicfile.Remove(d.copyOf(n)), "network %s", n.Name)
}

// Join is ADD.
func (d *Driver) Join(ctx context.Context, n driver.Network, r driver.Request) (driver.Attachment, error) {
	list, err := d.list(n)
	if err != nil {
		return driver.Attachment{}, err
	}
	rt, err := runtimeConf(list, r)
	if err != nil {
		return driver.Attachment{}, fault.In(err, "network %s", n.Name)
	}
	if err := d.tidy(ctx, n); err != nil {
		return driver.Attachment{}, err
	}
	run, end := d.runner(ctx, n)
	defer end()
	result, err := run.cni.AddNetworkList(run.ctx, list, rt)
	if err == nil {
		var a driver.Attachment
		if a, err = attachment(result, r); err == nil {
			err = yield(r)
		}
		if err == nil {
			a.Keep = map[string]string{keepIfname: r.Interface}
			return a, nil
		}
	}
	err = run.failed(err, fault.Internal, "network %s", n.Name)
	if undone := d.del(context.WithoutCancel(ctx), n, list, rt); undone != nil {
		d.cfg.Log.Warn("CNI plugins did not take back what failed", "network", n.Name, "sandbox", r.SandboxID, "err", undone)
	}
	return driver.Attachment{}, err
}

// Leave is DEL, as ADD was.
func (d *Driver) Leave(ctx context.Context, n driver.Network, l driver.Left) error {
	list, err := d.list(n)
	if err != nil {
		return err
	}
	list, rt := d.asAdded(n, list, named(l))
	if rt.NetNS = l.Key; l.NS == nil {
		rt.NetNS = "" // gone: plugins clean up what is outside of it
	}
	if rt.IfName == "" {
		return nil // it never came to an ADD
	}
	return d.del(ctx, n, list, rt)
}

func (d *Driver) del(ctx context.Context, n driver.Network, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) error {
	run, end := d.runner(ctx, n)
	defer end()
	return run.failed(run.cni.DelNetworkList(run.ctx, list, rt), fault.Internal, "network %s", n.Name)
}

// named gives the names of an attachment. The interface that was asked for is one even where no plugin made a link of it.
func named(l driver.Left) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{ContainerID: l.SandboxID, IfName: l.Interface}
	if asked := l.Keep[keepIfname]; asked != "" {
		rt.IfName = asked
	}
	return rt
}

// asAdded gives the configuration and arguments that an attachment was made with, as far as they are known.
func (d *Driver) asAdded(n driver.Network, list *libcni.NetworkConfigList, rt *libcni.RuntimeConf) (*libcni.NetworkConfigList, *libcni.RuntimeConf) {
	text, added, err := d.cni(n, &programs{}).GetNetworkListCachedConfig(list, rt)
	if err != nil || added == nil {
		return list, rt
	}
	if old, err := parse(text); err == nil {
		list = old
	}
	return list, added
}

// Publish changes which ports of an endpoint are published: the plugins of the list that map ports, and they alone, are run again.
func (d *Driver) Publish(ctx context.Context, n driver.Network, l driver.Left, ports []driver.Port) error {
	list, err := d.list(n)
	if err != nil {
		return err
	}
	list, rt := d.asAdded(n, list, named(l))
	mapping := mappings(ports)
	if len(ports) > 0 && !takes(list, capPorts) {
		return fault.New(fault.Invalid, "network %s: no plugin of its CNI configuration has the capability %q, which publishing ports needs", n.Name, capPorts)
	}
	if same(rt.CapabilityArgs[capPorts], mapping) {
		return nil // as ADD made it
	}
	run, end := d.runner(ctx, n)
	defer end()
	result, err := run.cni.GetNetworkListCachedResult(list, rt)
	if err != nil || result == nil {
		return run.failed(errors.Join(err, errors.New("what ADD made of it is not known")), fault.NotFound, "network %s", n.Name)
	}
	rt.NetNS = l.Key
	for _, p := range list.Plugins {
		if !p.Network.Capabilities[capPorts] {
			continue
		}
		one, err := libcni.InjectConf(p, map[string]any{"name": list.Name, "cniVersion": list.CNIVersion, "prevResult": result})
		if err != nil {
			return run.failed(err, fault.Internal, "network %s", n.Name)
		}
		if err := run.again(one, rt, mapping); err != nil {
			return run.failed(err, fault.Internal, "network %s", n.Name)
		}
	}
	return d.remember(list.Name, rt, mapping)
}

// GC removes attachments that are not among the valid ones: those that an engine which died has left.
func (d *Driver) GC(ctx context.Context, n driver.Network, valid []driver.Left) error {
	list, err := d.list(n)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}} // plugins want a list, never null
	for _, l := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: named(l).ContainerID, IfName: named(l).IfName})
	}
	run, end := d.runner(ctx, n)
	defer end()
	return run.failed(run.cni.GCNetworkList(run.ctx, list, args), fault.Internal, "network %s", n.Name)
}

// tidy takes away, before the first ADD of a network since the boot, what containers had that the reboot has ended: IPAM plugins
// keep addresses on disk, and nobody else would give those back.
func (d *Driver) tidy(ctx context.Context, n driver.Network) error {
	if _, err := os.Stat(d.tidyMark(n)); err == nil {
		return nil
	}
	d.mu.Lock()
	done, under := d.tidied[n.ID]
	if !under {
		done = make(chan struct{})
		d.tidied[n.ID] = done
	}
	d.mu.Unlock()
	if under {
		select {
		case <-done:
			return nil
		case <-ctx.Done():
			return fault.In(ctx.Err(), "network %s", n.Name)
		}
	}
	defer close(done)
	if err := d.GC(context.WithoutCancel(ctx), n, nil); err != nil {
		d.cfg.Log.Warn("what a reboot left of a CNI network is not all taken away", "network", n.Name, "err", err)
	}
	return d.markTidy(n)
}

func (d *Driver) tidyMark(n driver.Network) string { return filepath.Join(d.cfg.RunDir, n.ID) }

func (d *Driver) markTidy(n driver.Network) error {
	return fault.Wrap(fault.Internal, os.WriteFile(d.tidyMark(n), nil, 0o600), "network %s", n.Name)
}

// Verify is CHECK: it says what is not as ADD left it. Configurations below 0.4.0 cannot be checked: NotImplemented.
func (d *Driver) Verify(ctx context.Context, n driver.Network, l driver.Left) error {
	list, err := d.list(n)
	if err != nil {
		return err
	}
	list, rt := d.asAdded(n, list, named(l))
	rt.NetNS = l.Key
	run, end := d.runner(ctx, n)
	defer end()
	err = run.cni.CheckNetworkList(run.ctx, list, rt)
	if errors.Is(err, libcni.ErrorCheckNotSupp) {
		return fault.Wrap(fault.NotImplemented, err, "network %s", n.Name)
	}
	return run.failed(err, fault.Conflict, "network %s", n.Name)
}

// Status is STATUS: whether the plugins could ADD now. Configurations below 1.1.0 are always ready.
func (d *Driver) Status(ctx context.Context, n driver.Network) error {
	list, err := d.list(n)
	if err != nil {
		return err
	}
	run, end := d.runner(ctx, n)
	defer end()
	return run.failed(run.cni.GetStatusNetworkList(run.ctx, list), fault.Unavailable, "network %s", n.Name)
}

// copyOf is the file with a network's configuration.
func (d *Driver) copyOf(n driver.Network) string { return filepath.Join(d.cfg.Dir, n.ID+".conflist") }

// list gives the configuration that a network was created with.
func (d *Driver) list(n driver.Network) (*libcni.NetworkConfigList, error) {
	text, err := os.ReadFile(d.copyOf(n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "network %s has no CNI configuration", n.Name)
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "network %s", n.Name)
	}
	return parse(text)
}

// path is where a network's plugins are.
func (d *Driver) path(n driver.Network) []string {
	dirs := filepath.SplitList(n.Options[OptPath])
	return append(slices.DeleteFunc(dirs, func(s string) bool { return !filepath.IsAbs(s) }), d.cfg.Path...)
}
