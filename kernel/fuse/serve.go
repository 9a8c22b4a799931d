package fuse

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/kernel/process"
)

// Server answers the requests of one connection.
type Server struct {
	f      *os.File // a descriptor of its own
	fs     FS
	has    Features
	log    *slog.Logger
	stop   context.CancelCauseFunc
	ctx    context.Context
	done   chan struct{} // closed when the mount is gone
	ended  chan struct{} // closed when the reading goroutine ended
	reads  sync.WaitGroup
	bufs   sync.Pool
	mu     sync.Mutex // guards waiting
	waited map[uint64]*waiting
}

// waiting is a read that is under way.
type waiting struct {
	pid     int32
	cancel  context.CancelCauseFunc
	watched bool
}

var (
	errStopped = errors.New("the server stops")
	errKilled  = errors.New("the reader is being killed")
)

// killPoll is how often a reader that got a signal is looked at: SIGKILL after another signal is not announced.
const killPoll = 300 * time.Millisecond

// Serve answers the requests of a connection until Stop, or until the mount is gone. conn stays the caller's. The file system must
// show what it showed to earlier servers of the connection.
func Serve(conn *os.File, fsys FS, log *slog.Logger) (*Server, error) {
	f, err := duplicate(conn)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Server{f: f, fs: fsys, has: fsys.Features(), log: log, done: make(chan struct{}), ended: make(chan struct{}), waited: map[uint64]*waiting{}}
	s.bufs.New = func() any { return new([]byte) }
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	go s.run()
	return s, nil
}

// duplicate gives a descriptor of the same connection, for the poller: whoever had it before may have made it blocking.
func duplicate(conn *os.File) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "serve fuse")
	}
	fd := -1
	if cerr := raw.Control(func(old uintptr) {
		if fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			err = unix.SetNonblock(fd, true)
		}
	}); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "serve fuse")
	}
	return os.NewFile(uintptr(fd), "/dev/fuse"), nil
}

// Resend asks the kernel to send again all that earlier servers read and did not answer. It is called once, by a server that
// took a connection over.
func (s *Server) Resend() error { return resend(s.f) }

func resend(f *os.File) error {
	b := make([]byte, outHeaderSize)
	order.PutUint32(b, outHeaderSize)
	order.PutUint32(b[4:], notifyResend)
	if _, err := f.Write(b); err != nil {
		if ended(err) {
			return nil
		}
		return fault.Wrap(fault.Internal, err, "ask for unanswered fuse requests")
	}
	return nil
}

// Done is closed when the last user of the mount is gone.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop ends serving. What was not answered stays unanswered, for the next server.
func (s *Server) Stop() {
	s.stop(errStopped)
	s.f.SetReadDeadline(time.Unix(1, 0))
	<-s.ended
	s.reads.Wait()
	s.f.Close()
}

func (s *Server) run() {
	defer close(s.ended)
	buf := make([]byte, requestMax)
	for {
		n, err := s.f.Read(buf)
		switch {
		case s.ctx.Err() != nil:
			return
		case err == nil:
		case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINTR):
			continue // the request was taken back while it was read
		case ended(err), s.broken():
			close(s.done)
			return
		default:
			s.log.Error("fuse server ends", "error", err)
			return
		}
		r, err := parse(buf[:n])
		if err != nil {
			s.log.Error("fuse request that is none", "bytes", n)
			continue
		}
		s.handle(r)
	}
}

// ended tells that a connection is over: the mount is gone, or was aborted.
func ended(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOTCONN) || errors.Is(err, unix.EPERM)
}

// broken asks the connection itself: after its end the poller only says that it cannot be waited for.
func (s *Server) broken() (yes bool) {
	raw, err := s.f.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		yes = err == nil && p[0].Revents&unix.POLLERR != 0
	})
	return yes
}

