// Package step runs a long operation as a list of steps, each with its undo. A step that fails, or a context that ends between two
// steps, undoes the finished ones in reverse order, and the caller is left where it began.
//
// A crash in the middle leaves the finished steps done. Whoever owns their effects must be able to tell on the next start, from what
// is on disk, whether to go on or to go back; so each Do and each Undo must be safe to repeat. Before every step there is a failpoint
// named "engine/OPERATION/STEP", where tests kill the process to prove it.
//
// The package keeps nothing and knows no containers.
package step

import (
	"context"
	"errors"

	"berth/base/failpoint"
	"berth/base/trace"
	"berth/base/wait"
)

// Step is one part of an operation.
type Step struct {
	Name string // one word: it is part of a failpoint's name
	Do   func(context.Context) error
	Undo func() error // nil: nothing to undo
}

// Run does the steps in order, and names each to the wait.Wait that ctx carries. The error is the failing step's; what went wrong while undoing is joined to it.
func Run(ctx context.Context, operation string, steps ...Step) error {
	at := wait.From(ctx)
	for i, s := range steps {
		at.Step(s.Name)
		err := failpoint.Hit("engine/" + operation + "/" + s.Name)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = traced(ctx, operation, s)
		}
		if err != nil {
			return undo(err, steps[:i])
		}
	}
	return nil
}

// traced does one step as a span of its own.
func traced(ctx context.Context, operation string, s Step) error {
	ctx, end := trace.Start(ctx, operation+"/"+s.Name)
	err := s.Do(ctx)
	end(err)
	return err
}

func undo(err error, done []Step) error {
	for i := len(done) - 1; i >= 0; i-- {
		if done[i].Undo == nil {
			continue
		}
		if uerr := done[i].Undo(); uerr != nil {
			err = &Halfway{Cause: err, Undo: errors.Join(uerr)}
		}
	}
	return err
}

// Halfway is the error of an operation that failed and could not be undone wholly.
type Halfway struct {
	Cause error // why the operation failed
	Undo  error // what could not be undone
}

// Error gives both texts.
func (h *Halfway) Error() string {
	return h.Cause.Error() + " (and while undoing: " + h.Undo.Error() + ")"
}

// Unwrap gives the cause, which decides the kind.
func (h *Halfway) Unwrap() error { return h.Cause }
