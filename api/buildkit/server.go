package buildkit

import (
	"context"
	"log/slog"
	"net"
	"sync"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	controlapi "github.com/moby/buildkit/api/services/control"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	tracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"berth/build"
	"berth/build/session"
)

// Config says what the door opens to.
type Config struct {
	Builder *build.Builder
	Log     *slog.Logger
}

// Server speaks BuildKit's protocol on connections that it is given. It is safe for concurrent use.
type Server struct {
	cfg Config
	log *slog.Logger

	mu     sync.Mutex
	grpc   *grpc.Server // nil before the first connection
	conns  *connListener
	closed bool
}

// New makes a server; it costs nothing before the first connection.
func New(cfg Config) *Server {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg: cfg, log: log}
}

// ServeConn speaks gRPC (HTTP/2 with prior knowledge) on a connection that was upgraded by POST /grpc, and
// returns when the connection is over. The connection is the server's from now on.
func (s *Server) ServeConn(ctx context.Context, conn net.Conn) error {
	if _, err := s.open(); err != nil {
		conn.Close()
		return err
	}
	done := make(chan struct{})
	tracked := &trackedConn{Conn: conn, done: done}
	stop := context.AfterFunc(ctx, func() { tracked.Close() })
	defer stop()
	if err := s.conns.give(tracked); err != nil {
		conn.Close()
		return err
	}
	<-done
	return nil
}

// Serve accepts connections until the listener or the server is closed: the socket EXEC-ROOT/buildkit.sock.
func (s *Server) Serve(l net.Listener) error {
	g, err := s.open()
	if err != nil {
		return err
	}
	return g.Serve(l)
}

// Close ends all connections and waits for the calls under way.
func (s *Server) Close() error {
	s.mu.Lock()
	g := s.grpc
	s.closed = true
	s.mu.Unlock()
	if g != nil {
		g.Stop()
	}
	return nil
}

// open makes the gRPC server with the first connection.
func (s *Server) open() (*grpc.Server, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, grpc.ErrServerStopped
	}
	if s.grpc != nil {
		return s.grpc, nil
	}
	g := grpc.NewServer(grpc.ChainUnaryInterceptor(unaryErrors, session.SurviveUnary), grpc.ChainStreamInterceptor(streamErrors, session.SurviveStream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage), grpc.MaxConcurrentStreams(maxStreams))
	controlapi.RegisterControlServer(g, &control{builder: s.cfg.Builder})
	gwpb.RegisterLLBBridgeServer(g, &bridge{builder: s.cfg.Builder})
	contentapi.RegisterContentServer(g, &content{builder: s.cfg.Builder})
	tracepb.RegisterTraceServiceServer(g, traces{})
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	s.grpc, s.conns = g, newConnListener()
	go g.Serve(s.conns) // ends with g.Stop, which closes the listener and waits for it
	return g, nil
}

// maxMessage bounds a message of gRPC: definitions of big builds, files that frontends read.
const maxMessage = 16 << 20

// maxStreams bounds the calls under way on one connection; a client's next waits until one has ended. Builds take three or more for as long as they
// last and ask further things meanwhile, so this is well above what all builds that there may be at once have.
const maxStreams = 10_000

// traces takes the spans that clients export and drops them: the engine's own tracing is configured elsewhere.
type traces struct {
	tracepb.UnimplementedTraceServiceServer
}

// Export drops.
func (traces) Export(context.Context, *tracepb.ExportTraceServiceRequest) (*tracepb.ExportTraceServiceResponse, error) {
	return &tracepb.ExportTraceServiceResponse{}, nil
}
