package server

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/moby/moby/api/types/common"

	"berth/api/server/wire"
	"berth/engine"
	"berth/engine/container"
)

// execs are the verbs on further processes of a container.
type execs interface {
	ExecCreate(ctx context.Context, ref string, e container.ExecSpec) (string, error)
	ExecStart(ctx context.Context, execID string, o engine.ExecStartOptions) (engine.Attachment, error)
	ExecInspect(ctx context.Context, execID string) (engine.ExecInfo, error)
	ExecResize(ctx context.Context, execID string, rows, cols uint16) error
}

func execCreate(s *Server, c *call) error {
	var r wire.ExecCreateRequest
	if _, _, err := c.decode(&r); err != nil {
		return err
	}
	spec, err := r.Spec(c.v)
	if err != nil {
		return err
	}
	id, err := s.cfg.Containers.ExecCreate(c.ctx(), c.name, spec)
	if err != nil {
		return err
	}
	return c.json(http.StatusCreated, common.IDResponse{ID: id})
}

// execStart runs a created exec. Attached, the answer's head goes out before the exec begins, as in Docker: some clients lose what
// arrives together with the head. What goes wrong from then on is said in the stream, where Docker's client shows it; the exit code is
// asked of execInspect. Whether the output is in frames is for the start to say, also where the exec has a terminal.
func execStart(s *Server, c *call) error {
	var r wire.ExecStartRequest
	if _, _, err := c.decode(&r); err != nil {
		return err
	}
	info, err := s.cfg.Containers.ExecInspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	o := engine.ExecStartOptions{Detach: r.Detach, TTY: r.Tty}
	if o.Rows, o.Cols, err = r.Size(c.v); err != nil {
		return err
	}
	// The exec lives as long as its connection, not as the request: net/http ends a request's context when it is taken over.
	ctx := context.WithoutCancel(c.ctx())
	if r.Detach {
		if _, err := s.cfg.Containers.ExecStart(ctx, c.name, o); err != nil {
			return err
		}
		return c.done(http.StatusOK)
	}
	h := c.w.Header()
	frames := !info.Spec.TTY || !r.Tty
	client, err := c.hijack(frames, "Api-Version: "+h.Get("Api-Version"), "Docker-Experimental: "+h.Get("Docker-Experimental"), "Ostype: "+h.Get("Ostype"), "Server: "+h.Get("Server"))
	if err != nil {
		return err
	}
	attached, err := s.cfg.Containers.ExecStart(ctx, c.name, o)
	if err != nil {
		s.log.Debug("exec failed", "exec", c.name, "error", err)
		client.complain(err, frames)
		return nil
	}
	if frames && attached.TTY {
		attached.Conn = &framed{Conn: attached.Conn}
	}
	process := settled{attached.Conn, func() { s.awaitExecEnd(ctx, c.name) }}
	s.pump(client, process, pumpOptions{stdin: info.Spec.AttachStdin, closeStdin: !attached.TTY})
	return nil
}

// framed puts what a terminal says into frames of the output stream, see the format of attach in Docker's API.
type framed struct {
	engine.Conn
	buf  []byte
	left []byte // of buf: a frame, or its end, that nobody has read yet
	err  error  // of the terminal, told after what is left
}

func (f *framed) Read(p []byte) (int, error) {
	const head = 8
	if len(f.left) == 0 && f.err == nil {
		if f.buf == nil {
			f.buf = make([]byte, 32<<10)
		}
		n, err := f.Conn.Read(f.buf[head:])
		f.err = err
		if n > 0 {
			f.left = f.buf[:head+n]
			copy(f.left, []byte{1, 0, 0, 0})
			binary.BigEndian.PutUint32(f.left[4:head], uint32(n))
		}
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	if len(f.left) == 0 && f.err != nil {
		return n, f.err
	}
	return n, nil
}

// settled holds the end of an exec's output back until the engine knows its exit code: Docker's client asks for the code as soon as
// the stream has ended, and takes "not known yet" for 0.
type settled struct {
	engine.Conn
	wait func()
}

func (c settled) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		c.wait()
	}
	return n, err
}

// execEndPatience bounds the time between the end of an exec's output and the news of its exit: both come from the keeper. Who detached
// from a terminal waits as long.
const execEndPatience = time.Second

func (s *Server) awaitExecEnd(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, execEndPatience)
	defer cancel()
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 50*time.Millisecond) {
		info, err := s.cfg.Containers.ExecInspect(ctx, id)
		if err != nil || !info.Running {
			return
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		case <-s.leaving.Done():
			return
		}
	}
}

func execInspect(s *Server, c *call) error {
	info, err := s.cfg.Containers.ExecInspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, wire.Exec(&info))
}

func execResize(s *Server, c *call) error {
	rows, cols, err := c.size()
	if err != nil {
		return err
	}
	if err := s.cfg.Containers.ExecResize(c.ctx(), c.name, rows, cols); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}
