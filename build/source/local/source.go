package local

import (
	"context"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/graph"
	"berth/build/session"
	"berth/build/snapshot"
	"berth/build/solver"
)

// Source is a directory of a client as an operation of a build names it.
type Source struct {
	store   *Store
	req     Request
	session string // the only one to ask first; "": any of the build's
}

// Scheme is what identifiers of such operations begin with.
const Scheme = "local://"

// Source reads an operation.
func (s *Store) Source(v *graph.Vertex) (solver.Source, error) {
	op := v.Op.GetSource()
	name, ok := strings.CutPrefix(op.GetIdentifier(), Scheme)
	if !ok {
		return nil, fault.New(fault.Invalid, "invalid local identifier %s", op.GetIdentifier())
	}
	src := &Source{store: s, req: Request{Name: name}}
	for k, v := range op.GetAttrs() {
		var err error
		switch k {
		case pb.AttrLocalSessionID:
			src.session = v
			if mark, id, ok := strings.Cut(v, ":"); ok {
				src.req.Name, src.session = mark+"-"+name, id
			}
		case pb.AttrIncludePatterns:
			err = json.Unmarshal([]byte(v), &src.req.Include)
		case pb.AttrExcludePatterns:
			err = json.Unmarshal([]byte(v), &src.req.Exclude)
		case pb.AttrFollowPaths:
			err = json.Unmarshal([]byte(v), &src.req.Follow)
		case pb.AttrSharedKeyHint:
			src.req.Hint = v
		case pb.AttrMetadataTransfer:
			src.req.Meta, err = strconv.ParseBool(v)
		case pb.AttrMetadataTransferExclude:
			err = json.Unmarshal([]byte(v), &src.req.MetaSaved)
		case pb.AttrLocalDiffer:
			src.req.Always = v == pb.AttrLocalDifferNone
		}
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "attribute %s of %s", k, op.GetIdentifier())
		}
	}
	return src, nil
}

// Pin brings the files here. What they are is known then, so the identity is the snapshot's.
func (s *Source) Pin(ctx context.Context, r *solver.Run) (solver.Pinned, error) {
	t, err := s.sync(ctx, r)
	if err != nil {
		return solver.Pinned{}, err
	}
	return solver.Pinned{
		Snapshot: func(context.Context) (*snapshot.Snapshot, error) { return s.store.cfg.Snapshots.FromTree(t), nil },
		Release:  t.Close,
		Material: solver.Material{Kind: "local", URI: s.req.Name},
	}, nil
}

// sync asks the client that the operation names, and the build's other clients when that one is not there or has no such directory.
func (s *Source) sync(ctx context.Context, r *solver.Run) (*Tree, error) {
	told := func(n int64, done bool) {
		r.Status("transferring "+s.req.Name+":", "transferring", n, 0, done)
	}
	if s.session != "" {
		c, err := r.Manager.Get(ctx, s.session)
		if err == nil {
			t, err := s.store.Sync(c.Context(ctx), s.session, c, s.req, told)
			if err == nil || !elsewhere(err) {
				return t, err
			}
		}
	}
	var t *Tree
	err := r.Manager.Any(ctx, r.Sessions, func(ctx context.Context, id string, c session.Caller) (err error) {
		t, err = s.store.Sync(ctx, id, c, s.req, told)
		return err
	})
	return t, err
}
