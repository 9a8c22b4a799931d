package session

import (
	"context"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"berth/base/fault"
)

func TestSurvive(t *testing.T) {
	var none map[string]int
	calls := map[string]func() error{
		"unary": func() error {
			_, err := SurviveUnary(t.Context(), nil, nil, func(context.Context, any) (any, error) { none["x"] = 1; return nil, nil })
			return err
		},
		"stream": func() error {
			return SurviveStream(nil, nil, nil, func(any, grpc.ServerStream) error { return []error{}[len(none)] })
		},
	}
	for name, call := range calls {
		err := call()
		if fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "TestSurvive") || !strings.Contains(err.Error(), "survive_test.go:") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := SurviveStream(nil, nil, nil, func(any, grpc.ServerStream) error { return nil }); err != nil {
		t.Error(err)
	}
}

// A goroutine that somebody else starts is as safe.
func TestSafe(t *testing.T) {
	var g errgroup.Group
	g.Go(Safe(func() error { panic("at the disco") }))
	g.Go(Safe(func() error { return nil }))
	if err := g.Wait(); !fault.Is(err, fault.Internal) || !strings.Contains(err.Error(), "at the disco") {
		t.Error(err)
	}
}
