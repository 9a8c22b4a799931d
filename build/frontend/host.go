package frontend

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/moby/buildkit/client/llb/sourceresolver"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	digest "github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"berth/base/fault"
	"berth/build/attest"
	"berth/build/exec"
	"berth/build/progress"
	"berth/build/solver"
)

// keySource is the option that names a gateway frontend's image, in BuildKit's words.
const keySource = "source"

// Sources finds out what names of sources stand for, without fetching what they name.
type Sources interface {
	ResolveSourceMetadata(ctx context.Context, op *pb.SourceOp, opt sourceresolver.Opt) (*sourceresolver.MetaResponse, error)
}

// Host is what the frontends of one build share. Its fields are set before the first Solve; Close ends it.
type Host struct {
	Build   *solver.Build
	Session string // the client's, where sources of kind local come from
	Sources Sources
	Runner  *exec.Runner // runs containers; nil: none can be run
	// Limits bound containers as they bound steps, frontends by image among them.
	Limits exec.Limits
	// Entitlements are what the build may: network.host, security.insecure.
	Entitlements []string
	Progress     progress.Sink
	Worker       gwclient.WorkerInfo
	// Producers remember who gave which result; nil: nobody does.
	Producers *Producers
	// Written hears what definitions were made of, before they are solved; nil: nobody listens.
	Written func(*pb.Source)
	// Import lets the solver look into one more remote cache; nil: there are none.
	Import func(context.Context, gwclient.CacheOptionsEntry) error

	mu      sync.Mutex
	clients []*Client
	forget  []func()        // takes what this build gave out of Producers
	held    map[string]held // file trees of failed steps, by id
	names   map[held]string // their ids
	closed  bool
	calls   int // that frontends have made
	kept    int // bytes of what they said
	running int // frontends at work
}

// Call is one use of a frontend: what provenance tells of it.
type Call struct {
	Frontend string
	Options  map[string]string
	Inputs   map[string]*pb.Definition

	policies []*spb.Policy // that hold for all that the call does, beside the build's

	depth int // of the frontends that it came through

	mu     sync.Mutex
	images []Image
	solved []*Reference // from definitions
	calls  []*Call      // of other frontends
	// What the translation of a Dockerfile works with.
	around *surroundings // nil: nothing has been read; see the method
	texts  [][]byte
}

// reads refuses what a frontend of this process has read if it may be a Dockerfile that the library must not see. What is read for its patterns
// alone is none, however many lines it has.
func (c *Call) reads(name string, data []byte) error {
	if strings.HasSuffix(name, ".dockerignore") && path.Clean(name) != path.Clean(c.Options["filename"]) {
		return nil
	}
	if err := CheckDockerfile(data); err != nil {
		return err
	}
	return c.wrote(data)
}

// wrote notes what a frontend of this process has read and may translate, and refuses it if it grows too much.
func (c *Call) wrote(data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.texts = append(c.texts, data)
	return checkGrowth(data, *c.surroundings())
}

// met notes an image that it may begin with, which may make it grow.
func (c *Call) met(config []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	around := c.surroundings()
	if !around.meet(configOf(config)) {
		return nil
	}
	for _, data := range c.texts {
		if err := checkGrowth(data, *around); err != nil {
			return err
		}
	}
	return nil
}

// surroundings are what the texts of the call meet so far; c.mu is held.
func (c *Call) surroundings() *surroundings {
	if c.around == nil {
		s := surroundingsOf(c.Options)
		c.around = &s
	}
	return c.around
}

// under gives the policies of a request that the call makes: its own, and those of the request.
func (c *Call) under(more []*spb.Policy) ([]*spb.Policy, error) {
	if err := solver.CheckPolicies(more...); err != nil {
		return nil, err
	}
	return append(slices.Clip(c.policies), more...), nil
}

// Same reports whether two calls asked for the same. A frontend that is asked for by its image, and is the one of this process,
// is the same as that.
func (c *Call) Same(o *Call) bool {
	a, aOpts := c.normal()
	b, bOpts := o.normal()
	return a == b && maps.Equal(aOpts, bOpts) && len(c.Inputs) == len(o.Inputs)
}

func (c *Call) normal() (string, map[string]string) {
	name, opts := c.Frontend, maps.Clone(c.Options)
	if name == gatewayName && builtIn(opts) {
		name = dockerfileName
		delete(opts, keySource)
	}
	maps.DeleteFunc(opts, func(k, _ string) bool { return strings.HasPrefix(k, "attest:") })
	return name, opts
}

// Image is an image whose name a frontend resolved.
type Image struct {
	Ref      string
	Platform *ocispec.Platform
	Digest   digest.Digest
	Local    bool // an OCI layout
}

// Images lists the images that were resolved, in that order, and behind them those of the frontends that it called.
func (c *Call) Images() []Image {
	c.mu.Lock()
	images, calls := slices.Clone(c.images), slices.Clone(c.calls)
	c.mu.Unlock()
	for _, sub := range calls {
		images = append(images, sub.Images()...)
	}
	return images
}

