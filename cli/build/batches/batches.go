// Package batches sends directories to Berth's builder faster than BuildKit's file sync does.
//
// The protocol is fsutil's, packet by packet, as in moby.filesync.v1.FileSync/DiffCopy; but a message on the wire holds as many
// packets as there are, each behind its length as a uvarint. gRPC's price is one of messages, and a context of a hundred thousand
// files has as many packets, of which most say that a file is still what it was.
//
//	berth.filesync.v1.Batches/DiffCopy   (stream of moby.filesync.v1.BytesMessage) both ways; headers as for DiffCopy
//
// A client offers it beside the other; a builder that does not know it asks for the other. docs/formats-build.md has both ends.
package batches

import (
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	"github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// New gives what a session attaches. Owners are sent as root's, as BuildKit's client does.
func New(dirs map[string]fsutil.FS) (session.Attachable, error) {
	p := &provider{dirs: map[string]fsutil.FS{}}
	for name, dir := range dirs {
		fs, err := fsutil.NewFilterFS(dir, &fsutil.FilterOpt{Map: func(_ string, st *types.Stat) fsutil.MapResult {
			st.Uid, st.Gid = 0, 0
			return fsutil.MapResultKeep
		}})
		if err != nil {
			return nil, err
		}
		p.dirs[name] = fs
	}
	return p, nil
}

type provider struct{ dirs map[string]fsutil.FS }

// Register makes a server serve it.
func (p *provider) Register(s *grpc.Server) {
	s.RegisterService(&grpc.ServiceDesc{
		ServiceName: "berth.filesync.v1.Batches", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "DiffCopy", Handler: serve, ServerStreams: true, ClientStreams: true}},
	}, p)
}

func serve(srv any, s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	name := ""
	if list := values(md, "dir-name"); len(list) > 0 {
		name = list[0]
	}
	dir, ok := srv.(*provider).dirs[name]
	if !ok {
		return status.Errorf(codes.NotFound, "no access allowed to dir %q", name)
	}
	fs, err := fsutil.NewFilterFS(dir, &fsutil.FilterOpt{
		IncludePatterns: values(md, "include-patterns"), ExcludePatterns: values(md, "exclude-patterns"), FollowPaths: values(md, "followpaths"),
	})
	if err != nil {
		return err
	}
	st := newStream(s)
	err = fsutil.Send(s.Context(), st, fs, nil)
	if cerr := st.close(); err == nil {
		err = cerr
	}
	return err
}

// values reads a header, which may be escaped because of bytes beyond ASCII.
func values(md metadata.MD, key string) []string {
	list := md[key]
	if v := md[key+"-encoded"]; len(v) > 0 {
		if on, err := strconv.ParseBool(v[0]); err == nil && on {
			plain := make([]string, len(list))
			for i, s := range list {
				plain[i], _ = url.QueryUnescape(s)
			}
			return plain
		}
	}
	return list
}

// A message goes when it has so many bytes, or when its first packet has waited so long. gRPC takes a buffer of 1 MiB, and clears it, for every message
// of more than 32 KiB: so there should be few of them, and none that needs more.
const (
	enough = 512 << 10
	most   = 960 << 10 // who adds more waits; a packet has 32 KiB
	linger = time.Millisecond
)

// stream is an fsutil stream on a stream of batches.
type stream struct {
	grpc.ServerStream

	mu     sync.Mutex // guards what follows
	room   *sync.Cond // signalled when out was taken
	out    []byte
	spare  []byte // what out may grow in next: a context is sent in two buffers, not in a new one for each message
	urgent bool
	err    error
	closed bool
	wake   chan struct{} // holds one
	done   chan struct{}

	in []byte // the rest of the last message; RecvMsg's
}

func newStream(s grpc.ServerStream) *stream {
	st := &stream{ServerStream: s, wake: make(chan struct{}, 1), done: make(chan struct{})}
	st.room = sync.NewCond(&st.mu)
	go st.send()
	return st
}

// SendMsg adds a packet to the next message.
func (s *stream) SendMsg(m any) error {
	p, ok := m.(*types.Packet)
	if !ok {
		return errors.New("not a packet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.out) > most && s.err == nil {
		s.room.Wait()
	}
	if s.err != nil {
		return s.err
	}
	first := len(s.out) == 0
	n := p.SizeVT()
	s.out = binary.AppendUvarint(s.out, uint64(n))
	at := len(s.out)
	s.out = slices.Grow(s.out, n)[:at+n]
	if _, err := p.MarshalToSizedBufferVT(s.out[at:]); err != nil {
		return err
	}
	was := s.urgent
	s.urgent = s.urgent || len(s.out) >= enough || p.Type == types.PACKET_FIN || p.Type == types.PACKET_ERR || p.Type == types.PACKET_STAT && p.Stat == nil
	if first || s.urgent != was {
		s.signal()
	}
	return nil
}

func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// send sends messages until the stream is closed.
func (s *stream) send() {
	defer close(s.done)
	timer := time.NewTimer(linger)
	defer timer.Stop()
	for {
		<-s.wake
		s.mu.Lock()
		wait := !s.urgent && !s.closed && len(s.out) > 0
		s.mu.Unlock()
		if wait {
			timer.Reset(linger)
			select {
			case <-timer.C:
			case <-s.wake:
			}
		}
		s.mu.Lock()
		out, closed := s.out, s.closed
		s.out, s.spare, s.urgent = s.spare, nil, false
		s.room.Broadcast()
		s.mu.Unlock()
		if len(out) > 0 {
			err := s.ServerStream.SendMsg(&filesync.BytesMessage{Data: out}) // encoded when it returns
			s.mu.Lock()
			if s.spare = out[:0]; err != nil {
				s.err = err
				s.room.Broadcast()
				s.mu.Unlock()
				return
			}
			s.mu.Unlock()
		}
		if closed {
			return
		}
	}
}

// close sends what is left.
func (s *stream) close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// RecvMsg gives the next packet.
func (s *stream) RecvMsg(m any) error {
	p, ok := m.(*types.Packet)
	if !ok {
		return errors.New("not a packet")
	}
	for len(s.in) == 0 {
		var b filesync.BytesMessage
		if err := s.ServerStream.RecvMsg(&b); err != nil {
			return err
		}
		s.in = b.Data
	}
	n, k := binary.Uvarint(s.in)
	if k <= 0 || n > uint64(len(s.in)-k) {
		return io.ErrUnexpectedEOF
	}
	raw := s.in[k : k+int(n)]
	s.in = s.in[k+int(n):]
	return p.UnmarshalVT(raw)
}
