package fluentd

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"

	"berth/base/fault"
	"berth/engine/logs/sink"
)

const (
	defaultHost = "127.0.0.1"
	defaultPort = "24224"
	defaultWait = time.Second
)

// config is what the options say.
type config struct {
	network, address string
	async            bool
	wait             time.Duration
	tries            int
	fine             bool // times have nanoseconds
	ack              bool
}

// Check refuses what Docker's driver refuses.
func Check(options map[string]string) error {
	for key := range options {
		switch key {
		case "env", "env-regex", "labels", "labels-regex", "tag", "fluentd-address", "fluentd-async", "fluentd-async-connect",
			"fluentd-async-reconnect-interval", "fluentd-buffer-limit", "fluentd-max-retries", "fluentd-request-ack", "fluentd-retry-wait",
			"fluentd-sub-second-precision", "fluentd-write-timeout":
		default:
			return fault.New(fault.Invalid, "unknown log opt '%s' for fluentd log driver", key)
		}
	}
	_, err := parse(options)
	return err
}

func parse(o map[string]string) (c config, err error) {
	bad := func(err error) (config, error) { return c, fault.Wrap(fault.Invalid, err, "") }
	if c.network, c.address, err = address(o["fluentd-address"]); err != nil {
		return c, fault.New(fault.Invalid, "invalid fluentd-address (%s): %v", o["fluentd-address"], err)
	}
	if s := o["fluentd-buffer-limit"]; s != "" {
		if _, err := units.RAMInBytes(s); err != nil {
			return bad(err)
		}
	}
	c.wait = defaultWait
	if s := o["fluentd-retry-wait"]; s != "" {
		if c.wait, err = time.ParseDuration(s); err != nil {
			return bad(err)
		}
	}
	if s := o["fluentd-max-retries"]; s != "" {
		n, err := strconv.ParseUint(s, 10, strconv.IntSize)
		if err != nil {
			return bad(err)
		}
		c.tries = int(min(n, 1<<31-1))
	}
	if o["fluentd-async"] != "" && o["fluentd-async-connect"] != "" {
		return c, fault.New(fault.Invalid, "conflicting options: cannot specify both 'fluentd-async' and 'fluentd-async-connect")
	}
	var connect bool
	for _, x := range []struct {
		name string
		to   *bool
	}{{"fluentd-async", &c.async}, {"fluentd-async-connect", &connect}, {"fluentd-sub-second-precision", &c.fine}, {"fluentd-request-ack", &c.ack}} {
		if s := o[x.name]; s != "" {
			if *x.to, err = strconv.ParseBool(s); err != nil {
				return bad(err)
			}
		}
	}
	c.async = c.async || connect
	if s := o["fluentd-async-reconnect-interval"]; s != "" {
		d, err := time.ParseDuration(s)
		if err != nil {
			return c, fault.New(fault.Invalid, "invalid value for fluentd-async-reconnect-interval: %v", err)
		}
		if d != 0 && (d < 100*time.Millisecond || d > 10*time.Second) {
			return c, fault.New(fault.Invalid, "invalid value for fluentd-async-reconnect-interval: value (%q) must be between 100ms and 10s", s)
		}
	}
	if s := o["fluentd-write-timeout"]; s != "" {
		if _, err := time.ParseDuration(s); err != nil {
			return c, fault.New(fault.Invalid, "invalid value for fluentd-write-timeout: %v", err)
		}
	}
	return c, nil
}

func address(text string) (network, addr string, err error) {
	if text == "" {
		return "tcp", net.JoinHostPort(defaultHost, defaultPort), nil
	}
	if !strings.Contains(text, "://") {
		text = "tcp://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", err
	}
	switch u.Scheme {
	case "unix":
		if strings.TrimLeft(u.Path, "/") == "" {
			return "", "", errors.New("path is empty")
		}
		return "unix", u.Path, nil
	case "tcp", "tls":
	default:
		return "", "", errors.New("unsupported scheme: '" + u.Scheme + "'")
	}
	if u.Path != "" {
		return "", "", errors.New("should not contain a path element")
	}
	host, port := defaultHost, defaultPort
	if h := u.Hostname(); h != "" {
		host = h
	}
	if p := u.Port(); p != "" {
		if _, err := strconv.ParseUint(p, 10, 16); err != nil {
			return "", "", errors.New("invalid port: " + err.Error())
		}
		port = p
	}
	return u.Scheme, net.JoinHostPort(host, port), nil
}

// Fluentd is one container's way to a collector.
type Fluentd struct {
	config
	conn   sink.Conn
	answer *bufio.Reader
	from   net.Conn // that answer reads
	tag    string
	fixed  []byte // fields that all records have, encoded
	fields int
	buf    []byte
}

