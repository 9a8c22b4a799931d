package frontend

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/moby/buildkit/client/llb"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/pb"
	fstypes "github.com/tonistiigi/fsutil/types"

	"berth/base/fault"
	"berth/build/session"
	"berth/build/solver"
	"berth/kernel/tree"
)

// Reference is the result of a solve: what frontends pass around. It is evaluated when it is looked at.
type Reference struct {
	host *Host
	ref  *solver.Ref
	call *Call
}

var _ gwclient.Reference = (*Reference)(nil)

// Ref gives the solver's reference.
func (r *Reference) Ref() *solver.Ref { return r.ref }

// Call gives the call of a frontend that solved it.
func (r *Reference) Call() *Call { return r.call }

// Definition gives what it was solved from.
func (r *Reference) Definition() *pb.Definition { return r.ref.Definition() }

// ToState makes it an input of further definitions.
func (r *Reference) ToState() (_ llb.State, err error) {
	defer session.Survive(&err)
	op, err := llb.NewDefinitionOp(r.ref.Definition())
	if err != nil {
		return llb.State{}, err
	}
	return llb.NewState(op), nil
}

// Evaluate makes sure that it can be had.
func (r *Reference) Evaluate(ctx context.Context) (err error) {
	defer session.Survive(&err)
	if _, err := r.ref.Result(ctx); err != nil {
		return r.host.hold(r.ref, err)
	}
	return nil
}

// ReadFile reads a file of the result.
func (r *Reference) ReadFile(ctx context.Context, req gwclient.ReadRequest) (data []byte, err error) {
	err = r.view(ctx, "open", req.Filename, func(root *tree.Dir) error {
		data, err = readFile(root, req.Filename, req.Range)
		return err
	})
	if err == nil && r != nil && r.call.inProcess() { // which reads Dockerfiles, and what is read like them
		err = r.call.reads(req.Filename, data)
	}
	return data, err
}

// StatFile describes a file of the result.
func (r *Reference) StatFile(ctx context.Context, req gwclient.StatRequest) (st *fstypes.Stat, err error) {
	err = r.view(ctx, "lstat", req.Path, func(root *tree.Dir) error {
		st, err = statFile(root, req.Path)
		return err
	})
	return st, err
}

// ReadDir lists a directory of the result.
func (r *Reference) ReadDir(ctx context.Context, req gwclient.ReadDirRequest) (list []*fstypes.Stat, err error) {
	err = r.view(ctx, "open", req.Path, func(root *tree.Dir) error {
		list, err = readDir(root, req.Path, req.IncludePattern)
		return err
	})
	return list, err
}

func (r *Reference) view(ctx context.Context, op, name string, look func(root *tree.Dir) error) (err error) {
	defer session.Survive(&err)
	if r == nil || r.ref == nil { // the empty tree has no reference
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist}
	}
	snap, err := r.ref.Result(ctx)
	if err != nil {
		return r.host.hold(r.ref, err)
	}
	return snap.View(ctx, look)
}

// EachReference calls f with every reference of a result and gives the first error, after all were called.
func EachReference(res *gwclient.Result, f func(*Reference) error) error {
	if res == nil {
		return nil
	}
	return res.EachRef(func(r gwclient.Reference) error {
		ref, ok := r.(*Reference)
		if !ok {
			return fault.In(fmt.Errorf("%T", r), "reference of another build")
		}
		if ref == nil {
			return nil
		}
		return f(ref)
	})
}
