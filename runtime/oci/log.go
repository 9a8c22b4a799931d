package oci

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strconv"
	"time"

	"berth/base/fault"
)

// logHandler writes records in the two shapes that runc's callers read: lines of
// time="…" level=… msg="…", or one JSON object a line. containerd, Docker and Podman take the last
// error's "msg" for the reason why a container did not start.
type logHandler struct {
	out   io.Writer
	json  bool
	level slog.Level
	attrs []slog.Attr
	now   func() time.Time
}

// Enabled is for slog.
func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

// WithAttrs is for slog.
func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), as...)
	return &c
}

// WithGroup is for slog; the shapes are flat, so groups are not shown.
func (h *logHandler) WithGroup(string) slog.Handler { return h }

// Handle is for slog.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	stamp, level := h.now().Format(time.RFC3339), levelName(r.Level)
	var b []byte
	add := func(a slog.Attr) bool {
		if h.json {
			b = append(b, ',')
			b = appendJSON(b, a.Key)
			b = append(b, ':')
			b = appendJSON(b, a.Value.String())
		} else {
			b = append(b, ' ')
			b = append(b, a.Key...)
			b = append(b, '=')
			b = strconv.AppendQuote(b, a.Value.String())
		}
		return true
	}
	if h.json {
		b = append(b, `{"level":"`+level+`","msg":`...)
		b = appendJSON(b, r.Message)
		b = append(b, `,"time":"`+stamp+`"`...)
	} else {
		b = append(b, `time="`+stamp+`" level=`+level+` msg=`...)
		b = strconv.AppendQuote(b, r.Message)
	}
	for _, a := range h.attrs {
		add(a)
	}
	r.Attrs(add)
	if h.json {
		b = append(b, '}')
	}
	_, err := h.out.Write(append(b, '\n'))
	return err
}

// levelName gives the names that runc's readers know.
func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "error"
	case l >= slog.LevelWarn:
		return "warning"
	case l >= slog.LevelInfo:
		return "info"
	}
	return "debug"
}

// openLog makes the logger that the global flags ask for. toStderr says that it writes there.
func openLog(f *flagSet, stderr io.Writer) (log *slog.Logger, toStderr bool, err error) {
	h := &logHandler{out: stderr, level: slog.LevelInfo, now: time.Now}
	log, toStderr = slog.New(h), true
	switch format := f.text("log-format"); format {
	case "", "text":
	case "json":
		h.json = true
	default:
		return log, toStderr, fault.New(fault.Invalid, "invalid log-format: %s", format)
	}
	if f.bool("debug") {
		h.level = slog.LevelDebug
	}
	path := f.text("log")
	if path == "" || path == "/dev/stderr" {
		return log, toStderr, nil
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_SYNC, 0o644)
	if err != nil {
		return log, toStderr, err
	}
	h.out = file
	return log, false, nil
}
