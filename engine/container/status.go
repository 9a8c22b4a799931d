package container

import (
	"slices"
	"time"

	"berth/base/fault"
)

// moves says which status may follow which. There is no other way; recovery after a crash uses the same table.
//
//	created ──▶ running ⇄ paused
//	   │           │  ▲
//	   │           ▼  │
//	   │        exited ⇄ restarting
//	   ▼           ▼
//	       removing ──▶ dead (removal failed; only removing follows)
var moves = map[Status][]Status{
	Created:    {Running, Exited, Removing, Dead},
	Running:    {Paused, Restarting, Exited},
	Paused:     {Running, Exited, Restarting},
	Restarting: {Running, Exited, Removing, Dead},
	Exited:     {Running, Restarting, Removing, Dead},
	Removing:   {Dead},
	Dead:       {Removing},
}

// CanBecome reports whether next may directly follow s. Staying is always allowed.
func (s Status) CanBecome(next Status) bool { return s == next || slices.Contains(moves[s], next) }

// Alive reports whether a process exists in this status.
func (s Status) Alive() bool { return s == Running || s == Paused }

// Become gives the state after a move to next, with the flags that follow from the status. The rest of the state is kept.
func (s State) Become(next Status) (State, error) {
	if !s.Status.CanBecome(next) {
		return s, fault.New(fault.Internal, "a container that is %s cannot become %s", s.Status, next)
	}
	s.Status = next
	s.Running = next.Alive() || next == Restarting
	s.Paused = next == Paused
	s.Restarting = next == Restarting
	s.Dead = next == Dead
	if !next.Alive() {
		s.Pid = 0
	}
	if next != Running {
		s.Health = s.Health.unwatched()
	}
	return s, nil
}

// Started is the state of a container whose process was just made. ManuallyStopped stays: who starts it by a person's wish clears it.
func (s State) Started(pid int, at time.Time) (State, error) {
	n, err := s.Become(Running)
	if err != nil {
		return s, err
	}
	n.Pid, n.StartedAt, n.FinishedAt = pid, at, s.FinishedAt
	n.ExitCode, n.Signal, n.Error, n.OOMKilled, n.Unknown = 0, 0, "", false, false
	return n, nil
}

// End is how a process ended.
type End struct {
	Code    int // as Docker counts: 128 + signal for a killed one
	Signal  int
	OOM     bool
	Unknown bool
	At      time.Time
}

// Ended is the state of a container whose process is gone. A restarting one is Restarting until its next process starts.
func (s State) Ended(e End, restarting bool) (State, error) {
	next := Exited
	if restarting {
		next = Restarting
	}
	n, err := s.Become(next)
	if err != nil {
		return s, err
	}
	n.ExitCode, n.Signal, n.OOMKilled, n.Unknown, n.FinishedAt = e.Code, e.Signal, e.OOM, e.Unknown, e.At
	return n, nil
}
