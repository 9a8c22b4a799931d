package frontend

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/errdefs"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"berth/base/fault"
	"berth/build/exec"
	"berth/build/session"
)

// Labels of a frontend's image.
const (
	labelCaps      = "moby.buildkit.frontend.caps"         // what it can, by commas
	labelNoNetwork = "moby.buildkit.frontend.network.none" // it wants none
	capInputs      = "moby.buildkit.frontend.inputs"
)

// metadataDir is where a frontend finds the definition of its own image, in frontend.bin.
const metadataDir = "/run/config/buildkit/metadata"

// maxMessage bounds a gRPC message of the bridge.
const maxMessage = 16 << 20

// runImage is gateway.v0: the frontend is an image, run as a container that speaks the bridge on its stdio.
func runImage(ctx context.Context, c *Client) (*gwclient.Result, error) {
	opts := c.call.Options
	source, ok := opts[keySource]
	if !ok {
		return nil, fault.New(fault.Invalid, "no source specified for gateway")
	}
	state, img, err := frontendImage(ctx, c, source)
	if err != nil {
		return nil, err
	}
	if err := checkCaps(img.Config.Labels[labelCaps], opts["frontend.caps"], len(c.call.Inputs) > 0); err != nil {
		return nil, err
	}
	root, err := solveState(ctx, c, *state)
	if err != nil {
		return nil, err
	}
	def, err := root.Definition().MarshalVT()
	if err != nil {
		return nil, err
	}
	meta, err := solveState(ctx, c, llb.Scratch().File(llb.Mkfile("/frontend.bin", 0o400, def), llb.WithCustomName("[internal] definition of the frontend")))
	if err != nil {
		return nil, err
	}
	return c.runFrontend(ctx, img, root, meta)
}

// runFrontend runs the image's program until it ends, and gives what it returned.
func (c *Client) runFrontend(ctx context.Context, img *dockerspec.DockerOCIImage, root, meta *Reference) (*gwclient.Result, error) {
	if c.host.Runner == nil {
		return nil, fault.New(fault.NotImplemented, "frontends by image cannot be run here")
	}
	rootSnap, err := root.ref.Result(ctx)
	if err != nil {
		return nil, c.host.hold(root.ref, err)
	}
	metaSnap, err := meta.ref.Result(ctx)
	if err != nil {
		return nil, err
	}
	network := pb.NetMode_UNSET
	if none, _ := strconv.ParseBool(img.Config.Labels[labelNoNetwork]); none {
		network = pb.NetMode_NONE
	}
	box, err := c.host.Runner.Container(ctx, exec.ContainerConfig{
		Network: network, Sessions: session.NewGroup(c.host.Session), Limits: c.host.Limits,
		What: "frontend " + c.call.Options[keySource],
		Mounts: []exec.Mount{
			{Mount: &pb.Mount{Dest: pb.RootMount, MountType: pb.MountType_BIND}, Snapshot: rootSnap},
			{Mount: &pb.Mount{Dest: metadataDir, MountType: pb.MountType_BIND, Readonly: true}, Snapshot: metaSnap},
		},
	})
	if err != nil {
		return nil, err
	}
	defer box.Release()
	stdio, err := newPipes()
	if err != nil {
		return nil, err
	}
	defer stdio.Close()
	bridge := newBridge(c)
	stop := bridge.serve(stdio)
	defer stop()
	said := &tail{}
	p := exec.Process{
		Args: []string{"/run"}, Env: slices.Clone(img.Config.Env), Cwd: "/",
		Stdin: stdio.childIn, Stdout: stdio.childOut, Stderr: said,
	}
	if img.Config.Entrypoint != nil {
		p.Args = img.Config.Entrypoint
	}
	if img.Config.WorkingDir != "" {
		p.Cwd = img.Config.WorkingDir
	}
	p.User = img.Config.User
	if p.Env, err = c.environment(p.Env); err != nil {
		return nil, err
	}
	running, err := box.Start(ctx, p)
	if err != nil {
		return nil, err
	}
	if err = running.Wait(); err != nil {
		err = fmt.Errorf("frontend %s: %w%s", c.call.Options[keySource], err, said.quote())
	}
	return bridge.ended(err)
}

// environment is how a frontend in a container learns its options.
func (c *Client) environment(env []string) ([]string, error) {
	n := 0
	for k, v := range c.call.Options {
		env = append(env, fmt.Sprintf("BUILDKIT_FRONTEND_OPT_%d=%s=%s", n, k, v))
		n++
	}
	workers, err := json.Marshal([]gwclient.WorkerInfo{c.host.Worker})
	if err != nil {
		return nil, err
	}
	return append(env, "BUILDKIT_SESSION_ID="+c.host.Session, "BUILDKIT_WORKERS="+string(workers), "BUILDKIT_EXPORTEDPRODUCT="+product), nil
}

// frontendImage finds the frontend's image: a context of the client's by that name, else an image.
func frontendImage(ctx context.Context, c *Client, source string) (*llb.State, *dockerspec.DockerOCIImage, error) {
	ui, err := dockerui.NewClient(c)
	if err != nil {
		return nil, nil, err
	}
	named, err := ui.NamedContext(source, dockerui.ContextOpt{})
	if err != nil {
		return nil, nil, err
	}
	img := &dockerspec.DockerOCIImage{}
	if named != nil {
		state, found, err := named.Load(ctx)
		if err != nil {
			return nil, nil, err
		}
		if found != nil {
			img = found
		}
		if state != nil {
			return state, img, nil
		}
	}
	name, err := reference.ParseNormalizedNamed(source)
	if err != nil {
		return nil, nil, err
	}
	ref, dgst, config, err := c.ResolveImageConfig(ctx, reference.TagNameOnly(name).String(), sourceresolver.Opt{})
	if err != nil {
		return nil, nil, err
	}
	if err := json.Unmarshal(config, img); err != nil {
		return nil, nil, fault.Wrap(fault.Invalid, err, "configuration of frontend %s", source)
	}
	if name, err = reference.ParseNormalizedNamed(ref); err != nil {
		return nil, nil, err
	}
	if dgst != "" {
		if name, err = reference.WithDigest(name, dgst); err != nil {
			return nil, nil, err
		}
	}
	state := llb.Image(name.String(), asFrontend{})
	return &state, img, nil
}

