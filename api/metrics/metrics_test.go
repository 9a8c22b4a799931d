package metrics

import (
	"context"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"berth/api/server"
	"berth/base/event"
	"berth/engine"
	"berth/engine/container"
	"berth/kernel/cgroup"
)

// fixed is an engine with two containers, of which one ends while it is looked at.
type fixed struct{}

func (fixed) Info(context.Context) engine.Facts { return engine.Facts{Running: 2, Stopped: 3} }

func (fixed) List(context.Context, engine.ListOptions) ([]container.Info, error) {
	spec := &container.Spec{Image: "busybox"}
	return []container.Info{{ID: "aa", Name: "web", Spec: spec, RestartCount: 4}, {ID: "bb", Name: "gone", Spec: spec}}, nil
}

func (fixed) Stats(_ context.Context, ref string) (engine.Stats, error) {
	if ref == "bb" {
		return engine.Stats{}, errors.New("ended")
	}
	s := engine.Stats{Running: true}
	s.Cgroup.CPU.Usage = 1_500_000_000
	s.Cgroup.Memory = cgroup.MemoryStats{Usage: 100, Inactive: 30, Limit: cgroup.Unlimited}
	s.Cgroup.Pids.Limit = 50
	return s, nil
}

func TestWhatIsShown(t *testing.T) {
	bus := event.New(nil)
	m := New(Config{Engine: fixed{}, Events: bus, CPUs: 2, Memory: 1 << 30, Labels: map[string]string{"version": "1"}})
	bus.Publish(event.Event{Type: "container", Action: "start"})
	m.Answered(server.Answered{Method: "POST", Route: "/containers/{name}/start", Code: 204, Took: 20 * time.Millisecond})
	m.Answered(server.Answered{Method: "POST", Route: "/containers/{name}/start", Code: 404})
	m.Answered(server.Answered{Method: "GET", Route: "/events", Code: 200, Took: time.Hour, Stream: true})

	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	got := w.Body.String()
	problems, err := promlint.New(strings.NewReader(got)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "berth_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	for _, line := range []string{
		`engine_daemon_engine_info{version="1"} 1`,
		`engine_daemon_container_states_containers{state="stopped"} 3`,
		`engine_daemon_container_actions_seconds_count{action="start"} 1`,
		`engine_daemon_container_actions_seconds_count{action="create"} 0`,
		`engine_daemon_events_total 1`,
		`berth_requests_total{code="404",method="POST",route="/containers/{name}/start"} 1`,
		`berth_request_seconds_count{route="/containers/{name}/start"} 2`,
		`berth_container_cpu_seconds_total{id="aa",image="busybox",name="web"} 1.5`,
		`berth_container_memory_working_set_bytes{id="aa",image="busybox",name="web"} 70`,
		`berth_container_processes_limit{id="aa",image="busybox",name="web"} 50`,
		`berth_container_restarts{id="aa",image="busybox",name="web"} 4`,
		"process_open_fds",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("missing: %s", line)
		}
	}
	for _, line := range []string{`name="gone"`, "berth_container_memory_limit_bytes{", `berth_request_seconds_count{route="/events"}`} {
		if strings.Contains(got, line) {
			t.Errorf("must not be there: %s", line)
		}
	}
}

// TestEveryActionHasARoute fails when a histogram names an action that no route counts.
func TestEveryActionHasARoute(t *testing.T) {
	counted := map[[2]string]bool{}
	for _, is := range actionOf {
		counted[is] = true
	}
	for noun, actions := range actionNames {
		for _, a := range actions {
			if !counted[[2]string{noun, a}] {
				t.Errorf("%s %s", noun, a)
			}
		}
	}
}
