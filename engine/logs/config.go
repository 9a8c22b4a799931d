package logs

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"berth/base/fault"

	"github.com/docker/go-units"
)

// Config is how a container's output is kept.
type Config struct {
	Format   string // "json-file" or "none"
	MaxSize  int64  // bytes; -1: no limit
	MaxFiles int

	labels      []string
	labelsRegex *regexp.Regexp
	env         []string
	envRegex    *regexp.Regexp
	Tag         string // template, "" for none
}

// others are drivers that Docker has and this build has not.
var others = []string{"awslogs", "etwlogs", "fluentd", "gcplogs", "gelf", "journald", "local", "splunk", "syslog"}

// Configure reads a log driver's options. What is unknown or not in this build is refused by name.
func Configure(driver string, options map[string]string) (Config, error) {
	c := Config{Format: driver, MaxSize: -1, MaxFiles: 1}
	switch {
	case driver == "json-file", driver == "none":
	case slices.Contains(others, driver):
		return c, fault.New(fault.NotImplemented, "log driver %s is not in this build; there are json-file and none", driver)
	default:
		return c, fault.New(fault.Invalid, "error looking up logging plugin %[1]s: plugin %[1]q not found", driver)
	}
	for key, value := range options {
		if err := c.set(key, value); err != nil {
			return c, err
		}
	}
	return c, nil
}

func (c *Config) set(key, value string) (err error) {
	if c.Format == "none" {
		return fault.New(fault.Invalid, "unknown log opt '%s' for none log driver", key)
	}
	switch key {
	case "max-size":
		if value == "-1" {
			return nil // no limit, as without it
		}
		if c.MaxSize, err = units.FromHumanSize(value); err != nil || c.MaxSize <= 0 {
			return fault.New(fault.Invalid, "max-size must be a positive number: %s", value)
		}
	case "max-file":
		if c.MaxFiles, err = strconv.Atoi(value); err != nil || c.MaxFiles < 1 {
			return fault.New(fault.Invalid, "max-file cannot be less than 1")
		}
	case "labels":
		c.labels = strings.Split(value, ",")
	case "env":
		c.env = strings.Split(value, ",")
	case "labels-regex":
		if c.labelsRegex, err = regexp.Compile(value); err != nil {
			return fault.Wrap(fault.Invalid, err, "log opt labels-regex")
		}
	case "env-regex":
		if c.envRegex, err = regexp.Compile(value); err != nil {
			return fault.Wrap(fault.Invalid, err, "log opt env-regex")
		}
	case "tag":
		c.Tag = value
	case "compress":
		if yes, err := strconv.ParseBool(value); err != nil {
			return fault.New(fault.Invalid, "log opt compress: %q is neither true nor false", value)
		} else if yes {
			return fault.New(fault.NotImplemented, "log opt compress=true is not in this build: rotated logs stay plain; leave it out")
		}
	case "mode":
		switch value {
		case "blocking":
		case "non-blocking":
			return fault.New(fault.NotImplemented, "log opt mode=non-blocking is not in this build; leave it out")
		default:
			return fault.New(fault.Invalid, "logger: logging mode not supported: %s", value)
		}
	case "max-buffer-size":
		return fault.New(fault.Invalid, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	default:
		return fault.New(fault.Invalid, "unknown log opt '%s' for %s log driver", key, c.Format)
	}
	return nil
}

// Attr is one extra field of each line.
type Attr struct{ Key, Value string }

// Attrs picks the labels and variables that the options ask for, sorted by name. Later kinds win, as in Docker: labels, then env.
func (c Config) Attrs(labels map[string]string, env []string) []Attr {
	picked := map[string]string{}
	for name, v := range labels {
		if slices.Contains(c.labels, name) || c.labelsRegex != nil && c.labelsRegex.MatchString(name) {
			picked[name] = v
		}
	}
	for _, kv := range env {
		name, v, ok := strings.Cut(kv, "=")
		if ok && (slices.Contains(c.env, name) || c.envRegex != nil && c.envRegex.MatchString(name)) {
			picked[name] = v
		}
	}
	var all []Attr
	for name, v := range picked {
		all = append(all, Attr{name, v})
	}
	slices.SortFunc(all, func(a, b Attr) int { return strings.Compare(a.Key, b.Key) })
	return all
}
