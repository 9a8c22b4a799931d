package oracle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containerd/containerd/v2/core/mount"
	containerdoci "github.com/containerd/containerd/v2/pkg/oci"
	"github.com/containerd/continuity/fs"
	"github.com/moby/buildkit/executor"
	"github.com/moby/buildkit/executor/oci"
	resources "github.com/moby/buildkit/executor/resources/types"
	gatewayapi "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/moby/sys/user"
)

// runner is BuildKit's executor here: what BuildKit would have runc do, done by one call of an OCI runtime's command line.
type runner struct{ root string }

// ociRuntime gives the runtime of the machine, "" where there is none.
func ociRuntime() string {
	for _, name := range []string{"runc", "crun"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// Run runs a step to its end.
func (r *runner) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, p executor.ProcessInfo, started chan<- struct{}) (resources.Recorder, error) {
	if started != nil {
		defer close(started)
	}
	if id == "" {
		id = identity.NewID()
	}
	bundle := filepath.Join(r.root, id)
	rootfs := filepath.Join(bundle, "rootfs")
	if err := os.MkdirAll(rootfs, 0o711); err != nil {
		return nil, err
	}
	defer os.RemoveAll(bundle)
	src, err := root.Src.Mount(ctx, false)
	if err != nil {
		return nil, err
	}
	list, release, err := src.Mount()
	if err != nil {
		return nil, err
	}
	if release != nil {
		defer release()
	}
	if err := mount.All(list, rootfs); err != nil {
		return nil, err
	}
	defer mount.Unmount(rootfs, 0)
	defer executor.MountStubsCleaner(context.WithoutCancel(ctx), rootfs, mounts, p.Meta.RemoveMountStubsRecursive)()
	done, err := r.bundle(ctx, id, bundle, root.Readonly, mounts, p.Meta)
	if err != nil {
		return nil, err
	}
	defer done()
	cmd := exec.CommandContext(ctx, ociRuntime(), "--root", filepath.Join(r.root, "state"), "run", "--bundle", bundle, id)
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	if p.Stdin != nil {
		cmd.Stdin = p.Stdin
	}
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || slices.Contains(p.Meta.ValidExitCodes, exit.ExitCode()) {
		if exit == nil {
			return nil, err
		}
		return nil, nil
	}
	return nil, &gatewayapi.ExitError{ExitCode: uint32(exit.ExitCode())}
}

// bundle writes what the runtime is to do.
func (r *runner) bundle(ctx context.Context, id, bundle string, readonly bool, mounts []executor.Mount, meta executor.Meta) (func(), error) {
	rootfs := filepath.Join(bundle, "rootfs")
	uid, gid, groups, err := oci.GetUser(rootfs, meta.User)
	if err != nil {
		return nil, err
	}
	for name, text := range map[string]string{"resolv.conf": "nameserver 127.0.0.1\n", "hosts": "127.0.0.1 localhost buildkitsandbox\n"} {
		if err := os.WriteFile(filepath.Join(bundle, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	provider := network.NewHostProvider()
	if meta.NetMode == pb.NetMode_NONE {
		provider = network.NewNoneProvider()
	}
	ns, err := provider.New(ctx, "", network.NamespaceOptions{})
	if err != nil {
		return nil, err
	}
	spec, clean, err := oci.GenerateSpec(ctx, meta, mounts, id, filepath.Join(bundle, "resolv.conf"), filepath.Join(bundle, "hosts"), ns,
		cgroupParent(), oci.ProcessSandbox, nil, "", false, "", nil, oci.WithUIDGID(uid, gid, groups))
	if err != nil {
		return nil, err
	}
	if meta.ReadonlyRootFS {
		err = containerdoci.WithRootFSReadonly()(ctx, nil, nil, spec)
	}
	spec.Root.Path = rootfs
	spec.Root.Readonly = spec.Root.Readonly || readonly
	spec.Linux.CgroupsPath = cgroupParent() + "/" + id
	cwd, perr := fs.RootPath(rootfs, meta.Cwd)
	if err = errors.Join(err, perr); err == nil {
		if _, serr := os.Stat(cwd); serr != nil {
			err = user.MkdirAllAndChown(cwd, 0o755, int(uid), int(gid))
		}
	}
	if err == nil {
		var b []byte
		if b, err = json.Marshal(spec); err == nil {
			err = os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600)
		}
	}
	if err != nil {
		clean()
	}
	return clean, err
}

// cgroupParent is the cgroup of all steps of this process, Berth's and BuildKit's.
func cgroupParent() string { return fmt.Sprintf("/berth-test-%d", os.Getpid()) }

// removeCgroups removes the steps' cgroup at the test's end.
func removeCgroups(t testing.TB) {
	t.Cleanup(func() {
		for _, pattern := range []string{"/sys/fs/cgroup%s", "/sys/fs/cgroup/*%s"} {
			list, _ := filepath.Glob(fmt.Sprintf(pattern, cgroupParent()))
			for _, dir := range list {
				below, _ := filepath.Glob(dir + "/*/")
				for _, d := range append(below, dir) {
					os.Remove(d) // one that is not empty, or no directory, stays
				}
			}
		}
	})
}

// Exec is for containers that a client opens; no case does.
func (r *runner) Exec(context.Context, string, executor.ProcessInfo) error {
	return errors.New("the oracle runs steps only")
}
