package health

import (
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/engine/container"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// result is a probe's that began d after the container.
func result(d time.Duration, code int) container.HealthResult {
	return container.HealthResult{Start: t0.Add(d), End: t0.Add(d + time.Millisecond), ExitCode: code}
}

func TestDecide(t *testing.T) {
	type step struct {
		at     time.Duration
		code   int
		status container.HealthStatus
		streak int
	}
	for _, c := range []struct {
		name  string
		check container.Healthcheck
		steps []step
	}{
		{"default of three", container.Healthcheck{}, []step{
			{1, 1, container.Starting, 1}, {2, 1, container.Starting, 2}, {3, 1, container.Unhealthy, 3}, {4, 1, container.Unhealthy, 4}, {5, 0, container.Healthy, 0},
		}},
		{"a failure of a healthy one", container.Healthcheck{Retries: 2}, []step{
			{1, 0, container.Healthy, 0}, {2, 1, container.Healthy, 1}, {3, 0, container.Healthy, 0}, {4, -1, container.Healthy, 1}, {5, 2, container.Unhealthy, 2},
		}},
		{"failures in the start period do not count", container.Healthcheck{Retries: 1, StartPeriod: 3}, []step{
			{1, 1, container.Starting, 0}, {2, 1, container.Starting, 0}, {3, 1, container.Unhealthy, 1},
		}},
		{"but for one that was healthy", container.Healthcheck{Retries: 1, StartPeriod: 10}, []step{
			{1, 0, container.Healthy, 0}, {2, 1, container.Unhealthy, 1},
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Begin(nil)
			for _, s := range c.steps {
				was := *h
				h2 := Decide(h, &c.check, t0, result(s.at, s.code))
				if h.Status != was.Status || len(h.Log) != len(was.Log) {
					t.Fatal("changed what it was given")
				}
				if h = h2; h.Status != s.status || h.FailingStreak != s.streak {
					t.Fatalf("at %d: %s, streak %d; want %s, %d", s.at, h.Status, h.FailingStreak, s.status, s.streak)
				}
			}
		})
	}
}

func TestFailing(t *testing.T) {
	for _, c := range []struct {
		h    container.Health
		want bool
	}{
		{container.Health{Status: container.Unhealthy, FailingStreak: 3}, true}, {container.Health{Status: container.Unhealthy, FailingStreak: 2}, false},
		{container.Health{Status: container.Unhealthy}, false}, {container.Health{Status: container.Healthy, FailingStreak: 2}, false},
	} {
		if got := Failing(&c.h, &container.Healthcheck{}); got != c.want {
			t.Errorf("%+v: %v", c.h, got)
		}
	}
}

func TestLogKeepsFive(t *testing.T) {
	h := Begin(nil)
	for i := range 9 {
		h = Decide(h, &container.Healthcheck{}, t0, result(time.Duration(i), i))
		if want := min(i+1, 5); len(h.Log) != want || h.Log[want-1].ExitCode != i {
			t.Fatalf("after %d: %v", i, h.Log)
		}
	}
	if again := Begin(h); again.Status != container.Starting || again.FailingStreak != 0 || len(again.Log) != 5 {
		t.Errorf("started again: %+v", again)
	}
}

func TestDue(t *testing.T) {
	starting, healthy := &container.Health{Status: container.Starting}, &container.Health{Status: container.Healthy}
	for _, c := range []struct {
		name  string
		h     *container.Health
		check container.Healthcheck
		ran   time.Duration
		want  time.Duration
	}{
		{"default", starting, container.Healthcheck{}, 0, 30 * time.Second},
		{"start period", starting, container.Healthcheck{StartPeriod: time.Minute}, 0, 5 * time.Second},
		{"start interval", starting, container.Healthcheck{StartPeriod: time.Minute, StartInterval: time.Second, Interval: time.Hour}, 59 * time.Second, time.Second},
		{"start period over", starting, container.Healthcheck{StartPeriod: time.Minute, StartInterval: time.Second, Interval: time.Hour}, time.Minute, time.Hour},
		{"healthy within it", healthy, container.Healthcheck{StartPeriod: time.Minute, Interval: time.Hour}, time.Second, time.Hour},
	} {
		if got := Due(c.h, &c.check, t0, t0.Add(c.ran)).Sub(t0.Add(c.ran)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestResumeSpreads is the engine that comes back to a thousand containers.
func TestResumeSpreads(t *testing.T) {
	now := t0.Add(time.Hour)
	h := &container.Health{Status: container.Healthy, Log: []container.HealthResult{result(10*time.Minute, 0)}}
	perSecond := map[int]int{}
	for i := range 1000 {
		cid := strings.Repeat("0123456789abcdef"[i%16:i%16+1], 60) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		at := Resume(cid, h, &container.Healthcheck{}, t0, now)
		if wait := at.Sub(now); wait < 0 || wait > 30*time.Second {
			t.Fatalf("in %v", wait)
		}
		perSecond[int(at.Sub(now)/time.Second)]++
	}
	for s, n := range perSecond {
		if n > 100 {
			t.Errorf("%d probes in second %d", n, s)
		}
	}
	if len(perSecond) < 25 {
		t.Errorf("only in %d seconds", len(perSecond))
	}
	recent := &container.Health{Status: container.Healthy, Log: []container.HealthResult{{End: now.Add(-10 * time.Second)}}}
	if at := Resume("x", recent, &container.Healthcheck{}, t0, now); at.Sub(now) != 20*time.Second {
		t.Errorf("one that is not overdue keeps its time: in %v", at.Sub(now))
	}
	if at := Resume("x", Begin(nil), &container.Healthcheck{Interval: time.Hour}, t0, t0.Add(90*time.Minute)); at.Sub(t0.Add(90*time.Minute)) > 30*time.Second {
		t.Errorf("a long interval is no reason to wait: in %v", at.Sub(now))
	}
	clockWentBack := &container.Health{Status: container.Healthy, Log: []container.HealthResult{{End: now.Add(time.Hour)}}}
	if at := Resume("x", clockWentBack, &container.Healthcheck{}, t0, now); at.Sub(now) > 30*time.Second {
		t.Errorf("a clock that was set back: in %v", at.Sub(now))
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		h    container.Healthcheck
		want string
	}{
		{container.Healthcheck{Interval: 1}, "Interval in Healthcheck cannot be less than 1ms"},
		{container.Healthcheck{Interval: -1}, "Interval in Healthcheck cannot be less than 1ms"},
		{container.Healthcheck{Timeout: 999}, "Timeout in Healthcheck cannot be less than 1ms"},
		{container.Healthcheck{Retries: -1}, "Retries in Healthcheck cannot be negative"},
		{container.Healthcheck{StartPeriod: 1}, "StartPeriod in Healthcheck cannot be less than 1ms"},
		{container.Healthcheck{StartInterval: 1}, "StartInterval in Healthcheck cannot be less than 1ms"},
		{container.Healthcheck{Test: []string{"CMD", "http:x"}}, "Healthcheck: \"http:x\": the port is no number"},
		{container.Healthcheck{Test: []string{"CMD"}}, "Healthcheck: CMD needs a command"},
		{container.Healthcheck{Interval: time.Millisecond, Timeout: time.Millisecond, StartPeriod: time.Millisecond, StartInterval: time.Millisecond}, ""},
		{container.Healthcheck{Test: []string{"WAT", "x"}}, ""},
		{container.Healthcheck{Test: []string{"NONE"}}, ""},
	} {
		err := Check(&c.h)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%+v: %v", c.h, err)
		case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want) || !fault.Is(err, fault.Invalid)):
			t.Errorf("%+v: %v, want %s", c.h, err, c.want)
		}
	}
	if err := Check(nil); err != nil {
		t.Error(err)
	}
}

func TestClip(t *testing.T) {
	if got := Clip([]byte(strings.Repeat("x", 4096)), false); len(got) != 4096 {
		t.Errorf("%d bytes", len(got))
	}
	if got := Clip([]byte(strings.Repeat("x", 4097)), false); len(got) != 4099 || !strings.HasSuffix(got, "x...") {
		t.Errorf("%d bytes", len(got))
	}
	if got := Clip([]byte("x"), true); got != "x..." {
		t.Error(got)
	}
}
