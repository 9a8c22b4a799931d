package logs

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"

	"berth/base/fault"
	"berth/engine/logs/sink"
	"berth/engine/logs/sink/fluentd"
	"berth/engine/logs/sink/gelf"
	"berth/engine/logs/sink/journald"
	"berth/engine/logs/sink/syslog"
)

// Config is how a container's output is kept, and where it goes.
type Config struct {
	Driver   string
	Local    bool  // files have the local driver's format, not json-file's
	MaxSize  int64 // bytes of a file; -1: no limit
	MaxFiles int
	Compress bool // rotated files

	Ships    bool  // the files are a spool, from which a collector is served
	NonBlock bool  // mode=non-blocking
	Buffer   int64 // of NonBlock with Ships: bytes that wait for the collector at most
	Hidden   bool  // the spool is not for reading: cache-disabled

	SizeGiven, FilesGiven bool // max-size, max-file were among the options
}

// Drivers are those that a container can have, sorted.
func Drivers() []string {
	return []string{"fluentd", "gelf", "journald", "json-file", "local", "none", "syslog"}
}

// others are drivers that Docker has and this build has not.
var others = []string{"awslogs", "etwlogs", "gcplogs", "splunk"}

// Sizes of the local driver and of spools, which are Docker's.
const (
	localSize  = 20 << 20
	localFiles = 5
	// defaultBuffer is what waits in non-blocking mode where max-buffer-size does not say otherwise.
	defaultBuffer = 1_000_000
)

// Known reports whether a driver is in this build, or is one of Docker's that is not: any other may be a plugin's.
func Known(driver string) bool {
	return slices.Contains(Drivers(), driver) || slices.Contains(others, driver)
}

// ConfigurePlugin reads the options of a log plugin's container: those that all drivers have. Its own are the plugin's to check.
func ConfigurePlugin(driver string, options map[string]string) (c Config, err error) {
	c = Config{Driver: driver}
	own, cache, err := c.common(options)
	if err != nil {
		return c, err
	}
	return c, c.spool(own, cache)
}

// Configure reads a log driver's options, and refuses in Docker's words what Docker refuses, by name what is not in this build.
func Configure(driver string, options map[string]string) (c Config, err error) {
	c = Config{Driver: driver, MaxSize: -1, MaxFiles: 1}
	own, cache, err := c.common(options)
	if err != nil {
		return c, err
	}
	switch driver {
	case "json-file":
		return c, c.jsonFile(own)
	case "none":
		for key := range options {
			return c, fault.New(fault.Invalid, "unknown log opt '%s' for none log driver", key)
		}
		return c, nil
	case "local":
		c.Local, c.MaxSize, c.MaxFiles, c.Compress = true, localSize, localFiles, true
		for _, key := range slices.Sorted(maps.Keys(own)) {
			if !localKeys[key] {
				return c, fault.New(fault.Invalid, "unknown log opt '%s' for log driver local", key)
			}
		}
		return c, c.localFile(own)
	case "journald":
		err = journald.Check(own)
		c.Hidden = false // Docker reads the journal; here it is the spool
	case "syslog":
		err = syslog.Check(own)
	case "gelf":
		err = gelf.Check(own)
	case "fluentd":
		err = fluentd.Check(own)
	default:
		if slices.Contains(others, driver) {
			return c, fault.New(fault.NotImplemented, "log driver %s is not in this build; there are %s", driver, strings.Join(Drivers(), ", "))
		}
		return c, fault.New(fault.Invalid, "error looking up logging plugin %[1]s: plugin %[1]q not found", driver)
	}
	if err != nil {
		return c, err
	}
	return c, c.spool(own, cache)
}

// spool reads the options of what is kept for a collector.
func (c *Config) spool(own, cache map[string]string) error {
	c.Local, c.Ships, c.MaxSize, c.MaxFiles, c.Compress = true, true, localSize, localFiles, !c.Hidden
	if err := c.localFile(cache); err != nil {
		return err
	}
	if c.MaxFiles < 2 { // a file that is being shipped is not taken away: there must be another to write to
		c.MaxFiles, c.MaxSize = 2, max(1, c.MaxSize/2)
	}
	return c.expressions(own)
}

