package build

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
)

// leaving is an engine that goes after some questions.
type leaving struct {
	gateway.Client
	after int
}

var errGone = errors.New("no such job")

func (l *leaving) Inputs(context.Context) (map[string]llb.State, error) {
	if l.after--; l.after < 0 {
		return nil, errGone
	}
	return nil, nil
}

// A shell ends with the engine's end of it, whatever the person before it does; and nobody asks any more once it has been left.
func TestShellNoticesThatTheEngineIsGone(t *testing.T) {
	if err := lost(t.Context(), &leaving{after: 3}, time.Millisecond); !errors.Is(err, errGone) {
		t.Error(err)
	}
	// One that never knew the question is not gone.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := lost(ctx, &leaving{}, time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := lost(ctx, &leaving{after: 1 << 30}, time.Millisecond); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
