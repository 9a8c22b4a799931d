package frontend

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/base/fault"
	"berth/base/id"
	"berth/build/exec"
	"berth/build/file"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/kernel/tree"
)

// container is a container of a frontend, as the client's interface has it.
type container struct {
	client *Client
	box    *exec.Container
	own    []*snapshot.Snapshot // shown by mounts and ours to release
	once   sync.Once
	err    error
}

var _ gwclient.Container = (*container)(nil)

// NewContainer prepares a container on results of solves, or on what a failed step left (by ResultID).
func (c *Client) NewContainer(ctx context.Context, req gwclient.NewContainerRequest) (gwclient.Container, error) {
	if c.host.Runner == nil {
		return nil, fault.New(fault.NotImplemented, "containers of frontends cannot be run here")
	}
	if !slices.ContainsFunc(req.Mounts, func(m gwclient.Mount) bool { return m.Dest == pb.RootMount }) {
		return nil, fault.New(fault.Invalid, "root mount is required")
	}
	if req.NetMode == pb.NetMode_HOST {
		if err := c.host.allowed("network.host"); err != nil {
			return nil, err
		}
	}
	k := &container{client: c}
	spec := exec.ContainerConfig{
		What: "container of a frontend", Network: req.NetMode, Hostname: req.Hostname, Hosts: req.ExtraHosts, Sessions: session.NewGroup(c.host.Session), Limits: c.host.Limits,
	}
	if p := platformFromPB(req.Platform); p != nil {
		spec.Platform = *p
	}
	for _, m := range req.Mounts {
		snap, err := k.shown(ctx, m)
		if err != nil {
			k.releaseOwn()
			return nil, err
		}
		spec.Mounts = append(spec.Mounts, exec.Mount{Snapshot: snap, Mount: &pb.Mount{
			Dest: m.Dest, Selector: m.Selector, Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		}})
	}
	box, err := c.host.Runner.Container(ctx, spec)
	if err != nil {
		k.releaseOwn()
		return nil, err
	}
	k.box = box
	if !c.adopt(k) {
		k.Release(ctx)
		return nil, fault.New(fault.Unavailable, "gateway client is closing")
	}
	return k, nil
}

// shown gives the snapshot that a mount shows, nil for none.
func (k *container) shown(ctx context.Context, m gwclient.Mount) (*snapshot.Snapshot, error) {
	if ref, _ := m.Ref.(*Reference); ref != nil {
		snap, err := ref.ref.Result(ctx)
		if err != nil {
			return nil, k.client.host.hold(ref.ref, err)
		}
		return snap, nil
	}
	if m.ResultID == "" {
		return nil, nil
	}
	snap, err := k.client.host.state(ctx, m.ResultID)
	if err != nil {
		return nil, fault.In(err, "failed to find ref %s for %q mount", m.ResultID, m.Dest)
	}
	if snap != nil {
		k.own = append(k.own, snap)
	}
	return snap, nil
}

