// Package restart decides whether and when a container whose process ended is started again. It is pure: it knows no clock, no
// container and no engine; the caller waits and starts.
//
// The policies are Docker's. After a run the wait is 100 ms, doubling with each further restart up to a minute; a run of ten
// seconds or more counts as healthy and starts the waits afresh.
package restart

import (
	"time"

	"berth/base/fault"
	"berth/engine/container"
)

const (
	firstWait  = 100 * time.Millisecond
	longest    = time.Minute
	healthyRun = 10 * time.Second
)

// Ended is what is known when a process is gone.
type Ended struct {
	Code     int
	Manually bool          // a person stopped or killed it
	Ran      time.Duration // how long it lived
	Restarts int           // restarts by policy since a person last started it
	LastWait time.Duration // the wait before this run; 0 for the first
}

// Decision is what to do.
type Decision struct {
	Restart bool
	Wait    time.Duration
}

// Decide applies policy p when a process ended while the engine ran (or was away for a moment).
func Decide(p container.Restart, e Ended) Decision {
	if e.Manually || !wanted(p, e.Code, e.Restarts) {
		return Decision{}
	}
	return Decision{Restart: true, Wait: nextWait(e)}
}

// AtOpen applies policy p when the engine starts and finds a container that does not run. wasRunning: it ran when the engine was last
// there, or when the machine went down. As documented by Docker, "always" comes back even after a person stopped it.
func AtOpen(p container.Restart, code int, manually, wasRunning bool, restarts int) bool {
	switch p.Name {
	case "always":
		return true
	case "unless-stopped":
		return !manually
	case "on-failure":
		return wasRunning && !manually && wanted(p, code, restarts)
	}
	return false
}

func wanted(p container.Restart, code, restarts int) bool {
	switch p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure":
		return code != 0 && (p.MaxRetries == 0 || restarts < p.MaxRetries)
	}
	return false
}

func nextWait(e Ended) time.Duration {
	if e.Ran >= healthyRun || e.LastWait == 0 {
		return firstWait
	}
	return min(2*e.LastWait, longest)
}

// Check refuses a policy that means nothing, in Docker's words.
func Check(p container.Restart) error {
	switch p.Name {
	case "always", "no", "unless-stopped":
		switch {
		case p.MaxRetries < 0:
			return fault.New(fault.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative")
		case p.MaxRetries > 0:
			return fault.New(fault.Invalid, "invalid restart policy: maximum retry count can only be used with 'on-failure'")
		}
	case "on-failure":
		if p.MaxRetries < 0 {
			return fault.New(fault.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	case "":
	default:
		return fault.New(fault.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", p.Name)
	}
	return nil
}
