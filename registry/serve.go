package registry

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"berth/base/fault"
)

const (
	headerTimeout = 20 * time.Second // for a request's header
	idleTimeout   = 2 * time.Minute  // between requests of one connection
	stopTimeout   = 30 * time.Second // for requests in flight when the registry stops
)

// Listener gives a listener at cfg.Addr.
func (r *Registry) Listener() (net.Listener, error) {
	addr := r.cfg.Addr
	if addr == "" {
		addr = "127.0.0.1:5000"
	}
	l, err := net.Listen("tcp", addr)
	return l, fault.Wrap(fault.Unavailable, err, "registry")
}

// Serve serves on a listener until ctx ends, then lets requests in flight end, for half a minute.
func (r *Registry) Serve(ctx context.Context, l net.Listener) error {
	metricsEnd, err := r.serveMetrics(ctx)
	if err != nil {
		return err
	}
	defer metricsEnd()
	s := &http.Server{Handler: r, ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: 64 << 10,
		// The standard windows, 1 MiB for a connection, hold an upload back on any line with a delay.
		HTTP2:    &http.HTTP2Config{MaxReceiveBufferPerConnection: 16 << 20, MaxReceiveBufferPerStream: 4 << 20, MaxReadFrameSize: 1 << 20},
		ErrorLog: slog.NewLogLogger(r.cfg.Log.Handler(), slog.LevelDebug)} // handshakes of scanners and the like
	serve := s.Serve
	if r.cfg.TLSCert != "" || r.cfg.TLSKey != "" {
		var err error
		if s.TLSConfig, err = r.tls(); err != nil {
			return errors.Join(err, l.Close())
		}
		serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") } // adds HTTP/2
	}
	done := make(chan error, 1)
	go func() { done <- serve(l) }()
	select {
	case err := <-done:
		return fault.Wrap(fault.Internal, err, "registry")
	case <-ctx.Done():
	}
	late, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	err = s.Shutdown(late)
	if errors.Is(err, context.DeadlineExceeded) {
		r.cfg.Log.Warn("requests in flight were cut off")
		err = s.Close()
	}
	<-done
	return fault.Wrap(fault.Internal, err, "registry")
}
