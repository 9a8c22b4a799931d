package main

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// systemd counts from each word of ours: the next comes long before its time is over, and none after the end.
func TestAskForTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []string
		begun := time.Now()
		var at []time.Duration
		done, over := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(over)
			askForTime(done, func(state string) { told, at = append(told, state), append(at, time.Since(begun)) })
		}()
		time.Sleep(25 * time.Second)
		close(done)
		<-over
		time.Sleep(time.Minute)
		if want := []time.Duration{0, 10 * time.Second, 20 * time.Second}; !slices.Equal(at, want) {
			t.Errorf("told at %v, want %v", at, want)
		}
		if told[0] != "EXTEND_TIMEOUT_USEC=30000000" {
			t.Errorf("%q", told)
		}
	})
}
