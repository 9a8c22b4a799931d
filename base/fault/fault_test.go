package fault

import (
	"context"
	"errors"
	"io"
	"testing"
)

func TestTextAndKind(t *testing.T) {
	cause := New(NotFound, "No such container: %s", "web")
	for _, c := range []struct {
		err  error
		text string
		kind Kind
	}{
		{cause, "No such container: web", NotFound},
		{In(cause, "start web"), "start web: No such container: web", NotFound},
		{Wrap(Conflict, io.EOF, "read"), "read: EOF", Conflict},
		{Wrap(Invalid, io.EOF, ""), "EOF", Invalid},
		{io.EOF, "EOF", Internal},
		{context.Canceled, "context canceled", Cancelled},
		{In(context.DeadlineExceeded, "wait"), "wait: context deadline exceeded", Deadline},
	} {
		if got := c.err.Error(); got != c.text {
			t.Errorf("text %q, want %q", got, c.text)
		}
		if got := KindOf(c.err); got != c.kind {
			t.Errorf("%q: kind %v, want %v", c.text, got, c.kind)
		}
	}
	if In(nil, "x") != nil || Wrap(Conflict, nil, "x") != nil {
		t.Error("a nil cause must stay nil")
	}
	if !errors.Is(Wrap(Conflict, io.EOF, "read"), io.EOF) {
		t.Error("the cause is lost")
	}
	if Is(nil, Internal) {
		t.Error("nil is of no kind")
	}
}

// A walk that calls itself names the innermost place alone, whatever else is said on the way.
func TestAtNamesOnePlace(t *testing.T) {
	err := New(Invalid, "too long")
	for range 1000 {
		err = At(err, "seal %q", "d/d")
		if _, ok := err.(*Error); !ok {
			t.Fatalf("%T", err)
		}
	}
	if got := In(At(In(err, "below"), "seal %q", "d"), "layer").Error(); got != `layer: below: seal "d/d": too long` {
		t.Error(got)
	}
	if KindOf(err) != Invalid || At(nil, "x") != nil {
		t.Errorf("%v, %v", KindOf(err), At(nil, "x"))
	}
	if got := At(io.EOF, "a"); got.Error() != "a: EOF" || !errors.Is(got, io.EOF) {
		t.Error(got)
	}
}
