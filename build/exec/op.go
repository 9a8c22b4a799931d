package exec

import (
	"context"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/solver/pb"
	digest "github.com/opencontainers/go-digest"

	"berth/base/fault"
	"berth/base/id"
	"berth/build/content"
	"berth/build/graph"
	"berth/build/snapshot"
	"berth/build/solver"
)

// step is a pb.ExecOp as the solver knows it.
type step struct {
	r  *Runner
	v  *graph.Vertex
	op *pb.ExecOp
}

// Op gives the operation of a vertex that is an exec.
func (r *Runner) Op(v *graph.Vertex) (solver.Op, error) {
	op := v.Op.GetExec()
	switch {
	case op == nil:
		return nil, fault.New(fault.Invalid, "%s is no exec operation", v.Digest)
	case op.Meta == nil || len(op.Meta.Args) == 0:
		return nil, fault.New(fault.Invalid, "invalid exec operation without a command")
	case !slices.ContainsFunc(op.Mounts, func(m *pb.Mount) bool { return m.Dest == pb.RootMount }):
		return nil, fault.New(fault.Invalid, "invalid exec operation without a root mount")
	case hasNUL(op):
		// System calls end their strings there: it would mean something else than it says.
		return nil, fault.New(fault.Invalid, "invalid exec operation: a string with a NUL byte")
	}
	return &step{r: r, v: v, op: op}, nil
}

// hasNUL looks at all strings that become arguments of system calls.
func hasNUL(op *pb.ExecOp) bool {
	all := slices.Concat(op.Meta.Args, op.Meta.Env, []string{op.Meta.Cwd, op.Meta.User, op.Meta.Hostname, op.Meta.CgroupParent})
	for _, m := range op.Mounts {
		all = append(all, m.Dest, m.Selector)
	}
	for _, e := range op.Secretenv {
		all = append(all, e.Name)
	}
	return slices.ContainsFunc(all, func(s string) bool { return strings.ContainsRune(s, 0) })
}

// keyVersion changes when what a step gives changes with the engine.
const keyVersion = "berth.exec.v1"

// Key leaves out what is to make no difference: the addresses of extra hosts, proxies, and how a cache mount is shared. The id of a cache
// counts only where it is the mount's own path, as the Dockerfile has it by default; BuildKit's rule.
func (s *step) Key() digest.Digest {
	op := s.op.CloneVT()
	for _, h := range op.Meta.ExtraHosts {
		h.IP = ""
	}
	op.Meta.ProxyEnv = nil
	for _, m := range op.Mounts {
		if o := m.CacheOpt; o != nil && !defaultCache(m) {
			o.ID, o.Sharing = "", 0
		}
	}
	text, err := op.MarshalVT()
	if err != nil {
		// What was decoded can be encoded. A key that nothing else has runs the step.
		text = []byte(s.v.Digest)
	}
	p := s.v.Platform
	d := digest.SHA256.Digester()
	for _, part := range append([]string{keyVersion, p.OS, p.Architecture, p.Variant, p.OSVersion}, p.OSFeatures...) {
		d.Hash().Write([]byte(part + "\x00"))
	}
	d.Hash().Write(text)
	return d.Digest()
}

// defaultCache tells a cache mount whose id is its path, perhaps below a namespace.
func defaultCache(m *pb.Mount) bool {
	if m.CacheOpt.Sharing != pb.CacheSharingOpt_SHARED {
		return false
	}
	_, rest, _ := strings.Cut(m.CacheOpt.ID, "/")
	return m.CacheOpt.ID == m.Dest || rest == m.Dest
}

// Reads tells which paths of an input the step mounts. An input that an output is made of counts as a whole where only a part is mounted:
// what is beside that part is in the output, too. So does the root, of which everything may be read.
func (s *step) Reads(input int) []content.Selector {
	var sels []content.Selector
	for _, m := range s.op.Mounts {
		if m.MountType == pb.MountType_SECRET || m.MountType == pb.MountType_SSH || m.MountType == pb.MountType_TMPFS || m.Input != int64(input) {
			continue
		}
		sel := path.Join("/", m.Selector)
		safe := m.Output == int64(pb.SkipOutput) || m.Readonly || sel == "/"
		if !safe || m.ContentCache == pb.MountContentCache_OFF || m.ContentCache == pb.MountContentCache_DEFAULT && m.Dest == pb.RootMount {
			return nil
		}
		if sel == "/" {
			sel = ""
		}
		sels = append(sels, content.Selector{Path: sel, FollowLinks: sel != ""})
	}
	if slices.ContainsFunc(sels, func(s content.Selector) bool { return s.Path == "" }) {
		return []content.Selector{{}}
	}
	return outermost(sels)
}

// outermost leaves out paths that lie in others.
func outermost(sels []content.Selector) []content.Selector {
	slices.SortFunc(sels, func(a, b content.Selector) int { return strings.Compare(a.Path, b.Path) })
	var out []content.Selector
	for _, s := range sels {
		if !slices.ContainsFunc(out, func(o content.Selector) bool { return below(s.Path, o.Path) }) {
			out = append(out, s)
		}
	}
	return out
}

