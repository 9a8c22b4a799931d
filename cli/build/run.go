package build

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/docker/cli/cli/command"
	"github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/identity"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/auth/authprovider"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress/progressui"
	"github.com/moby/buildkit/util/progress/progresswriter"

	"berth/cli/build/batches"
	"berth/cli/build/request"
)

// product is who we say we are on the wire.
const product = "buildx"

// planAttr asks a Berth engine what a build would do instead of doing it; the answer has the text under the same name.
const planAttr = "berth.plan"

// An answer is what a build gave.
type answer struct {
	ref      string            // the build's id in the history
	exporter map[string]string // what the outputs tell
	called   map[string]string // what --call found
	warnings []client.VertexWarning
}

// A display shows what goes on until it is closed. Several builds, and parts of their sessions, may write to it at once.
type display struct {
	statuses chan *client.SolveStatus
	writers  sync.WaitGroup
	failed   chan struct{} // closed when a failed step was shown
	leave    chan struct{} // closed by whoever wants the screen
	done     chan struct{} // closed when nothing will be drawn any more
	once     sync.Once
	warnings []client.VertexWarning
	err      error
}

func openDisplay(out io.Writer, mode progressui.DisplayMode, builder string) (*display, error) {
	ui, err := progressui.NewDisplay(out, mode, progressui.WithDesc(`building with "`+builder+`" instance using docker driver`, "docker:"+builder))
	if err != nil {
		return nil, err
	}
	d := &display{
		statuses: make(chan *client.SolveStatus), failed: make(chan struct{}),
		leave: make(chan struct{}), done: make(chan struct{}),
	}
	go d.pump(ui)
	return d, nil
}

// pump passes on what is written until all is, or somebody wants the screen; what comes later nobody sees.
func (d *display) pump(ui progressui.Display) {
	shown, ended := make(chan *client.SolveStatus), make(chan struct{})
	go func() {
		defer close(ended)
		// Not the command's context: what was said before an interrupt is to be seen.
		d.warnings, d.err = ui.UpdateFrom(context.Background(), shown)
		for range shown { // nobody may wait for a display that has failed
		}
	}()
	finish := func() {
		close(shown)
		<-ended
		close(d.done)
	}
	told := false
	for {
		select {
		case s, ok := <-d.statuses:
			if !ok {
				finish()
				return
			}
			shown <- s
			if !told && slices.ContainsFunc(s.Vertexes, func(v *client.Vertex) bool { return v.Error != "" }) {
				told = true
				close(d.failed)
			}
		case <-d.leave:
			finish()
			for range d.statuses {
			}
			return
		}
	}
}

// yield ends the display when a failed step has been shown, which must be soon, and gives the screen away.
func (d *display) yield() {
	select {
	case <-d.failed:
		time.Sleep(100 * time.Millisecond) // the last lines of its output may come after it
	case <-time.After(2 * time.Second):
	}
	d.once.Do(func() { close(d.leave) })
	<-d.done
}

// writer gives a channel for one build. Whoever has it closes it.
func (d *display) writer(prefix string) chan *client.SolveStatus {
	in := make(chan *client.SolveStatus)
	d.writers.Add(1)
	go func() {
		defer d.writers.Done()
		for s := range in {
			if prefix != "" {
				s = prefixed(s, prefix)
			}
			d.statuses <- s
		}
	}()
	return in
}

// close waits until everything is shown.
func (d *display) close() error {
	d.writers.Wait()
	close(d.statuses)
	<-d.done
	return d.err
}

// prefixed puts a target's name before what its vertices are called.
func prefixed(s *client.SolveStatus, prefix string) *client.SolveStatus {
	c := *s
	c.Vertexes = nil
	for _, v := range s.Vertexes {
		named := *v
		named.Name = "[" + prefix + "] " + v.Name
		if len(v.Name) > 0 && v.Name[0] == '[' {
			named.Name = "[" + prefix + " " + v.Name[1:]
		}
		c.Vertexes = append(c.Vertexes, &named)
	}
	return &c
}

