package session

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
)

// insideCodec writes messages of sessions within the process by the code that was made for each type: it lets texts be any bytes, as names of files
// are. What gRPC comes with refuses them.
type insideCodec struct{ encoding.CodecV2 }

// Marshal writes a message.
func (c insideCodec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(interface{ MarshalVT() ([]byte, error) })
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	b, err := m.MarshalVT()
	if err != nil {
		return nil, err
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}
