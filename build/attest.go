package build

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend/attestations/sbom"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/version"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	provenance "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/solver/result"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/attest"
	"berth/build/export"
	"berth/build/frontend"
	"berth/build/history"
)

// attest adds to the result what the client wants attested of it. Documents are made when an exporter wants them.
func (j *job) attest(ctx context.Context) error {
	if o := j.wanted.SBOM; o != nil && !sbom.HasSBOM(j.result) {
		if err := j.attestContent(ctx, o); err != nil {
			return err
		}
	}
	if o := j.wanted.Provenance; o != nil {
		return j.eachPlatform(func(id string, ref *frontend.Reference) error {
			if ref == nil {
				return nil
			}
			j.attestations = append(j.attestations, attestation{id, export.Provenance(*o, func(context.Context) (*attest.Facts, error) { return j.facts(id, ref), nil })})
			return nil
		})
	}
	return nil
}

// attestation is one of ours, of a platform.
type attestation struct {
	platform string
	export.Attestation
}

// attestContent adds what is in the result: by a scan of our own, or of the image that the client named.
func (j *job) attestContent(ctx context.Context, o *attest.SBOMOptions) error {
	if o.Generator == "" {
		return j.eachPlatform(func(id string, ref *frontend.Reference) error {
			var tree export.Ref
			if ref != nil {
				tree = ref.Ref()
			}
			j.attestations = append(j.attestations, attestation{id, export.SBOM(tree)})
			return nil
		})
	}
	name, err := reference.ParseNormalizedNamed(o.Generator)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "failed to parse sbom generator %s", o.Generator)
	}
	client := j.host.Client()
	platform := platforms.Normalize(platforms.DefaultSpec())
	mode := j.req.FrontendAttrs["image-resolve-mode"]
	scan, err := sbom.CreateSBOMScanner(ctx, client, reference.TagNameOnly(name).String(), platform, sourceresolver.Opt{
		ImageOpt: &sourceresolver.ResolveImageOpt{ResolveMode: mode, Platform: &platform},
	}, o.Params)
	if err != nil || scan == nil {
		return err
	}
	return j.eachPlatform(func(id string, ref *frontend.Reference) error {
		if ref == nil {
			return nil
		}
		return j.scan(ctx, client, scan, id, ref)
	})
}

// scan runs a scanner over one platform's result.
func (j *job) scan(ctx context.Context, client gateway.Client, scan sbom.Scanner, id string, ref *frontend.Reference) error {
	state, err := ref.ToState()
	if err != nil {
		return err
	}
	var opts []llb.ConstraintsOpt
	if v, ok := j.req.FrontendAttrs["no-cache"]; ok && v == "" {
		opts = append(opts, llb.IgnoreCache)
	}
	found, err := scan(ctx, id, state, nil, opts...)
	if err != nil {
		return err
	}
	att, err := result.ConvertAttestation(&found, func(st *llb.State) (gateway.Reference, error) {
		def, err := st.Marshal(ctx)
		if err != nil {
			return nil, err
		}
		res, err := client.Solve(ctx, gateway.SolveRequest{Definition: def.ToPB(), Evaluate: true})
		if err != nil {
			return nil, err
		}
		return res.SingleRef()
	})
	if err != nil {
		return err
	}
	j.result.AddAttestation(id, *att)
	return nil
}

// eachPlatform calls f with the reference of each platform of the result, nil for the empty tree.
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
		ref, _ := r.(*frontend.Reference)
		if err := f(p.ID, ref); err != nil {
			return err
		}
	}
	return nil
}

// facts gathers what provenance tells of one reference, which has been evaluated. A client that runs its frontend itself does
// not tell what it was asked for.
func (j *job) facts(id string, ref *frontend.Reference) *attest.Facts {
	call := ref.Call()
	f := &attest.Facts{
		BuildID: j.req.ID, Started: j.started, Finished: time.Now(), Definition: ref.Definition(), Env: j.b.cfg.ProvenanceFacts,
	}
	if call.Frontend != "" {
		f.Frontend, f.Args = call.Frontend, call.Options
	}
	if f.Frontend == "dockerfile.v0" {
		f.DockerfileVersion = strings.TrimSuffix(dockerfile.Version(), "-dev")
	}
	f.Add(ref.Ref().Provenance())
	for _, other := range j.readBy(call) {
		f.Add(other.Ref().Provenance())
	}
	for _, i := range imagesFor(call.Images(), j.platformOf(id)) {
		f.AddImage(provenance.ImageSource{Ref: i.Ref, Platform: i.Platform, Digest: i.Digest, Local: i.Local})
	}
	f.Inputs = j.inputs(call, f.Sources)
	root := &frontend.Call{Frontend: j.req.Frontend, Options: j.req.FrontendAttrs, Inputs: j.req.FrontendInputs}
	if call.Frontend != "" && !root.Same(call) && (root.Frontend != "" || len(root.Options) > 0 || len(root.Inputs) > 0) {
		f.Root = attest.Request(root.Frontend, root.Options, f.Sources)
		f.Root.Request.Inputs = j.inputs(root, f.Sources)
	}
	return f
}

