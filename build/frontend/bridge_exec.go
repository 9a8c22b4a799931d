package frontend

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"

	gwclient "github.com/moby/buildkit/frontend/gateway/client"
	gwpb "github.com/moby/buildkit/frontend/gateway/pb"
	"github.com/moby/buildkit/util/grpcerrors"
	"github.com/moby/sys/signal"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NewContainer prepares a container under an id that the frontend chose.
func (b *Bridge) NewContainer(ctx context.Context, req *gwpb.NewContainerRequest) (*gwpb.NewContainerResponse, error) {
	spec := gwclient.NewContainerRequest{
		NetMode: req.Network, Hostname: req.Hostname, ExtraHosts: req.ExtraHosts, Platform: req.Platform, Constraints: req.Constraints,
	}
	for i, m := range req.Mounts {
		if m == nil {
			return nil, status.Errorf(codes.InvalidArgument, "mount %d is nil", i)
		}
		mount := gwclient.Mount{
			Selector: m.Selector, Dest: m.Dest, Readonly: m.Readonly, MountType: m.MountType,
			CacheOpt: m.CacheOpt, SecretOpt: m.SecretOpt, SSHOpt: m.SSHOpt,
		}
		if ref, err := b.reference(m.ResultID); err == nil && ref != nil {
			mount.Ref = ref
		} else {
			mount.ResultID = m.ResultID // the state of a failed step, or nothing
		}
		spec.Mounts = append(spec.Mounts, mount)
	}
	b.mu.Lock()
	_, taken := b.containers[req.ContainerID]
	if !taken && len(b.containers) >= maxContainers {
		b.mu.Unlock()
		return nil, status.Errorf(codes.ResourceExhausted, "the frontend has %d containers already: release some", maxContainers)
	}
	if !taken {
		b.containers[req.ContainerID] = nil // reserved
	}
	b.mu.Unlock()
	if taken {
		return nil, status.Errorf(codes.AlreadyExists, "Container %s already exists", req.ContainerID)
	}
	c, err := b.client.NewContainer(ctx, spec)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		delete(b.containers, req.ContainerID)
		return nil, err
	}
	b.containers[req.ContainerID] = c
	return &gwpb.NewContainerResponse{}, nil
}

// ReleaseContainer ends a container.
func (b *Bridge) ReleaseContainer(ctx context.Context, req *gwpb.ReleaseContainerRequest) (*gwpb.ReleaseContainerResponse, error) {
	c, err := b.container(req.ContainerID)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	delete(b.containers, req.ContainerID)
	b.mu.Unlock()
	return &gwpb.ReleaseContainerResponse{}, c.Release(ctx)
}

func (b *Bridge) container(name string) (gwclient.Container, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.containers[name]; c != nil {
		return c, nil
	}
	return nil, status.Errorf(codes.NotFound, "container %q previously released or not created", name)
}

// ReadFileContainer reads a file of a container's mount.
func (b *Bridge) ReadFileContainer(ctx context.Context, req *gwpb.ReadFileRequest) (*gwpb.ReadFileResponse, error) {
	c, err := b.container(req.Ref)
	if err != nil {
		return nil, err
	}
	data, err := c.ReadFile(ctx, gwclient.ReadContainerRequest{
		ReadRequest: gwclient.ReadRequest{Filename: req.FilePath, Range: rangeOf(req.Range)}, MountIndex: int(req.MountIndex),
	})
	return &gwpb.ReadFileResponse{Data: data}, err
}

// ReadDirContainer lists a directory of a container's mount.
func (b *Bridge) ReadDirContainer(ctx context.Context, req *gwpb.ReadDirRequest) (*gwpb.ReadDirResponse, error) {
	c, err := b.container(req.Ref)
	if err != nil {
		return nil, err
	}
	list, err := c.ReadDir(ctx, gwclient.ReadDirContainerRequest{
		ReadDirRequest: gwclient.ReadDirRequest{Path: req.DirPath, IncludePattern: req.IncludePattern}, MountIndex: int(req.MountIndex),
	})
	return &gwpb.ReadDirResponse{Entries: list}, err
}

