package local

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"sync"
	"time"

	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"berth/base/fault"
	"berth/build/session"
)

// Types of fsutil's packets.
const (
	packetStat = iota
	packetReq
	packetData
	packetFin
	packetErr
)

// Fields of fsutil's Packet, by number.
const (
	packetFieldType = 1 + iota
	packetFieldStat
	packetFieldID
	packetFieldData
)

// packet is one message of the protocol. stat and data belong to the message's buffer.
type packet struct {
	size int
	kind int
	stat []byte // nil in a packetStat: there are no more files
	id   uint32
	data []byte
}

func parsePacket(raw []byte) (p packet, err error) {
	r := fields{b: raw}
	p.size = len(raw)
	for r.next() {
		switch r.num {
		case packetFieldType:
			p.kind = int(r.v)
		case packetFieldStat:
			p.stat = r.bytes
		case packetFieldID:
			p.id = uint32(r.v)
		case packetFieldData:
			p.data = r.bytes
		}
	}
	if r.bad {
		return packet{}, fault.New(fault.Invalid, "malformed message from the client")
	}
	return p, nil
}

func reqPacket(id uint32) []byte {
	return binary.AppendUvarint([]byte{packetFieldType << 3, packetReq, packetFieldID << 3}, uint64(id))
}

func finPacket() []byte { return []byte{packetFieldType << 3, packetFin} }

func errPacket(err error) []byte {
	text := err.Error()
	b := binary.AppendUvarint([]byte{packetFieldType << 3, packetErr, packetFieldData<<3 | 2}, uint64(len(text)))
	return append(b, text...)
}

// rawCodec hands messages over as they are. A message of the stream is looked at once, in place; making a value of it that is thrown away would
// be most of the work that an unchanged file makes.
type rawCodec struct{}

// Marshal takes a []byte.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, errors.New("not bytes")
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal takes a *mem.Buffer, which the caller frees.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	to, ok := v.(*mem.Buffer)
	if !ok {
		return errors.New("not a buffer")
	}
	*to = data.MaterializeToBuffer(messagePool)
	return nil
}

// messagePool has buffers for messages. gRPC's own has none between 32 KiB and 1 MiB, and clears whatever it gives: a piece of a file
// with its header, just above 32 KiB, would cost the clearing of thirty times as much.
var messagePool = newMessagePool()

func newMessagePool() mem.BufferPool {
	p, err := mem.NewBinaryTieredBufferPool(8, 12, 14, 15, 16, 17, 18, 19, 20)
	if err != nil { // of exponents that no machine's memory reaches
		return mem.DefaultBufferPool()
	}
	return p
}

// Name is that of the encoding on the wire.
func (rawCodec) Name() string { return "proto" }

// wire is a stream of packets with a client.
type wire struct {
	stream grpc.ClientStream
	cancel context.CancelFunc
	batch  bool       // a message holds any number of packets
	buf    mem.Buffer // the message whose packets are being given; with batch
	rest   []byte     // what of it was not given

	mu     sync.Mutex // guards what follows
	wake   *sync.Cond
	queue  [][]byte
	closed bool
	done   chan struct{} // closed when the sender has ended
}

const (
	methodDiffCopy = "/moby.filesync.v1.FileSync/DiffCopy"
	methodBatches  = "/berth.filesync.v1.Batches/DiffCopy" // the same in batches, as Berth's own client has it

	headerDir     = "dir-name"
	headerInclude = "include-patterns"
	headerExclude = "exclude-patterns"
	headerFollow  = "followpaths"
)

// openWire asks a client for its files.
func openWire(ctx context.Context, c session.Caller, r Request) (*wire, error) {
	method, batch := methodBatches, true
	if !c.Supports(method) {
		method, batch = methodDiffCopy, false
	}
	if !c.Supports(method) {
		return nil, fault.New(fault.NotFound, "no local sources enabled")
	}
	md := metadata.MD{}
	set(md, headerDir, []string{r.Name})
	set(md, headerInclude, r.Include)
	set(md, headerExclude, r.Exclude)
	set(md, headerFollow, r.Follow)
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(c.Context(ctx), md))
	desc := &grpc.StreamDesc{StreamName: "DiffCopy", ServerStreams: true, ClientStreams: true}
	stream, err := c.Conn().NewStream(ctx, desc, method, grpc.ForceCodecV2(rawCodec{}))
	if err != nil {
		cancel()
		return nil, err
	}
	w := &wire{stream: stream, cancel: cancel, batch: batch, done: make(chan struct{})}
	w.wake = sync.NewCond(&w.mu)
	go w.send()
	return w, nil
}

