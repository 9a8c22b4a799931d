package server

import (
	"context"
	"net/http"

	"berth/engine"
)

// streams are the verbs that move bytes of a container's first process.
type streams interface {
	Attach(ctx context.Context, ref string, o engine.AttachOptions) (engine.Attachment, error)
	Logs(ctx context.Context, ref string, o engine.LogOptions) (engine.LogReader, error)
	Resize(ctx context.Context, ref string, rows, cols uint16) error
}

// containerAttach joins the client with the container's first process. Errors come before the client is answered, so that they
// have a status code; as in Docker they are plain text.
func containerAttach(s *Server, c *call) error {
	if err := s.attach(c); err != nil {
		if c.began {
			return err
		}
		return c.refuseStream(err)
	}
	return nil
}

func (s *Server) attach(c *call) error {
	o := engine.AttachOptions{
		Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Logs: c.flag("logs"), Stream: c.flag("stream"), DetachKeys: c.text("detachKeys"),
	}
	info, err := s.cfg.Containers.Inspect(c.ctx(), c.name)
	if err != nil {
		return err
	}
	// The attachment lives as long as its connection, not as the request: net/http ends a request's context when it is taken over.
	attached, err := s.cfg.Containers.Attach(context.WithoutCancel(c.ctx()), info.ID, o)
	if err != nil {
		return err
	}
	client, err := c.hijack(!attached.TTY)
	if err != nil {
		attached.Conn.Close()
		return err
	}
	s.pump(client, attached.Conn, pumpOptions{stdin: o.Stdin, closeStdin: info.Spec.StdinOnce && !attached.TTY})
	return nil
}

func containerResize(s *Server, c *call) error {
	rows, cols, err := c.size()
	if err != nil {
		return err
	}
	if err := s.cfg.Containers.Resize(c.ctx(), c.name, rows, cols); err != nil {
		return err
	}
	return c.done(http.StatusOK)
}
