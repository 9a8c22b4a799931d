package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"berth/api/server/classic"
	"berth/api/server/wire"
	"berth/base/fault"
	"berth/build"
	"berth/build/cache"
	"berth/build/session"
	"berth/build/tarcontext"
)

// Builds is the room that builds images.
type Builds interface {
	Solve(ctx context.Context, r build.Request) (*build.Response, error)
	// Status follows a build from its beginning to its end.
	Status(ctx context.Context, id string, send func(*client.SolveStatus) error) error
	// Cancel ends a build; false: there is none of that id.
	Cancel(id string) bool
	// Sessions finds the clients that serve files and secrets to builds.
	Sessions() (*session.Manager, error)
	// Spool is a directory for contexts while they are used.
	Spool() (string, error)
	DiskUsage(ctx context.Context, filters []string) ([]cache.Usage, error)
	// Prune removes what nobody uses, and tells each thing that is gone.
	Prune(ctx context.Context, o cache.PruneOptions, told func(cache.Usage)) error
}

// BuildWire speaks BuildKit's own protocol on a connection.
type BuildWire interface {
	// ServeConn returns when the connection is over, or ctx ends.
	ServeConn(ctx context.Context, conn net.Conn) error
}

func needBuilds(handle handler) handler {
	return func(s *Server, c *call) error {
		if s.cfg.Builds == nil || s.cfg.BuildWire == nil {
			return fault.New(fault.NotImplemented, "building images is not in this build of Berth")
		}
		return handle(s, c)
	}
}

// buildSession is POST /session: the client serves gRPC on this connection until it leaves.
func buildSession(s *Server, c *call) error {
	sessions, err := s.cfg.Builds.Sessions()
	if err != nil {
		return err
	}
	ctx, done, err := s.taken(c)
	if err != nil {
		return err
	}
	defer done()
	c.code = http.StatusSwitchingProtocols
	if err := sessions.HandleHTTP(ctx, c.w, c.r); err != nil {
		c.code = 0
		return err
	}
	c.began = true
	return nil
}

// buildGRPC is POST /grpc: BuildKit's services on this connection.
func buildGRPC(s *Server, c *call) error {
	switch proto := c.r.Header.Get("Upgrade"); {
	case proto == "":
		return fault.New(fault.Invalid, "no upgrade proto in request")
	case !strings.EqualFold(proto, "h2c"):
		return fault.New(fault.Invalid, "protocol %s not supported", proto)
	}
	ctx, done, err := s.taken(c)
	if err != nil {
		return err
	}
	defer done()
	conn, buffered, err := http.NewResponseController(c.w).Hijack()
	if err != nil {
		return fault.Wrap(fault.Internal, err, "taking the connection over")
	}
	c.began, c.code = true, http.StatusSwitchingProtocols
	_ = conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(conn, "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"); err != nil {
		conn.Close()
		return nil
	}
	if buffered.Reader.Buffered() > 0 {
		conn = &earlyConn{Conn: conn, in: buffered.Reader}
	}
	return s.cfg.BuildWire.ServeConn(ctx, conn)
}

// earlyConn is a connection whose first bytes have been read already.
type earlyConn struct {
	net.Conn
	in *bufio.Reader
}

func (c *earlyConn) Read(p []byte) (int, error) { return c.in.Read(p) }

// taken counts a connection that leaves HTTP, and gives a context that ends with the server.
func (s *Server) taken(c *call) (context.Context, func(), error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving.Err() != nil {
		return nil, nil, fault.New(fault.Unavailable, "the engine is being stopped")
	}
	s.pumps.Add(1)
	ctx, cancel := context.WithCancel(c.ctx())
	stop := context.AfterFunc(s.leaving, cancel)
	return ctx, func() { stop(); cancel(); s.pumps.Done() }, nil
}

// buildCancel is POST /build/cancel.
func buildCancel(s *Server, c *call) error {
	id := c.text("id")
	if id == "" {
		return fault.New(fault.Invalid, "build ID not provided")
	}
	s.cfg.Builds.Cancel(id)
	return c.done(http.StatusOK)
}

