package file

import (
	"context"
	"encoding/binary"
	"errors"
	"path"
	"slices"

	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	"google.golang.org/protobuf/proto"

	"berth/base/fault"
	"berth/build/content"
	"berth/build/snapshot"
	"berth/build/solver"
	"berth/kernel/tree"
)

// maxActions bounds the actions of one op. A Dockerfile's instruction has one for each source it names.
const maxActions = 10000

// Ops makes operations on files.
type Ops struct {
	snapshots *snapshot.Store
}

// New gives the room's handle. The store stays the caller's.
func New(snapshots *snapshot.Store) *Ops { return &Ops{snapshots: snapshots} }

// Op gives the operation that op describes, for a vertex with that many inputs. An op that names inputs or outputs which cannot be is
// Invalid.
func (o *Ops) Op(op *pb.FileOp, inputs int) (solver.Op, error) {
	p, err := planOf(op, inputs)
	if err != nil {
		return nil, err
	}
	return &fileOp{ops: o, plan: p}, nil
}

type fileOp struct {
	ops  *Ops
	plan *plan
}

// plan is an op that was checked. Numbers below inputs mean inputs, those above mean the result of an action.
type plan struct {
	inputs  int
	actions []*pb.FileAction
	outputs []int // by output: whose result it is
	readers []int // by number: how many actions read it, as base, source or names
}

// none is what an op writes for no input and no output.
const none = -1

func planOf(op *pb.FileOp, inputs int) (*plan, error) {
	p := &plan{inputs: inputs, actions: op.GetActions()}
	if len(p.actions) > maxActions {
		return nil, fault.New(fault.Invalid, "a file op of %d actions is too long", len(p.actions))
	}
	p.readers = make([]int, inputs+len(p.actions))
	outs := map[int]int{}
	for i, a := range p.actions {
		if a == nil || a.Action == nil {
			return nil, fault.New(fault.Invalid, "file action %d has no kind", i)
		}
		reads := []int64{a.Input, a.SecondaryInput}
		for _, u := range []*pb.UserOpt{ownerOpt(a).GetUser(), ownerOpt(a).GetGroup()} {
			if n, ok := u.GetUser().(*pb.UserOpt_ByName); ok {
				if n.ByName == nil || n.ByName.Input < 0 {
					return nil, fault.New(fault.Invalid, "file action %d: a named owner without an input", i)
				}
				reads = append(reads, n.ByName.Input)
			}
		}
		for _, r := range reads {
			// An action reads what stands before it: so there are no circles.
			if r < none || r >= int64(inputs+i) {
				return nil, fault.New(fault.Invalid, "invalid input index %d of file action %d, %d provided", r, i, inputs+i)
			}
			if r != none {
				p.readers[r]++
			}
		}
		if a.Output == none {
			continue
		}
		if a.Output < 0 || a.Output >= int64(len(p.actions)) {
			return nil, fault.New(fault.Invalid, "invalid output index %d of file action %d", a.Output, i)
		}
		if _, twice := outs[int(a.Output)]; twice {
			return nil, fault.New(fault.Invalid, "duplicate output %d", a.Output)
		}
		outs[int(a.Output)] = inputs + i
	}
	if len(outs) == 0 {
		return nil, fault.New(fault.Invalid, "no outputs specified")
	}
	for i := range len(outs) {
		n, ok := outs[i]
		if !ok {
			return nil, fault.New(fault.Invalid, "missing output index %d", i)
		}
		p.outputs = append(p.outputs, n)
	}
	return p, nil
}

func ownerOpt(a *pb.FileAction) *pb.ChownOpt {
	switch k := a.Action.(type) {
	case *pb.FileAction_Copy:
		return k.Copy.GetOwner()
	case *pb.FileAction_Mkdir:
		return k.Mkdir.GetOwner()
	case *pb.FileAction_Mkfile:
		return k.Mkfile.GetOwner()
	case *pb.FileAction_Symlink:
		return k.Symlink.GetOwner()
	}
	return nil
}

