package attest

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	slsa "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/common"
	slsa02 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v0.2"
	slsa1 "github.com/in-toto/in-toto-golang/in_toto/slsa_provenance/v1"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	types "github.com/moby/buildkit/solver/llbsolver/provenance/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/package-url/packageurl-go"

	"berth/base/fault"
	"berth/base/ref"
	"berth/build/graph"
)

// Facts are what a build knows of how a result came about.
type Facts struct {
	BuildID           string
	Started, Finished time.Time

	Frontend          string
	Args              map[string]string // the frontend's attributes, as the client sent them
	DockerfileVersion string            // of the language, where the frontend is the Dockerfile's

	Sources    types.Sources
	Secrets    []types.Secret // names, never values
	SSH        []types.SSH
	Network    bool // a step could reach a network
	Incomplete bool // there may be sources that are not told here

	Inputs map[string]*types.RequestProvenance // requests that made the frontend's inputs: see Request
	Root   *types.RequestProvenance            // the client's request, where the frontend was asked by another one

	Definition *pb.Definition // the steps, with where they stand in which file
	Env        map[string]any // further facts of the builder's surroundings

	outputs map[digest.Digest][][]digest.Digest // chains of steps' outputs
	blobs   map[digest.Digest]ocispec.Descriptor
}

// Blobs tells which blobs layers are, by diff id: mode=max says what steps became where all layers of theirs are among them.
func (f *Facts) Blobs(blobs map[digest.Digest]ocispec.Descriptor) { f.blobs = blobs }

// AddImage adds an image that a frontend has looked up.
func (f *Facts) AddImage(i types.ImageSource) { f.Sources.Images = append(f.Sources.Images, i) }

// Predicate makes the document: its predicate type and its bytes. It fails with FailedPrecondition in BuildKit's words where complete
// materials are asked for and there are none.
func (f *Facts) Predicate(o ProvenanceOptions) (predicateType string, content []byte, err error) {
	p, err := f.slsa(o)
	if err != nil {
		return "", nil, err
	}
	if o.Version == "v0.2" {
		content, err = json.MarshalIndent(p.ConvertToSLSA02(), "", "  ")
		return slsa02.PredicateSLSAProvenance, content, err
	}
	content, err = json.MarshalIndent(p, "", "  ")
	return slsa1.PredicateSLSAProvenance, content, err
}

// PredicateType is the type of the predicate that the options ask for.
func (o ProvenanceOptions) PredicateType() string {
	if o.Version == "v0.2" {
		return slsa02.PredicateSLSAProvenance
	}
	return slsa1.PredicateSLSAProvenance
}

func (f *Facts) slsa(o ProvenanceOptions) (*types.ProvenancePredicateSLSA1, error) {
	f.tidy()
	incomplete := f.Incomplete || len(f.Sources.Local) > 0
	if o.Complete && incomplete {
		return nil, f.incomplete()
	}
	materials, err := f.materials()
	if err != nil {
		return nil, err
	}
	request, config := f.request()
	scrubbed := o.Min && scrub(request)
	p := &types.ProvenancePredicateSLSA1{}
	p.BuildDefinition.BuildType = types.BuildKitBuildType1
	p.BuildDefinition.ResolvedDependencies = slices.Grow(p.BuildDefinition.ResolvedDependencies, len(materials))[:len(materials)]
	for i, m := range materials {
		p.BuildDefinition.ResolvedDependencies[i].URI, p.BuildDefinition.ResolvedDependencies[i].Digest = m.uri, m.digest
	}
	p.BuildDefinition.ExternalParameters = types.ProvenanceExternalParametersSLSA1{ConfigSource: config, Request: *request}
	p.BuildDefinition.InternalParameters = types.ProvenanceInternalParametersSLSA1{
		BuilderPlatform: platforms.Format(platforms.Normalize(platforms.DefaultSpec())), DockerfileVersion: f.DockerfileVersion, ProvenanceCustomEnv: f.Env,
	}
	p.RunDetails.Builder.ID = o.BuilderID
	meta := &types.ProvenanceMetadataSLSA1{
		Hermetic: !incomplete && !f.Network, Reproducible: o.Reproducible,
		Completeness: types.BuildKitComplete{Request: f.Frontend != "" && !scrubbed, ResolvedDependencies: !incomplete},
	}
	meta.InvocationID = f.BuildID
	if !f.Started.IsZero() {
		meta.StartedOn = &f.Started
	}
	if !f.Finished.IsZero() {
		meta.FinishedOn = &f.Finished
	}
	meta.BuildKitMetadata.VCS = f.vcs()
	p.RunDetails.Metadata = meta
	if !o.Min {
		return p, f.addSteps(p)
	}
	return p, nil
}

