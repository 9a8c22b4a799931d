package syslog

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/base/fault"
	"berth/engine/logs/sink"
)

// facilities by number (RFC 5424, 6.2.1).
var facilities = map[string]int{
	"kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9, "authpriv": 10, "ftp": 11,
	"local0": 16, "local1": 17, "local2": 18, "local3": 19, "local4": 20, "local5": 21, "local6": 22, "local7": 23,
}

// Severities.
const (
	severityErr  = 3
	severityInfo = 6
)

const overTLS = "tcp+tls"

// Check refuses what Docker's driver refuses.
func Check(options map[string]string) error {
	for key := range options {
		switch key {
		case "env", "env-regex", "labels", "labels-regex", "syslog-address", "syslog-facility", "syslog-tls-ca-cert", "syslog-tls-cert",
			"syslog-tls-key", "syslog-tls-skip-verify", "tag", "syslog-format":
		default:
			return fault.New(fault.Invalid, "unknown log opt '%s' for syslog log driver", key)
		}
	}
	if _, _, err := address(options["syslog-address"]); err != nil {
		return err
	}
	if _, err := facility(options["syslog-facility"]); err != nil {
		return err
	}
	switch options["syslog-format"] {
	case "", "rfc3164", "rfc5424", "rfc5424micro":
	default:
		return fault.New(fault.Invalid, "Invalid syslog format")
	}
	return nil
}

func address(text string) (network, addr string, err error) {
	if text == "" {
		return "", "", nil
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", fault.Wrap(fault.Invalid, err, "")
	}
	switch u.Scheme {
	case "unix", "unixgram":
		if _, err := os.Stat(u.Path); err != nil {
			return "", "", fault.New(fault.Invalid, "%s", err.Error())
		}
		return u.Scheme, u.Path, nil
	case "tcp", "udp", overTLS:
		if u.Path != "" {
			return "", "", fault.New(fault.Invalid, "unsupported path: '%s'", u.Path)
		}
		host, port := u.Hostname(), u.Port()
		if port == "" {
			port = "514"
		}
		return u.Scheme, net.JoinHostPort(host, port), nil
	}
	return "", "", fault.New(fault.Invalid, "unsupported scheme: '%s'", u.Scheme)
}

func facility(text string) (int, error) {
	if text == "" {
		return facilities["daemon"], nil
	}
	if n, ok := facilities[text]; ok {
		return n, nil
	}
	if n, err := strconv.Atoi(text); err == nil && n >= 0 && n <= 23 {
		return n, nil
	}
	return 0, fault.New(fault.Invalid, "invalid syslog facility")
}

// Syslog is one container's way to a syslog daemon.
type Syslog struct {
	conn     sink.Conn
	local    bool // one of the machine's own sockets
	format   string
	framed   bool // each message has its length before it
	stream   bool
	facility int
	host     string
	tag      string
	buf      []byte
}

// New makes the way to the daemon that the options name.
func New(info *sink.Info) (*Syslog, error) {
	o := info.Config
	tag, err := info.Tag(sink.DefaultTag)
	if err != nil {
		return nil, err
	}
	network, addr, err := address(o["syslog-address"])
	if err != nil {
		return nil, err
	}
	s := &Syslog{format: o["syslog-format"], tag: tag, local: network == "", conn: sink.Conn{Network: network, Address: addr}}
	if s.facility, err = facility(o["syslog-facility"]); err != nil {
		return nil, err
	}
	if s.host, err = os.Hostname(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "syslog")
	}
	switch network {
	case overTLS:
		s.conn.Network = "tcp"
		if s.conn.TLS, err = tlsConfig(o, addr); err != nil {
			return nil, err
		}
		s.framed = strings.HasPrefix(s.format, "rfc5424")
		s.stream = true
	case "tcp", "unix":
		s.stream = true
	}
	s.conn.Quiet = s.stream
	return s, nil
}

