package main

import (
	"fmt"
	"strings"

	"github.com/docker/go-units"

	"berth/engine"
	"berth/engine/logs"
)

// logConfig is what options say about containers' output beyond its driver.
type logConfig struct {
	Bound    int64 // bytes; 0: no limit
	Optional bool  // the collector need not be there
}

// logOptions lists the options of containers' output.
func logOptions(c *config) []option {
	return []option{
		{"log-driver", "", "log-driver", "Where containers' output goes by default: " + strings.Join(logs.Drivers(), ", "), newText(&c.LogDriver, "json-file")},
		{"log-opt", "", "log-opts", "Default option of the log driver, key=value; may be repeated", &pairs{to: &c.LogOpts}},
		{"log-bound", "", "log-bound", "Limit of the log of each container of json-file that has no max-size of its own (Docker has none)", newSize(&c.Logs.Bound, 0)},
		{"log-collector-optional", "", "log-collector-optional", "Start containers also while the collector of their output cannot be reached; it waits on disk", &boolean{to: &c.Logs.Optional}},
	}
}

// checkLogs refuses a default that no container could be made with.
func (c *config) checkLogs() error {
	if _, err := logs.Configure(c.LogDriver, c.LogOpts); err != nil {
		return fmt.Errorf("--log-driver %s: %w", c.LogDriver, err)
	}
	if c.Logs.Bound > 0 && c.Logs.Bound < 64<<10 {
		return fmt.Errorf("--log-bound: %s is less than a line may take; give 64k or more", units.BytesSize(float64(c.Logs.Bound)))
	}
	return nil
}

// into puts them into the engine's configuration.
func (c *logConfig) into(to *engine.Config) { to.LogBound, to.CollectorOptional = c.Bound, c.Optional }

// labels are what info shows of them.
func (c *logConfig) labels() (all []string) {
	if c.Bound > 0 {
		all = append(all, "berth.log-bound="+strings.ReplaceAll(units.BytesSize(float64(c.Bound)), " ", ""))
	}
	if c.Optional {
		all = append(all, "berth.log-collector-optional=true")
	}
	return all
}