// readBy lists what a call solved and did not give as its result: what was only read, such as a Dockerfile of another context.
func (j *job) readBy(call *frontend.Call) []*frontend.Reference {
	given := map[*frontend.Reference]bool{}
	_ = frontend.EachReference(j.result, func(r *frontend.Reference) error {
		given[r] = true
		return nil
	})
	return slices.DeleteFunc(call.Solved(), func(r *frontend.Reference) bool { return given[r] })
}

// platformOf gives the platform of the result's part, nil where it has none.
func (j *job) platformOf(id string) *ocispec.Platform {
	ps, err := exptypes.ParsePlatforms(j.result.Metadata)
	if err != nil {
		return nil
	}
	for _, p := range ps.Platforms {
		if p.ID == id {
			return &p.Platform
		}
	}
	return nil
}

// imagesFor leaves out images that were resolved for other platforms of the result, where there is one for this.
func imagesFor(images []frontend.Image, platform *ocispec.Platform) []frontend.Image {
	fits := func(i frontend.Image) bool {
		return i.Platform == nil || platform == nil || i.Platform.OS == platform.OS && i.Platform.Architecture == platform.Architecture
	}
	return slices.DeleteFunc(slices.Clone(images), func(i frontend.Image) bool {
		return !fits(i) && slices.ContainsFunc(images, func(o frontend.Image) bool { return o.Ref == i.Ref && fits(o) })
	})
}

// maxRequests bounds the requests that are told of one result's inputs. A bake file has one for each target on the way.
const maxRequests = 500

// inputs tells who made the inputs of a call, where that was a call of a frontend itself.
func (j *job) inputs(call *frontend.Call, sources provenance.Sources) map[string]*provenance.RequestProvenance {
	t := &teller{makers: j.b.producers.Of, sources: sources, left: maxRequests}
	return t.inputs(call)
}

// teller tells requests that made each other's inputs. A frontend may give any definition for its result: what it makes of them may be a
// circle, or have more ways through than anybody can walk.
type teller struct {
	makers  func(*pb.Definition) []*frontend.Call
	sources provenance.Sources
	left    int
	led     []*frontend.Call // the calls that led to the one being told
}

func (t *teller) inputs(call *frontend.Call) map[string]*provenance.RequestProvenance {
	t.led = append(t.led, call)
	defer func() { t.led = t.led[:len(t.led)-1] }()
	var told map[string]*provenance.RequestProvenance
	for _, name := range slices.Sorted(maps.Keys(call.Inputs)) {
		makers := t.makers(call.Inputs[name])
		if len(makers) == 0 || slices.ContainsFunc(makers[1:], func(c *frontend.Call) bool { return !c.Same(makers[0]) }) {
			continue // nobody, or nobody knows which
		}
		if slices.Contains(t.led, makers[0]) || t.left == 0 {
			continue
		}
		t.left--
		r := attest.Request(makers[0].Frontend, makers[0].Options, t.sources)
		r.Request.Inputs = t.inputs(makers[0])
		if told == nil {
			told = map[string]*provenance.RequestProvenance{}
		}
		told[name] = r
	}
	return told
}

// recordProvenance keeps the provenance of each platform with the build's record.
func (j *job) recordProvenance(rec *history.Record) error {
	o := attest.ProvenanceOptions{Version: "v1"}
	if p := j.wanted.Provenance; p != nil {
		o.BuilderID = p.BuilderID
	}
	keep := func(id string, ref *frontend.Reference) (history.Blob, error) {
		kind, content, err := j.facts(id, ref).Predicate(o)
		if err != nil {
			return history.Blob{}, err
		}
		blob, err := j.b.history.PutBlob(j.req.ID, provenanceMediaType, content)
		blob.Annotations = map[string]string{"in-toto.io/predicate-type": kind}
		return blob, err
	}
	if ref, _ := j.result.Ref.(*frontend.Reference); ref != nil {
		blob, err := keep("", ref)
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
		blob, err := keep(k, ref)
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
