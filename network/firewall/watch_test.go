package firewall

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A look that fails before it has asked anybody does not end the wait for a manager that was not heard: there is another one, and each comes
// later than the one before.
func TestFailedLookIsMadeAgain(t *testing.T) {
	for _, during := range []bool{false, true} { // the look that fails is a change's that comes while the manager is waited for
		synctest.Test(t, func(t *testing.T) {
			f := &Firewall{config: Config{Log: slog.New(slog.DiscardHandler)}, unheard: make(chan struct{}, 1)}
			ctx, stop := context.WithCancel(t.Context())
			events, began := make(chan struct{}, 1), time.Now()
			var looks []time.Duration
			look := func(context.Context) (bool, error) {
				looks = append(looks, time.Since(began)-settled)
				switch len(looks) {
				case 1:
					f.unheard <- struct{}{}
					return true, nil
				case 2, 3:
					return false, errors.New("no buffer space available")
				}
				return true, nil
			}
			done := make(chan struct{})
			go func() { f.mend(ctx, events, look); close(done) }()
			events <- struct{}{}
			want := []time.Duration{0, firstRetry + settled, 3*firstRetry + 2*settled, 7*firstRetry + 3*settled}
			if during {
				time.Sleep(time.Second)
				events <- struct{}{}
				want = []time.Duration{0, time.Second, firstRetry + settled, 3*firstRetry + 2*settled}
			}
			time.Sleep(time.Hour)
			if !slices.Equal(looks, want) {
				t.Errorf("a change while it waits %v: looks after %v, want %v", during, looks, want)
			}
			stop()
			close(events)
			<-done
		})
	}
}
