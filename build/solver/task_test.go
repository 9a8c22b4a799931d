package solver

import (
	"context"
	"testing"
	"time"
)

// A step asks those who wait for it for secrets, and takes nobody for a client that has none: so it does not begin before who wants it has joined.
func TestTasksBeginWhenTheFirstHasJoined(t *testing.T) {
	type shared struct{ joined chan struct{} }
	var g tasks[int, *shared, bool]
	defer g.close()
	for range 20 {
		had, err := g.do(t.Context(), 1,
			func() *shared { return &shared{make(chan struct{})} },
			func(s *shared) func() {
				time.Sleep(time.Millisecond) // as where another goroutine has the processor
				close(s.joined)
				return func() {}
			},
			func(_ context.Context, s *shared) (bool, error) {
				select {
				case <-s.joined:
					return true, nil
				default:
					return false, nil
				}
			})
		if err != nil || !had {
			t.Fatalf("it began before anybody had joined: %v", err)
		}
	}
}