// set puts values into headers, which hold ASCII only.
func set(md metadata.MD, key string, values []string) {
	if values == nil {
		return
	}
	ascii := true
	for _, v := range values {
		for i := range len(v) {
			ascii = ascii && v[i] < 0x80
		}
	}
	if ascii {
		md[key] = values
		return
	}
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = url.QueryEscape(v)
	}
	md[key], md[key+"-encoded"] = list, []string{"1"}
}

// recv gives the next packet. Its bytes are good until buf is freed, by the caller.
func (w *wire) recv() (p packet, buf mem.Buffer, err error) {
	if w.batch {
		return w.next()
	}
	if err := w.stream.RecvMsg(&buf); err != nil {
		return packet{}, nil, err
	}
	if p, err = parsePacket(buf.ReadOnlyData()); err != nil {
		buf.Free()
		return packet{}, nil, err
	}
	return p, buf, nil
}

// next gives the next packet of a batch. Each holds the message it came in.
func (w *wire) next() (p packet, buf mem.Buffer, err error) {
	for len(w.rest) == 0 {
		w.drop()
		if err := w.stream.RecvMsg(&w.buf); err != nil {
			return packet{}, nil, err
		}
		r := fields{b: w.buf.ReadOnlyData()}
		for r.next() {
			if r.num == batchFieldData {
				w.rest = r.bytes
			}
		}
		if r.bad {
			return packet{}, nil, fault.New(fault.Invalid, "malformed message from the client")
		}
	}
	n, k := uvarint(w.rest)
	if k <= 0 || n > uint64(len(w.rest)-k) {
		return packet{}, nil, fault.New(fault.Invalid, "malformed message from the client")
	}
	if p, err = parsePacket(w.rest[k : k+int(n)]); err != nil {
		return packet{}, nil, err
	}
	w.rest = w.rest[k+int(n):]
	w.buf.Ref()
	return p, w.buf, nil
}

// drop lets go of the last batch.
func (w *wire) drop() {
	if w.buf != nil {
		w.buf.Free()
		w.buf, w.rest = nil, nil
	}
}

// batchFieldData is the field of moby.filesync.v1.BytesMessage.
const batchFieldData = 1

// message puts packets into one message.
func message(packets [][]byte) []byte {
	var all []byte
	for _, p := range packets {
		all = append(binary.AppendUvarint(all, uint64(len(p))), p...)
	}
	head := binary.AppendUvarint([]byte{batchFieldData<<3 | 2}, uint64(len(all)))
	return append(head, all...)
}

// post queues a packet. It never waits: the client may be unable to take more before it is rid of what it is sending, and
// that is us reading.
func (w *wire) post(b []byte) {
	w.mu.Lock()
	w.queue = append(w.queue, b)
	w.mu.Unlock()
	w.wake.Signal()
}

func (w *wire) send() {
	defer close(w.done)
	for {
		w.mu.Lock()
		for len(w.queue) == 0 && !w.closed {
			w.wake.Wait()
		}
		batch := w.queue
		w.queue = nil
		w.mu.Unlock()
		if batch == nil {
			return
		}
		if w.batch {
			batch = [][]byte{message(batch)}
		}
		for _, b := range batch {
			if w.stream.SendMsg(b) != nil {
				return // reading tells why
			}
		}
	}
}

// flush sends what is queued and ends the sender.
func (w *wire) flush() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.wake.Broadcast()
	<-w.done
}

// finish tells the client that we have everything, and waits for its end.
func (w *wire) finish() error {
	w.post(finPacket())
	w.flush()
	_ = w.stream.CloseSend()
	for {
		_, buf, err := w.recv()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		buf.Free()
	}
}

// abort tells the client why we stop, if it still listens, and hangs up.
func (w *wire) abort(err error) {
	w.mu.Lock()
	w.queue, w.closed = [][]byte{errPacket(err)}, true
	w.mu.Unlock()
	w.wake.Broadcast()
	timer := time.NewTimer(abortPatience)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C: // it takes nothing
	}
	w.cancel()
	<-w.done
}

const abortPatience = time.Second

// elsewhere reports whether another client may have what this one has not.
func elsewhere(err error) bool {
	return fault.Is(err, fault.NotFound) || grpcerrors.Code(err) == codes.NotFound
}
