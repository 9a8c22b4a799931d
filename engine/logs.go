package engine

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"berth/base/fault"
	"berth/base/plugin"
	"berth/engine/container"
	"berth/engine/logs"
	"berth/engine/logs/ship"
	"berth/engine/logs/sink"
	"berth/engine/logs/sink/logplugin"
	"berth/runtime/keeper"
)

// Logs reads what the container wrote. Following ends with the run that is followed.
func (e *Engine) Logs(ctx context.Context, ref string, o LogOptions) (LogReader, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return nil, err
	}
	if !o.Stdout && !o.Stderr {
		return nil, fault.New(fault.Invalid, "You must choose at least one stream")
	}
	reader, err := e.openLog(c, logs.Options{
		Stdout: o.Stdout, Stderr: o.Stderr, Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow, Ended: c.endedChan(),
	})
	if err != nil {
		return nil, err
	}
	return &logReader{Reader: reader, stop: context.AfterFunc(ctx, func() { reader.Close() })}, nil
}

// openLog opens what is kept of a container's output: its log, or its spool.
func (e *Engine) openLog(c *entry, o logs.Options) (*logs.Reader, error) {
	r := c.record()
	cfg, err := e.logSettings(r)
	if err != nil {
		return nil, err
	}
	path := e.logPath(r)
	if path == "" || cfg.Hidden {
		return nil, fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	o.Local = cfg.Local
	return logs.Open(path, o, &e.watch)
}

// logReader ends with its request's context.
type logReader struct {
	*logs.Reader
	stop func() bool
}

// Next gives the next line.
func (r *logReader) Next() (Line, error) {
	l, err := r.Reader.Next()
	return Line{Stream: l.Stream, Time: l.Time, Data: l.Data, Attrs: l.Attrs}, err
}

// Close ends the reader.
func (r *logReader) Close() error {
	r.stop()
	return r.Reader.Close()
}

// logPath is where the keeper writes, in Docker's places; "" where it does not.
func (e *Engine) logPath(r *container.Record) string {
	switch r.Spec.Log.Driver {
	case "none":
		return ""
	case "json-file":
		return r.LogPath
	case "local":
		return e.store.Dir(r.ID) + "/local-logs/container.log"
	}
	return e.store.Dir(r.ID) + "/container-cached.log"
}

// logSettings reads the container's log options, with what the engine's own settings add.
func (e *Engine) logSettings(r *container.Record) (logs.Config, error) {
	cfg, err := e.configureLog(&r.Spec.Log)
	cfg.Bound(e.cfg.LogBound)
	return cfg, err
}

// LogPlugins finds plugins that serve logs.
type LogPlugins interface {
	Get(ctx context.Context, name, subsystem string) (*plugin.Plugin, error)
}

func (e *Engine) configureLog(l *container.Log) (logs.Config, error) {
	if e.cfg.LogPlugins != nil && !logs.Known(l.Driver) {
		return logs.ConfigurePlugin(l.Driver, l.Options)
	}
	return logs.Configure(l.Driver, l.Options)
}

// checkLog refuses drivers that are not there and options that they have not.
func (e *Engine) checkLog(s *container.Spec) error {
	if e.cfg.LogPlugins != nil && !logs.Known(s.Log.Driver) {
		ctx, cancel := context.WithTimeout(context.Background(), sink.WriteTimeout)
		defer cancel()
		if _, err := e.cfg.LogPlugins.Get(ctx, s.Log.Driver, logplugin.Subsystem); err != nil {
			return fault.Wrap(fault.Invalid, err, "error looking up logging plugin %s", s.Log.Driver)
		}
	}
	_, err := e.configureLog(&s.Log)
	return err
}

// logConfig says to the keeper how the container's output is kept.
func (e *Engine) logConfig(r *container.Record) (keeper.LogConfig, error) {
	cfg, err := e.logSettings(r)
	if err != nil {
		return keeper.LogConfig{}, err
	}
	k := keeper.LogConfig{
		Format: cfg.Format(), Path: e.logPath(r), MaxSize: cfg.MaxSize, MaxFiles: cfg.MaxFiles, Keep: cfg.Ships && !cfg.NonBlock, NonBlock: cfg.NonBlock,
		Announce: cfg.Compress,
	}
	info := logInfo(r)
	attrs, err := info.Attrs(nil)
	if err != nil {
		return k, err
	}
	for _, a := range attrs {
		k.Attrs = append(k.Attrs, keeper.Attr(a))
	}
	if info.Config["tag"] != "" {
		tag, err := info.Tag("")
		if err != nil {
			return k, err
		}
		k.Attrs = append(k.Attrs, keeper.Attr{Key: "tag", Value: tag})
	}
	if dir := filepath.Dir(k.Path); k.Path != "" && dir != e.store.Dir(r.ID) {
		if err := os.Mkdir(dir, 0o700); err != nil && !os.IsExist(err) {
			return k, fault.Wrap(fault.Internal, err, "making the directory of the container's log")
		}
	}
	return k, nil
}

// logInfo is what a collector is told of the container.
func logInfo(r *container.Record) *sink.Info {
	i := &sink.Info{
		ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: r.Path, ContainerArgs: r.Args, ContainerImageID: r.ImageID,
		ContainerImageName: r.Spec.Image, ContainerCreated: r.Created, ContainerEnv: r.Spec.Process.Env, ContainerLabels: r.Spec.Labels,
		DaemonName: "docker", Config: map[string]string{},
	}
	for key, value := range r.Spec.Log.Options {
		if !strings.HasPrefix(key, "cache-") && key != "mode" && key != "max-buffer-size" {
			i.Config[key] = value
		}
	}
	return i
}

// cacheOptions are the engine's default log options that count for containers of any driver, as in Docker.
func cacheOptions(all map[string]string) map[string]string {
	picked := maps.Clone(all)
	maps.DeleteFunc(picked, func(key, _ string) bool { return !strings.HasPrefix(key, "cache-") })
	return picked
}

// probeCollector says why a container cannot be started: nobody takes its output. Docker says so too, and a person wants to know; a restart
// by policy does not ask.
func (e *Engine) probeCollector(ctx context.Context, r *container.Record) error {
	cfg, err := e.logSettings(r)
	if err != nil || !cfg.Ships || e.cfg.CollectorOptional {
		return nil // errors are the plan's
	}
	ctx, cancel := context.WithTimeout(ctx, sink.DialTimeout)
	defer cancel()
	s := e.sink(cfg.Driver, logInfo(r))
	defer s.Close()
	return fault.In(s.Probe(ctx), "failed to create task for container: failed to initialize logging driver")
}

// ClearLogs throws away what is kept of the container's output, also what was not shipped yet. Who follows goes on with what comes.
func (e *Engine) ClearLogs(ctx context.Context, ref string) error {
	c, err := e.index.find(ref)
	if err != nil {
		return err
	}
	path := e.logPath(c.record())
	if path == "" {
		return fault.New(fault.Invalid, "container %s keeps no log: its log driver is none", ref)
	}
	return fault.In(e.keeper.ClearLog(ctx, c.id, path), "clearing the log of container %s", ref)
}

// LogStatus is what is known of a container's log.
type LogStatus struct {
	Driver string
	Bytes  int64 // on disk
	Files  int
	Limit  int64  // bytes that it may have; 0: no limit
	Lost   uint64 // bytes of output that the disk refused

	Ships *ship.Status // nil: nothing is shipped
}

// LogStatus tells how large a container's log is and how its shipping goes.
func (e *Engine) LogStatus(ctx context.Context, ref string) (LogStatus, error) {
	c, err := e.index.find(ref)
	if err != nil {
		return LogStatus{}, err
	}
	r := c.record()
	cfg, err := e.logSettings(r)
	if err != nil {
		return LogStatus{}, err
	}
	s := LogStatus{Driver: cfg.Driver}
	if path := e.logPath(r); path != "" {
		s.Bytes, s.Files = logs.Size(path)
		if cfg.MaxSize > 0 {
			s.Limit = cfg.MaxSize * int64(cfg.MaxFiles)
		}
	}
	if held, err := e.keeper.List(ctx); err == nil {
		for _, p := range held {
			if p.ID == c.id && p.Proc == "" {
				s.Lost = p.LogLost
			}
		}
	}
	if cfg.Ships {
		st := e.ships.status(c.id, e.logPath(r))
		s.Ships = &st
	}
	return s, nil
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }
