package fault

import (
	"context"
	"errors"
	"fmt"
)

// Kind says what sort of failure an error is. Doors translate it to a protocol's code; nothing
// else may be read into it.
type Kind uint8

// The kinds. Their HTTP and gRPC codes stand in one table in the api room.
const (
	Internal       Kind = iota // a defect or a failed system call: nobody's input was wrong
	Invalid                    // the request itself is wrong and will be wrong again
	NotFound                   // the named thing does not exist
	Conflict                   // the thing's present state forbids it
	NotModified                // the thing is already as asked
	Forbidden                  // not allowed to this caller, whoever he is
	Unauthorized               // not allowed before the caller says who he is
	Unavailable                // try again later
	NotImplemented             // this build has no such feature
	Cancelled                  // the caller went away
	Deadline                   // it took longer than was allowed
	Gone                       // existed once and never will again
)

var names = [...]string{"internal", "invalid", "not found", "conflict", "not modified", "forbidden",
	"unauthorized", "unavailable", "not implemented", "cancelled", "deadline", "gone"}

// String gives the kind's name, for logs.
func (k Kind) String() string {
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is a failure with its kind, what was being done, and its cause.
type Error struct {
	Kind Kind
	Msg  string // what was being done, or the whole text when there is no cause
	Err  error  // the cause, or nil

	place bool // Msg is a place in a tree: At
}

// Error gives the text that is shown to the user: "what was being done: cause".
func (e *Error) Error() string {
	if e.Err == nil {
		return e.Msg
	}
	if e.Msg == "" {
		return e.Err.Error()
	}
	return e.Msg + ": " + e.Err.Error()
}

// Unwrap gives the cause, for errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// New makes an error of the kind; the text is what the user reads.
func New(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...)}
}

// Wrap says what was being done when err happened, and gives it a kind. A nil err stays nil.
func Wrap(kind Kind, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Msg: fmt.Sprintf(format, args...), Err: err}
}

// In says what was being done when err happened and keeps the cause's kind. A nil err stays nil.
func In(err error, format string, args ...any) error {
	return Wrap(KindOf(err), err, format, args...)
}

// At is In for a walk that calls itself on what lies deeper. Only the innermost place is named: whoever makes a tree decides how deep it is,
// and texts that name every directory on the way grow with the square of that. A nil err stays nil.
func At(err error, format string, args ...any) error {
	for cause := err; cause != nil; cause = errors.Unwrap(cause) {
		if e, ok := cause.(*Error); ok && e.place {
			return err
		}
	}
	if err == nil {
		return nil
	}
	return &Error{Kind: KindOf(err), Msg: fmt.Sprintf(format, args...), Err: err, place: true}
}

// KindOf gives the kind of the outermost Error in err's chain. A context's end is Cancelled or
// Deadline; everything else is Internal.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case errors.As(err, &e):
		return e.Kind
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, context.DeadlineExceeded):
		return Deadline
	}
	return Internal
}

// Is reports whether err is of the kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }
