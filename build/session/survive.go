package session

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"

	"google.golang.org/grpc"

	"berth/base/fault"
)

// Survive makes a panic of its caller, who defers it, the caller's error: what clients, files and frontends of builds say goes through
// libraries that were not all written for it, and one build's defect is not to take the engine down.
func Survive(err *error) {
	if p := recover(); p != nil {
		*err = fault.New(fault.Internal, "internal error: %v (%s)", p, place())
	}
}

// Safe is f whose panic is its error: for goroutines that somebody else starts, such as those of an errgroup.
func Safe(f func() error) func() error {
	return func() (err error) {
		defer Survive(&err)
		return f()
	}
}

// place says where the panic began that is being recovered from.
func place() string {
	pcs := make([]uintptr, 64)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	panicked := false
	for {
		f, more := frames.Next()
		switch {
		case f.Function == "runtime.gopanic" || f.Function == "runtime.sigpanic":
			panicked = true
		case panicked && !strings.HasPrefix(f.Function, "runtime."):
			return fmt.Sprintf("%s at %s:%d", f.Function, filepath.Base(f.File), f.Line)
		}
		if !more {
			return "nobody knows where"
		}
	}
}

// SurviveUnary is Survive for the calls of a gRPC server.
func SurviveUnary(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	defer Survive(&err)
	return handler(ctx, req)
}

// SurviveStream is Survive for the streams of a gRPC server.
func SurviveStream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer Survive(&err)
	return handler(srv, stream)
}