// StatFileContainer describes a file of a container's mount.
func (b *Bridge) StatFileContainer(ctx context.Context, req *gwpb.StatFileRequest) (*gwpb.StatFileResponse, error) {
	c, err := b.container(req.Ref)
	if err != nil {
		return nil, err
	}
	st, err := c.StatFile(ctx, gwclient.StatContainerRequest{StatRequest: gwclient.StatRequest{Path: req.Path}, MountIndex: int(req.MountIndex)})
	return &gwpb.StatFileResponse{Stat: st}, err
}

// ExecProcess starts processes in containers and carries their stdio. Of each process the frontend is told, in this order:
// Started; its output, an EOF for each stream; Exit, anywhere behind Started; Done, when nothing more comes.
func (b *Bridge) ExecProcess(stream gwpb.LLBBridge_ExecProcessServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	s := &execStream{bridge: b, ctx: ctx, stream: stream, procs: map[string]*execProc{}}
	err := s.receive()
	cancel() // what still runs when the stream ends is killed by its context
	s.running.Wait()
	return err
}

// execStream is one ExecProcess call with its processes.
type execStream struct {
	bridge  *Bridge
	ctx     context.Context
	stream  gwpb.LLBBridge_ExecProcessServer
	sending sync.Mutex // a stream takes one message at a time
	procs   map[string]*execProc
	running sync.WaitGroup
}

// execProc is a process, with the ends of its stdio that are ours.
type execProc struct {
	id    string
	proc  gwclient.ContainerProcess
	stdin *io.PipeWriter
}