// common takes out the options that all drivers have: mode, and those of the cache, whose prefix is taken off.
func (c *Config) common(options map[string]string) (own, cache map[string]string, err error) {
	own, cache = map[string]string{}, map[string]string{}
	for key, value := range options {
		name, isCache := strings.CutPrefix(key, "cache-")
		switch {
		case key == "mode", key == "max-buffer-size", key == "cache-disabled":
		case isCache && localKeys[name]:
			cache[name] = value
		default:
			own[key] = value
		}
	}
	if c.Driver == "none" {
		return own, cache, nil
	}
	switch mode := options["mode"]; mode {
	case "", "blocking":
	case "non-blocking":
		c.NonBlock = true
	default:
		return nil, nil, fault.New(fault.Invalid, "logger: logging mode not supported: %s", mode)
	}
	c.Buffer = defaultBuffer
	if size, ok := options["max-buffer-size"]; ok {
		if !c.NonBlock {
			return nil, nil, fault.New(fault.Invalid, "logger: max-buffer-size option is only supported with 'mode=non-blocking'")
		}
		if c.Buffer, err = units.RAMInBytes(size); err != nil {
			return nil, nil, fault.New(fault.Invalid, "error parsing option max-buffer-size: %v", err)
		}
	}
	if text := options["cache-disabled"]; text != "" {
		if c.Hidden, err = strconv.ParseBool(text); err != nil {
			return nil, nil, fault.New(fault.Invalid, "invalid value for option cache-disabled: %s", text)
		}
	}
	return own, cache, nil
}

// localKeys are the options of the local driver, and with "cache-" before them those of spools.
var localKeys = map[string]bool{
	"max-size": true, "max-file": true, "compress": true, "labels": true, "labels-regex": true, "env": true, "env-regex": true, "tag": true,
}

func (c *Config) jsonFile(own map[string]string) (err error) {
	c.Hidden = false
	for _, key := range slices.Sorted(maps.Keys(own)) {
		if !localKeys[key] {
			return fault.New(fault.Invalid, "unknown log opt '%s' for json-file log driver", key)
		}
	}
	if text, ok := own["max-size"]; ok {
		c.SizeGiven = true
		if text != "-1" { // no limit, as without it
			if c.MaxSize, err = units.FromHumanSize(text); err != nil || c.MaxSize <= 0 {
				return fault.New(fault.Invalid, "max-size must be a positive number: %s", text)
			}
		}
	}
	if text, ok := own["max-file"]; ok {
		c.FilesGiven = true
		if c.MaxFiles, err = strconv.Atoi(text); err != nil || c.MaxFiles < 1 {
			return fault.New(fault.Invalid, "max-file cannot be less than 1")
		}
	}
	if text, ok := own["compress"]; ok {
		if c.Compress, err = strconv.ParseBool(text); err != nil {
			return fault.New(fault.Invalid, "log opt compress: %q is neither true nor false", text)
		}
		if c.Compress && (c.MaxFiles == 1 || c.MaxSize == -1) {
			return fault.New(fault.Invalid, "compress cannot be true when max-file is less than 2 or max-size is not set")
		}
	}
	return c.expressions(own)
}

// localFile reads the options of the local driver, or of a spool.
func (c *Config) localFile(own map[string]string) (err error) {
	if text, ok := own["max-size"]; ok {
		if c.MaxSize, err = units.FromHumanSize(text); err != nil {
			return fault.New(fault.Invalid, "invalid value for max-size: %s: %v", text, err)
		}
		if c.MaxSize <= 0 {
			return fault.New(fault.Invalid, "max-size must be a positive number")
		}
	}
	if text, ok := own["max-file"]; ok {
		if c.MaxFiles, err = strconv.Atoi(text); err != nil {
			return fault.New(fault.Invalid, "invalid value for max-file: %s: %v", text, err)
		}
		if c.MaxFiles < 1 {
			return fault.New(fault.Invalid, "max-file cannot be less than 1")
		}
	}
	if text, ok := own["compress"]; ok {
		if c.Compress, err = strconv.ParseBool(text); err != nil {
			return fault.New(fault.Invalid, "invalid boolean value for compress: %v", err)
		}
	}
	if c.Compress && c.MaxFiles <= 1 {
		return fault.New(fault.Invalid, "compression cannot be enabled when max file count is 1")
	}
	return c.expressions(own)
}

// expressions checks what is compiled when the container starts.
func (c *Config) expressions(own map[string]string) error {
	_, err := (&sink.Info{Config: own}).Attrs(nil)
	return err
}

// Bound bounds a json-file that has no max-size of its own to so many bytes in all.
func (c *Config) Bound(bytes int64) {
	if bytes <= 0 || c.Driver != "json-file" || c.SizeGiven {
		return
	}
	if !c.FilesGiven {
		c.MaxFiles = boundFiles
	}
	c.MaxSize = max(1, bytes/int64(c.MaxFiles))
}

// boundFiles is into how many files a bounded log is cut: less, and more of it goes with each rotation.
const boundFiles = 5

// Format is the keeper's name for what it writes.
func (c *Config) Format() string {
	if c.Local {
		return "local"
	}
	return c.Driver
}

// NewSink makes the way to a container's collector.
func NewSink(driver string, info *sink.Info, journal string) (sink.Sink, error) {
	switch driver {
	case "journald":
		return journald.New(info, cmp.Or(journal, journald.Socket))
	case "syslog":
		return syslog.New(info)
	case "gelf":
		return gelf.New(info)
	case "fluentd":
		return fluentd.New(info)
	}
	return nil, fault.New(fault.Internal, "log driver %s has no collector", driver)
}
