package engine

import (
	"context"
	"testing"
	"time"

	"berth/base/event"
)

// Events are told in the order in which things happened: the signal before the end that it brings about, also when the process is dead before
// whoever sent the signal comes to tell of it.
func TestKillIsToldBeforeTheEnd(t *testing.T) {
	w := newWorld(t)
	id := w.create("", spec("sleep 1000"))
	sub := w.Events().Subscribe(t.Context(), time.Time{}, time.Time{}, func(e event.Event) bool {
		return e.ID == id && (e.Action == "kill" || e.Action == "die")
	})
	defer sub.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for n := range 20 {
		if err := w.Start(ctx, id); err != nil {
			t.Fatal(err)
		}
		if err := w.Kill(ctx, id, ""); err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"kill", "die"} {
			if e, ok := sub.Next(ctx); !ok || e.Action != want {
				t.Fatalf("run %d: %q is told, want %q", n, e.Action, want)
			}
		}
	}
}