func (s *execStream) receive() error {
	for {
		msg, err := s.stream.Recv()
		if errors.Is(err, io.EOF) {
			s.running.Wait() // the frontend says nothing more, and listens
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.handle(msg); err != nil {
			return err
		}
	}
}

func (s *execStream) handle(msg *gwpb.ExecMessage) error {
	if msg.ProcessID == "" {
		return status.Error(codes.InvalidArgument, "ProcessID required")
	}
	p := s.procs[msg.ProcessID]
	if init := msg.GetInit(); init != nil {
		if p != nil {
			return status.Errorf(codes.AlreadyExists, "Process %s already exists", msg.ProcessID)
		}
		return s.start(msg.ProcessID, init)
	}
	if p == nil {
		return status.Errorf(codes.NotFound, "IO for process %q not found", msg.ProcessID)
	}
	switch m := msg.Input.(type) {
	case *gwpb.ExecMessage_File:
		return p.input(m.File)
	case *gwpb.ExecMessage_Resize:
		_ = p.proc.Resize(s.ctx, gwclient.WinSize{Rows: m.Resize.Rows, Cols: m.Resize.Cols}) // a process that is gone has no size
	case *gwpb.ExecMessage_Signal:
		sig, ok := signal.SignalMap[m.Signal.Name]
		if !ok {
			return status.Errorf(codes.InvalidArgument, "Unknown signal %s", m.Signal.Name)
		}
		_ = p.proc.Signal(s.ctx, sig)
	}
	return nil
}

// input writes to the process's stdin; a process that does not read it any more loses it, as with a pipe.
func (p *execProc) input(f *gwpb.FdMessage) error {
	if f.Fd != 0 || p.stdin == nil {
		return status.Errorf(codes.OutOfRange, "fd %d unavailable to write", f.Fd)
	}
	if len(f.Data) > 0 {
		_, _ = p.stdin.Write(f.Data)
	}
	if f.EOF {
		return p.stdin.Close()
	}
	return nil
}

// start runs a process; it returns when that was tried, and the process goes on.
func (s *execStream) start(name string, init *gwpb.InitMessage) error {
	if init.Meta == nil {
		return status.Error(codes.InvalidArgument, "process meta is required")
	}
	c, err := s.bridge.container(init.ContainerID)
	if err != nil {
		return err
	}
	if len(s.procs) >= maxProcesses {
		return status.Errorf(codes.ResourceExhausted, "the stream has started %d processes already", maxProcesses)
	}
	p := &execProc{id: name}
	req := gwclient.StartRequest{
		Args: init.Meta.Args, Env: init.Meta.Env, SecretEnv: init.Secretenv, User: init.Meta.User, Cwd: init.Meta.Cwd, Tty: init.Tty,
		SecurityMode: init.Security, RemoveMountStubsRecursive: init.Meta.RemoveMountStubsRecursive,
	}
	outputs := map[uint32]*io.PipeReader{}
	for _, fd := range init.Fds {
		r, w := io.Pipe()
		switch fd {
		case 0:
			p.stdin, req.Stdin = w, r
		case 1:
			outputs[fd], req.Stdout = r, w
		case 2:
			outputs[fd], req.Stderr = r, w
		default:
			return status.Errorf(codes.InvalidArgument, "fd %d: only 0, 1 and 2 can be had", fd)
		}
	}
	if p.proc, err = c.Start(s.ctx, req); err != nil {
		p.proc = refused{err}
	}
	s.procs[name] = p
	if err := s.send(name, &gwpb.ExecMessage_Started{Started: &gwpb.StartedMessage{}}); err != nil {
		return err
	}
	var copying sync.WaitGroup
	for fd, r := range outputs {
		copying.Go(func() { s.copyOut(name, fd, r) })
	}
	s.running.Go(func() {
		err := p.proc.Wait()
		if p.stdin != nil {
			p.stdin.CloseWithError(io.ErrClosedPipe)
		}
		closeAll(req.Stdin, req.Stdout, req.Stderr) // whoever ran it has written all by now
		s.sendExit(name, err)
		copying.Wait()
		_ = s.send(name, &gwpb.ExecMessage_Done{Done: &gwpb.DoneMessage{}})
	})
	return nil
}

// refused is a process that could not be started. It is told as one that has ended: an error of the stream would be one of all its processes, and
// leave clients waiting for this one.
type refused struct{ err error }

// Wait gives the reason.
func (r refused) Wait() error { return r.err }

// Resize does nothing.
func (refused) Resize(context.Context, gwclient.WinSize) error { return nil }

// Signal does nothing.
func (refused) Signal(context.Context, syscall.Signal) error { return nil }

func (s *execStream) copyOut(name string, fd uint32, r *io.PipeReader) {
	defer r.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// Send has marshalled the message when it returns: the buffer is ours again.
			if s.send(name, &gwpb.ExecMessage_File{File: &gwpb.FdMessage{Fd: fd, Data: buf[:n]}}) != nil {
				return
			}
		}
		if err != nil {
			_ = s.send(name, &gwpb.ExecMessage_File{File: &gwpb.FdMessage{Fd: fd, EOF: true}})
			return
		}
	}
}

// sendExit tells how a process ended: its code, and as an error what is not 0.
func (s *execStream) sendExit(name string, err error) {
	exit := &gwpb.ExitMessage{}
	if err != nil {
		exit.Code = gwpb.UnknownExitStatus
		var code *gwpb.ExitError
		if errors.As(err, &code) {
			exit.Code = code.ExitCode
		}
		st, _ := status.FromError(grpcerrors.ToGRPC(s.ctx, err))
		p := st.Proto()
		exit.Error = &spb.Status{Code: p.Code, Message: p.Message, Details: p.Details}
	}
	_ = s.send(name, &gwpb.ExecMessage_Exit{Exit: exit})
}

// send sends one message; an error means that the frontend is gone, and Recv tells it as well.
func (s *execStream) send(name string, input any) error {
	msg := &gwpb.ExecMessage{ProcessID: name}
	switch m := input.(type) {
	case *gwpb.ExecMessage_Started:
		msg.Input = m
	case *gwpb.ExecMessage_File:
		msg.Input = m
	case *gwpb.ExecMessage_Exit:
		msg.Input = m
	case *gwpb.ExecMessage_Done:
		msg.Input = m
	}
	s.sending.Lock()
	defer s.sending.Unlock()
	return s.stream.Send(msg)
}

func closeAll(list ...io.Closer) {
	for _, c := range list {
		if c != nil {
			_ = c.Close()
		}
	}
}