// adopt remembers a container for the end of the call; false: the call has ended.
func (c *Client) adopt(k *container) bool {
	c.host.mu.Lock()
	closed := c.host.closed
	c.host.mu.Unlock()
	if closed {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.containers == nil {
		c.containers = map[*container]bool{}
	}
	c.containers[k] = true
	return true
}

// Start starts a process. It ends with ctx.
func (k *container) Start(ctx context.Context, req gwclient.StartRequest) (gwclient.ContainerProcess, error) {
	if req.SecurityMode == pb.SecurityMode_INSECURE {
		if err := k.client.host.allowed("security.insecure"); err != nil {
			return nil, err
		}
	}
	p := exec.Process{
		Args: req.Args, Env: req.Env, User: req.User, Cwd: req.Cwd, Tty: req.Tty, Security: req.SecurityMode, SecretEnv: req.SecretEnv,
		Stdin: req.Stdin, Stdout: req.Stdout, Stderr: req.Stderr,
	}
	running, err := k.box.Start(ctx, p)
	if err != nil {
		return nil, err
	}
	return process{running}, nil
}

// Release ends the container. A second call gives the outcome of the first.
func (k *container) Release(context.Context) error {
	k.once.Do(func() {
		k.client.mu.Lock()
		delete(k.client.containers, k)
		k.client.mu.Unlock()
		k.err = k.box.Release()
		k.releaseOwn()
	})
	return k.err
}

func (k *container) releaseOwn() {
	for _, s := range k.own {
		s.Release()
	}
	k.own = nil
}

// ReadFile reads a file of a mount, as the container's processes left it.
func (k *container) ReadFile(ctx context.Context, req gwclient.ReadContainerRequest) (data []byte, err error) {
	err = k.box.View(ctx, req.MountIndex, func(root *tree.Dir) error {
		data, err = readFile(root, req.Filename, req.Range)
		return err
	})
	return data, err
}

// StatFile describes a file of a mount.
func (k *container) StatFile(ctx context.Context, req gwclient.StatContainerRequest) (st *fstypes.Stat, err error) {
	err = k.box.View(ctx, req.MountIndex, func(root *tree.Dir) error {
		st, err = statFile(root, req.Path)
		return err
	})
	if err == nil {
		st.Uid, st.Gid = k.box.Owner(st.Uid, st.Gid)
	}
	return st, err
}

// ReadDir lists a directory of a mount.
func (k *container) ReadDir(ctx context.Context, req gwclient.ReadDirContainerRequest) (list []*fstypes.Stat, err error) {
	err = k.box.View(ctx, req.MountIndex, func(root *tree.Dir) error {
		list, err = readDir(root, req.Path, req.IncludePattern)
		return err
	})
	for _, st := range list {
		st.Uid, st.Gid = k.box.Owner(st.Uid, st.Gid)
	}
	return list, err
}

// process is a running process, as the client's interface has it.
type process struct{ running *exec.Running }

// Wait waits for the end.
func (p process) Wait() error { return p.running.Wait() }

// Resize sets the size of the terminal.
func (p process) Resize(_ context.Context, size gwclient.WinSize) error {
	return p.running.Resize(uint16(size.Rows), uint16(size.Cols))
}

// Signal sends a signal.
func (p process) Signal(_ context.Context, sig syscall.Signal) error {
	return p.running.Signal(int(sig))
}

// trees are the file trees that a failed step keeps. *exec.Failed and *file.Failed are, and the input that a step could not read.
type trees interface {
	Input(i int) *snapshot.Snapshot
	Mount(ctx context.Context, i int) (*snapshot.Snapshot, error)
}

// unread is the tree of an input that a step could not read what it wants of.
type unread struct{ *snapshot.Snapshot }

// Input gives the tree.
func (u unread) Input(int) *snapshot.Snapshot { return u.Share() }

// Mount gives none: the step has left nothing.
func (unread) Mount(context.Context, int) (*snapshot.Snapshot, error) { return nil, nil }

// held is a file tree of a failed step: what a mount of it showed, or what the step left there. Of a file operation, it is that of an
// input, or of an action. Of one that was not begun, since it could not be told what it would read, there are the inputs.
type held struct {
	failed trees
	mount  int
	before bool

	of     *solver.Ref // instead of failed
	vertex *graph.Vertex
}

// hold tells a failed evaluation as clients want to know it: with the operation that failed and, of a step that ran, ids of the
// file trees that it left, on which containers can be made.
func (h *Host) hold(ref *solver.Ref, err error) error {
	var told *errdefs.SolveError
	if errors.As(err, &told) {
		return err
	}
	var vertex *errdefs.VertexError
	var v *graph.Vertex
	if errors.As(err, &vertex) {
		if v = ref.Graph().Vertex(digest.Digest(vertex.Digest)); v != nil {
			err = errdefs.WithOp(err, v.Op, v.Description)
		}
	}
	var failed *exec.Failed
	var action *file.Failed
	var read *solver.ReadError
	switch {
	case errors.As(err, &failed):
		inputs, mounts := h.keepFailed(failed)
		return errdefs.WithSolveError(err, nil, inputs, mounts)
	case errors.As(err, &action):
		inputs, actions := h.keepAction(action)
		return errdefs.WithSolveError(err, &errdefs.Solve_File{File: &errdefs.FileAction{Index: int64(action.Action)}}, inputs, actions)
	case errors.As(err, &read):
		inputs := []string{h.keepInput(read.Tree)}
		if v != nil && v.Op.GetFile() != nil {
			inputs = append(inputs, h.keepInputs(ref, v)...) // for a shell in what it was to work on
		}
		return errdefs.WithSolveError(err, &errdefs.Solve_Cache{Cache: &errdefs.ContentCache{Index: int64(read.Input)}}, inputs, nil)
	case v != nil && v.Op.GetFile() != nil:
		return errdefs.WithSolveError(err, nil, h.keepInputs(ref, v), nil)
	}
	return errdefs.WithSolveError(err, nil, nil, nil)
}

// keepInput gives the tree of an input an id.
func (h *Host) keepInput(s *snapshot.Snapshot) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.keep(held{failed: unread{s}, before: true})
}