func (s *Server) handle(r request) {
	switch r.op {
	case opForget, opBatchForget: // have no answer
	case opInterrupt:
		s.interrupted(r)
	case opRead:
		s.read(r)
	default:
		b, err := s.reply(r)
		s.answer(r, err, b)
	}
}

// answer sends what became of a request.
func (s *Server) answer(r request, err error, b []byte) {
	var e unix.Errno
	if err != nil {
		b = nil
		if !errors.As(err, &e) {
			e = unix.EIO
		}
	}
	if err := answer(s.f, r.unique, e, b); err != nil && !ended(err) {
		s.log.Error("answer to the kernel", "operation", r.op, "error", err)
	}
}

// reply makes the answers that need no waiting: a buffer with room for the header.
func (s *Server) reply(r request) ([]byte, error) {
	b := make([]byte, outHeaderSize, 256)
	switch r.op {
	case opLookup:
		return s.lookup(r, b)
	case opGetattr:
		a, err := s.fs.Attr(r.node)
		return appendAttrOut(b, r.node, &a), err
	case opReadlink:
		target, err := s.fs.Readlink(r.node)
		return append(b, target...), err
	case opStatfs:
		st := s.fs.Statfs()
		return appendStatfs(b, &st), nil
	case opReaddir, opReaddirplus:
		return s.readdir(r)
	case opGetxattr, opListxattr:
		return s.xattr(r, b)
	case opAccess, opRelease, opReleasedir, opDestroy:
		return b, nil
	}
	// OPEN, OPENDIR, FLUSH and LSEEK among others: the kernel does them itself from now on. What would write is refused by
	// the mount already.
	return nil, unix.ENOSYS
}

func (s *Server) lookup(r request, b []byte) ([]byte, error) {
	name, ok := text(r.body)
	if !ok {
		return nil, unix.EINVAL
	}
	if len(name) > nameMax {
		return nil, unix.ENAMETOOLONG
	}
	n, err := s.fs.Lookup(r.node, name)
	if errors.Is(err, unix.ENOENT) {
		return appendEntry(b, 0, &Attr{}), nil // an answer the kernel may remember, which it may not with ENOENT
	}
	if err != nil {
		return nil, err
	}
	a, err := s.fs.Attr(n)
	return appendEntry(b, n, &a), err
}

// readdir lists names from a position on: 0 and 1 are the directory and its parent.
func (s *Server) readdir(r request) ([]byte, error) {
	at, err := parseSpan(r.body)
	if err != nil {
		return nil, err
	}
	plus := r.op == opReaddirplus
	limit := outHeaderSize + int(at.size)
	b := make([]byte, outHeaderSize, min(limit, 8<<10))
	for pos := at.offset; ; pos++ {
		name, n, node := ".", r.node, Node(0)
		if pos == 1 {
			name = ".."
		}
		if pos > 1 {
			var ok bool
			if name, n, ok = s.fs.Entry(r.node, int(pos-2)); !ok {
				return b, nil
			}
			node = n
		}
		size := direntSize + len(name) + pad(direntSize+len(name))
		if plus {
			size += entrySize
		}
		if len(b)+size > limit {
			return b, nil
		}
		a, err := s.fs.Attr(n)
		if err != nil {
			return nil, err
		}
		if plus { // with node 0 the kernel takes the name alone
			b = appendEntry(b, node, &a)
		}
		b = appendDirent(b, n, pos+1, a.Mode, name)
	}
}

func (s *Server) xattr(r request, b []byte) ([]byte, error) {
	if !s.has.Xattrs {
		return nil, unix.ENOSYS // the kernel does not ask again, for any file
	}
	size, name, err := parseXattr(r.body, r.op == opGetxattr)
	if err != nil {
		return nil, err
	}
	var v []byte
	if r.op == opGetxattr {
		v, err = s.fs.Xattr(r.node, name)
	} else {
		var names []string
		names, err = s.fs.Xattrs(r.node)
		for _, n := range names {
			v = append(append(v, n...), 0)
		}
	}
	switch {
	case err != nil:
		return nil, err
	case size == 0:
		return order.AppendUint64(b, uint64(len(v))&0xffffffff), nil
	case len(v) > int(size):
		return nil, unix.ERANGE
	}
	return append(b, v...), nil
}

