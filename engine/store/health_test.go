package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"berth/engine/container"
)

func TestSetHealth(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	r := add(t, s)
	at := running(1)
	if err := s.SetStanding(r.ID, at); err != nil {
		t.Fatal(err)
	}
	at.State.Health = &container.Health{Status: container.Unhealthy, FailingStreak: 4, Log: []container.HealthResult{{ExitCode: 1, Output: strings.Repeat("x", 4000)}, {ExitCode: 2, Output: "short"}}}
	if err := s.SetHealth(r.ID, at); err != nil {
		t.Fatal(err)
	}
	if len(at.State.Health.Log[0].Output) != 4000 {
		t.Error("the caller's was changed")
	}
	disk, err := os.ReadFile(filepath.Join(dirs.data, "states.journal"))
	if err != nil || strings.Contains(string(disk), "short") {
		t.Errorf("health alone goes to the disk: %v", err)
	}
	_, all, _ := dirs.open(t, "b")
	h := all[r.ID].Standing.State.Health
	if h == nil || h.Status != container.Unhealthy || h.FailingStreak != 4 || len(h.Log) != 2 || h.Log[0].Output != strings.Repeat("x", 512)+"..." || h.Log[1].Output != "short" {
		t.Errorf("%+v", h)
	}
}

// TestHealthDoesNotBloat notes more than the journal of the running system is to hold.
func TestHealthDoesNotBloat(t *testing.T) {
	dirs := newRoots(t)
	s, _, _ := dirs.open(t, "b")
	r := add(t, s)
	for i := range 5000 {
		at := running(1)
		at.State.Health = &container.Health{FailingStreak: i}
		if err := s.SetHealth(r.ID, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.late.flush(); err != nil {
		t.Fatal(err)
	}
	s.compact()
	if s.now.bloated() {
		t.Error("it goes on growing")
	}
	_, all, _ := dirs.open(t, "b")
	if h := all[r.ID].Standing.State.Health; h == nil || h.FailingStreak != 4999 {
		t.Errorf("%+v", h)
	}
}
