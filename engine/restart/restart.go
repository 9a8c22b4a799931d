// Package restart decides whether and when a container whose process ended is started again. It is pure: it knows no clock, no
// container and no engine; the caller waits and starts.
//
// The policies are Docker's, and on-unhealthy. After a run the wait is 100 ms, doubling with each further restart up to a minute; a run
// of ten seconds or more counts as healthy and starts the waits afresh.
//
// on-unhealthy[:N] is on-failure that also acts when the container's health check says unhealthy: the engine stops it, as a person would,
// and starts it again. N bounds the restarts in a row, which end when the container is healthy or a person starts it; at the bound one
// that is unhealthy goes on running, and one that failed stays ended. However long a run was that ended as unhealthy, the next wait is
// longer, unless the container had become healthy in it.
package restart

import (
	"time"

	"berth/base/fault"
	"berth/engine/container"
)

// OnUnhealthy is the name of the policy that Docker has not.
const OnUnhealthy = "on-unhealthy"

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
	LastWait time.Duration // the wait before this run; 0 for the first, and for one that became healthy

	Unhealthy bool // the engine ended it, because Unhealthy said so
	Relapses  int  // restarts by policy since it was healthy or a person started it
}

// Decision is what to do.
type Decision struct {
	Restart bool
	Wait    time.Duration
}

// Decide applies policy p when a process ended while the engine ran (or was away for a moment).
func Decide(p container.Restart, e Ended) Decision {
	if e.Manually {
		return Decision{}
	}
	if p.Name == OnUnhealthy {
		e.Restarts = e.Relapses
	}
	if !wanted(p, e.Code, e.Restarts) && !(e.Unhealthy && Unhealthy(p, e.Relapses)) {
		return Decision{}
	}
	return Decision{Restart: true, Wait: nextWait(e)}
}

// Unhealthy reports whether policy p has a container that became unhealthy ended and started again.
func Unhealthy(p container.Restart, relapses int) bool {
	return p.Name == OnUnhealthy && (p.MaxRetries == 0 || relapses < p.MaxRetries)
}

// AtOpen applies policy p when the engine starts and finds a container that does not run. wasRunning: it ran when the engine was last
// there, or when the machine went down. As documented by Docker, "always" comes back even after a person stopped it.
func AtOpen(p container.Restart, code int, manually, wasRunning bool, restarts int) bool {
	switch p.Name {
	case "always":
		return true
	case "unless-stopped":
		return !manually
	case "on-failure", OnUnhealthy:
		return wasRunning && !manually && wanted(p, code, restarts)
	}
	return false
}

func wanted(p container.Restart, code, restarts int) bool {
	switch p.Name {
	case "always", "unless-stopped":
		return true
	case "on-failure", OnUnhealthy:
		return code != 0 && (p.MaxRetries == 0 || restarts < p.MaxRetries)
	}
	return false
}

func nextWait(e Ended) time.Duration {
	if e.Ran >= healthyRun && !e.Unhealthy || e.LastWait == 0 {
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
	case "on-failure", OnUnhealthy:
		if p.MaxRetries < 0 {
			return fault.New(fault.Invalid, "invalid restart policy: maximum retry count cannot be negative")
		}
	case "":
	default:
		return fault.New(fault.Invalid, "invalid restart policy: unknown policy '%s'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'", p.Name)
	}
	return nil
}