// read answers a read of content when the content is there, which may take long.
func (s *Server) read(r request) {
	at, err := parseSpan(r.body)
	if err != nil {
		s.answer(r, err, nil)
		return
	}
	r.body = nil // it is the reading goroutine's buffer
	ctx, cancel := context.WithCancelCause(s.ctx)
	s.mu.Lock()
	s.waited[r.unique] = &waiting{pid: r.pid, cancel: cancel}
	s.mu.Unlock()
	s.reads.Add(1)
	go func() {
		defer s.reads.Done()
		defer cancel(nil)
		err := s.fs.Fetch(ctx, r.node, int64(at.offset), int(at.size))
		switch {
		case err == nil:
			s.content(ctx, r, at)
		case context.Cause(ctx) == errKilled:
			s.answer(r, unix.EINTR, nil)
		case context.Cause(ctx) != errStopped:
			s.answer(r, err, nil)
		}
		s.mu.Lock()
		delete(s.waited, r.unique)
		s.mu.Unlock()
	}()
}

// content reads and answers. The buffer is there only now, so that a thousand readers that wait cost no memory.
func (s *Server) content(ctx context.Context, r request, at span) {
	p := s.bufs.Get().(*[]byte)
	defer s.bufs.Put(p)
	if need := outHeaderSize + int(at.size); cap(*p) < need {
		*p = make([]byte, need)
	}
	b := (*p)[:outHeaderSize+int(at.size)]
	n, err := s.fs.Read(ctx, r.node, b[outHeaderSize:], int64(at.offset))
	if err != nil && context.Cause(ctx) == errStopped {
		return
	}
	s.answer(r, err, b[:outHeaderSize+n])
}

// interrupted gives a read up when the thread that waits for it is being killed.
func (s *Server) interrupted(r request) {
	if len(r.body) < 8 {
		return
	}
	unique := order.Uint64(r.body)
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waited[unique]
	if w == nil || w.watched { // answered meanwhile
		return
	}
	w.watched = true
	s.reads.Add(1)
	go func() {
		defer s.reads.Done()
		s.watch(unique, w)
	}()
}

// watch looks at a thread that got a signal until its read is answered.
func (s *Server) watch(unique uint64, w *waiting) {
	for {
		if process.Killed(int(w.pid)) {
			w.cancel(errKilled)
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(killPoll):
		}
		s.mu.Lock()
		over := s.waited[unique] != w
		s.mu.Unlock()
		if over {
			return
		}
	}
}

// Release answers with EINTR what threads wait for that are being killed, and nothing else: the rest is sent again to a real
// server, even one that is at work, which then does some of it twice. It helps an engine to end that was killed while it looked
// into its own mount. A process that waits for another's lookup of the same name is not helped. It gives the number of requests.
func Release(conn *os.File) (released int, err error) {
	f, err := duplicate(conn)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	if err := resend(f); err != nil {
		return 0, err
	}
	defer resend(f)
	buf := make([]byte, requestMax)
	for {
		f.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := f.Read(buf)
		switch {
		case err == nil:
		case errors.Is(err, unix.ENOENT):
			continue
		case errors.Is(err, os.ErrDeadlineExceeded), ended(err), errors.Is(err, os.ErrNoDeadline):
			return released, nil
		default:
			return released, fault.Wrap(fault.Internal, err, "read fuse requests")
		}
		r, err := parse(buf[:n])
		if err != nil || r.op == opForget || r.op == opBatchForget || r.op == opInterrupt || !process.Killed(int(r.pid)) {
			continue
		}
		if answer(f, r.unique, unix.EINTR, nil) == nil {
			released++
		}
	}
}
