package buildkit

import (
	"context"
	"errors"
	"strings"

	controlapi "github.com/moby/buildkit/api/services/control"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
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
//
// What goes wrong in a build has the code Unknown, unless something with a code of its own caused it: clients put any
// other code in front of the words, which people then read, and some compare.
func toGRPC(ctx context.Context, err error, building bool) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if grpcerrors.Code(err) == codes.Unknown && errors.As(err, &f) {
		if code, ok := kindCodes[f.Kind]; ok && (!building || code == codes.Canceled) {
			err = grpcerrors.WrapCode(err, code)
		}
	}
	return grpcerrors.ToGRPC(ctx, err)
}

// building reports whether a method is part of a build: Solve, and all of the bridge.
func building(method string) bool {
	return method == controlapi.Control_Solve_FullMethodName || strings.HasPrefix(method, "/"+gwpb.LLBBridge_ServiceDesc.ServiceName+"/")
}

func unaryErrors(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	resp, err := handler(ctx, req)
	return resp, toGRPC(ctx, err, building(info.FullMethod))
}

func streamErrors(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return toGRPC(stream.Context(), handler(srv, stream), building(info.FullMethod))
}
