package git

import (
	"context"
	"io"
	"strings"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil/gitobject"
	"github.com/moby/buildkit/util/gitutil/gitsign"
	"github.com/moby/buildkit/util/pgpsign"

	"berth/base/fault"
	"berth/build/session"
)

// ResolveSourceMetadata tells a frontend what a ref means now, and the objects if it wants them.
func (s *Source) ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt, g session.Group) (*sourceresolver.MetaResponse, error) {
	r, err := parse(op.GetIdentifier(), op.GetAttrs())
	if err != nil {
		return nil, err
	}
	v, err := s.resolve(ctx, r, g, nil)
	if err != nil {
		return nil, fault.In(err, "failed to load git source %s", r.uri())
	}
	resp := &sourceresolver.ResolveGitResponse{Checksum: v.object, Ref: v.ref, CommitChecksum: v.commit}
	if r.signature != nil || opt.GitOpt != nil && opt.GitOpt.ReturnObject {
		o, err := s.objects(ctx, r, v, g, nil)
		if err != nil {
			return nil, fault.In(err, "failed to load git source %s", r.uri())
		}
		resp.CommitObject, resp.TagObject = o.commit, o.tag
		resp.CommitChecksum = ""
		if len(o.tag) > 0 {
			resp.CommitChecksum = o.commitName
		}
	}
	return &sourceresolver.MetaResponse{Op: op, Git: resp}, nil
}

// objects are a version's objects as git stores them.
type objects struct {
	commit, tag []byte
	commitName  string
}

// objects brings a version here, gives its objects, and checks their signature where the build wants one.
func (s *Source) objects(ctx context.Context, r *repository, v *version, g session.Group, log io.Writer) (*objects, error) {
	m, err := s.mirrored(ctx, r, v, g, log)
	if err != nil {
		return nil, err
	}
	defer m.unlock()
	p, err := s.mirrorGit(ctx, m)
	if err != nil {
		return nil, err
	}
	kind, err := p.run(ctx, "cat-file", "-t", v.object)
	if err != nil {
		return nil, err
	}
	o := &objects{commitName: m.commit}
	switch kind = strings.TrimSpace(kind); kind {
	case "commit":
	case "tag":
		out, err := p.run(ctx, "cat-file", "tag", v.object)
		if err != nil {
			return nil, err
		}
		o.tag = []byte(out)
	default:
		return nil, fault.New(fault.Invalid, "expected commit or tag object, got %s", kind)
	}
	out, err := p.run(ctx, "cat-file", "commit", m.commit)
	if err != nil {
		return nil, err
	}
	o.commit = []byte(out)
	if r.signature != nil {
		err = fault.Wrap(fault.Forbidden, o.verify(v, r.signature), "git signature")
	}
	return o, err
}

// verify checks that the tag or the commit is signed with one of the keys.
func (o *objects) verify(v *version, s *signature) error {
	policy := &pgpsign.VerifyPolicy{RejectExpiredKeys: s.rejectExpired}
	check := func(raw []byte, name string) error {
		obj, err := gitobject.Parse(raw)
		if err != nil {
			return err
		}
		if err := obj.VerifyChecksum(name); err != nil {
			return err
		}
		return gitsign.VerifySignature(obj, s.key, policy)
	}
	var tagErr error
	if !s.ignoreTag && len(o.tag) > 0 {
		if tagErr = check(o.tag, v.object); tagErr == nil {
			return nil
		}
	}
	if s.requireTag {
		if tagErr != nil {
			return tagErr
		}
		return fault.New(fault.Forbidden, "signed tag required but no signed tag found")
	}
	return check(o.commit, o.commitName)
}
