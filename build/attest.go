package build

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/version"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/solver/result"

	"berth/base/fault"
	"berth/build/attest"
	"berth/build/frontend"
	"berth/build/history"
	"berth/build/solver"
)

// attest adds to the result what the client wants attested of it. Documents are made when an exporter wants them.
func (j *job) attest() error {
	if j.wanted.Provenance == nil {
		return nil
	}
	o := *j.wanted.Provenance
	return j.eachPlatform(func(id string, ref *frontend.Reference) error {
		facts := j.facts(ref)
		name := o.Filename
		if name == "" {
			name = "provenance.json"
		}
		j.result.AddAttestation(id, gateway.Attestation{
			Kind: gatewaypb.AttestationKind_InToto,
			Metadata: map[string][]byte{
				result.AttestationReasonKey:     []byte(result.AttestationReasonProvenance),
				result.AttestationInlineOnlyKey: []byte(strconv.FormatBool(o.InlineOnly)),
			},
			InToto: result.InTotoAttestation{PredicateType: o.PredicateType()},
			Path:   name,
			ContentFunc: func(context.Context) ([]byte, error) {
				_, content, err := facts.Predicate(o)
				return content, err
			},
		})
		return nil
	})
}

// eachPlatform calls f with the reference of each platform of the result that has one.
func (j *job) eachPlatform(f func(id string, ref *frontend.Reference) error) error {
	ps, err := exptypes.ParsePlatforms(j.result.Metadata)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "platforms of the result")
	}
	for _, p := range ps.Platforms {
		r, ok := j.result.FindRef(p.ID)
		if !ok {
			return fault.New(fault.Invalid, "could not find ref %s", p.ID)
		}
		if ref, _ := r.(*frontend.Reference); ref != nil {
			if err := f(p.ID, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

// facts gathers what provenance tells of one reference, which has been evaluated.
func (j *job) facts(ref *frontend.Reference) *attest.Facts {
	f := &attest.Facts{
		BuildID: j.req.ID, Started: j.started, Finished: time.Now(), Frontend: j.req.Frontend, Args: j.req.FrontendAttrs, Definition: ref.Definition(),
	}
	if f.Frontend == "" && ref.Call() != nil { // the client ran it
		f.Frontend, f.Args = ref.Call().Frontend, ref.Call().Options
	}
	if f.Frontend == "dockerfile.v0" {
		f.DockerfileVersion = strings.TrimSuffix(dockerfile.Version(), "-dev")
	}
	for _, m := range ref.Ref().Provenance().Materials {
		addSource(&f.Sources, m)
	}
	if call := ref.Call(); call != nil {
		for _, i := range call.Images() {
			addImage(&f.Sources, provenance.ImageSource{Ref: i.Ref, Platform: i.Platform, Digest: i.Digest, Local: i.Local})
		}
	}
	for _, v := range ref.Ref().Graph().Vertices {
		addExec(f, v.Op.GetExec())
		f.Incomplete = f.Incomplete || v.Op.GetBuild() != nil
	}
	return f
}

// addExec adds what a step was given and could reach.
func addExec(f *attest.Facts, op *pb.ExecOp) {
	if op == nil {
		return
	}
	f.Network = f.Network || op.Network != pb.NetMode_NONE
	secret := func(id string, optional bool) {
		if s := (provenance.Secret{ID: id, Optional: optional}); !slices.Contains(f.Secrets, s) {
			f.Secrets = append(f.Secrets, s)
		}
	}
	for _, m := range op.Mounts {
		switch m.MountType {
		case pb.MountType_SECRET:
			secret(m.SecretOpt.GetID(), m.SecretOpt.GetOptional())
		case pb.MountType_SSH:
			if s := (provenance.SSH{ID: m.SSHOpt.GetID(), Optional: m.SSHOpt.GetOptional()}); !slices.Contains(f.SSH, s) {
				f.SSH = append(f.SSH, s)
			}
		}
	}
	for _, e := range op.Secretenv {
		secret(e.GetID(), e.GetOptional())
	}
}

// addSource adds a source, once.
func addSource(s *provenance.Sources, m solver.Material) {
	switch m.Kind {
	case "docker-image", "oci-layout":
		addImage(s, provenance.ImageSource{Ref: m.URI, Platform: m.Platform, Digest: m.Digest, Local: m.Kind == "oci-layout"})
	case "git":
		g := provenance.GitSource{URL: m.URI, Commit: m.Digest.Encoded()}
		if !slices.ContainsFunc(s.Git, func(o provenance.GitSource) bool { return o.URL == g.URL && o.Commit == g.Commit }) {
			s.Git = append(s.Git, g)
		}
	case "http", "https":
		if h := (provenance.HTTPSource{URL: m.URI, Digest: m.Digest}); !slices.Contains(s.HTTP, h) {
			s.HTTP = append(s.HTTP, h)
		}
	case "local":
		if l := (provenance.LocalSource{Name: m.URI}); !slices.Contains(s.Local, l) {
			s.Local = append(s.Local, l)
		}
	}
}

// addImage adds an image, once for each digest and platform.
func addImage(s *provenance.Sources, i provenance.ImageSource) {
	same := func(o provenance.ImageSource) bool {
		switch {
		case o.Local != i.Local || o.Digest != i.Digest || bare(o.Ref) != bare(i.Ref):
			return false
		case o.Platform == nil || i.Platform == nil:
			return true
		}
		return o.Platform.OS == i.Platform.OS && o.Platform.Architecture == i.Platform.Architecture && o.Platform.Variant == i.Platform.Variant
	}
	if !slices.ContainsFunc(s.Images, same) {
		s.Images = append(s.Images, i)
	}
}

// bare is a name without its digest.
func bare(ref string) string {
	name, _, _ := strings.Cut(ref, "@")
	return name
}

// recordProvenance keeps the provenance of each platform with the build's record.
func (j *job) recordProvenance(rec *history.Record) error {
	o := attest.ProvenanceOptions{Version: "v1"}
	if p := j.wanted.Provenance; p != nil {
		o.BuilderID = p.BuilderID
	}
	keep := func(ref *frontend.Reference) (history.Blob, error) {
		kind, content, err := j.facts(ref).Predicate(o)
		if err != nil {
			return history.Blob{}, err
		}
		blob, err := j.b.history.PutBlob(provenanceMediaType, content)
		blob.Annotations = map[string]string{"in-toto.io/predicate-type": kind}
		return blob, err
	}
	if ref, _ := j.result.Ref.(*frontend.Reference); ref != nil {
		blob, err := keep(ref)
		if err != nil {
			return err
		}
		if rec.Result == nil {
			rec.Result = &history.Result{}
		}
		rec.Result.Attestations = append(rec.Result.Attestations, blob)
	}
	for k, r := range j.result.Refs {
		ref, _ := r.(*frontend.Reference)
		if ref == nil {
			continue
		}
		blob, err := keep(ref)
		if err != nil {
			return err
		}
		if rec.Results == nil {
			rec.Results = map[string]history.Result{}
		}
		rec.Results[k] = history.Result{Attestations: []history.Blob{blob}}
	}
	return nil
}

// provenanceMediaType is that of in-toto documents.
const provenanceMediaType = "application/vnd.in-toto+json"
