package logplugin

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/logs/sink"
	"berth/runtime/keeper/localfile"
)

// Subsystem is what a log plugin serves.
const Subsystem = "LogDriver"

// Caller is a plugin.
type Caller interface {
	Call(ctx context.Context, method string, args, ret any) error
}

// Driver is one container's way to a plugin.
type Driver struct {
	find func(context.Context) (Caller, error)
	info *sink.Info
	path string // of the FIFO

	plugin Caller
	fifo   *os.File // nil: not started
	buf    []byte
}

// New makes the way to the plugin that find gives, through a FIFO at path, whose directory is made.
func New(find func(context.Context) (Caller, error), info *sink.Info, path string) *Driver {
	return &Driver{find: find, info: info, path: path}
}

type answer struct{ Err string }

// Probe says whether the plugin is there and serves logs.
func (d *Driver) Probe(ctx context.Context) error {
	_, err := d.find(ctx)
	return err
}

func (d *Driver) start(ctx context.Context) (err error) {
	if d.fifo != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sink.WriteTimeout)
	defer cancel()
	if d.plugin, err = d.find(ctx); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(d.path), 0o700); err != nil {
		return fault.Wrap(fault.Internal, err, "the FIFO of a log plugin")
	}
	_ = os.Remove(d.path)
	if err := unix.Mkfifo(d.path, 0o600); err != nil {
		return fault.Wrap(fault.Internal, err, "the FIFO of a log plugin")
	}
	// For reading too: neither end waits for the other to open.
	f, err := os.OpenFile(d.path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "the FIFO of a log plugin")
	}
	var a answer
	err = d.plugin.Call(ctx, Subsystem+".StartLogging", map[string]any{"File": d.path, "Info": d.info}, &a)
	if err == nil && a.Err != "" {
		err = fault.New(fault.Unavailable, "%s", a.Err)
	}
	if err != nil {
		f.Close()
		os.Remove(d.path)
		return err
	}
	d.fifo = f
	return nil
}

// batch is how much is written at once: what a FIFO takes whole or not at all would be 4 KiB, which is too little for a line.
const batch = 16 << 10

// Send implements sink.Sink.
func (d *Driver) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	if err := d.start(ctx); err != nil {
		return err
	}
	if err := d.fifo.SetWriteDeadline(time.Now().Add(sink.WriteTimeout)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = d.fifo.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	d.buf = d.buf[:0]
	for i := range records {
		d.buf = appendEntry(d.buf, &records[i])
		if len(d.buf) < batch && i < len(records)-1 {
			continue
		}
		if _, err := d.fifo.Write(d.buf); err != nil {
			d.Close() // part of an entry may be in it: a new one is begun
			return fault.Wrap(fault.Unavailable, err, "the log plugin does not read")
		}
		taken(i + 1)
		d.buf = d.buf[:0]
	}
	return nil
}

// appendEntry appends a record as plugins read it: without the second length of files.
func appendEntry(b []byte, r *sink.Record) []byte {
	source := "stdout"
	if r.Stderr {
		source = "stderr"
	}
	b = localfile.Append(b, r.Line, source, r.Time.UnixNano(), r.Part, nil)
	return b[:len(b)-4]
}

// stopPatience bounds the farewell.
const stopPatience = 2 * time.Second

// Close ends logging: the plugin reads what is in the FIFO, and its end.
func (d *Driver) Close() {
	if d.fifo == nil {
		return
	}
	d.fifo.Close()
	d.fifo = nil
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	_ = d.plugin.Call(ctx, Subsystem+".StopLogging", map[string]any{"File": d.path}, &answer{}) // it has gone, or will find the end itself
	_ = os.Remove(d.path)
}
