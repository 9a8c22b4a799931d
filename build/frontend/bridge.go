package frontend

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"

	apitypes "github.com/moby/buildkit/api/types"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"berth/base/id"
)

// Bridge is a client spoken over gRPC: the frontend runs in another process, knows references by ids, and gives its
// result with Return. It is safe for concurrent use.
type Bridge struct {
	gwpb.UnimplementedLLBBridgeServer
	client *Client

	mu         sync.Mutex // guards what follows; held for memory only
	refs       map[string]*Reference
	containers map[string]gwclient.Container
	result     *gwclient.Result
	err        error
	returned   bool
	done       chan struct{} // closed by Return
}

// NewBridge makes a bridge for one call of a frontend.
func (h *Host) NewBridge(call *Call) *Bridge {
	return newBridge(h.client(call))
}

func newBridge(c *Client) *Bridge {
	return &Bridge{client: c, refs: map[string]*Reference{}, containers: map[string]gwclient.Container{}, done: make(chan struct{})}
}

// Done is closed when the frontend has returned.
func (b *Bridge) Done() <-chan struct{} { return b.done }

// Result gives what the frontend returned.
func (b *Bridge) Result() (*gwclient.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.returned {
		return nil, status.Error(codes.Unavailable, "no result for incomplete build")
	}
	return b.result, b.err
}

// Solve solves a definition or calls a frontend, and keeps the references for later calls.
func (b *Bridge) Solve(ctx context.Context, req *gwpb.SolveRequest) (*gwpb.SolveResponse, error) {
	imports := make([]gwclient.CacheOptionsEntry, 0, len(req.CacheImports))
	for _, e := range req.CacheImports {
		if e == nil {
			return nil, status.Error(codes.InvalidArgument, "invalid nil cache import")
		}
		imports = append(imports, gwclient.CacheOptionsEntry{Type: e.Type, Attrs: e.Attrs})
	}
	if slices.Contains(req.SourcePolicies, nil) {
		return nil, status.Error(codes.InvalidArgument, "invalid nil source policy")
	}
	res, err := b.client.Solve(ctx, gwclient.SolveRequest{
		Evaluate: req.Evaluate, Definition: req.Definition, Frontend: req.Frontend, FrontendOpt: req.FrontendOpt,
		FrontendInputs: req.FrontendInputs, CacheImports: imports, SourcePolicies: req.SourcePolicies,
	})
	if err != nil {
		return nil, err
	}
	if err := b.room(res); err != nil {
		return nil, err
	}
	if len(res.Refs) > 0 && !req.AllowResultReturn {
		return nil, status.Error(codes.InvalidArgument, "solve did not return default result")
	}
	out := &gwpb.Result{Metadata: res.Metadata}
	resp := &gwpb.SolveResponse{Result: out}
	if res.Refs != nil {
		b.keepMap(out, res.Refs, req.AllowResultArrayRef)
	} else {
		ref := b.keep(res.Ref)
		out.Result = &gwpb.Result_Ref{Ref: ref}
		if !req.AllowResultArrayRef {
			out.Result = &gwpb.Result_RefDeprecated{RefDeprecated: ref.Id}
		}
		if !req.AllowResultReturn {
			resp.Ref = ref.Id
		}
	}
	if out.Attestations, err = b.keepAttestations(res); err != nil {
		return nil, err
	}
	if req.Final {
		return resp, b.final(res, req.ExporterAttr)
	}
	return resp, nil
}

// final takes a solve as the result, as frontends from before 2018 want it.
func (b *Bridge) final(res *gwclient.Result, attrs []byte) error {
	meta := map[string][]byte{}
	if err := json.Unmarshal(attrs, &meta); err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	maps.Copy(meta, res.Metadata)
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.returned {
		b.result = &gwclient.Result{Ref: res.Ref, Metadata: meta}
	}
	return nil
}

// room refuses a result whose references are too many, by themselves or with those that were given before.
func (b *Bridge) room(res *gwclient.Result) error {
	n := len(res.Refs) + 1
	for _, list := range res.Attestations {
		n += len(list)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.refs)+n > maxReferences {
		return status.Errorf(codes.ResourceExhausted, "the frontend has %d references, and is given no more than %d", len(b.refs), maxReferences)
	}
	return nil
}

// keep gives a reference an id. No reference has none.
func (b *Bridge) keep(r gwclient.Reference) *gwpb.Ref {
	ref, _ := r.(*Reference)
	if ref == nil {
		return &gwpb.Ref{}
	}
	name := id.New()
	b.mu.Lock()
	b.refs[name] = ref
	b.mu.Unlock()
	return &gwpb.Ref{Id: name, Def: ref.Definition()}
}

