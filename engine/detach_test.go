package engine

import (
	"context"
	"io"
	"testing"
	"time"

	"berth/base/event"
)

// A client that types the detach keys into a terminal detaches, which is told; the container goes on.
func TestDetach(t *testing.T) {
	w := newWorld(t)
	s := spec("sleep 100")
	s.Process.TTY, s.OpenStdin = true, true
	id := w.run("tty", s)
	sub := w.Events().Subscribe(t.Context(), time.Time{}, time.Time{}, func(e event.Event) bool { return e.Action == "detach" })
	defer sub.Close()
	a, err := w.Attach(t.Context(), id, AttachOptions{Stdin: true, Stdout: true, Stderr: true, Stream: true, DetachKeys: "ctrl-a,ctrl-a,d"})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Conn.Close()
	for _, text := range []string{"x\x01y\x01", "\x01d"} { // a key that does not go on the sequence may begin it
		if _, err := a.Conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	e, ok := sub.Next(ctx)
	if !ok || e.ID != id || e.Attributes["name"] != "tty" {
		t.Errorf("%+v", e)
	}
	if _, err := io.Copy(io.Discard, a.Conn); err != nil {
		t.Error(err)
	}
	if !w.state(id).Running {
		t.Error("it does not run any more")
	}
}
