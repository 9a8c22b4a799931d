package gelf

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"time"

	"berth/base/fault"
	"berth/engine/logs/sink"
)

// Check refuses what Docker's driver refuses.
func Check(options map[string]string) error {
	u, err := address(options["gelf-address"])
	if err != nil {
		return err
	}
	for key, value := range options {
		switch key {
		case "env", "env-regex", "gelf-address", "labels", "labels-regex", "tag":
		case "gelf-compression-level":
			if u.Scheme != "udp" {
				return fault.New(fault.Invalid, "compression is only supported on UDP")
			}
			if n, err := strconv.Atoi(value); err != nil || n < flate.DefaultCompression || n > flate.BestCompression {
				return fault.New(fault.Invalid, "unknown value %q for log opt %q for gelf log driver", value, key)
			}
		case "gelf-compression-type":
			if u.Scheme != "udp" {
				return fault.New(fault.Invalid, "compression is only supported on UDP")
			}
			switch value {
			case "gzip", "zlib", "none":
			default:
				return fault.New(fault.Invalid, "unknown value %q for log opt %q for gelf log driver", value, key)
			}
		case "gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay":
			if u.Scheme != "tcp" {
				return fault.New(fault.Invalid, "%q is only valid for TCP", key)
			}
			if n, err := strconv.Atoi(value); err != nil || n < 0 {
				return fault.New(fault.Invalid, "%q must be a positive integer", key)
			}
		default:
			return fault.New(fault.Invalid, "unknown log opt %q for gelf log driver", key)
		}
	}
	return nil
}

func address(text string) (*url.URL, error) {
	if text == "" {
		return nil, fault.New(fault.Invalid, "gelf-address is a required parameter")
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "")
	}
	if u.Scheme != "udp" && u.Scheme != "tcp" {
		return nil, fault.New(fault.Invalid, "gelf: endpoint needs to be TCP or UDP")
	}
	if _, _, err := net.SplitHostPort(u.Host); err != nil {
		return nil, fault.New(fault.Invalid, "gelf: please provide gelf-address as proto://host:port")
	}
	return u, nil
}

// Chunks of a message that is too large for a datagram.
const (
	chunkLen  = 1420 // with its head, so that it fits an Ethernet frame
	chunkHead = 12
	maxChunks = 128
)

// Gelf is one container's way to a collector.
type Gelf struct {
	conn  sink.Conn
	host  string
	extra []byte // ,"_field":"value"… as in the object
	pack  func(io.Writer) io.WriteCloser
	delay time.Duration
	buf   bytes.Buffer
	out   bytes.Buffer
}

// New makes the way to the collector that the options name.
func New(info *sink.Info) (*Gelf, error) {
	o := info.Config
	u, err := address(o["gelf-address"])
	if err != nil {
		return nil, err
	}
	g := &Gelf{conn: sink.Conn{Network: u.Scheme, Address: u.Host, Quiet: u.Scheme == "tcp"}, delay: time.Second}
	if g.host, err = os.Hostname(); err != nil {
		return nil, fault.New(fault.Internal, "gelf: cannot access hostname to set source field")
	}
	tag, err := info.Tag(sink.DefaultTag)
	if err != nil {
		return nil, err
	}
	attrs, err := info.Attrs(func(key string) string {
		if key == "" || key[0] == '_' {
			return key
		}
		return "_" + key
	})
	if err != nil {
		return nil, err
	}
	fields := map[string]any{
		"_container_id": info.ContainerID, "_container_name": info.Name(), "_image_id": info.ContainerImageID, "_image_name": info.ContainerImageName,
		"_command": info.Command(), "_tag": tag, "_created": info.ContainerCreated,
	}
	for _, a := range attrs {
		fields[a.Key] = a.Value
	}
	b, err := json.Marshal(fields)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err, "gelf")
	}
	g.extra = append([]byte{','}, b[1:]...)
	if n, err := strconv.Atoi(o["gelf-tcp-reconnect-delay"]); err == nil && n > 0 {
		g.delay = time.Duration(n) * time.Second
	}
	if u.Scheme == "udp" {
		g.pack = packer(o["gelf-compression-type"], o["gelf-compression-level"])
	}
	return g, nil
}