// Name gives a reference an id, by which the client can read it.
func (b *Bridge) Name(r *Reference) string { return b.keep(r).Id }

func (b *Bridge) keepMap(out *gwpb.Result, refs map[string]gwclient.Reference, array bool) {
	kept := make(map[string]*gwpb.Ref, len(refs))
	ids := make(map[string]string, len(refs))
	for k, r := range refs {
		kept[k] = b.keep(r)
		ids[k] = kept[k].Id
	}
	if array {
		out.Result = &gwpb.Result_Refs{Refs: &gwpb.RefMap{Refs: kept}}
		return
	}
	out.Result = &gwpb.Result_RefsDeprecated{RefsDeprecated: &gwpb.RefMapDeprecated{Refs: ids}}
}

func (b *Bridge) keepAttestations(res *gwclient.Result) (map[string]*gwpb.Attestations, error) {
	if res.Attestations == nil {
		return nil, nil
	}
	kept := map[string]*gwpb.Attestations{}
	for k, list := range res.Attestations {
		kept[k] = &gwpb.Attestations{}
		for i := range list {
			a, err := gwclient.AttestationToPB(&list[i])
			if err != nil {
				return nil, err
			}
			if list[i].Ref != nil {
				a.Ref = b.keep(list[i].Ref)
			}
			kept[k].Attestation = append(kept[k].Attestation, a)
		}
	}
	return kept, nil
}

// reference finds a reference by its id; the empty id is the empty tree.
func (b *Bridge) reference(name string) (*Reference, error) {
	if name == "" {
		return nil, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if r, ok := b.refs[name]; ok {
		return r, nil
	}
	return nil, status.Errorf(codes.NotFound, "no such ref: %s", name)
}

// Return takes the frontend's result or error. The first one counts.
func (b *Bridge) Return(ctx context.Context, req *gwpb.ReturnRequest) (*gwpb.ReturnResponse, error) {
	if req.Error != nil {
		err := grpcerrors.FromGRPC(status.ErrorProto(&spb.Status{Code: req.Error.Code, Message: req.Error.Message, Details: req.Error.Details}))
		return &gwpb.ReturnResponse{}, b.finish(nil, err)
	}
	if req.Result == nil {
		return nil, status.Error(codes.InvalidArgument, "result is required")
	}
	res := &gwclient.Result{Metadata: req.Result.Metadata}
	var err error
	switch r := req.Result.Result.(type) {
	case *gwpb.Result_RefDeprecated:
		err = b.giveRef(res, r.RefDeprecated)
	case *gwpb.Result_Ref:
		err = b.giveRef(res, r.Ref.GetId())
	case *gwpb.Result_RefsDeprecated:
		err = b.giveRefs(res, r.RefsDeprecated.GetRefs())
	case *gwpb.Result_Refs:
		ids := map[string]string{}
		for k, ref := range r.Refs.GetRefs() {
			ids[k] = ref.GetId()
		}
		err = b.giveRefs(res, ids)
	}
	if err == nil {
		err = b.giveAttestations(res, req.Result.Attestations)
	}
	if err != nil {
		return nil, err
	}
	return &gwpb.ReturnResponse{}, b.finish(res, nil)
}

func (b *Bridge) giveRef(res *gwclient.Result, name string) error {
	ref, err := b.reference(name)
	if err == nil && ref != nil {
		res.SetRef(ref)
	}
	return err
}

func (b *Bridge) giveRefs(res *gwclient.Result, ids map[string]string) error {
	if len(ids) > maxPlatforms {
		return status.Errorf(codes.InvalidArgument, "a result of %d references: more than %d", len(ids), maxPlatforms)
	}
	res.Refs = map[string]gwclient.Reference{}
	for k, name := range ids {
		ref, err := b.reference(name)
		if err != nil {
			return err
		}
		if ref == nil {
			res.Refs[k] = nil
			continue
		}
		res.AddRef(k, ref)
	}
	return nil
}

func (b *Bridge) giveAttestations(res *gwclient.Result, given map[string]*gwpb.Attestations) error {
	for k, list := range given {
		if n := len(list.GetAttestation()); n > maxPlatforms || len(given) > maxPlatforms {
			return status.Errorf(codes.InvalidArgument, "a result with %d attestations of %d references: more than %d", n, len(given), maxPlatforms)
		}
		for _, a := range list.GetAttestation() {
			att, err := gwclient.AttestationFromPB[gwclient.Reference](a)
			if err != nil {
				return status.Error(codes.InvalidArgument, err.Error())
			}
			if a.Ref != nil {
				ref, err := b.reference(a.Ref.Id)
				if err != nil {
					return err
				}
				if ref != nil {
					att.Ref = ref
				}
			}
			res.AddAttestation(k, *att)
		}
	}
	return nil
}

// finish sets the outcome once.
func (b *Bridge) finish(res *gwclient.Result, err error) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.returned {
		return status.Error(codes.FailedPrecondition, "gateway result is already set")
	}
	b.result, b.err, b.returned = res, err, true
	close(b.done)
	return nil
}

