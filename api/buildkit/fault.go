package buildkit

import (
	"context"
	"errors"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"berth/base/fault"
)

// kindCodes are the codes of our kinds of errors.
var kindCodes = map[fault.Kind]codes.Code{
	fault.Invalid: codes.InvalidArgument, fault.NotFound: codes.NotFound, fault.Conflict: codes.FailedPrecondition,
	fault.NotModified: codes.AlreadyExists, fault.Forbidden: codes.PermissionDenied, fault.Unauthorized: codes.Unauthenticated,
	fault.Unavailable: codes.Unavailable, fault.NotImplemented: codes.Unimplemented, fault.Cancelled: codes.Canceled,
	fault.Deadline: codes.DeadlineExceeded, fault.Gone: codes.NotFound,
}

// toGRPC gives an error its form on the wire: a code, the words, and BuildKit's typed details (source positions, the failed
// operation, exit codes).
func toGRPC(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if code := grpcerrors.Code(err); code == codes.Unknown {
		var f *fault.Error
		if errors.As(err, &f) {
			if code, ok := kindCodes[f.Kind]; ok {
				err = grpcerrors.WrapCode(err, code)
			}
		}
	}
	return grpcerrors.ToGRPC(ctx, err)
}

func unaryErrors(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, toGRPC(ctx, err)
}

func streamErrors(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return toGRPC(stream.Context(), handler(srv, stream))
}
