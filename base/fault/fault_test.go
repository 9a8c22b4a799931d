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