// ended is told that the frontend's process has ended. What it returned counts, unless it said success and then failed;
// one that returned nothing has failed.
func (b *Bridge) ended(err error) (*gwclient.Result, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.err != nil:
		return nil, b.err
	case err != nil:
		return nil, err
	case b.result == nil:
		return nil, status.Error(codes.Unavailable, "no result for incomplete build")
	}
	return b.result, nil
}

// ReadFile reads a file of a reference.
func (b *Bridge) ReadFile(ctx context.Context, req *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	ref, err := b.reference(req.Ref)
	if err != nil {
		return nil, err
	}
	data, err := ref.ReadFile(ctx, gwclient.ReadRequest{Filename: req.FilePath, Range: rangeOf(req.Range)})
	return &gwpb.ReadFileResponse{Data: data}, err
}

// ReadDir lists a directory of a reference.
func (b *Bridge) ReadDir(ctx context.Context, req *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	ref, err := b.reference(req.Ref)
	if err != nil {
		return nil, err
	}
	list, err := ref.ReadDir(ctx, gwclient.ReadDirRequest{Path: req.DirPath, IncludePattern: req.IncludePattern})
	return &gwpb.ReadDirResponse{Entries: list}, err
}

// StatFile describes a file of a reference.
func (b *Bridge) StatFile(ctx context.Context, req *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	ref, err := b.reference(req.Ref)
	if err != nil {
		return nil, err
	}
	st, err := ref.StatFile(ctx, gwclient.StatRequest{Path: req.Path})
	return &gwpb.StatFileResponse{Stat: st}, err
}

// Evaluate makes sure that a reference can be had.
func (b *Bridge) Evaluate(ctx context.Context, req *gwpb.EvaluateRequest) (*gwpb.EvaluateResponse, error) {
	ref, err := b.reference(req.Ref)
	if err != nil || ref == nil {
		return &gwpb.EvaluateResponse{}, err
	}
	return &gwpb.EvaluateResponse{}, ref.Evaluate(ctx)
}

// Ping tells what this builder can.
func (b *Bridge) Ping(context.Context, *gwpb.PingRequest) (*gwpb.PongResponse, error) {
	w := b.client.host.Worker
	return &gwpb.PongResponse{
		FrontendAPICaps: gwpb.Caps.All(),
		LLBCaps:         pb.Caps.All(),
		Workers:         []*apitypes.WorkerRecord{{ID: w.ID, Labels: w.Labels, Platforms: pb.PlatformsFromSpec(w.Platforms)}},
	}, nil
}

// Inputs gives the definitions that the client named.
func (b *Bridge) Inputs(context.Context, *gwpb.InputsRequest) (*gwpb.InputsResponse, error) {
	return &gwpb.InputsResponse{Definitions: b.client.call.Inputs}, nil
}

// Warn shows a warning at a step.
func (b *Bridge) Warn(ctx context.Context, req *gwpb.WarnRequest) (*gwpb.WarnResponse, error) {
	if slices.Contains(req.Ranges, nil) {
		return nil, status.Error(codes.InvalidArgument, "invalid source range")
	}
	return &gwpb.WarnResponse{}, b.client.Warn(ctx, digest.Digest(req.Digest), string(req.Short), gwclient.WarnOpts{
		Level: int(req.Level), SourceInfo: req.Info, Range: req.Ranges, Detail: req.Detail, URL: req.Url,
	})
}

// ResolveImageConfig finds an image's configuration by its name.
func (b *Bridge) ResolveImageConfig(ctx context.Context, req *gwpb.ResolveImageConfigRequest) (*gwpb.ResolveImageConfigResponse, error) {
	opt := sourceresolver.Opt{LogName: req.LogName, SourcePolicies: req.SourcePolicies}
	platform := platformFromPB(req.Platform)
	switch sourceresolver.ResolverType(req.ResolverType) {
	case sourceresolver.ResolverTypeRegistry:
		opt.ImageOpt = &sourceresolver.ResolveImageOpt{ResolveMode: req.ResolveMode, Platform: platform}
	case sourceresolver.ResolverTypeOCILayout:
		opt.OCILayoutOpt = &sourceresolver.ResolveOCILayoutOpt{
			Platform: platform,
			Store:    sourceresolver.ResolveImageConfigOptStore{SessionID: req.SessionID, StoreID: req.StoreID},
		}
	}
	ref, dgst, config, err := b.client.ResolveImageConfig(ctx, req.Ref, opt)
	if err != nil {
		return nil, err
	}
	return &gwpb.ResolveImageConfigResponse{Ref: ref, Digest: dgst.String(), Config: config}, nil
}