// Solved lists what was solved on the way, whether it became a part of the result or was only read, by the frontends that it called, too.
func (c *Call) Solved() []*Reference {
	c.mu.Lock()
	refs, calls := slices.Clone(c.solved), slices.Clone(c.calls)
	c.mu.Unlock()
	for _, sub := range calls {
		refs = append(refs, sub.Solved()...)
	}
	return refs
}

// Solve does what a client asked for: its definition, or what a frontend makes of its options. Its references
// are not evaluated unless the request says so. A request for neither gives an empty result.
func (h *Host) Solve(ctx context.Context, req gwclient.SolveRequest) (*gwclient.Result, error) {
	return h.solve(ctx, req, &Call{Frontend: req.Frontend, Options: req.FrontendOpt, Inputs: req.FrontendInputs})
}

// Run calls a frontend of this process.
func (h *Host) Run(ctx context.Context, req gwclient.SolveRequest, f gwclient.BuildFunc) (*gwclient.Result, error) {
	c := h.client(&Call{Frontend: req.Frontend, Options: req.FrontendOpt, Inputs: req.FrontendInputs})
	return f(ctx, c)
}

// solve does it in the name of a call.
func (h *Host) solve(ctx context.Context, req gwclient.SolveRequest, by *Call) (*gwclient.Result, error) {
	hasDefinition := req.Definition != nil && req.Definition.Def != nil
	if hasDefinition && req.Frontend != "" {
		return nil, fault.New(fault.Invalid, "cannot solve with both Definition and Frontend specified")
	}
	policies, err := by.under(req.SourcePolicies)
	if err != nil {
		return nil, err
	}
	if err := h.admit(sizeOf(&req)); err != nil {
		return nil, err
	}
	if err := h.imports(ctx, req.CacheImports); err != nil {
		return nil, err
	}
	res := &gwclient.Result{}
	switch {
	case hasDefinition:
		if src := req.Definition.Source; h.Written != nil && src != nil && len(src.Infos) > 0 {
			h.Written(src)
		}
		ref, err := h.Build.RefUnder(policies, req.Definition)
		if err != nil {
			return nil, fault.In(err, "failed to load LLB")
		}
		made := &Reference{host: h, ref: ref, call: by}
		by.mu.Lock()
		by.solved = append(by.solved, made)
		by.mu.Unlock()
		res.SetRef(made)
	case req.Frontend != "":
		if res, err = h.call(ctx, req, policies, by); err != nil {
			return nil, (&errdefs.Frontend{Name: req.Frontend, Source: req.FrontendOpt[keySource]}).WrapError(err)
		}
	default:
		return res, nil
	}
	if req.Evaluate {
		if err := EachReference(res, func(r *Reference) error { return r.Evaluate(ctx) }); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// call runs the frontend of a request. The policies hold for all that it does: one that asks another to do its work is not to escape its own. It
// comes through as many frontends as the call by, and one more.
func (h *Host) call(ctx context.Context, req gwclient.SolveRequest, policies []*spb.Policy, by *Call) (*gwclient.Result, error) {
	end, err := h.begin(by.depth)
	if err != nil {
		return nil, err
	}
	defer end()
	name, opts := req.Frontend, req.FrontendOpt
	if name == gatewayName && builtIn(opts) {
		name, opts = dockerfileName, maps.Clone(opts)
		delete(opts, keySource)
	}
	wanted, err := attest.Parse(opts)
	if err != nil {
		return nil, err
	}
	c := h.client(&Call{Frontend: name, Options: wanted.Frontend(opts), Inputs: req.FrontendInputs, policies: policies, depth: by.depth + 1})
	by.mu.Lock()
	by.calls = append(by.calls, c.call)
	by.mu.Unlock()
	var res *gwclient.Result
	switch name {
	case dockerfileName:
		res, err = buildDockerfile(ctx, c)
	case gatewayName:
		res, err = runImage(ctx, c)
	default:
		err = fault.New(fault.Invalid, "invalid frontend: %s", req.Frontend)
	}
	if err != nil {
		return nil, err
	}
	return res, EachReference(res, func(r *Reference) error {
		forget := h.Producers.add(r.Definition(), r.call)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.closed {
			forget()
			return nil
		}
		h.forget = append(h.forget, forget)
		return nil
	})
}

// Client gives a client to who works on a result behind the frontend.
func (h *Host) Client() *Client { return h.client(&Call{}) }

func (h *Host) imports(ctx context.Context, entries []gwclient.CacheOptionsEntry) error {
	if h.Import == nil {
		return nil
	}
	for _, e := range entries {
		if err := h.Import(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// client makes the client of a call; Close of the host closes it.
func (h *Host) client(call *Call) *Client {
	c := &Client{host: h, call: call}
	h.mu.Lock()
	h.clients = append(h.clients, c)
	h.mu.Unlock()
	return c
}

// Close releases what frontends left open. References that the host gave belong to the build and stay.
func (h *Host) Close() {
	h.mu.Lock()
	clients, forget := h.clients, h.forget
	h.clients, h.forget, h.held, h.names, h.closed = nil, nil, nil, nil, true
	h.mu.Unlock()
	for _, f := range forget {
		f()
	}
	for _, c := range clients {
		c.close()
	}
}
