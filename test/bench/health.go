package main

import (
	"fmt"
	"net/http"
	"time"

	"berth/test/live"
)

// checksPerSecond is what 1,000 containers with a check every 30 seconds ask of an engine. Fewer containers get a shorter interval, so that
// the rate is the same.
const checksPerSecond = 1000.0 / 30

// benchHealth measures what health checks cost the engine: its own processor time, without the keeper's and that of the checks themselves,
// which are given beside it.
func benchHealth(t *table, o options) error {
	n := max(o.n, 100)
	return withEngine(o, func(e *live.Engine) error {
		interval := time.Duration(float64(n) / checksPerSecond * float64(time.Second))
		t.note(fmt.Sprintf("%d containers, a check every %v each", n, interval.Round(time.Millisecond)))
		for _, c := range []struct {
			what   string
			budget float64
			test   []string
		}{
			{"without checks", 0, nil},
			{"a command", 5, []string{"CMD", "true"}},
			{"a shell line", 5, []string{"CMD-SHELL", "true"}},
			{"tcp:", 5, []string{"CMD", "tcp:80"}},
			{"http:", 5, []string{"CMD", "http:80/checked"}},
		} {
			engine, keeper, err := costOfChecks(e, n, interval, c.test)
			if err != nil {
				return fmt.Errorf("%s: %w", c.what, err)
			}
			t.row(c.what+", engine", engine, c.budget, "% of a core")
			t.row(c.what+", keeper", keeper, 0, "% of a core")
		}
		return nil
	})
}

// costOfChecks has n containers checked and gives the shares of one core that engine and keeper take.
func costOfChecks(e *live.Engine, n int, interval time.Duration, test []string) (engine, keeper float64, err error) {
	var ids []string
	defer func() {
		if rerr := remove(e, ids...); err == nil {
			err = rerr
		}
	}()
	spec := map[string]any{
		"Image": "box", "Cmd": []string{"sh", "-c", "echo fine >/tmp/checked; exec busybox httpd -f -p 127.0.0.1:80 -h /tmp"}, "HostConfig": map[string]any{"NetworkMode": "none"},
	}
	if test != nil {
		spec["Healthcheck"] = map[string]any{"Test": test, "Interval": interval}
	}
	for range n {
		id, err := started(e, spec)
		if err != nil {
			return 0, 0, err
		}
		ids = append(ids, id)
	}
	if test != nil {
		if err := awaitHealthy(e, n, 2*interval+10*time.Second); err != nil {
			return 0, 0, err
		}
	}
	window := max(interval, 20*time.Second)
	var before, after [2]time.Duration
	for i, at := range []*[2]time.Duration{&before, &after} {
		if i > 0 {
			time.Sleep(window)
		}
		for j, pid := range []int{e.PID(), e.KeeperPID()} {
			if at[j], err = ownTime(pid); err != nil {
				return 0, 0, err
			}
		}
	}
	share := func(i int) float64 { return 100 * float64(after[i]-before[i]) / float64(window) }
	return share(0), share(1), nil
}

// awaitHealthy waits until n containers are healthy.
func awaitHealthy(e *live.Engine, n int, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(500 * time.Millisecond) {
		var l []listed
		if err := e.Call(http.MethodGet, api+`/containers/json?filters={"health":["healthy"]}`, nil, &l); err != nil {
			return err
		}
		if len(l) == n {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d of %d are healthy after %v", len(l), n, patience)
		}
	}
}