// ResolveSourceMeta finds out what a source's name stands for.
func (b *Bridge) ResolveSourceMeta(ctx context.Context, req *gwpb.ResolveSourceMetaRequest) (*gwpb.ResolveSourceMetaResponse, error) {
	if req.Source == nil {
		return nil, status.Error(codes.InvalidArgument, "source is required")
	}
	resp, err := b.client.ResolveSourceMetadata(ctx, req.Source, MetaOptions(req))
	if err != nil {
		return nil, err
	}
	return MetaMessage(resp), nil
}

// MetaOptions translates what a request wants to know of a source.
func MetaOptions(req *gwpb.ResolveSourceMetaRequest) sourceresolver.Opt {
	platform := platformFromPB(req.Platform)
	opt := sourceresolver.Opt{
		LogName: req.LogName, SourcePolicies: req.SourcePolicies,
		ImageOpt:     &sourceresolver.ResolveImageOpt{ResolveMode: req.ResolveMode, Platform: platform},
		OCILayoutOpt: &sourceresolver.ResolveOCILayoutOpt{Platform: platform},
	}
	if i := req.Image; i != nil {
		opt.ImageOpt.NoConfig, opt.ImageOpt.AttestationChain, opt.ImageOpt.ResolveAttestations = i.NoConfig, i.AttestationChain, i.ResolveAttestations
	}
	if req.Git != nil {
		opt.GitOpt = &sourceresolver.ResolveGitOpt{ReturnObject: req.Git.ReturnObject}
	}
	if c := req.HTTP.GetChecksumRequest(); c != nil {
		opt.HTTPOpt = &sourceresolver.ResolveHTTPOpt{ChecksumReq: &sourceresolver.ResolveHTTPChecksumRequest{
			Algo: sourceresolver.ResolveHTTPChecksumAlgo(c.Algo), Suffix: c.Suffix,
		}}
	}
	return opt
}

// MetaMessage translates what is known of a source.
func MetaMessage(m *sourceresolver.MetaResponse) *gwpb.ResolveSourceMetaResponse {
	out := &gwpb.ResolveSourceMetaResponse{Source: m.Op}
	if i := m.Image; i != nil {
		out.Image = &gwpb.ResolveSourceImageResponse{Digest: i.Digest.String(), Config: i.Config, AttestationChain: chainToPB(i.AttestationChain)}
	}
	if g := m.Git; g != nil {
		out.Git = &gwpb.ResolveSourceGitResponse{
			Checksum: g.Checksum, Ref: g.Ref, CommitChecksum: g.CommitChecksum, CommitObject: g.CommitObject, TagObject: g.TagObject,
		}
	}
	if h := m.HTTP; h != nil {
		out.HTTP = &gwpb.ResolveSourceHTTPResponse{Checksum: h.Digest.String(), Filename: h.Filename}
		if h.LastModified != nil {
			out.HTTP.LastModified = &timestamppb.Timestamp{Seconds: h.LastModified.Unix()}
		}
		if c := h.ChecksumResponse; c != nil {
			out.HTTP.ChecksumResponse = &gwpb.ChecksumResponse{Digest: c.Digest, Suffix: c.Suffix}
		}
	}
	return out
}

func chainToPB(c *sourceresolver.AttestationChain) *gwpb.AttestationChain {
	if c == nil {
		return nil
	}
	out := &gwpb.AttestationChain{
		Root: c.Root.String(), ImageManifest: c.ImageManifest.String(), AttestationManifest: c.AttestationManifest.String(),
		Blobs: map[string]*gwpb.Blob{},
	}
	for _, s := range c.SignatureManifests {
		out.SignatureManifests = append(out.SignatureManifests, s.String())
	}
	for k, v := range c.Blobs {
		d := v.Descriptor
		out.Blobs[k.String()] = &gwpb.Blob{
			Descriptor_: &gwpb.Descriptor{MediaType: d.MediaType, Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations},
			Data:        v.Data,
		}
	}
	return out
}

func rangeOf(r *gwpb.FileRange) *gwclient.FileRange {
	if r == nil {
		return nil
	}
	return &gwclient.FileRange{Offset: int(r.Offset), Length: int(r.Length)}
}

func platformFromPB(p *pb.Platform) *ocispec.Platform {
	if p == nil {
		return nil
	}
	return &ocispec.Platform{OS: p.OS, Architecture: p.Architecture, Variant: p.Variant, OSVersion: p.OSVersion, OSFeatures: p.OSFeatures}
}
