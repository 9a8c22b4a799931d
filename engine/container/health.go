package container

import "time"

// HealthStatus is what is known of a container's health.
type HealthStatus string

// The words for it, as in Docker.
const (
	NoHealth  HealthStatus = "none" // it has no check
	Starting  HealthStatus = "starting"
	Healthy   HealthStatus = "healthy"
	Unhealthy HealthStatus = "unhealthy" // as in Docker also while it is paused, and after its end
)

// Health is what the probes of a container found. A Health is never changed once it is in a State.
type Health struct {
	Status        HealthStatus   `json:",omitzero"`
	FailingStreak int            `json:",omitzero"` // failures in a row that count
	Log           []HealthResult `json:",omitzero"` // the last five, oldest first
}

// HealthResult is the outcome of one probe.
type HealthResult struct {
	Start, End time.Time
	ExitCode   int    // 0 healthy; -1 no outcome: it took too long or could not be made
	Output     string `json:",omitzero"` // at most 4096 bytes, then "..."
}

// HealthStatus gives the word that list and its filter use.
func (s *State) HealthStatus() HealthStatus {
	if s.Health == nil {
		return NoHealth
	}
	return s.Health.Status
}

// unwatched is the health of a container that is no longer probed.
func (h *Health) unwatched() *Health {
	if h == nil || h.Status == Unhealthy {
		return h
	}
	n := *h
	n.Status = Unhealthy
	return &n
}