// asFrontend marks an image's record as that of a frontend.
type asFrontend struct{}

// SetImageOption sets the record's type.
func (asFrontend) SetImageOption(i *llb.ImageInfo) {
	i.RecordType = string(client.UsageRecordTypeFrontend)
}

func solveState(ctx context.Context, c *Client, st llb.State) (*Reference, error) {
	def, err := st.Marshal(ctx)
	if err != nil {
		return nil, err
	}
	res, err := c.Solve(ctx, gwclient.SolveRequest{Definition: def.ToPB()})
	if err != nil {
		return nil, err
	}
	ref, _ := res.Ref.(*Reference)
	if ref == nil {
		return nil, fault.New(fault.Invalid, "gateway source didn't return default result")
	}
	return ref, nil
}

// checkCaps refuses a frontend that cannot what the request needs.
func checkCaps(has, needs string, inputs bool) error {
	can := capNames(has)
	for c := range capNames(needs) {
		if !can[c] {
			return grpcerrors.WrapCode(errdefs.NewUnsupportedFrontendCapError(c), codes.Unimplemented)
		}
	}
	if inputs && !can[capInputs] {
		return grpcerrors.WrapCode(errdefs.NewUnsupportedFrontendCapError(capInputs), codes.Unimplemented)
	}
	return nil
}

// capNames splits a list of capabilities; what stands behind a plus is about who may use it.
func capNames(list string) map[string]bool {
	names := map[string]bool{}
	for c := range strings.SplitSeq(list, ",") {
		if name, _, _ := strings.Cut(c, "+"); name != "" {
			names[name] = true
		}
	}
	return names
}

// serve speaks the bridge on a connection until stop is called, which waits for calls under way.
func (b *Bridge) serve(conn net.Conn) (stop func()) {
	g := grpc.NewServer(grpc.ChainUnaryInterceptor(grpcerrors.UnaryServerInterceptor, session.SurviveUnary),
		grpc.ChainStreamInterceptor(grpcerrors.StreamServerInterceptor, session.SurviveStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams))
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	gwpb.RegisterLLBBridgeServer(g, b)
	l := &oneListener{conn: make(chan net.Conn, 1), done: make(chan struct{})}
	l.conn <- conn
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	return func() {
		_ = conn.Close() // one that never spoke is none that Stop knows, and would be waited for
		g.Stop()
		serving.Wait()
	}
}

// oneListener gives one connection.
type oneListener struct {
	conn chan net.Conn
	once sync.Once
	done chan struct{}
}

// Accept gives the connection, and then waits for the end.
func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (l *oneListener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is that of a pipe.
func (l *oneListener) Addr() net.Addr { return pipeAddr{} }

// pipes is a connection over a child's stdin and stdout.
type pipes struct {
	in, out           *os.File // what the child printed; what it will read
	childIn, childOut *os.File
	once              sync.Once
}

func newPipes() (*pipes, error) {
	childIn, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in, childOut, err := os.Pipe()
	if err != nil {
		closeAll(childIn, out)
		return nil, err
	}
	return &pipes{in: in, out: out, childIn: childIn, childOut: childOut}, nil
}

// Read reads what the child printed.
func (p *pipes) Read(b []byte) (int, error) { return p.in.Read(b) }

// Write gives the child what it reads.
func (p *pipes) Write(b []byte) (int, error) { return p.out.Write(b) }

// Close closes our ends; the child's are closed by who runs it, and again here in case nobody did.
func (p *pipes) Close() error {
	p.once.Do(func() { closeAll(p.in, p.out, p.childIn, p.childOut) })
	return nil
}

// LocalAddr is that of a pipe.
func (p *pipes) LocalAddr() net.Addr { return pipeAddr{} }

// RemoteAddr is that of a pipe.
func (p *pipes) RemoteAddr() net.Addr { return pipeAddr{} }

// SetDeadline does nothing: a frontend is ended by its context.
func (p *pipes) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (p *pipes) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (p *pipes) SetWriteDeadline(time.Time) error { return nil }

type pipeAddr struct{}

// Network is the kind of address.
func (pipeAddr) Network() string { return "pipe" }

// String is a name for logs.
func (pipeAddr) String() string { return "frontend" }

// tail keeps the last of what is written to it.
type tail struct {
	mu   sync.Mutex
	last []byte
}

// tailSize is how much of a frontend's complaints an error quotes.
const tailSize = 2 << 10

var _ io.WriteCloser = (*tail)(nil)

// Write keeps.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = append(t.last, b...)
	if over := len(t.last) - tailSize; over > 0 {
		t.last = append(t.last[:0], t.last[over:]...)
	}
	return len(b), nil
}

// Close does nothing.
func (t *tail) Close() error { return nil }

// quote gives what was kept, for the end of an error.
func (t *tail) quote() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if said := bytes.TrimSpace(t.last); len(said) > 0 {
		return ": " + string(said)
	}
	return ""
}
