package export

import (
	"context"
	"maps"
	"strconv"
	"sync"

	"github.com/moby/buildkit/session/filesync"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/metadata"

	"berth/base/fault"
	"berth/build/session"
)

// Headers of the call that BuildKit's clients know an output by.
const (
	headerOutput = "buildkit-attachable-exporter-id"
	headerWhole  = "buildkit-exporter-multi-platform" // "1": all platforms come as one tree, and what is not in it is deleted
)

// copyTree sends a tree into the directory that the client keeps for output id. It ends when ctx does or the client is gone.
func copyTree(ctx context.Context, caller session.Caller, id int, shown fsutil.FS, whole bool, told func(int, bool)) error {
	if !caller.Supports(filesync.FileSend_DiffCopy_FullMethodName) {
		return fault.New(fault.Invalid, "the client takes no files: it has no %s", filesync.FileSend_DiffCopy_FullMethodName)
	}
	ctx = caller.Context(ctx)
	header := metadata.MD{}
	if given, ok := metadata.FromOutgoingContext(ctx); ok {
		maps.Copy(header, given)
	}
	header.Set(headerOutput, strconv.Itoa(id))
	if whole {
		header.Set(headerWhole, "1")
	}
	s, err := filesync.NewFileSendClient(caller.Conn()).DiffCopy(metadata.NewOutgoingContext(ctx, header))
	if err != nil {
		return err
	}
	return fsutil.Send(s.Context(), pace(s), shown, told)
}

// paced is a stream on which no more files are asked for than fsutil's sender takes in at once. It keeps requests in a channel, and
// waits for room in it without a look at its context: when those who empty the channel have ended, because the client is gone or ctx
// is done, it would wait for ever, and the build and the engine's end with it.
type paced struct {
	fsutil.Stream
	open   chan struct{} // one for each request that is not answered
	broken chan struct{} // closed once nothing can be sent any more
	once   sync.Once     // guards broken's end
}

// outstanding is the size of fsutil's channel.
const outstanding = 128

func pace(s fsutil.Stream) *paced {
	return &paced{Stream: s, open: make(chan struct{}, outstanding), broken: make(chan struct{})}
}

// RecvMsg receives once there is room for what may be a request.
func (p *paced) RecvMsg(m any) error {
	select {
	case p.open <- struct{}{}:
	case <-p.Context().Done():
		return context.Cause(p.Context())
	case <-p.broken:
		for { // how the stream ended comes last
			if err := p.Stream.RecvMsg(m); err != nil {
				return err
			}
		}
	}
	err := p.Stream.RecvMsg(m)
	if packet, ok := m.(*fstypes.Packet); err != nil || !ok || packet.Type != fstypes.PACKET_REQ {
		<-p.open
	}
	return err
}

// SendMsg sends; a packet of data without data is the end of the file that a request was for.
func (p *paced) SendMsg(m any) error {
	err := p.Stream.SendMsg(m)
	if err != nil {
		p.once.Do(func() { close(p.broken) })
	}
	if packet, ok := m.(*fstypes.Packet); ok && packet.Type == fstypes.PACKET_DATA && len(packet.Data) == 0 {
		<-p.open
	}
	return err
}
