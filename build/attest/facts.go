package attest

import (
	"cmp"
	"net/url"
	"strings"

	types "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"

	"berth/build/graph"
	"berth/build/solver"
)

// Add adds what a result's steps tell: sources with their digests, names of secrets, and whether a step could reach a network.
func (f *Facts) Add(p solver.Provenance) {
	for _, m := range p.Materials {
		f.addMaterial(m)
	}
	for _, s := range p.Steps {
		if s.Vertex == nil || s.Vertex.Op == nil {
			continue
		}
		if f.outputs == nil {
			f.outputs = map[digest.Digest][][]digest.Digest{}
		}
		f.outputs[s.Vertex.Digest] = s.Chains
		if e := s.Vertex.Op.GetExec(); e != nil {
			f.addExec(e)
		}
		if src := s.Vertex.Op.GetSource(); strings.HasPrefix(src.GetIdentifier(), "git://") {
			f.addGitAttrs(src.Attrs)
		}
		if s.Vertex.Op.GetBuild() != nil {
			f.Incomplete = true
		}
	}
}

func (f *Facts) addMaterial(m solver.Material) {
	switch kind := strings.TrimSuffix(m.Kind, "s"); kind {
	case "docker-image", "oci-layout":
		f.Sources.Images = append(f.Sources.Images, types.ImageSource{Ref: strings.TrimPrefix(m.URI, kind+"://"), Platform: m.Platform, Digest: m.Digest, Local: kind == "oci-layout"})
	case "docker-image+blob", "oci-layout+blob":
		f.Sources.ImageBlobs = append(f.Sources.ImageBlobs, types.ImageBlobSource{Ref: m.URI, Digest: m.Digest, Local: kind == "oci-layout+blob"})
	case "git":
		_, commit, found := strings.Cut(string(m.Digest), ":")
		if !found {
			commit = string(m.Digest)
		}
		src := types.GitSource{URL: withoutUser(m.URI), Commit: commit}
		if b := m.Attrs["bundle"]; b != "" {
			src.Bundle = &types.GitBundle{URL: b}
		}
		f.Sources.Git = append(f.Sources.Git, src)
	case "http":
		f.Sources.HTTP = append(f.Sources.HTTP, types.HTTPSource{URL: withoutUser(m.URI), Digest: m.Digest})
	case "local":
		f.Sources.Local = append(f.Sources.Local, types.LocalSource{Name: strings.TrimPrefix(m.URI, "local://")})
	default:
		f.Incomplete = true
	}
}

// withoutUser takes credentials out of a URL. What is compared with what the client sent keeps its form.
func withoutUser(s string) string {
	if u, err := url.Parse(s); err == nil && u.User != nil {
		return graph.Redact(s)
	}
	return s
}

// addGitAttrs adds what a client was asked for to open a repository. It need not have it.
func (f *Facts) addGitAttrs(attrs map[string]string) {
	for _, k := range []string{pb.AttrAuthTokenSecret, pb.AttrAuthHeaderSecret} {
		if id := attrs[k]; id != "" {
			f.Secrets = append(f.Secrets, types.Secret{ID: id, Optional: true})
		}
	}
	if id := attrs[pb.AttrMountSSHSock]; id != "" {
		f.SSH = append(f.SSH, types.SSH{ID: id, Optional: true})
	}
}

func (f *Facts) addExec(e *pb.ExecOp) {
	for _, m := range e.Mounts {
		switch m.MountType {
		case pb.MountType_SECRET:
			f.Secrets = append(f.Secrets, types.Secret{ID: m.SecretOpt.GetID(), Optional: m.SecretOpt.GetOptional()})
		case pb.MountType_SSH:
			f.SSH = append(f.SSH, types.SSH{ID: cmp.Or(m.SSHOpt.GetID(), "default"), Optional: m.SSHOpt.GetOptional()})
		}
	}
	for _, s := range e.Secretenv {
		f.Secrets = append(f.Secrets, types.Secret{ID: s.GetID(), Optional: s.GetOptional()})
	}
	f.Network = f.Network || e.Network != pb.NetMode_NONE
}
