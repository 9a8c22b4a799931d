package session

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"berth/base/fault"
)

// caller is a session.
type caller struct {
	id        string
	name      string
	sharedKey string
	methods   map[string]bool // in small letters
	health    health
	ctx       context.Context // the session's own: ends when it does
	end       context.CancelCauseFunc
	conn      *grpc.ClientConn // nil until the connection is there; guarded by Manager.mu, written once
}

// Context gives a context that ends with ctx or with the session, whichever is first.
func (c *caller) Context(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.ctx, func() { cancel(context.Cause(c.ctx)) })
	context.AfterFunc(ctx, func() { stop() })
	return ctx
}

// Supports reports whether the client announced a method: /package.Service/method, in any case.
func (c *caller) Supports(method string) bool { return c.methods[strings.ToLower(method)] }

// Conn is the connection to call the client's services on.
func (c *caller) Conn() *grpc.ClientConn { return c.conn }

// SharedKey is what the client calls the place that it builds from.
func (c *caller) SharedKey() string { return c.sharedKey }

// Sizes of the connection. A window is what may be under way unread: gRPC's own 64 KB make a transfer wait for the reader at
// every second file.
const (
	maxMessage   = 16 << 20
	streamWindow = 4 << 20
	connWindow   = 16 << 20
	readBuffer   = 128 << 10
)

// dial makes a gRPC client of a connection that is there. It is never made anew: a session that breaks is over.
func dial(conn net.Conn) (*grpc.ClientConn, error) {
	var used atomic.Bool
	return grpc.NewClient("passthrough:///session",
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errors.New("the session's connection is gone")
			}
			return conn, nil
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithInitialWindowSize(streamWindow), grpc.WithInitialConnWindowSize(connWindow),
		grpc.WithReadBufferSize(readBuffer), grpc.WithIdleTimeout(0), grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
		grpc.WithUnaryInterceptor(grpcerrors.UnaryClientInterceptor), grpc.WithStreamInterceptor(grpcerrors.StreamClientInterceptor),
	)
}

// health says how a client is found to be dead that has not closed its connection: a machine that lost its network.
type health struct {
	interval, timeout time.Duration
	failures          int // in a row that end the session
}

// healthOf reads what the client wants; without a wish it is lenient, as a busy client on a thin line is slow to answer.
func healthOf(h http.Header) health {
	if ms, err := strconv.Atoi(h.Get(headerHealth)); err == nil && ms > 0 && ms < 1<<30 {
		d := max(time.Duration(ms)*time.Millisecond, time.Second)
		return health{interval: d, timeout: d, failures: 1}
	}
	return health{interval: 5 * time.Second, timeout: 15 * time.Second, failures: 2}
}

// watchHealth asks the client now and then whether it is there, until the session ends or it is not.
func (c *caller) watchHealth(log *slog.Logger) {
	client := grpc_health_v1.NewHealthClient(c.conn)
	ticker := time.NewTicker(c.health.interval)
	defer ticker.Stop()
	failed, took := 0, time.Duration(0)
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
		}
		begin := time.Now()
		ctx, cancel := context.WithTimeout(c.ctx, max(c.health.timeout, took*3/2))
		_, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		cancel()
		took = time.Since(begin)
		if err == nil {
			failed = 0
			continue
		}
		if c.ctx.Err() != nil {
			return
		}
		if failed++; failed >= c.health.failures {
			log.Warn("a build's client does not answer", "session", c.id, "err", err)
			c.end(fault.Wrap(fault.Unavailable, err, "session healthcheck failed fatally"))
			return
		}
	}
}

// watched tells when a connection ends.
type watched struct {
	net.Conn
	once sync.Once
	gone func(error)
}

// Read reads, and notices the end.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if err != nil {
		w.say(err)
	}
	return n, err
}

// Close closes the connection.
func (w *watched) Close() error {
	err := w.Conn.Close()
	w.say(io.EOF)
	return err
}

func (w *watched) say(err error) { w.once.Do(func() { w.gone(err) }) }

// prefixed is a connection of which some bytes were read already.
type prefixed struct {
	net.Conn
	head []byte
}

// Read gives those first.
func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.head) > 0 {
		n := copy(b, p.head)
		p.head = p.head[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}