// keepFailed gives the trees of a failed step ids, by mount: what it was given, and what it left.
func (h *Host) keepFailed(failed *exec.Failed) (inputs, mounts []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	inputs, mounts = make([]string, len(failed.Op.Mounts)), make([]string, len(failed.Op.Mounts))
	for i, m := range failed.Op.Mounts {
		if m.MountType == pb.MountType_BIND || m.MountType == pb.MountType_CACHE {
			mounts[i] = h.keep(held{failed: failed, mount: i})
		}
		if m.Input >= 0 {
			inputs[i] = h.keep(held{failed: failed, mount: i, before: true})
		}
	}
	return inputs, mounts
}

// keepAction gives the trees of a failed file operation ids, by input and by action.
func (h *Host) keepAction(failed *file.Failed) (inputs, actions []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	in, acts := failed.Trees()
	for i := range in {
		inputs = append(inputs, h.keep(held{failed: failed, mount: i, before: true}))
	}
	for i := range acts {
		actions = append(actions, h.keep(held{failed: failed, mount: i}))
	}
	return inputs, actions
}

// keepInputs gives the inputs of a vertex that was not begun ids.
func (h *Host) keepInputs(ref *solver.Ref, v *graph.Vertex) (inputs []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range v.Inputs {
		inputs = append(inputs, h.keep(held{of: ref, vertex: v, mount: i}))
	}
	return inputs
}

// keep gives a tree an id, the same each time; none beyond those that a build may have. mu is held.
func (h *Host) keep(s held) string {
	if name, ok := h.names[s]; ok {
		return name
	}
	if len(h.held) >= maxHeld {
		return ""
	}
	if h.held == nil {
		h.held, h.names = map[string]held{}, map[held]string{}
	}
	name := id.New()
	h.held[name], h.names[s] = s, name
	return name
}

// state gives a tree of a failed step by its id; it is the caller's.
func (h *Host) state(ctx context.Context, name string) (*snapshot.Snapshot, error) {
	h.mu.Lock()
	s, ok := h.held[name]
	h.mu.Unlock()
	switch {
	case !ok:
		return nil, fault.New(fault.NotFound, "no such result: %s", name)
	case s.of != nil:
		given, err := s.of.Given(ctx, s.vertex, s.mount)
		if err != nil {
			return nil, err
		}
		return given.Share(), nil
	case s.before:
		return s.failed.Input(s.mount), nil
	}
	return s.failed.Mount(ctx, s.mount)
}

// allowed refuses what the build is not entitled to.
func (h *Host) allowed(entitlement string) error {
	if slices.Contains(h.Entitlements, entitlement) {
		return nil
	}
	return fault.New(fault.Forbidden, "%s is not allowed", entitlement)
}
