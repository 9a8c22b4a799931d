package restart

import (
	"testing"
	"time"

	"berth/engine/container"
)

func TestDecide(t *testing.T) {
	const ms, s = time.Millisecond, time.Second
	for _, c := range []struct {
		name   string
		policy container.Restart
		ended  Ended
		want   Decision
	}{
		{"none", container.Restart{}, Ended{Code: 1}, Decision{}},
		{"no", container.Restart{Name: "no"}, Ended{Code: 1}, Decision{}},
		{"always first", container.Restart{Name: "always"}, Ended{}, Decision{true, 100 * ms}},
		{"doubles", container.Restart{Name: "always"}, Ended{LastWait: 100 * ms, Restarts: 1}, Decision{true, 200 * ms}},
		{"at most a minute", container.Restart{Name: "always"}, Ended{LastWait: 51200 * ms}, Decision{true, 60 * s}},
		{"stays at a minute", container.Restart{Name: "always"}, Ended{LastWait: 60 * s}, Decision{true, 60 * s}},
		{"healthy run resets", container.Restart{Name: "always"}, Ended{LastWait: 60 * s, Ran: 10 * s}, Decision{true, 100 * ms}},
		{"manual stop", container.Restart{Name: "always"}, Ended{Manually: true}, Decision{}},
		{"unless-stopped", container.Restart{Name: "unless-stopped"}, Ended{Code: 0}, Decision{true, 100 * ms}},
		{"unless-stopped, stopped", container.Restart{Name: "unless-stopped"}, Ended{Manually: true}, Decision{}},
		{"on-failure success", container.Restart{Name: "on-failure"}, Ended{}, Decision{}},
		{"on-failure for ever", container.Restart{Name: "on-failure"}, Ended{Code: 2, Restarts: 99}, Decision{true, 100 * ms}},
		{"on-failure last", container.Restart{Name: "on-failure", MaxRetries: 3}, Ended{Code: 2, Restarts: 2, LastWait: 200 * ms}, Decision{true, 400 * ms}},
		{"on-failure spent", container.Restart{Name: "on-failure", MaxRetries: 3}, Ended{Code: 2, Restarts: 3}, Decision{}},
		{"on-unhealthy failed", container.Restart{Name: "on-unhealthy"}, Ended{Code: 2, Restarts: 99}, Decision{true, 100 * ms}},
		{"on-unhealthy ended well by itself", container.Restart{Name: "on-unhealthy"}, Ended{Ran: time.Hour}, Decision{}},
		{"on-unhealthy was ended, and ended well", container.Restart{Name: "on-unhealthy", MaxRetries: 1}, Ended{Unhealthy: true}, Decision{true, 100 * ms}},
		{"on-unhealthy waits longer after a long run", container.Restart{Name: "on-unhealthy"}, Ended{Unhealthy: true, Ran: time.Hour, LastWait: 800 * ms}, Decision{true, 1600 * ms}},
		{"on-unhealthy counts relapses", container.Restart{Name: "on-unhealthy", MaxRetries: 3}, Ended{Code: 2, Restarts: 99, Relapses: 2}, Decision{true, 100 * ms}},
		{"on-unhealthy spent", container.Restart{Name: "on-unhealthy", MaxRetries: 3}, Ended{Code: 2, Relapses: 3}, Decision{}},
		{"on-unhealthy was ended, and spent meanwhile", container.Restart{Name: "on-unhealthy", MaxRetries: 1}, Ended{Unhealthy: true, Relapses: 1}, Decision{}},
		{"on-unhealthy, stopped by a person", container.Restart{Name: "on-unhealthy"}, Ended{Code: 137, Unhealthy: true, Manually: true}, Decision{}},
		{"policy taken away while it was ended", container.Restart{Name: "no"}, Ended{Code: 137, Unhealthy: true}, Decision{}},
	} {
		if got := Decide(c.policy, c.ended); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestAtOpen(t *testing.T) {
	for _, c := range []struct {
		policy               string
		code                 int
		manually, wasRunning bool
		want                 bool
	}{
		{"no", 255, false, true, false},
		{"always", 0, true, false, true},
		{"always", 255, false, true, true},
		{"unless-stopped", 0, false, false, true},
		{"unless-stopped", 137, true, false, false},
		{"on-failure", 255, false, true, true},
		{"on-failure", 0, false, true, false},
		{"on-failure", 1, false, false, false},
		{"on-unhealthy", 255, false, true, true},
		{"on-unhealthy", 137, true, true, false},
	} {
		if got := AtOpen(container.Restart{Name: c.policy}, c.code, c.manually, c.wasRunning, 0); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		p    container.Restart
		want string
	}{
		{container.Restart{}, ""},
		{container.Restart{Name: "on-failure", MaxRetries: 5}, ""},
		{container.Restart{Name: "always", MaxRetries: 1}, "invalid restart policy: maximum retry count can only be used with 'on-failure'"},
		{container.Restart{Name: "no", MaxRetries: -1}, "invalid restart policy: maximum retry count can only be used with 'on-failure' and cannot be negative"},
		{container.Restart{Name: "on-failure", MaxRetries: -1}, "invalid restart policy: maximum retry count cannot be negative"},
		{container.Restart{Name: "on-unhealthy", MaxRetries: 5}, ""},
		{container.Restart{Name: "on-unhealthy", MaxRetries: -1}, "invalid restart policy: maximum retry count cannot be negative"},
		{container.Restart{Name: "often"}, "invalid restart policy: unknown policy 'often'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"},
	} {
		got := ""
		if err := Check(c.p); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %q", c.p, got)
		}
	}
}
