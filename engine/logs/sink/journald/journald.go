package journald

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/logs/sink"
)

// Socket is where journald listens.
const Socket = "/run/systemd/journal/socket"

// Check refuses options that Docker's driver has not.
func Check(options map[string]string) error {
	for key := range options {
		switch key {
		case "labels", "labels-regex", "env", "env-regex", "tag":
		default:
			return fault.New(fault.Invalid, "unknown log opt '%s' for journald log driver", key)
		}
	}
	return nil
}

// Journal is one container's way to the journal.
type Journal struct {
	conn  sink.Conn
	fixed []byte // fields that all entries have
	buf   []byte
}

// New makes the way to the journal that listens at socket.
func New(info *sink.Info, socket string) (*Journal, error) {
	tag, err := info.Tag(sink.DefaultTag)
	if err != nil {
		return nil, err
	}
	attrs, err := info.Attrs(fieldName)
	if err != nil {
		return nil, err
	}
	j := &Journal{conn: sink.Conn{Network: "unixgram", Address: socket}}
	for _, f := range []sink.Attr{
		{Key: "CONTAINER_ID", Value: info.ID()}, {Key: "CONTAINER_ID_FULL", Value: info.ContainerID}, {Key: "CONTAINER_NAME", Value: info.Name()},
		{Key: "CONTAINER_TAG", Value: tag}, {Key: "IMAGE_NAME", Value: info.ImageName()}, {Key: "SYSLOG_IDENTIFIER", Value: tag},
		{Key: "CONTAINER_LOG_EPOCH", Value: info.ContainerID},
	} {
		j.fixed = appendField(j.fixed, f.Key, []byte(f.Value))
	}
	for _, a := range attrs {
		j.fixed = appendField(j.fixed, a.Key, []byte(a.Value))
	}
	return j, nil
}

// fieldName makes a field's name of a label's: capital letters, digits and underscores, no underscore at the start.
func fieldName(s string) string {
	return strings.TrimLeft(strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, s), "_")
}

// Probe says whether there is a journal.
func (j *Journal) Probe(ctx context.Context) error {
	if _, err := j.conn.Dial(ctx); err != nil {
		return fault.New(fault.Unavailable, "journald is not enabled on this host")
	}
	return nil
}

// Send implements sink.Sink.
func (j *Journal) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	for i := range records {
		j.buf = j.entry(j.buf[:0], &records[i])
		if err := j.send(ctx); err != nil {
			return err
		}
		taken(i + 1)
	}
	return nil
}

// entry appends one entry.
func (j *Journal) entry(b []byte, r *sink.Record) []byte {
	priority := "6" // info
	if r.Stderr {
		priority = "3" // err
	}
	b = append(b, j.fixed...)
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "SYSLOG_TIMESTAMP", []byte(r.Time.UTC().Format(time.RFC3339Nano)))
	b = appendField(b, "CONTAINER_LOG_ORDINAL", strconv.AppendUint(nil, r.Number, 10))
	if r.Part.Ordinal > 0 {
		b = appendField(b, "CONTAINER_PARTIAL_ID", []byte(r.Part.ID))
		b = appendField(b, "CONTAINER_PARTIAL_ORDINAL", strconv.AppendInt(nil, int64(r.Part.Ordinal), 10))
		b = appendField(b, "CONTAINER_PARTIAL_LAST", strconv.AppendBool(nil, r.Part.Last))
		if !r.Part.Last {
			b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
		}
	}
	return appendField(b, "MESSAGE", r.Line)
}

func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	for _, c := range value {
		if c == '\n' {
			b = append(b, '\n')
			b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
			b = append(b, value...)
			return append(b, '\n')
		}
	}
	b = append(b, '=')
	b = append(b, value...)
	return append(b, '\n')
}

func (j *Journal) send(ctx context.Context) error {
	err := j.conn.Write(ctx, j.buf)
	if !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
		return err
	}
	conn, err := j.conn.Dial(ctx)
	if err != nil {
		return err
	}
	f, err := sealed(j.buf)
	if err != nil {
		return fault.Wrap(fault.Internal, err, "a large entry for the journal")
	}
	defer f.Close()
	stop, err := sink.Bound(ctx, conn, conn.SetWriteDeadline)
	if err != nil {
		return err
	}
	defer stop()
	if err = passFile(conn.(*net.UnixConn), f); err != nil {
		j.conn.Close()
	}
	return err
}

// passFile sends an empty datagram with a descriptor; net's own call for that refuses connected datagram sockets.
func passFile(conn *net.UnixConn, f *os.File) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(fd uintptr) bool {
		sent = unix.Sendmsg(int(fd), nil, unix.UnixRights(int(f.Fd())), nil, unix.MSG_NOSIGNAL)
		return sent != unix.EAGAIN
	})
	return errors.Join(err, sent)
}

// sealed makes a memfd that nobody can change any more, as journald wants it.
func sealed(b []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("berth-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "journal entry")
	if _, err = f.Write(b); err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Close implements sink.Sink.
func (j *Journal) Close() { j.conn.Close() }
