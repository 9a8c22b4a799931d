package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/docker/cli/cli"
	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"

	"berth/cli/build/request"
)

// A wave is several builds that run together. One may use another's result as a named context: then it waits for it, and the other stays until
// it is through, since the result refers to files that the other's session has.
type wave struct {
	conn   *conn
	show   *display
	auth   session.Attachable
	engine request.Engine
	many   bool
	turns  map[string]*waveTurn
}

// A waveTurn is one build of a wave.
type waveTurn struct {
	name    string
	spec    *request.Spec
	request *request.Request
	answer  *answer
	uses    map[string]string // by named context: the turn whose result it is
	users   sync.WaitGroup    // turns that use its result and still run
	used    bool
	ready   chan struct{}   // closed when the result is there, or the turn has ended
	result  *gateway.Result // nil when it failed
	err     error           // why it failed by itself, and not since another did
}

func newWaveTurn(name string, spec *request.Spec) *waveTurn {
	return &waveTurn{name: name, spec: spec, uses: map[string]string{}, ready: make(chan struct{})}
}

// link finds who uses whom.
func (w *wave) link() {
	for _, t := range w.turns {
		if t.spec.Call.Name != "" {
			continue // a question is about the Dockerfile alone
		}
		for context, place := range t.spec.Contexts {
			other, ok := strings.CutPrefix(place, "target:")
			if !ok || w.turns[other] == nil {
				continue
			}
			t.uses[context] = other
			w.turns[other].used = true
			w.turns[other].users.Add(1)
		}
	}
}

func (w *wave) release() {
	for _, t := range w.turns {
		if t.request != nil {
			t.request.Release()
		}
	}
}

func (w *wave) run(ctx context.Context, d *command.DockerCli, t *waveTurn) error {
	var once sync.Once
	ready := func() { once.Do(func() { close(t.ready) }) }
	defer ready()
	defer func() {
		for _, other := range t.uses {
			w.turns[other].users.Done()
		}
	}()
	r, err := t.spec.Prepare(ctx, w.engine, d.In(), w.auth)
	if err != nil {
		t.err = fmt.Errorf("target %s: %w", t.name, err)
		return t.err
	}
	t.request = r
	for context, name := range t.uses {
		if err := w.await(ctx, r, context, w.turns[name]); err != nil {
			return err
		}
	}
	one := turn{request: r, call: t.spec.Call}
	if w.many {
		one.prefix = t.name
	}
	if t.used {
		one.result = func(ctx context.Context, res *gateway.Result) {
			t.result = res
			ready()
			waitFor(ctx, &t.users)
		}
	}
	t.answer, err = w.conn.solve(ctx, one, w.show)
	if err != nil {
		t.err = fmt.Errorf("target %s: %w", t.name, err)
	}
	return t.err
}

// failure prints the lines that each failed target's error is about, in the files that somebody wrote, and gives all errors as one. err is what the
// wave ended with. Targets that were given up because another failed are not spoken of.
func (w *wave) failure(d *command.DockerCli, err error) error {
	var all cli.StatusError
	for _, name := range slices.Sorted(maps.Keys(w.turns)) {
		t := w.turns[name]
		if t.err == nil || isCanceled(t.err) {
			continue
		}
		var one cli.StatusError
		if !errors.As(failure(d, fmt.Errorf("failed to build: %w", t.err), t.request), &one) {
			continue
		}
		if all.Status != "" {
			one.Status, one.Cause, one.StatusCode = all.Status+"\n"+one.Status, errors.Join(all.Cause, one.Cause), all.StatusCode
		}
		all = one
	}
	if all.Status == "" {
		return failure(d, fmt.Errorf("failed to build: %w", err), nil)
	}
	return all
}

// requests are those of all turns.
func (w *wave) requests() []*request.Request {
	var all []*request.Request
	for _, t := range w.turns {
		if t.request != nil {
			all = append(all, t.request)
		}
	}
	return all
}

// waitFor waits for a group unless ctx ends before.
func waitFor(ctx context.Context, g *sync.WaitGroup) {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// await puts another turn's result into a request, in the place of its name.
func (w *wave) await(ctx context.Context, r *request.Request, context string, other *waveTurn) error {
	select {
	case <-other.ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if other.result == nil {
		return fmt.Errorf("target %s has no result", other.name)
	}
	if other.spec.Call.Name != "" {
		return fmt.Errorf("target %s has no result: it is asked for %s, not built", other.name, other.spec.Call.Name)
	}
	if r.Solve.FrontendInputs == nil {
		r.Solve.FrontendInputs = map[string]llb.State{}
	}
	attrs := r.Solve.FrontendAttrs
	put := func(suffix, configKey string, ref gateway.Reference) error {
		state := llb.Scratch()
		if ref != nil {
			var err error
			if state, err = ref.ToState(); err != nil {
				return err
			}
		}
		input := other.name + suffix
		r.Solve.FrontendInputs[input] = state
		attrs["context:"+context+suffix] = "input:" + input
		if config, ok := other.result.Metadata[configKey]; ok {
			text, err := json.Marshal(map[string][]byte{exptypes.ExporterImageConfigKey: config})
			if err != nil {
				return err
			}
			attrs["input-metadata:"+input] = string(text)
		}
		return nil
	}
	if len(other.result.Refs) == 0 {
		return put("", exptypes.ExporterImageConfigKey, other.result.Ref)
	}
	delete(attrs, "context:"+context)
	for platform, ref := range other.result.Refs {
		if err := put("::"+platform, exptypes.ExporterImageConfigKey+"/"+platform, ref); err != nil {
			return err
		}
	}
	return nil
}