// New makes the way to the collector that the options name.
func New(info *sink.Info) (*Fluentd, error) {
	f := &Fluentd{}
	var err error
	if f.config, err = parse(info.Config); err != nil {
		return nil, err
	}
	if f.tag, err = info.Tag(sink.DefaultTag); err != nil {
		return nil, err
	}
	attrs, err := info.Attrs(nil)
	if err != nil {
		return nil, err
	}
	f.conn = sink.Conn{Network: f.network, Address: f.address, Quiet: !f.ack}
	if f.network == "tls" {
		f.conn.Network = "tcp"
		f.conn.TLS = tlsConfig(f.address)
	}
	// A later field of a name counts, so Docker's extras come last.
	named := map[string]string{"container_id": info.ContainerID, "container_name": info.ContainerName}
	order := []string{"container_id", "container_name"}
	for _, a := range attrs {
		if _, twice := named[a.Key]; !twice {
			order = append(order, a.Key)
		}
		named[a.Key] = a.Value
	}
	for _, k := range order {
		if k == "log" || k == "source" {
			continue // the line itself is worth more than a label of that name
		}
		f.fixed = appendStr(appendStr(f.fixed, k), named[k])
		f.fields++
	}
	return f, nil
}

// Probe says whether the collector can be reached. With fluentd-async nobody asks.
func (f *Fluentd) Probe(ctx context.Context) error {
	if f.async {
		return nil
	}
	_, err := f.conn.Dial(ctx)
	return err
}

// Patience implements sink.Patient.
func (f *Fluentd) Patience() (time.Duration, int) { return f.wait, f.tries }

// batch is how much is written at once.
const batch = 16 << 10

// Send implements sink.Sink.
func (f *Fluentd) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	if f.ack {
		if err := f.sendChunk(ctx, records); err != nil {
			return err
		}
		taken(len(records))
		return nil
	}
	f.buf = f.buf[:0]
	for i := range records {
		f.buf = append(f.buf, 0x94) // array of 4
		f.buf = appendStr(f.buf, f.tag)
		f.buf = f.appendRecord(f.buf, &records[i])
		f.buf = append(f.buf, 0x80) // no options
		if len(f.buf) < batch && i < len(records)-1 {
			continue
		}
		if err := f.conn.Write(ctx, f.buf); err != nil {
			return err
		}
		taken(i + 1)
		f.buf = f.buf[:0]
	}
	return nil
}

// sendChunk sends records in one chunk and waits until it is acknowledged.
func (f *Fluentd) sendChunk(ctx context.Context, records []sink.Record) error {
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	id := base64.StdEncoding.EncodeToString(raw[:])
	b := append(f.buf[:0], 0x93)
	b = appendStr(b, f.tag)
	b = append(b, 0xdc, byte(len(records)>>8), byte(len(records))) // array of up to 65,535
	for i := range records {
		b = append(b, 0x92)
		b = f.appendRecord(b, &records[i])
	}
	b = append(b, 0x81)
	b = appendStr(appendStr(b, "chunk"), id)
	f.buf = b
	if err := f.conn.Write(ctx, b); err != nil {
		return err
	}
	conn, err := f.conn.Dial(ctx)
	if err != nil {
		return err
	}
	if f.from != conn {
		f.from, f.answer = conn, bufio.NewReaderSize(conn, 512)
	}
	stop, err := sink.Bound(ctx, conn, conn.SetReadDeadline)
	if err == nil {
		var got string
		if got, err = readAck(f.answer); err == nil && got != id {
			err = fault.New(fault.Unavailable, "fluentd acknowledged another chunk")
		}
		stop()
	}
	if err != nil {
		f.conn.Close()
		return fault.Wrap(fault.Unavailable, err, "waiting for fluentd's acknowledgement")
	}
	return nil
}

// appendRecord appends time and record.
func (f *Fluentd) appendRecord(b []byte, r *sink.Record) []byte {
	if f.fine {
		sec, nsec := uint32(r.Time.Unix()), uint32(r.Time.Nanosecond())
		b = append(b, 0xd7, 0, byte(sec>>24), byte(sec>>16), byte(sec>>8), byte(sec), byte(nsec>>24), byte(nsec>>16), byte(nsec>>8), byte(nsec))
	} else {
		b = appendUint(b, uint64(r.Time.Unix()))
	}
	n := f.fields + 2
	if r.Part.Ordinal > 0 {
		n += 4
	}
	b = append(b, 0xde, byte(n>>8), byte(n)) // map
	b = append(b, f.fixed...)
	source := "stdout"
	if r.Stderr {
		source = "stderr"
	}
	b = appendStr(appendStr(b, "source"), source)
	b = appendStr(appendStr(b, "log"), string(r.Line))
	if r.Part.Ordinal > 0 {
		b = appendStr(appendStr(b, "partial_message"), "true")
		b = appendStr(appendStr(b, "partial_id"), r.Part.ID)
		b = appendStr(appendStr(b, "partial_ordinal"), strconv.Itoa(int(r.Part.Ordinal)))
		b = appendStr(appendStr(b, "partial_last"), strconv.FormatBool(r.Part.Last))
	}
	return b
}

// Close implements sink.Sink.
func (f *Fluentd) Close() { f.conn.Close() }