// Run runs the step.
func (s *step) Run(ctx context.Context, in []*snapshot.Snapshot, r *solver.Run) ([]*snapshot.Snapshot, error) {
	cfg, err := s.config(in, r)
	if err != nil {
		return nil, err
	}
	env, err := s.environment(ctx, r)
	if err != nil {
		return nil, err
	}
	if s.v.IgnoreCache {
		// "No cache" is meant of these, too: BuildKit's reading.
		for _, m := range s.op.Mounts {
			if m.MountType == pb.MountType_CACHE && m.CacheOpt != nil {
				s.r.caches.renew(r.BuildID, m.CacheOpt.ID)
			}
		}
	}
	b, err := s.r.box(ctx, cfg)
	if err != nil {
		return nil, err
	}
	var last tail
	meta := s.op.Meta
	err = b.run(ctx, command{
		args: meta.Args, env: env, user: meta.User, cwd: meta.Cwd, insecure: s.op.Security == pb.SecurityMode_INSECURE,
		stdout: last.tee(r.Stdout), stderr: last.tee(r.Stderr),
	})
	b.close()
	if ctx.Err() != nil {
		b.drop()
		return nil, context.Cause(ctx)
	}
	if code := 0; err != nil || len(meta.ValidExitCodes) > 0 {
		if err != nil {
			code = exitCode(err)
		}
		if slices.Contains(meta.ValidExitCodes, int32(code)) {
			err = nil
		} else if err == nil {
			err = exitError(0)
		}
	}
	if err != nil {
		return nil, s.failed(b, err, last.String())
	}
	return s.outputs(ctx, b)
}

// run starts the box's first process and waits for it.
func (b *box) run(ctx context.Context, cmd command) error {
	c, err := b.start(cmd, true, 0)
	var not *unstarted
	if errors.As(err, &not) {
		not.tell(cmd)
	}
	if err != nil {
		return err
	}
	return c.wait(ctx)
}

// config gathers what the step's box is to be.
func (s *step) config(in []*snapshot.Snapshot, r *solver.Run) (boxConfig, error) {
	meta := s.op.Meta
	cfg := boxConfig{
		id: id.New()[:25], cwd: meta.Cwd, network: s.op.Network, hostname: meta.Hostname, hosts: meta.ExtraHosts,
		platform: s.v.Platform, sessions: r.Sessions, devices: s.op.CdiDevices, ulimits: meta.Ulimit, parent: meta.CgroupParent, resources: s.v.Resources,
		what: "exec " + commandLine(meta.Args),
	}
	if l, ok := r.Limits.(Limits); ok {
		cfg.limits = l
	}
	for _, m := range s.op.Mounts {
		p := Mount{Mount: m}
		if m.Input != int64(pb.Empty) {
			if m.Input < 0 || int(m.Input) >= len(in) {
				return cfg, fault.New(fault.Invalid, "missing input %d of mount %s", m.Input, m.Dest)
			}
			p.Snapshot = in[m.Input]
		}
		cfg.mounts = append(cfg.mounts, p)
	}
	return cfg, nil
}

// environment is the step's with proxies, a PATH and secrets.
func (s *step) environment(ctx context.Context, r *solver.Run) ([]string, error) {
	env := slices.Clone(s.op.Meta.Env)
	if p := s.op.Meta.ProxyEnv; p != nil {
		for _, v := range []struct{ name, value string }{
			{"HTTP_PROXY", p.HttpProxy}, {"HTTPS_PROXY", p.HttpsProxy}, {"FTP_PROXY", p.FtpProxy}, {"NO_PROXY", p.NoProxy}, {"ALL_PROXY", p.AllProxy},
		} {
			if v.value != "" {
				env = append(env, v.name+"="+v.value, strings.ToLower(v.name)+"="+v.value)
			}
		}
	}
	env = addDefaultEnv(env, "PATH", defaultPath)
	secret, err := s.r.secretEnv(ctx, r.Sessions, s.op.Secretenv)
	return append(env, secret...), err
}

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// outputs seals what the step wrote.
func (s *step) outputs(ctx context.Context, b *box) (out []*snapshot.Snapshot, err error) {
	defer b.drop()
	defer func() {
		if err != nil {
			for _, o := range out {
				if o != nil {
					o.Release()
				}
			}
			out = nil
		}
	}()
	for i, m := range s.op.Mounts {
		if m.Output == int64(pb.SkipOutput) || m.MountType != pb.MountType_BIND {
			continue
		}
		for int(m.Output) >= len(out) {
			out = append(out, nil)
		}
		p := b.places[i]
		switch {
		case p.draft != nil:
			sealed, err := p.draft.Seal(ctx)
			if err != nil {
				return out, fault.In(err, "keep what the step wrote to %s", m.Dest)
			}
			p.draft = nil
			out[m.Output] = sealed
		case p.in != nil:
			out[m.Output] = p.in.Share() // nothing could be written
		}
	}
	return out, nil
}

// failed keeps the state of a step whose process ended badly.
func (s *step) failed(b *box, err error, last string) error {
	f := &Failed{Op: s.op, ExitCode: exitCode(err), Tail: last, Err: err, sealed: make([]*snapshot.Snapshot, len(b.places))}
	for _, p := range b.places {
		var in *snapshot.Snapshot
		if p.in != nil {
			in = p.in.Share()
		}
		f.inputs, f.drafts = append(f.inputs, in), append(f.drafts, p.draft)
		p.draft = nil
	}
	return f
}
