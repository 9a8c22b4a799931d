package metrics

import (
	"context"
	"math"

	"github.com/prometheus/client_golang/prometheus"

	"berth/engine"
	"berth/engine/container"
)

// asked collects what is found out when somebody looks.
type asked struct {
	engine Engine
	bus    Counter
}

// ofContainer are the labels of a series about one container.
var ofContainer = []string{"id", "name", "image"}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	events    = desc("engine_daemon_events_total", "The number of events logged")
	checks    = desc("engine_daemon_health_checks_total", "The total number of health checks")
	failed    = desc("engine_daemon_health_checks_failed_total", "The total number of failed health checks")
	listeners = desc("engine_daemon_events_subscribers_total", "The number of current subscribers to events")
)

var states = desc("engine_daemon_container_states_containers", "The count of containers in various states", "state")

// reading is one series about a container, taken from its figures.
type reading struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(engine.Stats) (v float64, known bool)
}

// readings are the series about each running container.
var readings = []reading{
	counter("cpu_seconds_total", "Processor time used.", func(s engine.Stats) float64 { return float64(s.Cgroup.CPU.Usage) / 1e9 }),
	counter("cpu_user_seconds_total", "Processor time used outside of the kernel.", func(s engine.Stats) float64 { return float64(s.Cgroup.CPU.User) / 1e9 }),
	counter("cpu_throttled_seconds_total", "Time that the processor limit held the container back.", func(s engine.Stats) float64 { return float64(s.Cgroup.CPU.Throttled) / 1e9 }),
	counter("cpu_throttled_periods_total", "Periods in which the processor limit held the container back.", func(s engine.Stats) float64 { return float64(s.Cgroup.CPU.ThrottledPeriods) }),
	gauge("memory_bytes", "Memory in use, page cache included.", func(s engine.Stats) uint64 { return s.Cgroup.Memory.Usage }),
	gauge("memory_working_set_bytes", "Memory in use without the page cache that could go at once.", func(s engine.Stats) uint64 {
		return s.Cgroup.Memory.Usage - min(s.Cgroup.Memory.Inactive, s.Cgroup.Memory.Usage)
	}),
	gauge("memory_limit_bytes", "Memory limit; not there without one.", func(s engine.Stats) uint64 { return s.Cgroup.Memory.Limit }),
	counter("memory_limit_hits_total", "Times that the memory limit was reached.", func(s engine.Stats) float64 { return float64(s.Cgroup.Memory.Failures) }),
	counter("oom_kills_total", "Processes killed because memory was short.", func(s engine.Stats) float64 { return float64(s.Cgroup.Memory.OOMKills) }),
	gauge("processes", "Processes and threads.", func(s engine.Stats) uint64 { return s.Cgroup.Pids.Current }),
	gauge("processes_limit", "Limit of processes and threads; not there without one.", func(s engine.Stats) uint64 { return s.Cgroup.Pids.Limit }),
}

func counter(name, help string, of func(engine.Stats) float64) reading {
	return reading{desc("berth_container_"+name, help, ofContainer...), prometheus.CounterValue, func(s engine.Stats) (float64, bool) { return of(s), true }}
}

// gauge is a figure that may be absent: no limit is no series, since any number would be drawn as one.
func gauge(name, help string, of func(engine.Stats) uint64) reading {
	return reading{desc("berth_container_"+name, help, ofContainer...), prometheus.GaugeValue, func(s engine.Stats) (float64, bool) {
		n := of(s)
		return float64(n), n < math.MaxInt64/2 // v1 says "unlimited" by a number near the greatest
	}}
}

var healthy = desc("berth_container_healthy", "1 where the health check says healthy, else 0; not there without a check.", ofContainer...)

var restarts = desc("berth_container_restarts", "Restarts by the restart policy since a person started the container.", ofContainer...)

// Describe is of prometheus.Collector.
func (a *asked) Describe(ch chan<- *prometheus.Desc) {
	ch <- events
	ch <- checks
	ch <- failed
	ch <- listeners
	ch <- states
	ch <- restarts
	ch <- healthy
	for _, r := range readings {
		ch <- r.desc
	}
}

// Collect is of prometheus.Collector. A container that cannot be read is left out: it may have ended just now.
func (a *asked) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	published, listening := a.bus.Count()
	ch <- prometheus.MustNewConstMetric(events, prometheus.CounterValue, float64(published))
	ch <- prometheus.MustNewConstMetric(listeners, prometheus.GaugeValue, float64(listening))
	facts := a.engine.Info(ctx)
	for state, n := range map[string]int{"running": facts.Running, "paused": facts.Paused, "stopped": facts.Stopped} {
		ch <- prometheus.MustNewConstMetric(states, prometheus.GaugeValue, float64(n), state)
	}
	ch <- prometheus.MustNewConstMetric(checks, prometheus.CounterValue, float64(facts.HealthChecks))
	ch <- prometheus.MustNewConstMetric(failed, prometheus.CounterValue, float64(facts.HealthChecksFailed))
	all, err := a.engine.List(ctx, engine.ListOptions{})
	if err != nil {
		return
	}
	for i := range all {
		a.container(ctx, &all[i], ch)
	}
}

func (a *asked) container(ctx context.Context, c *container.Info, ch chan<- prometheus.Metric) {
	s, err := a.engine.Stats(ctx, c.ID)
	if err != nil || !s.Running {
		return
	}
	labels := []string{c.ID, c.Name, c.Spec.Image}
	ch <- prometheus.MustNewConstMetric(restarts, prometheus.GaugeValue, float64(c.RestartCount), labels...)
	if h := c.State.Health; h != nil {
		well := 0.0
		if h.Status == container.Healthy {
			well = 1
		}
		ch <- prometheus.MustNewConstMetric(healthy, prometheus.GaugeValue, well, labels...)
	}
	for _, r := range readings {
		if v, known := r.of(s); known {
			ch <- prometheus.MustNewConstMetric(r.desc, r.kind, v, labels...)
		}
	}
}
