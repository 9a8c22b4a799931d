package exec

import (
	"context"
	"errors"
	"fmt"
	"sync"

	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/solver/pb"

	"berth/base/fault"
	"berth/build/snapshot"
)

// Failed is the error of a step whose process ended badly. It keeps the file trees as the process left them, for who wants
// to look at them or to open a shell there, until Release.
type Failed struct {
	Op       *pb.ExecOp
	ExitCode int    // 128 + the signal's number where one ended it
	Tail     string // the last output, at most TailSize bytes; "" where there was none
	Err      error  // what it is: a *gatewaypb.ExitError, or why there was no process

	mu     sync.Mutex
	inputs []*snapshot.Snapshot // by mount; nil where it shows none
	drafts []*snapshot.Draft    // by mount; nil where nothing was written
	sealed []*snapshot.Snapshot // by mount
	gone   bool
}

// TailSize bounds Failed.Tail.
const TailSize = 8 << 10

// Error is BuildKit's.
func (f *Failed) Error() string {
	return fmt.Sprintf("process %q did not complete successfully: %v", commandLine(f.Op.GetMeta().GetArgs()), f.Err)
}

// Unwrap gives the cause.
func (f *Failed) Unwrap() error { return f.Err }

// Mount gives the file tree of the op's i-th mount as the process left it, and nil for a mount that has none (a secret, a
// tmpfs). The snapshot is the caller's. What was written is made a layer when it is first asked for.
func (f *Failed) Mount(ctx context.Context, i int) (*snapshot.Snapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone:
		return nil, fault.New(fault.NotFound, "the state of the failed step is gone with its build")
	case i < 0 || i >= len(f.inputs):
		return nil, fault.New(fault.Invalid, "the failed step has no mount %d", i)
	case f.sealed[i] != nil:
		return f.sealed[i].Share(), nil
	case f.drafts[i] != nil:
		s, err := f.drafts[i].Seal(ctx)
		if err != nil {
			return nil, fault.In(err, "keep what the failed step left on %s", f.Op.Mounts[i].Dest)
		}
		f.drafts[i], f.sealed[i] = nil, s
		return s.Share(), nil
	case f.inputs[i] != nil:
		return f.inputs[i].Share(), nil
	}
	return nil, nil
}

// Input gives what the op's i-th mount showed before, or nil. The snapshot is the caller's.
func (f *Failed) Input(i int) *snapshot.Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || i < 0 || i >= len(f.inputs) || f.inputs[i] == nil {
		return nil
	}
	return f.inputs[i].Share()
}

// Release gives the trees up. A second call does nothing.
func (f *Failed) Release() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone {
		return
	}
	f.gone = true
	for i := range f.inputs {
		if f.inputs[i] != nil {
			f.inputs[i].Release()
		}
		if f.sealed[i] != nil {
			f.sealed[i].Release()
		}
		if f.drafts[i] != nil {
			f.drafts[i].Drop()
		}
	}
}

// exitCode gives the exit code that an error of a process carries; 255 where there was none.
func exitCode(err error) int {
	var e *gatewaypb.ExitError
	if errors.As(err, &e) {
		return int(e.ExitCode)
	}
	return gatewaypb.UnknownExitStatus
}

// exitError is the error of a process that ended with a code.
func exitError(code int) error { return &gatewaypb.ExitError{ExitCode: uint32(code)} }
