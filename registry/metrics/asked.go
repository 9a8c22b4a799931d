package metrics

import "github.com/prometheus/client_golang/prometheus"

// asked is a collector of what is found out when somebody looks: one of its two functions is set.
type asked struct {
	storage  func() Storage
	webhooks func() []Queue
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prefix+name, help, labels, nil)
}

// The names, help texts and labels of what is asked.
func (a *asked) descs() map[string]*prometheus.Desc {
	if a.storage != nil {
		return map[string]*prometheus.Desc{
			"bytes":        desc("storage_bytes", "Bytes that repositories hold, added up; what several hold counts in each."),
			"repositories": desc("repositories", "Repositories."),
		}
	}
	return map[string]*prometheus.Desc{
		"pending":   desc("webhook_pending", "Events that wait for a webhook.", "endpoint"),
		"failures":  desc("webhook_failures", "Failures of a webhook in a row.", "endpoint"),
		"delivered": desc("webhook_delivered_total", "Events that a webhook was told.", "endpoint"),
		"dropped":   desc("webhook_dropped_total", "Events that a webhook was not told.", "endpoint"),
	}
}

// Describe is of prometheus.Collector.
func (a *asked) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range a.descs() {
		ch <- d
	}
}

// Collect is of prometheus.Collector.
func (a *asked) Collect(ch chan<- prometheus.Metric) {
	descs := a.descs()
	put := func(name string, kind prometheus.ValueType, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(descs[name], kind, v, labels...)
	}
	if a.storage != nil {
		s := a.storage()
		put("bytes", prometheus.GaugeValue, float64(s.Bytes))
		put("repositories", prometheus.GaugeValue, float64(s.Repositories))
		return
	}
	for _, q := range a.webhooks() {
		put("pending", prometheus.GaugeValue, float64(q.Pending), q.Endpoint)
		put("failures", prometheus.GaugeValue, float64(q.Failures), q.Endpoint)
		put("delivered", prometheus.CounterValue, float64(q.Delivered), q.Endpoint)
		put("dropped", prometheus.CounterValue, float64(q.Dropped), q.Endpoint)
	}
}