// buildVersion is which builder a client of POST /build means.
type buildVersion int

const (
	classicBuilder buildVersion = 1 // it reads a transcript
	buildKit       buildVersion = 2 // it reads traces
)

// imageBuild is POST /build.
func imageBuild(s *Server, c *call) error {
	o, err := s.buildOptions(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(c.ctx())
	defer cancel()
	defer context.AfterFunc(s.leaving, cancel)()
	out := &lines{c: c}
	if o.version == buildKit {
		return out.end(s.buildTraced(ctx, c, o, out))
	}
	return out.end(s.buildClassic(ctx, c, o, out))
}

// buildClassic builds from a context in the request, and tells it as the classic builder did.
func (s *Server) buildClassic(ctx context.Context, c *call, o *buildOptions, out *lines) error {
	dockerfile, leave, err := s.buildContext(ctx, c, o)
	if err != nil {
		return err
	}
	defer leave()
	say := func(text string) {
		if !o.quiet {
			out.write(wire.StreamLine(text))
		}
	}
	told := classic.New(classic.Config{Dockerfile: dockerfile, Target: o.request.FrontendAttrs["target"], Args: o.args, Print: say})
	o.request.Written = func(src *pb.Source) { told.Learn(src.Infos[0].Data) }
	done, err := s.buildWith(ctx, o, func(status *client.SolveStatus) error {
		told.Hear(status)
		for _, w := range status.Warnings {
			say("[Warning] " + string(w.Short) + "\n")
		}
		return nil
	})
	told.Finish(err == nil)
	if err != nil {
		return s.classicError(err, told, out)
	}
	image := done.Exported["containerimage.config.digest"]
	switch {
	case o.quiet:
		out.write(wire.StreamLine(image + "\n"))
		return nil
	case image != "":
		if c.v >= 29 {
			out.write(wire.AuxLine("", map[string]string{"ID": image}))
		}
		say("Successfully built " + strings.TrimPrefix(image, "sha256:")[:12] + "\n")
	}
	for _, n := range c.q["t"] {
		if name, err := buildName(n); err == nil {
			say("Successfully tagged " + name.Familiar() + "\n")
		}
	}
	return nil
}

// classicError says what failed as the classic builder did: a command by its words and exit code.
func (s *Server) classicError(err error, told *classic.Transcript, out *lines) error {
	var at *parser.LocationError
	if errors.As(err, &at) && fault.KindOf(err) == fault.Internal {
		return fault.Wrap(fault.Invalid, err, "") // the Dockerfile's mistake
	}
	if text := told.Missing(); text != "" {
		return fault.New(fault.Invalid, "%s", text)
	}
	var exit *gatewaypb.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if text := told.Failed(int(exit.ExitCode)); text != "" {
		out.write(wire.ExitLine(text, int(exit.ExitCode)))
		return nil
	}
	return err
}

// buildTraced builds with what a session serves, and tells it in BuildKit's own messages, as Docker's CLI of before buildx reads them. A quiet
// build tells nothing but the image.
func (s *Server) buildTraced(ctx context.Context, c *call, o *buildOptions, out *lines) error {
	switch {
	case o.remote == "client-session":
	case o.remote == "upload-request": // the second half of a build: a context, for the session that waits for it
		return fault.New(fault.NotImplemented, "a context sent by a second request is not supported: use a newer client")
	case o.remote != "":
		o.request.FrontendAttrs["context"] = o.remote
	default: // libraries send the context with the request, whichever builder they mean
		_, leave, err := s.buildContext(ctx, c, o)
		if err != nil {
			return err
		}
		defer leave()
	}
	done, err := s.buildWith(ctx, o, func(status *client.SolveStatus) error {
		if o.quiet {
			return nil
		}
		for _, m := range status.Marshal() {
			b, err := m.MarshalVT()
			if err != nil {
				return err
			}
			out.write(wire.AuxLine("moby.buildkit.trace", b))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if image := done.Exported["containerimage.config.digest"]; image != "" {
		if o.quiet {
			out.write(wire.StreamLine(image + "\n"))
			return nil
		}
		out.write(wire.AuxLine("moby.image.id", map[string]string{"ID": image}))
	}
	return nil
}

// buildWith builds, and has tell hear all that happens before it returns.
func (s *Server) buildWith(ctx context.Context, o *buildOptions, tell func(*client.SolveStatus) error) (*build.Response, error) {
	type result struct {
		r   *build.Response
		err error
	}
	solved := make(chan result, 1)
	go func() {
		r, err := s.cfg.Builds.Solve(ctx, o.request)
		solved <- result{r, err}
	}()
	// Status ends with the build; a build that was refused at once has none.
	watching, stop := context.WithCancel(ctx)
	defer stop()
	told := make(chan struct{})
	go func() {
		defer close(told)
		if err := s.cfg.Builds.Status(watching, o.request.ID, tell); err != nil && watching.Err() == nil {
			s.log.Debug("a build cannot be watched", "id", o.request.ID, "error", err)
		}
	}()
	end := <-solved
	if end.r == nil && end.err == nil {
		end.err = fault.New(fault.Internal, "a build ended without a result")
	}
	select {
	case <-told:
	case <-time.After(statusPatience):
		stop()
		<-told
	}
	return end.r, end.err
}

// statusPatience is how long the end of a build's progress may come after its result.
const statusPatience = 3 * time.Second

// buildContext makes the context of a classic build ready: a session of our own serves what the request's body holds, and the client's
// credentials. It gives the Dockerfile, where it is known, and a function that ends the session.
func (s *Server) buildContext(ctx context.Context, c *call, o *buildOptions) (dockerfile []byte, leave func(), err error) {
	spool, err := s.cfg.Builds.Spool()
	if err != nil {
		return nil, nil, err
	}
	name := o.dockerfile
	if name == "" {
		name = "Dockerfile"
	}
	var from *tarcontext.Context
	if o.remote == "" {
		if from, err = tarcontext.Read(ctx, c.r.Body, spool); err != nil {
			return nil, nil, err
		}
		if dockerfile, name, err = findDockerfile(from, name, o.dockerfile == ""); err != nil {
			from.Close()
			return nil, nil, err
		}
		o.request.FrontendAttrs["filename"] = name
	} else {
		o.request.FrontendAttrs["context"] = o.remote
	}
	sessions, err := s.cfg.Builds.Sessions()
	if err == nil {
		var session string
		var end func()
		session, end, err = classic.Session(ctx, sessions, from, o.auth)
		o.request.Session = session
		leave = func() {
			end()
			if from != nil {
				from.Close()
			}
		}
	}
	if err != nil {
		if from != nil {
			from.Close()
		}
		return nil, nil, err
	}
	return dockerfile, leave, nil
}

// findDockerfile reads the Dockerfile of a context; where none was named, one in small letters will do.
func findDockerfile(from *tarcontext.Context, name string, any bool) (text []byte, found string, err error) {
	names := []string{name}
	if any {
		names = append(names, strings.ToLower(name))
	}
	for _, n := range names {
		f, err := from.FS().Open(n)
		if err != nil {
			continue
		}
		defer f.Close()
		text, err := io.ReadAll(io.LimitReader(f, maxDockerfile+1))
		switch {
		case err != nil:
			return nil, "", fault.Wrap(fault.Internal, err, "reading the Dockerfile")
		case len(text) > maxDockerfile:
			return nil, "", fault.New(fault.Invalid, "the Dockerfile (%s) is larger than %d bytes", n, maxDockerfile)
		case len(text) == 0:
			return nil, "", fault.New(fault.Invalid, "the Dockerfile (%s) cannot be empty", n)
		}
		return text, n, nil
	}
	return nil, "", fault.New(fault.Invalid, "Cannot locate specified Dockerfile: %s", name)
}

// maxDockerfile bounds a Dockerfile, as BuildKit does.
const maxDockerfile = 16 << 20
