package engine

import (
	"bytes"
	"context"
	"strconv"
	"text/template"

	"berth/base/fault"
	"berth/base/id"
	"berth/engine/container"
	"berth/engine/logs"
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
	r := c.record()
	if r.Spec.Log.Driver != "json-file" {
		return nil, fault.New(fault.NotImplemented, "configured logging driver does not support reading")
	}
	reader, err := logs.Open(r.LogPath, logs.Options{
		Stdout: o.Stdout, Stderr: o.Stderr, Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow, Ended: c.endedChan(),
	}, &e.watch)
	if err != nil {
		return nil, err
	}
	return &logReader{Reader: reader, stop: context.AfterFunc(ctx, func() { reader.Close() })}, nil
}

// logReader ends with its request's context.
type logReader struct {
	*logs.Reader
	stop func() bool
}

// Next gives the next line.
func (r *logReader) Next() (Line, error) {
	l, err := r.Reader.Next()
	return Line(l), err
}

// Close ends the reader.
func (r *logReader) Close() error {
	r.stop()
	return r.Reader.Close()
}

// logConfig says to the keeper how the container's output is kept.
func (e *Engine) logConfig(r *container.Record) (keeper.LogConfig, error) {
	cfg, err := logs.Configure(r.Spec.Log.Driver, r.Spec.Log.Options)
	if err != nil {
		return keeper.LogConfig{}, err
	}
	k := keeper.LogConfig{Format: cfg.Format, Path: r.LogPath, MaxSize: cfg.MaxSize, MaxFiles: cfg.MaxFiles}
	for _, a := range cfg.Attrs(r.Spec.Labels, r.Spec.Process.Env) {
		k.Attrs = append(k.Attrs, keeper.Attr(a))
	}
	if cfg.Tag != "" {
		tag, err := expandTag(cfg.Tag, r)
		if err != nil {
			return k, err
		}
		k.Attrs = append(k.Attrs, keeper.Attr{Key: "tag", Value: tag})
	}
	return k, nil
}

// tagFacts are what a log tag may mention, by Docker's names.
type tagFacts struct{ r *container.Record }

// ID is the short id.
func (t tagFacts) ID() string { return id.Short(t.r.ID) }

// FullID is the id.
func (t tagFacts) FullID() string { return t.r.ID }

// Name is the container's name.
func (t tagFacts) Name() string { return t.r.Name }

// ImageID is the image's short id.
func (t tagFacts) ImageID() string { return id.Short(t.r.ImageID) }

// ImageFullID is the image's id.
func (t tagFacts) ImageFullID() string { return t.r.ImageID }

// ImageName is the image as it was asked for.
func (t tagFacts) ImageName() string { return t.r.Spec.Image }

// DaemonName is the engine's.
func (t tagFacts) DaemonName() string { return "berth" }

// Command is the command line.
func (t tagFacts) Command() string { return t.r.CommandLine() }

func expandTag(text string, r *container.Record) (string, error) {
	t, err := template.New("log tag").Parse(text)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "log opt tag")
	}
	var b bytes.Buffer
	if err := t.Execute(&b, tagFacts{r}); err != nil {
		return "", fault.Wrap(fault.Invalid, err, "log opt tag")
	}
	return b.String(), nil
}

func itoa(n uint16) string { return strconv.Itoa(int(n)) }