// Key is a digest of the actions. Where an action's source is the only thing that the op reads of an input, the directory that it lies
// in does not count: Reads covers what is there and what it is called.
func (f *fileOp) Key() digest.Digest {
	copies := make([]int, f.plan.inputs)
	for _, a := range f.plan.actions {
		if i, ok := f.plan.source(a); ok {
			copies[i]++
		}
	}
	h := digest.SHA256.Digester()
	_, _ = h.Hash().Write([]byte("berth file op 1\n"))
	for _, a := range f.plan.actions {
		if i, ok := f.plan.source(a); ok && copies[i] == 1 && !f.plan.wholly(i) {
			a = proto.Clone(a).(*pb.FileAction)
			k := a.GetCopy()
			k.Src = path.Base(k.Src)
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
		if err != nil { // what was unmarshalled can be marshalled
			b = []byte(err.Error())
		}
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(b)))
		_, _ = h.Hash().Write(size[:])
		_, _ = h.Hash().Write(b)
	}
	return h.Digest()
}

// source gives the input that a copy reads, if it is one.
func (p *plan) source(a *pb.FileAction) (input int, ok bool) {
	if a.GetCopy() == nil || a.SecondaryInput == none || int(a.SecondaryInput) >= p.inputs {
		return 0, false
	}
	return int(a.SecondaryInput), true
}

// wholly reports whether all of an input decides the outcome, because it is the base of an action.
func (p *plan) wholly(input int) bool {
	return slices.ContainsFunc(p.actions, func(a *pb.FileAction) bool { return a.Input == int64(input) })
}

// Reads tells what is read of an input: the sources of copies, and the lists of names that owners are looked up in. Of a base, it is
// everything.
func (f *fileOp) Reads(input int) []content.Selector {
	if f.plan.wholly(input) {
		return nil
	}
	var reads []content.Selector
	add := func(s content.Selector) {
		same := func(o content.Selector) bool {
			return o.Path == s.Path && o.Wildcard == s.Wildcard && o.FollowLinks == s.FollowLinks &&
				slices.Equal(o.Include, s.Include) && slices.Equal(o.Exclude, s.Exclude) && slices.Equal(o.Required, s.Required)
		}
		if !slices.ContainsFunc(reads, same) {
			reads = append(reads, s)
		}
	}
	for _, a := range f.plan.actions {
		if i, ok := f.plan.source(a); ok && i == input {
			k := a.GetCopy()
			add(content.Selector{Path: k.Src, Wildcard: k.AllowWildcard && hasWildcard(k.Src), FollowLinks: k.FollowSymlink,
				Include: k.IncludePatterns, Exclude: k.ExcludePatterns, Required: k.RequiredPaths})
		}
		own := ownerOpt(a)
		if own.GetUser().GetByName() != nil && own.User.GetByName().Input == int64(input) {
			add(content.Selector{Path: "/etc/passwd", FollowLinks: true})
		}
		if own.GetGroup().GetByName() != nil && own.Group.GetByName().Input == int64(input) {
			add(content.Selector{Path: "/etc/group", FollowLinks: true})
		}
	}
	return reads
}

// Run performs the actions that the outputs need. What other actions there are has no effect and does not happen.
func (f *fileOp) Run(ctx context.Context, in []*snapshot.Snapshot, _ *solver.Run) ([]*snapshot.Snapshot, error) {
	r := &run{plan: f.plan, snapshots: f.ops.snapshots, results: make([]result, len(f.plan.readers))}
	for i, s := range in {
		r.results[i].snap = s
	}
	defer r.end()
	outs := make([]*snapshot.Snapshot, 0, len(f.plan.outputs))
	for _, n := range f.plan.outputs {
		snap, err := r.sealed(ctx, n)
		if err != nil {
			for _, s := range outs {
				s.Release()
			}
			var failed *Failed
			if errors.As(err, &failed) && ctx.Err() == nil {
				failed.keep(r)
			}
			return nil, err
		}
		outs = append(outs, snap.Share())
	}
	return outs, nil
}

// run is an op being performed.
type run struct {
	*plan
	snapshots *snapshot.Store
	results   []result // by number
}

// result is what an input or an action gave: a snapshot, or a draft that one more action works on.
type result struct {
	snap  *snapshot.Snapshot
	draft *snapshot.Draft
	to    place // of the draft, while it is open
}

func (d *result) close() {
	for _, dir := range []*tree.Dir{d.to.root, d.to.upper} {
		if dir != nil {
			dir.Close()
		}
	}
	d.to = place{}
}

// end gives up everything but the inputs.
func (r *run) end() {
	for i := range r.results {
		if i >= r.inputs {
			r.results[i].end()
		}
	}
}

// end gives up what is there.
func (d *result) end() {
	d.close()
	if d.draft != nil {
		d.draft.Drop()
	}
	if d.snap != nil {
		d.snap.Release()
	}
	*d = result{}
}