// A turn is one build to run.
type turn struct {
	request *request.Request
	call    request.Call
	plan    bool
	prefix  string
	// result is called with what the frontend gave, before it is exported. It may be nil.
	result func(ctx context.Context, res *gateway.Result)
	// failed is called while a failed step still exists, with the means to look into it. It is nil when nobody wants to.
	failed func(ctx context.Context, g gateway.Client, show *display, err error)
}

// solve runs one build.
func (c *conn) solve(ctx context.Context, t turn, show *display) (*answer, error) {
	opt := t.request.Solve
	opt.Ref = identity.NewID()
	a := &answer{ref: opt.Ref}
	opt.Session = slices.Clone(opt.Session)
	if len(opt.LocalMounts) > 0 {
		quick, err := batches.New(opt.LocalMounts)
		if err != nil {
			return nil, err
		}
		opt.Session = append(opt.Session, quick)
	}
	status := show.writer(t.prefix)
	stopLog := logSession(opt.Session, show)
	defer stopLog()
	if t.plan {
		opt.FrontendAttrs[planAttr], opt.Exports, opt.CacheExports = "text", nil, nil
	}
	var resp *client.SolveResponse
	var err error
	if t.call.Name == "" && t.failed == nil && t.result == nil {
		resp, err = c.Solve(ctx, nil, opt, status)
	} else {
		resp, err = c.Build(ctx, opt, product, t.viaGateway(opt, a, show), status)
	}
	if err != nil {
		return nil, err
	}
	a.exporter = resp.ExporterResponse
	return a, nil
}

// viaGateway is a build that we steer, where a plain request would tell too little: of a question's answer, or of a failed step.
func (t turn) viaGateway(opt client.SolveOpt, a *answer, show *display) gateway.BuildFunc {
	return func(ctx context.Context, g gateway.Client) (*gateway.Result, error) {
		req := gateway.SolveRequest{Frontend: opt.Frontend, FrontendOpt: opt.FrontendAttrs, Evaluate: t.failed != nil}
		for name, state := range opt.FrontendInputs {
			def, err := state.Marshal(ctx)
			if err != nil {
				return nil, err
			}
			if req.FrontendInputs == nil {
				req.FrontendInputs = map[string]*pb.Definition{}
			}
			req.FrontendInputs[name] = def.ToPB()
		}
		for _, i := range opt.CacheImports {
			req.CacheImports = append(req.CacheImports, gateway.CacheOptionsEntry{Type: i.Type, Attrs: i.Attrs})
		}
		res, err := g.Solve(ctx, req)
		if err != nil {
			if t.failed != nil && ctx.Err() == nil {
				t.failed(ctx, g, show, err)
			}
			return nil, err
		}
		if t.result != nil {
			t.result(ctx, res)
		}
		if t.call.Name != "" {
			a.called = map[string]string{}
			for k, v := range res.Metadata {
				a.called[k] = string(v)
			}
		}
		return res, nil
	}
}

// logSession lets the session's parts that have something to tell, as about passwords, tell it.
func logSession(parts []session.Attachable, show *display) (stop func()) {
	var stops []func()
	for _, p := range parts {
		l, ok := p.(interface {
			SetLogger(progresswriter.Logger)
		})
		if !ok {
			continue
		}
		w := show.writer("")
		var mu sync.Mutex
		open := true
		l.SetLogger(func(s *client.SolveStatus) {
			mu.Lock()
			defer mu.Unlock()
			if open {
				w <- s
			}
		})
		stops = append(stops, func() {
			mu.Lock()
			defer mu.Unlock()
			open = false
			close(w)
		})
	}
	return func() {
		for _, s := range stops {
			s()
		}
	}
}

// passwords is the session's part that has the registries' passwords.
func passwords(d *command.DockerCli) session.Attachable {
	return authprovider.NewDockerAuthProvider(authprovider.DockerAuthProviderConfig{
		AuthConfigProvider: authprovider.LoadAuthConfig(d.ConfigFile()),
	})
}

// screen is where progress goes: BuildKit's display wants the file itself to draw on a terminal.
func screen(d *command.DockerCli) io.Writer {
	if f, ok := d.Err().File(); ok {
		return f
	}
	return d.Err()
}
