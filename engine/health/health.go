package health

import (
	"hash/fnv"
	"slices"
	"time"

	"berth/base/fault"
	"berth/engine/container"
)

// What a check has that says nothing, as in Docker.
const (
	DefaultInterval      = 30 * time.Second
	DefaultTimeout       = 30 * time.Second
	DefaultStartInterval = 5 * time.Second
	DefaultRetries       = 3
)

const (
	// Least is the shortest duration that a check may name.
	Least = time.Millisecond
	// kept is how many results inspect shows.
	kept = 5
	// MaxOutput bounds the bytes of a result's output; what is longer ends in "...".
	MaxOutput = 4096
)

// Check refuses durations and counts that mean nothing, in Docker's words, and tests that cannot be read. nil is no check.
func Check(h *container.Healthcheck) error {
	if h == nil {
		return nil
	}
	for _, d := range []struct {
		name  string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}} {
		if d.value != 0 && d.value < Least {
			return tooShort(d.name)
		}
	}
	if h.Retries < 0 {
		return fault.New(fault.Invalid, "Retries in Healthcheck cannot be negative")
	}
	switch {
	case h.StartPeriod != 0 && h.StartPeriod < Least:
		return tooShort("StartPeriod")
	case h.StartInterval != 0 && h.StartInterval < Least:
		return tooShort("StartInterval")
	}
	_, _, err := Parse(h.Test, nil)
	return err
}

func tooShort(name string) error {
	return fault.New(fault.Invalid, "%s in Healthcheck cannot be less than %s", name, Least)
}

// Begin is the health of a container that was just started. What is known of earlier runs stays in its log, as in Docker.
func Begin(was *container.Health) *container.Health {
	h := container.Health{Status: container.Starting}
	if was != nil {
		h.Log = was.Log
	}
	return &h
}

// Decide gives the health after a result. It does not change was. started is when the container's process began: failures do not count
// while it is starting and younger than the start period.
func Decide(was *container.Health, h *container.Healthcheck, started time.Time, r container.HealthResult) *container.Health {
	n := *was
	n.Log = append(slices.Clone(was.Log[max(0, len(was.Log)-kept+1):]), r)
	if r.ExitCode == 0 {
		n.Status, n.FailingStreak = container.Healthy, 0
		return &n
	}
	if was.Status == container.Starting && r.Start.Sub(started) < h.StartPeriod {
		return &n
	}
	n.FailingStreak++
	if n.FailingStreak >= or(h.Retries, DefaultRetries) {
		n.Status = container.Unhealthy
	}
	return &n
}

// Failing reports whether the last probes failed as often as makes a container unhealthy. One that was paused is called unhealthy, too, and
// does not fail.
func Failing(at *container.Health, h *container.Healthcheck) bool {
	return at.Status == container.Unhealthy && at.FailingStreak >= or(h.Retries, DefaultRetries)
}

// Due is when the next probe is to be made, counted from now: the end of the last one, or the start of the container.
func Due(at *container.Health, h *container.Healthcheck, started, now time.Time) time.Time {
	if at.Status == container.Starting && now.Sub(started) < h.StartPeriod {
		return now.Add(or(h.StartInterval, DefaultStartInterval))
	}
	return now.Add(or(h.Interval, DefaultInterval))
}

// Timeout is how long a probe may take.
func Timeout(h *container.Healthcheck) time.Duration { return or(h.Timeout, DefaultTimeout) }

// Resume is when a new engine makes the next probe of a container whose last one is long ago. A thousand of them are overdue at once after
// a long absence: each gets a place of its own within the interval, at most spread, which follows from its id.
func Resume(cid string, at *container.Health, h *container.Healthcheck, started, now time.Time) time.Time {
	last := started
	if n := len(at.Log); n > 0 && at.Log[n-1].End.After(started) {
		last = at.Log[n-1].End
	}
	due := Due(at, h, started, last)
	interval := min(due.Sub(last), spread)
	if !due.Before(now) && due.Sub(now) <= interval {
		return due
	}
	return now.Add(time.Duration(place(cid) * float64(interval)))
}

// spread bounds how long the probes of a new engine may wait beyond their time.
const spread = 30 * time.Second

// place is a container's place in an interval, from 0 to 1.
func place(cid string) float64 {
	f := fnv.New32a()
	f.Write([]byte(cid))
	return float64(f.Sum32()) / (1 << 32)
}

// Clip bounds a probe's output.
func Clip(out []byte, more bool) string {
	if len(out) > MaxOutput {
		out, more = out[:MaxOutput], true
	}
	if more {
		return string(out) + "..."
	}
	return string(out)
}

func or[T int | time.Duration](v, other T) T {
	if v <= 0 {
		return other
	}
	return v
}
