package exec

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/moby/buildkit/session/sshforward"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"berth/base/fault"
	"berth/build/session"
)

// agentPlace prepares a socket behind which the client's ssh agent answers.
func (b *box) agentPlace(ctx context.Context, p *place) error {
	o := p.m.SSHOpt
	if o == nil {
		return fault.New(fault.Invalid, "invalid SSH mount options")
	}
	caller, err := b.r.agentOf(ctx, b.cfg.sessions, o.ID, o.Optional)
	if err != nil || caller == nil {
		p.absent = caller == nil
		return err
	}
	dir, done, err := b.r.agentDir()
	if err != nil {
		return err
	}
	p.undo = append(p.undo, done)
	sock := filepath.Join(dir, "agent")
	l, err := b.listen(sock)
	if err != nil {
		return err
	}
	// The agent serves as long as the step runs, whatever becomes of the call that prepared it.
	a := &agent{caller: caller, id: o.ID, l: l}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	p.undo = append(p.undo, a.close)
	a.wait.Go(a.serve)
	uid, gid, err := b.host(o.Uid, o.Gid)
	if err != nil {
		return err
	}
	if err := os.Chown(sock, int(uid), int(gid)); err != nil {
		return err
	}
	if err := os.Chmod(sock, os.FileMode(o.Mode&0o777)); err != nil {
		return err
	}
	return b.pinPath(p, sock)
}

// agentOf finds the client that forwards the agent; nil where it is optional and none does.
func (r *Runner) agentOf(ctx context.Context, g session.Group, id string, optional bool) (caller session.Caller, err error) {
	if r.cfg.Sessions == nil {
		if optional {
			return nil, nil
		}
		return nil, fault.New(fault.NotFound, "no SSH key %q forwarded from the client", id)
	}
	err = r.cfg.Sessions.Any(ctx, g, func(ctx context.Context, _ string, c session.Caller) error {
		if err := sshforward.CheckSSHID(ctx, c, id); err != nil {
			if optional {
				return nil
			}
			if grpcerrors.Code(err) == codes.Unimplemented {
				return fault.New(fault.NotFound, "no SSH key %q forwarded from the client", id)
			}
			return err
		}
		caller = c
		return nil
	})
	return caller, err
}

// agentDir makes a directory for a socket.
func (r *Runner) agentDir() (dir string, done func(), err error) {
	dir, err = os.MkdirTemp(filepath.Join(r.cfg.ExecRoot, "agent"), "")
	if err != nil {
		return "", nil, fault.Wrap(fault.Internal, err, "make a place for the ssh agent's socket")
	}
	return dir, func() { _ = os.RemoveAll(dir) }, nil
}

// agent passes connections of a step on to the client's agent.
type agent struct {
	caller session.Caller
	id     string
	l      *net.UnixListener
	ctx    context.Context // ends with close
	cancel context.CancelFunc
	wait   sync.WaitGroup
}

func (a *agent) serve() {
	for {
		conn, err := a.l.AcceptUnix()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue
		}
		a.wait.Go(func() { a.forward(conn) })
	}
}

func (a *agent) forward(conn *net.UnixConn) {
	defer conn.Close()
	id := a.id
	if id == "" {
		id = sshforward.DefaultID
	}
	ctx := metadata.NewOutgoingContext(a.caller.Context(a.ctx), metadata.Pairs(sshforward.KeySSHID, id))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	stream, err := sshforward.NewSSHClient(a.caller.Conn()).ForwardAgent(ctx)
	if err != nil {
		return
	}
	_ = sshforward.Copy(ctx, conn, stream, stream.CloseSend)
}

func (a *agent) close() {
	a.cancel()
	a.l.Close()
	a.wait.Wait()
}
