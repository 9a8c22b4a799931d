package build

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/solver/result"
	spb "github.com/moby/buildkit/sourcepolicy/pb"
	"github.com/moby/buildkit/util/stack"
	digest "github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"berth/base/fault"
	"berth/build/attest"
	"berth/build/export"
	"berth/build/frontend"
	"berth/build/progress"
	"berth/build/remotecache"
	"berth/build/session"
	"berth/build/solver"
)

// job is one request while it is worked on.
type job struct {
	b            *Builder
	p            *parts
	req          Request
	run          *running
	build        *solver.Build
	host         *frontend.Host
	outputs      []*export.Output
	made         []*export.Done // by output; nil before it was exported
	result       *gateway.Result
	started      time.Time
	targets      []*remotecache.Target // caches to be written
	inline       bool                  // one of them is in the images
	wanted       attest.Wanted         // what is to be attested
	attestations []attestation         // that were made here, beside those of the frontend
	planned      string                // not "": only a plan is wanted, in this form
}

// Solve builds what is requested and returns when the result is where it shall go. A build is cancelled by
// its ctx or by Cancel; work that other builds wait for goes on.
func (b *Builder) Solve(ctx context.Context, req Request) (*Response, error) {
	if err := req.check(); err != nil {
		return nil, err
	}
	p, err := b.parts()
	if err != nil {
		return nil, err
	}
	run, ctx, err := b.enter(ctx, req.ID)
	if err != nil {
		return nil, err
	}
	defer b.leave(run)
	req.ID = run.id
	j := &job{b: b, p: p, req: req, run: run, started: time.Now()}
	finish := j.record(ctx)
	defer j.close()
	resp, err := j.solve(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && errors.Is(err, context.Canceled) {
		err = fault.In(cause, "build %s", run.id)
	}
	err = stack.Enable(err) // clients print it where they are asked to
	finish(err)
	run.hub.Close()
	b.collect(p)
	if err != nil {
		return nil, err
	}
	return resp, nil
}

// close releases what the build held.
func (j *job) close() {
	if j.host != nil {
		j.host.Close()
		j.build.Close()
	}
}

// solve does the work between the entry and the record.
func (j *job) solve(ctx context.Context) (_ *Response, err error) {
	defer session.Survive(&err)
	if err := j.prepare(); err != nil {
		return nil, err
	}
	if err := j.runFrontend(ctx); err != nil {
		return nil, err
	}
	if j.planned != "" {
		return j.plan(ctx, j.planned)
	}
	if err := j.evaluate(ctx); err != nil {
		return nil, err
	}
	if err := j.verifyPlatforms(); err != nil {
		return nil, err
	}
	if err := j.attest(ctx); err != nil {
		return nil, err
	}
	if j.req.SessionExporter {
		if err := j.findOutputs(ctx); err != nil {
			return nil, err
		}
	}
	exported, err := j.export(ctx)
	if err != nil {
		return nil, err
	}
	told, err := j.exportCaches(ctx)
	if err != nil {
		return nil, err
	}
	maps.Copy(exported, told)
	for k, v := range j.result.Metadata {
		if strings.HasPrefix(k, "frontend.") {
			exported[k] = string(v)
		}
	}
	if j.req.SessionExporter {
		if err := j.tellOutputs(ctx, exported); err != nil {
			return nil, err
		}
	}
	return &Response{ID: j.req.ID, Exported: exported}, nil
}

// prepare checks what can be checked before anything is built, and begins the build.
func (j *job) prepare() error {
	defer close(j.run.ready)
	if err := j.checkEntitlements(); err != nil {
		return err
	}
	if j.req.ProxyNetwork {
		return fault.New(fault.NotImplemented, "building through the builder's own network proxy is not supported")
	}
	var err error
	if j.wanted, err = attest.Parse(j.req.FrontendAttrs); err != nil {
		return err
	}
	if form, ok := j.req.FrontendAttrs[planAttr]; ok {
		j.planned = form
		j.req.FrontendAttrs = maps.Clone(j.req.FrontendAttrs)
		delete(j.req.FrontendAttrs, planAttr)
	}
	epoch, hasEpoch := sourceDateEpoch(j.req.FrontendAttrs)
	for i, e := range j.req.Exporters {
		attrs := maps.Clone(e.Attrs)
		if _, set := attrs[keySourceDateEpoch]; hasEpoch && !set {
			if attrs == nil {
				attrs = map[string]string{}
			}
			attrs[keySourceDateEpoch] = epoch
		}
		out, err := j.p.export.Resolve(export.Request{Type: e.Type, Attrs: attrs, ID: i})
		if err != nil {
			return err
		}
		j.outputs = append(j.outputs, out)
	}
	if err := j.prepareCaches(); err != nil {
		return err
	}
	j.made = make([]*export.Done, len(j.outputs))
	group := session.NewGroup(j.req.Session)
	if j.req.Session == "" {
		group = session.NewGroup()
	}
	cfg := solver.BuildConfig{
		ID: j.req.ID, Sessions: group, Progress: j.run.hub, Entitlements: j.req.Entitlements, Limits: j.req.Limits,
	}
	if j.req.SourcePolicy != nil {
		if err := solver.CheckPolicies(j.req.SourcePolicy); err != nil {
			return err
		}
		cfg.Policies = []*spb.Policy{j.req.SourcePolicy}
	}
	j.build = j.p.solver.Begin(cfg)
	sources := &resolver{sources: j.p.sources, build: j.build, group: group}
	if j.req.PolicySession != "" {
		j.run.policy = &policy{sessions: j.b.sessions, session: j.req.PolicySession, sources: sources}
		sources.policy = j.run.policy
	}
	j.host = &frontend.Host{
		Build: j.build, Session: j.req.Session, Sources: sources, Runner: j.p.exec, Limits: j.req.Limits,
		Entitlements: j.req.Entitlements, Progress: j.run.hub, Worker: j.b.workerInfo(),
		Producers: &j.b.producers, Written: j.req.Written, Import: (&importer{j: j, done: map[string]*sync.Once{}}).add,
	}
	if j.forwarded() {
		j.run.bridge = j.host.NewBridge(&frontend.Call{Options: j.req.FrontendAttrs, Inputs: j.req.FrontendInputs})
	}
	return nil
}

// sourceDateEpoch gives the build argument for the exporters, where it is a time. It may also name a source whose time
// counts; the frontend understands that and tells the time with its result.
func sourceDateEpoch(attrs map[string]string) (string, bool) {
	v, ok := attrs["build-arg:SOURCE_DATE_EPOCH"]
	if _, err := strconv.ParseInt(v, 10, 64); err != nil && v != "" {
		return "", false
	}
	return v, ok
}

// keySourceDateEpoch is the exporters' attribute for the time that nothing is newer than.
const keySourceDateEpoch = "source-date-epoch"

// forwarded reports whether the client runs the frontend itself.
func (j *job) forwarded() bool {
	return j.req.Frontend == "" && j.req.Definition == nil && j.req.Gateway == nil
}

// checkEntitlements refuses what the engine's configuration does not let requests have.
func (j *job) checkEntitlements() error {
	for _, e := range j.req.Entitlements {
		name, _, _ := strings.Cut(e, "=")
		switch {
		case !slices.Contains([]string{"network.host", "security.insecure", "device"}, name):
			return fault.New(fault.Invalid, "unknown entitlement %s", e)
		case !slices.Contains(j.b.cfg.Entitlements, name):
			return fault.New(fault.Forbidden, "granting entitlement %s is not allowed by build daemon configuration", name)
		}
	}
	return nil
}

// runFrontend gets the result, unevaluated.
func (j *job) runFrontend(ctx context.Context) (err error) {
	req := gateway.SolveRequest{
		Frontend: j.req.Frontend, FrontendOpt: j.wanted.Frontend(j.req.FrontendAttrs), FrontendInputs: j.req.FrontendInputs, Definition: j.req.Definition,
	}
	for _, c := range j.req.CacheImports {
		req.CacheImports = append(req.CacheImports, gateway.CacheOptionsEntry{Type: c.Type, Attrs: c.Attrs})
	}
	switch {
	case j.run.bridge != nil:
		select {
		case <-j.run.bridge.Done():
			j.result, err = j.run.bridge.Result()
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	case j.req.Gateway != nil:
		j.result, err = j.host.Run(ctx, req, j.req.Gateway)
	default:
		j.result, err = j.host.Solve(ctx, req)
	}
	if j.result == nil {
		j.result = &gateway.Result{}
	}
	return err
}

// evaluate makes sure that all of the result can be had.
func (j *job) evaluate(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	err := frontend.EachReference(j.result, func(r *frontend.Reference) error {
		eg.Go(session.Safe(func() error {
			_, err := r.Ref().Result(ctx)
			return err
		}))
		return nil
	})
	return errors.Join(err, eg.Wait())
}

// export brings the result to where it shall go, one output after the other: the first often makes what the next needs.
func (j *job) export(ctx context.Context) (map[string]string, error) {
	res, err := result.ConvertResult(j.result, func(r gateway.Reference) (export.Ref, error) {
		ref, ok := r.(*frontend.Reference)
		if !ok || ref == nil {
			return nil, fault.New(fault.Internal, "reference of another build: %T", r)
		}
		return ref.Ref(), nil
	})
	if err != nil {
		return nil, err
	}
	for _, a := range j.attestations {
		res.AddAttestation(a.platform, a.Attestation)
	}
	exported := map[string]string{}
	for i, out := range j.outputs {
		vertex := digest.FromString(j.req.ID + "/" + out.Name() + "/" + string(rune('0'+i)))
		err := frontend.Step(j.run.hub, vertex, out.Name(), func() error {
			run := &export.Run{Session: j.req.Session, Status: func(s progress.Status) {
				s.Vertex = vertex
				j.run.hub.Status(s)
			}}
			if j.inline {
				run.InlineCache = j.p.remote.InlineCache
			}
			done, err := out.Export(ctx, res, run)
			j.made[i] = done
			return err
		})
		if err != nil {
			return nil, err
		}
		maps.Copy(exported, j.made[i].Response)
	}
	return exported, nil
}
