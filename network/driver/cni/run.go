package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"berth/base/atomicfile"
	"berth/base/fault"
	"berth/network/driver"
)

const (
	maxAnswer = 1 << 20  // bytes of a plugin's output
	maxNoise  = 64 << 10 // of its standard error
)

// A run is one command over a list of plugins, within its time.
type run struct {
	cni   *libcni.CNIConfig
	ctx   context.Context // of the command: a run lives no longer
	limit time.Duration
}

func (d *Driver) runner(ctx context.Context, n driver.Network) (*run, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, d.cfg.Timeout)
	return &run{cni: d.cni(n, &programs{}), ctx: ctx, limit: d.cfg.Timeout}, cancel
}

func (d *Driver) cni(n driver.Network, e invoke.Exec) *libcni.CNIConfig {
	return libcni.NewCNIConfigWithCacheDir(d.path(n), d.cfg.Dir, e)
}

// failed gives an error its kind: the one that the plugin's code stands for, or that of the limit, else the given one.
func (r *run) failed(err error, kind fault.Kind, format string, args ...any) error {
	var told *types.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(r.ctx.Err(), context.DeadlineExceeded):
		return fault.Wrap(fault.Deadline, err, format+": not done within %v", append(args, r.limit)...)
	case r.ctx.Err() != nil:
		return fault.Wrap(fault.Cancelled, err, format, args...)
	case errors.As(err, &told):
		switch told.Code {
		case types.ErrTryAgainLater, types.ErrPluginNotAvailable, types.ErrLimitedConnectivity:
			kind = fault.Unavailable
		case types.ErrInvalidNetworkConfig, types.ErrUnsupportedField, types.ErrIncompatibleCNIVersion:
			kind = fault.Invalid
		}
	}
	return fault.Wrap(kind, err, format, args...)
}

// known says which plugin of the list is not there, or does not speak the list's version.
func (r *run) known(list *libcni.NetworkConfigList) error {
	for _, p := range list.Plugins {
		info, err := r.cni.GetVersionInfo(r.ctx, p.Network.Type)
		if err != nil {
			return err
		}
		if !slices.Contains(info.SupportedVersions(), list.CNIVersion) {
			return fmt.Errorf("the CNI plugin %s does not support version %s, but %s", p.Network.Type, list.CNIVersion, strings.Join(info.SupportedVersions(), ", "))
		}
	}
	return nil
}

// again runs one plugin of a list with other port mappings: DEL with the old ones, ADD with the new.
func (r *run) again(p *libcni.PluginConfig, rt *libcni.RuntimeConf, mapping []portMapping) error {
	path, err := (&programs{}).FindInPath(p.Network.Type, r.cni.Path)
	if err != nil {
		return err
	}
	call := func(command string, mapping any) error {
		conf, err := libcni.InjectConf(p, map[string]any{"runtimeConfig": map[string]any{capPorts: mapping}})
		if err != nil {
			return err
		}
		args := &invoke.Args{Command: command, ContainerID: rt.ContainerID, NetNS: rt.NetNS, PluginArgs: rt.Args, IfName: rt.IfName,
			Path: strings.Join(r.cni.Path, string(os.PathListSeparator))}
		return invoke.ExecPluginWithoutResult(r.ctx, path, conf.Bytes, args, &programs{})
	}
	if old := rt.CapabilityArgs[capPorts]; old != nil {
		if err := call("DEL", old); err != nil {
			return err
		}
	}
	if len(mapping) == 0 {
		return nil
	}
	return call("ADD", mapping)
}

// same tells whether port mappings, as libcni remembers them, are these.
func same(remembered any, mapping []portMapping) bool {
	if remembered == nil {
		return len(mapping) == 0
	}
	text, err := json.Marshal(remembered)
	if err != nil {
		return false
	}
	var old []portMapping
	return json.Unmarshal(text, &old) == nil && slices.Equal(old, mapping)
}

// remember changes the port mappings in libcni's record of an attachment, so that DEL is called with them.
func (d *Driver) remember(list string, rt *libcni.RuntimeConf, mapping []portMapping) error {
	// DIR/results/NETWORK-CONTAINER-INTERFACE, JSON (libcni, cachedInfo)
	path := filepath.Join(d.cfg.Dir, "results", list+"-"+rt.ContainerID+"-"+rt.IfName)
	text, err := os.ReadFile(path)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "cni")
	}
	var record map[string]json.RawMessage
	if err := json.Unmarshal(text, &record); err != nil {
		return fault.Wrap(fault.Internal, err, "%s", path)
	}
	caps := map[string]any{}
	for k, v := range rt.CapabilityArgs {
		caps[k] = v
	}
	caps[capPorts] = mapping
	if record["capabilityArgs"], err = json.Marshal(caps); err != nil {
		return err
	}
	if text, err = json.Marshal(record); err != nil {
		return err
	}
	return fault.Wrap(fault.Internal, atomicfile.Write(path, text, 0o600), "cni")
}

// programs runs plugins: libcni's own way has no limit but the context's, does not reach what a plugin has started, and reads
// without end.
type programs struct{ version.PluginDecoder }

var _ invoke.Exec = (*programs)(nil)

// FindInPath gives the file of a plugin.
func (*programs) FindInPath(plugin string, paths []string) (string, error) {
	path, err := invoke.FindInPath(plugin, paths)
	return path, fault.Wrap(fault.Invalid, err, "CNI plugin")
}

// ExecPlugin runs a plugin and gives its output.
func (*programs) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, noise bounded
	out.left, noise.left = maxAnswer, maxNoise
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &out, &noise
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with the programs that it has started
	cmd.WaitDelay = 250 * time.Millisecond                                               // for who holds its output open all the same
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has answered; a child of its, in the background, has not closed its output
	}
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s was killed: %w", filepath.Base(path), ctx.Err())
	case out.left < 0:
		return nil, fmt.Errorf("%s answered more than %d bytes", filepath.Base(path), maxAnswer)
	case err == nil:
		return out.kept.Bytes(), nil
	}
	var told types.Error
	if json.Unmarshal(out.kept.Bytes(), &told) == nil && told.Msg != "" {
		return nil, &told
	}
	return nil, fmt.Errorf("%s: %w: %s", filepath.Base(path), err, strings.TrimSpace(noise.kept.String()+" "+out.kept.String()))
}

// bounded keeps what is written to it up to a limit and swallows the rest; left is negative then.
type bounded struct {
	kept bytes.Buffer // not embedded: its ReadFrom would read without a limit
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	keep := p
	if len(p) > b.left {
		keep = p[:max(b.left, 0)]
	}
	b.left -= len(p)
	b.kept.Write(keep)
	return len(p), nil
}