// packer gives what compresses, nil for nothing.
func packer(kind, text string) func(io.Writer) io.WriteCloser {
	level := flate.BestSpeed
	if n, err := strconv.Atoi(text); err == nil {
		level = n
	}
	switch kind {
	case "none":
		return nil
	case "zlib":
		return func(w io.Writer) io.WriteCloser { z, _ := zlib.NewWriterLevel(w, level); return z }
	}
	z, _ := gzip.NewWriterLevel(io.Discard, level) // the level was checked
	return func(w io.Writer) io.WriteCloser { z.Reset(w); return z }
}

// Probe says whether a TCP collector can be reached; over UDP nothing can be said but that there is such a host.
func (g *Gelf) Probe(ctx context.Context) error {
	if _, err := g.conn.Dial(ctx); err != nil {
		return fault.New(fault.Unavailable, "gelf: cannot connect to GELF endpoint: %s %v", g.conn.Address, err)
	}
	return nil
}

// Patience implements sink.Patient.
func (g *Gelf) Patience() (time.Duration, int) { return g.delay, 0 }

// batch is how much is written at once over TCP.
const batch = 16 << 10

// Send implements sink.Sink.
func (g *Gelf) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	stream := g.conn.Network == "tcp"
	g.out.Reset()
	for i := range records {
		if len(records[i].Line) > 0 {
			g.message(&records[i])
			if stream {
				g.out.Write(g.buf.Bytes())
				g.out.WriteByte(0)
			} else if err := g.datagrams(ctx); err != nil {
				return err
			}
		}
		if stream && g.out.Len() < batch && i < len(records)-1 {
			continue
		}
		if g.out.Len() > 0 {
			if err := g.conn.Write(ctx, g.out.Bytes()); err != nil {
				return err
			}
		}
		taken(i + 1)
		g.out.Reset()
	}
	return nil
}

// message makes a record's object in buf.
func (g *Gelf) message(r *sink.Record) {
	level := 6
	if r.Stderr {
		level = 3
	}
	text, _ := json.Marshal(string(r.Line)) // a string always can be
	host, _ := json.Marshal(g.host)
	g.buf.Reset()
	g.buf.WriteString(`{"version":"1.1","host":`)
	g.buf.Write(host)
	g.buf.WriteString(`,"short_message":`)
	g.buf.Write(text)
	g.buf.WriteString(`,"timestamp":`)
	g.buf.WriteString(strconv.FormatFloat(float64(r.Time.UnixMilli())/1000, 'f', 3, 64))
	g.buf.WriteString(`,"level":`)
	g.buf.WriteString(strconv.Itoa(level))
	g.buf.Write(g.extra)
}

// datagrams sends what is in buf, compressed and in chunks as it needs.
func (g *Gelf) datagrams(ctx context.Context) error {
	b := g.buf.Bytes()
	if g.pack != nil {
		g.out.Reset()
		z := g.pack(&g.out)
		if _, err := z.Write(b); err != nil {
			return err
		}
		if err := z.Close(); err != nil {
			return err
		}
		b = bytes.Clone(g.out.Bytes())
		g.out.Reset()
	}
	if len(b) <= chunkLen {
		return g.conn.Write(ctx, b)
	}
	const room = chunkLen - chunkHead
	count := (len(b) + room - 1) / room
	if count > maxChunks { // cannot be, of 16 KiB; better lost than in the way of all that follows
		return nil
	}
	id := rand.Uint64()
	for n := range count {
		part := binary.BigEndian.AppendUint64([]byte{0x1e, 0x0f}, id)
		part = append(part, byte(n), byte(count))
		part = append(part, b[n*room:min(len(b), (n+1)*room)]...)
		if err := g.conn.Write(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// Close implements sink.Sink.
func (g *Gelf) Close() { g.conn.Close() }
