package server

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"

	"maps"
	"slices"

	"berth/base/fault"
	"berth/engine"
)

// Content types of output. From 1.42 on a client can tell by them whether there are frames in it.
const (
	rawStream    = "application/vnd.docker.raw-stream"
	framedStream = "application/vnd.docker.multiplexed-stream"
)

// stampLayout has always nine digits of a second, so that lines stand below each other.
const stampLayout = "2006-01-02T15:04:05.000000000Z07:00"

// containerLogs sends what a container has written, and with follow what it goes on to write. Without a terminal each line goes in a
// frame of its own: stream, three zeros, length as four bytes big endian, data.
func containerLogs(s *Server, c *call) error {
	o := engine.LogOptions{
		Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Follow: c.flag("follow"), Timestamps: c.flag("timestamps"), Details: c.flag("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return fault.New(fault.Invalid, "Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = c.moment("since"); err != nil {
		return err
	}
	if c.v >= 35 {
		if o.Until, err = c.moment("until"); err != nil {
			return err
		}
	}
	// As in Docker, a tail that is no number means all.
	if n, err := strconv.Atoi(c.text("tail")); err == nil && n >= 0 {
		o.Tail = n
	}
	info, err := s.cfg.Containers.Inspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	lines, err := s.cfg.Containers.Logs(c.ctx(), info.ID, o)
	if err != nil {
		return err
	}
	framed := !info.Spec.Process.TTY
	c.w.Header().Set("Content-Type", streamType(c, framed))
	c.begin(http.StatusOK)
	flush := http.NewResponseController(c.w).Flush
	_ = flush()
	copyLines(c, lines, o, framed, flush)
	return nil
}

func streamType(c *call, framed bool) string {
	if framed && c.v >= 42 {
		return framedStream
	}
	return rawStream
}

// copyLines writes lines as they come and flushes whenever none is waiting.
func copyLines(c *call, lines engine.LogReader, o engine.LogOptions, framed bool, flush func() error) {
	type item struct {
		line engine.Line
		err  error
	}
	feed := make(chan item, 64)
	stop := make(chan struct{})
	go func() {
		defer close(feed)
		for {
			line, err := lines.Next()
			select {
			case feed <- item{line, err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	// The reader is woken by Close; then the feeder ends and is waited for.
	defer func() {
		close(stop)
		_ = lines.Close()
		for range feed {
		}
	}()

	out := bufio.NewWriterSize(c.w, 32<<10)
	for {
		var it item
		var more bool
		select {
		case it, more = <-feed:
		default:
			if out.Flush() != nil || flush() != nil {
				return
			}
			select {
			case it, more = <-feed:
			case <-c.ctx().Done():
				return
			}
		}
		if !more || it.err != nil {
			if it.err != nil && !errors.Is(it.err, io.EOF) && c.ctx().Err() == nil {
				writeFrame(out, framed, 3, []byte("Error grabbing logs: "+it.err.Error()+"\n"))
			}
			_ = out.Flush()
			return
		}
		if it.line.Stream == 1 && !o.Stdout || it.line.Stream == 2 && !o.Stderr {
			continue
		}
		if writeFrame(out, framed, it.line.Stream, prefix(&it.line, o), it.line.Data) != nil {
			return
		}
	}
}

// prefix is what stands before a line's text: the time, then the details.
func prefix(l *engine.Line, o engine.LogOptions) []byte {
	var p []byte
	if o.Timestamps {
		p = l.Time.UTC().AppendFormat(p, stampLayout)
		p = append(p, ' ')
	}
	if o.Details {
		for i, k := range slices.Sorted(maps.Keys(l.Attrs)) {
			if i > 0 {
				p = append(p, ',')
			}
			p = append(append(append(p, url.QueryEscape(k)...), '='), url.QueryEscape(l.Attrs[k])...)
		}
		p = append(p, ' ')
	}
	return p
}

func writeFrame(w *bufio.Writer, framed bool, stream byte, parts ...[]byte) error {
	if framed {
		head := [8]byte{stream}
		n := 0
		for _, p := range parts {
			n += len(p)
		}
		binary.BigEndian.PutUint32(head[4:], uint32(n))
		if _, err := w.Write(head[:]); err != nil {
			return err
		}
	}
	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}