func tlsConfig(o map[string]string, addr string) (*tls.Config, error) {
	host, _, _ := net.SplitHostPort(addr)
	_, skip := o["syslog-tls-skip-verify"]
	c := &tls.Config{ServerName: host, InsecureSkipVerify: skip, MinVersion: tls.VersionTLS12}
	if ca := o["syslog-tls-ca-cert"]; ca != "" && !skip {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fault.New(fault.Invalid, "could not read CA certificate %q: %v", ca, err)
		}
		if c.RootCAs, err = x509.SystemCertPool(); err != nil {
			c.RootCAs = x509.NewCertPool()
		}
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fault.New(fault.Invalid, "failed to append certificates from PEM file: %q", ca)
		}
	}
	if cert, key := o["syslog-tls-cert"], o["syslog-tls-key"]; cert != "" || key != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return nil, fault.New(fault.Invalid, "Could not load X509 key pair: %v. Make sure the key is not encrypted", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

// Probe says whether the daemon can be reached. Over UDP nothing can be said.
func (s *Syslog) Probe(ctx context.Context) error {
	err := s.dial(ctx)
	if err != nil && s.local {
		return fault.New(fault.Unavailable, "Unix syslog delivery error")
	}
	return err
}

// dial connects. The machine's own daemon is looked for where such daemons listen.
func (s *Syslog) dial(ctx context.Context) (err error) {
	if !s.local {
		if _, err = s.conn.Dial(ctx); s.conn.Network == "unix" && errors.Is(err, unix.EPROTOTYPE) { // as most /dev/log are
			s.conn.Network, s.conn.Quiet, s.stream = "unixgram", false, false
			_, err = s.conn.Dial(ctx)
		}
		return err
	}
	if s.conn.Network != "" {
		if _, err = s.conn.Dial(ctx); err == nil {
			return nil
		}
	}
	for _, network := range []string{"unixgram", "unix"} {
		for _, path := range []string{"/dev/log", "/var/run/syslog", "/var/run/log"} {
			s.conn.Network, s.conn.Address, s.conn.Quiet = network, path, network == "unix"
			s.stream = s.conn.Quiet
			if _, err = s.conn.Dial(ctx); err == nil {
				return nil
			}
		}
	}
	return err
}

// batch is how much is written at once where messages are a stream.
const batch = 16 << 10

// Send implements sink.Sink.
func (s *Syslog) Send(ctx context.Context, records []sink.Record, taken func(int)) error {
	if err := s.dial(ctx); err != nil {
		return err
	}
	s.buf = s.buf[:0]
	for i := range records {
		if len(records[i].Line) > 0 {
			s.message(&records[i])
		}
		if s.stream && len(s.buf) < batch && i < len(records)-1 {
			continue
		}
		if len(s.buf) > 0 {
			if err := s.conn.Write(ctx, s.buf); err != nil {
				return err
			}
		}
		taken(i + 1)
		s.buf = s.buf[:0]
	}
	return nil
}

// message appends one message.
func (s *Syslog) message(r *sink.Record) {
	severity := severityInfo
	if r.Stderr {
		severity = severityErr
	}
	pid := strconv.Itoa(os.Getpid())
	b := append([]byte{'<'}, strconv.Itoa(s.facility<<3|severity)...)
	b = append(b, '>')
	at := r.Time.Local()
	switch s.format {
	case "rfc5424", "rfc5424micro":
		layout := time.RFC3339
		if s.format == "rfc5424micro" {
			layout = "2006-01-02T15:04:05.000000Z07:00"
		}
		b = append(b, "1 "...)
		b = at.AppendFormat(b, layout)
		for _, word := range []string{s.host, s.tag, pid, s.tag, "-"} {
			b = append(append(b, ' '), word...)
		}
	case "rfc3164":
		b = at.AppendFormat(b, time.Stamp)
		b = append(append(append(b, ' '), s.host...), ' ')
		b = append(append(append(append(b, s.tag...), '['), pid...), "]:"...)
	default:
		b = at.AppendFormat(b, time.Stamp)
		b = append(append(append(append(append(b, ' '), s.tag...), '['), pid...), "]:"...)
	}
	b = append(append(b, ' '), r.Line...)
	b = append(b, '\n')
	if s.framed {
		s.buf = append(strconv.AppendInt(s.buf, int64(len(b)), 10), ' ')
	}
	s.buf = append(s.buf, b...)
}

// Close implements sink.Sink.
func (s *Syslog) Close() { s.conn.Close() }
