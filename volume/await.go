package volume

import (
	"context"
	"errors"
	"time"

	"berth/base/fault"
)

// await does work in a goroutine of its own and gives up waiting after the timeout or with the context: a server that does not answer holds
// whoever touches its files, in the kernel, where nothing wakes him. What comes late is dropped.
func await[T any](ctx context.Context, timeout time.Duration, doing string, work func() (T, error), drop func(T)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	type result struct {
		value T
		err   error
	}
	done := make(chan result) // unbuffered: either it is received, or it is dropped
	go func() {
		value, err := work()
		select {
		case done <- result{value, err}:
		case <-ctx.Done():
			if err == nil {
				drop(value)
			}
		}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		if errors.Is(ctx.Err(), context.Canceled) {
			return none, ctx.Err()
		}
		return none, fault.New(fault.Deadline, "%s: no answer within %s", doing, timeout)
	}
}

// letGo does f and lets the caller go a while after its context has ended, when f hangs on a server; f goes on and cleans up behind itself.
func (v *Volumes) letGo(ctx context.Context, f func() error) error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select { // most work ends soon after its context
	case err := <-done:
		return err
	case <-time.After(v.mountTimeout()):
		return fault.In(ctx.Err(), "no answer from the volume's files")
	}
}

func (v *Volumes) mountTimeout() time.Duration {
	if v.cfg.MountTimeout > 0 {
		return v.cfg.MountTimeout
	}
	return 30 * time.Second
}