// tidy sorts what has no order and drops what is told twice, so that one build gives one document.
func (f *Facts) tidy() {
	by := func(a, b string) int { return strings.Compare(a, b) }
	slices.SortStableFunc(f.Sources.Images, func(a, b types.ImageSource) int { return by(a.Ref, b.Ref) })
	slices.SortStableFunc(f.Sources.Git, func(a, b types.GitSource) int { return by(a.URL, b.URL) })
	slices.SortStableFunc(f.Sources.HTTP, func(a, b types.HTTPSource) int { return by(a.URL, b.URL) })
	slices.SortStableFunc(f.Sources.Local, func(a, b types.LocalSource) int { return by(a.Name, b.Name) })
	slices.SortStableFunc(f.Secrets, func(a, b types.Secret) int { return by(a.ID, b.ID) })
	slices.SortStableFunc(f.SSH, func(a, b types.SSH) int { return by(a.ID, b.ID) })
	f.Sources.Local = slices.Compact(f.Sources.Local)
	f.Sources.HTTP = slices.Compact(f.Sources.HTTP)
	f.Sources.Git = slices.CompactFunc(f.Sources.Git, func(a, b types.GitSource) bool {
		return a.URL == b.URL && a.Commit == b.Commit && bundleOf(a) == bundleOf(b)
	})
	f.Sources.Images = slices.CompactFunc(f.Sources.Images, func(a, b types.ImageSource) bool {
		return a.Ref == b.Ref && a.Local == b.Local && samePlatform(a.Platform, b.Platform)
	})
	// A frontend looks a tag up, and the step then names its digest too: what was written is told.
	tags := map[string]bool{}
	for _, i := range f.Sources.Images {
		if !strings.Contains(i.Ref, "@") {
			tags[fullName(i.Ref)] = true
		}
	}
	f.Sources.Images = slices.DeleteFunc(f.Sources.Images, func(i types.ImageSource) bool {
		name, _, pinned := strings.Cut(i.Ref, "@")
		return pinned && tags[fullName(name)]
	})
	// A secret is optional where every step can do without.
	var secrets []types.Secret
	for _, s := range f.Secrets {
		if n := len(secrets); n > 0 && secrets[n-1].ID == s.ID {
			secrets[n-1].Optional = secrets[n-1].Optional && s.Optional
			continue
		}
		secrets = append(secrets, s)
	}
	var ssh []types.SSH
	for _, s := range f.SSH {
		if n := len(ssh); n > 0 && ssh[n-1].ID == s.ID {
			ssh[n-1].Optional = ssh[n-1].Optional && s.Optional
			continue
		}
		ssh = append(ssh, s)
	}
	f.Secrets, f.SSH = secrets, ssh
}

// fullName is a name with its tag, spelled one way.
func fullName(name string) string {
	n, err := ref.Parse(name)
	if err != nil {
		return name
	}
	return n.WithDefaultTag().String()
}

func samePlatform(a, b *ocispec.Platform) bool {
	if a == nil || b == nil {
		return a == b
	}
	return platforms.FormatAll(*a) == platforms.FormatAll(*b)
}

// material is a source with its digest.
type material struct {
	uri    string
	digest slsa.DigestSet
}