// seal gives the snapshot of what is there, which stays the result's; nil where there is nothing.
func (d *result) seal(ctx context.Context) (*snapshot.Snapshot, error) {
	d.close()
	if d.draft != nil {
		snap, err := d.draft.Seal(ctx)
		if err != nil {
			return nil, err
		}
		d.draft, d.snap = nil, snap
	}
	return d.snap, nil
}

// sealed gives the snapshot of a number; it stays the run's.
func (r *run) sealed(ctx context.Context, n int) (*snapshot.Snapshot, error) {
	d := &r.results[n]
	if d.snap != nil {
		return d.snap, nil
	}
	if d.draft == nil {
		if err := r.act(ctx, n); err != nil {
			return nil, err
		}
	}
	snap, err := d.seal(ctx)
	return snap, r.failed(n, err)
}

// act performs the action of a number: its draft is open afterwards.
func (r *run) act(ctx context.Context, n int) (err error) {
	a := r.actions[n-r.inputs]
	draft, to, err := r.base(ctx, a)
	if err != nil {
		return r.failed(n, err) // an action before it that failed stays the one
	}
	r.results[n].draft, r.results[n].to = draft, to
	root := to.root
	own, err := ownerOf(ownerOpt(a), func(input int64, read func(*tree.Dir) error) error {
		if input == a.Input { // the base, which is a draft by now
			return read(root)
		}
		s, err := r.sealed(ctx, int(input))
		if err != nil {
			return err
		}
		return s.View(ctx, read)
	})
	if err == nil {
		switch k := a.Action.(type) {
		case *pb.FileAction_Mkdir:
			err = mkdir(root, k.Mkdir, own)
		case *pb.FileAction_Mkfile:
			err = mkfile(root, k.Mkfile, own)
		case *pb.FileAction_Symlink:
			err = symlink(root, k.Symlink, own)
		case *pb.FileAction_Rm:
			err = rm(root, k.Rm)
		case *pb.FileAction_Copy:
			err = r.copy(ctx, to, a, k.Copy, own)
		default:
			err = fault.New(fault.NotImplemented, "file action %T", a.Action)
		}
	}
	return r.failed(n, err)
}

// base gives the draft that an action works on: the one of the action before it, if nobody else reads that, or a new one.
func (r *run) base(ctx context.Context, a *pb.FileAction) (*snapshot.Draft, place, error) {
	on := r.snapshots.Scratch()
	if a.Input != none {
		n := int(a.Input)
		d := &r.results[n]
		if n >= r.inputs && r.readers[n] == r.ownReads(a, n) && !slices.Contains(r.outputs, n) && d.snap == nil {
			if d.draft == nil {
				if err := r.act(ctx, n); err != nil {
					return nil, place{}, err
				}
			}
			draft, to := d.draft, d.to
			d.draft, d.to = nil, place{}
			return draft, to, nil
		}
		s, err := r.sealed(ctx, n)
		if err != nil {
			return nil, place{}, err
		}
		on.Release()
		on = s.Share()
	}
	defer on.Release()
	draft, err := r.snapshots.Draft(ctx, on)
	if err != nil {
		return nil, place{}, err
	}
	var to place
	if to.root, to.upper, err = draft.OpenBoth(ctx); err != nil {
		draft.Drop()
		return nil, place{}, err
	}
	return draft, to, nil
}

// ownReads counts how an action reads its base: as the base, and for names looked up in it. As a copy's source, it counts as
// another reader, because a tree that changes cannot be copied from.
func (r *run) ownReads(a *pb.FileAction, n int) int {
	reads := 1
	own := ownerOpt(a)
	for _, u := range []*pb.UserOpt{own.GetUser(), own.GetGroup()} {
		if name := u.GetByName(); name != nil && name.Input == int64(n) {
			reads++
		}
	}
	return reads
}

func (r *run) copy(ctx context.Context, to place, a *pb.FileAction, k *pb.FileActionCopy, own *owner) error {
	src := r.snapshots.Scratch()
	if a.SecondaryInput != none {
		s, err := r.sealed(ctx, int(a.SecondaryInput))
		if err != nil {
			return err
		}
		src.Release()
		src = s.Share()
	}
	defer src.Release()
	return src.View(ctx, func(from *tree.Dir) error { return copyTo(ctx, from, to, k, own) })
}