// materials are the sources with their digests.
func (f *Facts) materials() (out []material, err error) {
	for _, s := range f.Sources.Images {
		kind := packageurl.TypeDocker
		if s.Local {
			kind = packageurl.TypeOCI
		}
		uri, err := PackageURL(kind, s.Ref, s.Platform)
		if err != nil {
			return nil, err
		}
		out = append(out, material{uri, digestSet(s.Digest)})
	}
	slices.SortStableFunc(f.Sources.ImageBlobs, func(a, b types.ImageBlobSource) int { return strings.Compare(a.Ref, b.Ref) })
	for _, s := range slices.Compact(f.Sources.ImageBlobs) {
		kind := packageurl.TypeDocker
		if s.Local {
			kind = packageurl.TypeOCI
		}
		uri, err := PackageURL(kind, s.Ref, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, material{uri + "&ref_type=blob", digestSet(s.Digest)}) // a name with a digest has a qualifier before this one
	}
	for _, s := range f.Sources.Git {
		out = append(out, material{graph.Redact(s.URL), commitSet(s.Commit)})
		if s.Bundle == nil {
			continue
		}
		m, err := bundleMaterial(s)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	for _, s := range f.Sources.HTTP {
		out = append(out, material{graph.Redact(s.URL), digestSet(s.Digest)})
	}
	return out, nil
}

func bundleOf(s types.GitSource) string {
	if s.Bundle == nil {
		return ""
	}
	return s.Bundle.URL
}

// bundleMaterial is the blob that a repository's objects came from.
func bundleMaterial(s types.GitSource) (m material, err error) {
	scheme, name, _ := strings.Cut(s.Bundle.URL, "://")
	name, d, _ := strings.Cut(name, "@")
	kind := packageurl.TypeDocker
	if strings.HasPrefix(scheme, "oci-layout") {
		kind = packageurl.TypeOCI
	}
	uri, err := PackageURL(kind, name, nil)
	if err != nil {
		return m, err
	}
	p, err := packageurl.FromString(uri)
	if err != nil {
		return m, err
	}
	p.Qualifiers = append(p.Qualifiers, packageurl.Qualifier{Key: "ref_type", Value: "bundle"}, packageurl.Qualifier{Key: "vcs_url", Value: graph.Redact(s.URL)})
	return material{p.ToString(), digestSet(digest.Digest(d))}, nil
}

func digestSet(d digest.Digest) slsa.DigestSet {
	if d.Validate() != nil {
		return nil
	}
	return slsa.DigestSet{d.Algorithm().String(): d.Encoded()}
}

func commitSet(commit string) slsa.DigestSet {
	if len(commit) == 64 {
		return slsa.DigestSet{"sha256": commit}
	}
	return slsa.DigestSet{"sha1": commit}
}

// Attributes that say something of the machine and nothing of what is built.
var hostArgs = map[string]bool{"cgroup-parent": true, "image-resolve-mode": true, "platform": true, "cache-imports": true}

// compatibility is which of its own ways BuildKit says that an output has been made in: those of its releases since 0.31, which are ours.
const compatibility = 30

// request is what the client asked for, and where what it is made from is described.
func (f *Facts) request() (*types.Parameters, types.ProvenanceConfigSourceSLSA1) {
	r := Request(f.Frontend, f.Args, f.Sources)
	p := r.Request
	for _, s := range f.Secrets {
		p.Secrets = append(p.Secrets, &s)
	}
	for _, s := range f.SSH {
		p.SSH = append(p.SSH, &s)
	}
	for _, l := range f.Sources.Local {
		p.Locals = append(p.Locals, &l)
	}
	for name, in := range f.Inputs {
		if p.Inputs == nil {
			p.Inputs = map[string]*types.RequestProvenance{}
		}
		p.Inputs[name] = in.Clone()
	}
	p.Root = f.Root.Clone()
	p.CompatibilityVersion = compatibility
	return p, r.ConfigSource
}

// Request tells what a frontend was asked for, without what only says something of the machine, and without credentials.
func Request(frontend string, attrs map[string]string, sources types.Sources) *types.RequestProvenance {
	args := map[string]string{}
	for k, v := range attrs {
		if !hostArgs[k] && !strings.HasPrefix(k, attrPrefix) && !strings.HasPrefix(k, "vcs:") {
			args[k] = graph.Redact(v)
		}
	}
	r := &types.RequestProvenance{ConfigSource: configSource(args, attrs, sources), Request: &types.Parameters{Frontend: frontend}}
	if len(args) > 0 {
		r.Request.Args = args
	}
	return r
}

// scrub takes out of a request what mode=min does not tell, and reports whether there was something that the result depends on.
func scrub(p *types.Parameters) (incomplete bool) {
	if p == nil {
		return false
	}
	for k := range p.Args {
		if strings.HasPrefix(k, "build-arg:") || strings.HasPrefix(k, "label:") {
			delete(p.Args, k)
			incomplete = true
		}
	}
	p.Secrets, p.SSH = nil, nil
	for _, in := range p.Inputs {
		if in != nil && scrub(in.Request) {
			incomplete = true
		}
	}
	if p.Root != nil && scrub(p.Root.Request) {
		incomplete = true
	}
	return incomplete
}

// configSource takes out of the arguments where the description of the build lies.
func configSource(args, attrs map[string]string, sources types.Sources) (c types.ProvenanceConfigSourceSLSA1) {
	key := "context"
	if v := args["contextkey"]; v != "" {
		key = v
	} else if args["input:context"] != "" {
		key = "input:context"
	}
	if v := attrs[key]; v != "" {
		c.URI = graph.Redact(v)
		uri, fragment := v, v
		if s, ok := dfgitutil.FragmentFormat(v, true); ok {
			fragment = s
		}
		if s, ok := dfgitutil.FragmentFormat(v, false); ok {
			uri = s
		}
		for _, s := range sources.Git {
			if s.URL == uri {
				c.URI, c.Digest = graph.Redact(fragment), commitSet(s.Commit)
			}
		}
		for _, s := range sources.HTTP {
			if s.URL == uri {
				c.Digest = digestSet(s.Digest)
			}
		}
		delete(args, key)
	}
	c.Path = args["filename"]
	delete(args, "filename")
	return c
}

// vcs is what the client said of its working tree.
func (f *Facts) vcs() map[string]string {
	out := map[string]string{}
	for k, v := range f.Args {
		if name, ok := strings.CutPrefix(k, "vcs:"); ok && v != "" {
			out[name] = graph.Redact(v)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// incomplete says which sources have no digest.
func (f *Facts) incomplete() error {
	text := "provenance materials are incomplete\n\nThe build requested complete provenance materials, but not all dependencies could be captured."
	if len(f.Sources.Local) > 0 {
		text += "\n\nUncaptured local sources:"
		for _, l := range f.Sources.Local {
			text += "\n  - " + l.Name + "\n    reason: local_source"
		}
	}
	return fault.New(fault.Invalid, "%s", text)
}
