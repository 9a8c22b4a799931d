package health

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"berth/engine/container"
)

// Dial connects to an address in the container's network. It gives up with ctx.
type Dial func(ctx context.Context, to netip.AddrPort) (net.Conn, error)

const (
	// maxHead bounds what an answer may have before its body.
	maxHead = 64 << 10
	// bodyPatience is how long a body is awaited once the status is known: some answers never end.
	bodyPatience = 250 * time.Millisecond
)

// Ask puts a question and gives its result within patience, whatever the other side does.
func Ask(ctx context.Context, p Probe, dial Dial, patience time.Duration) container.HealthResult {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	code, out := p.ask(ctx, dial)
	if code != 0 && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return TimedOut(start, patience, nil, false)
	}
	return container.HealthResult{Start: start, End: time.Now(), ExitCode: code, Output: Clip([]byte(out), false)}
}

// Result is that of a command that ended. more: there was more output than out.
func Result(start time.Time, code int, out []byte, more bool) container.HealthResult {
	return container.HealthResult{Start: start, End: time.Now(), ExitCode: code, Output: Clip(out, more)}
}

// TimedOut is the result of a probe that took too long, in Docker's words, with what it had said until then. more: that was cut off.
func TimedOut(start time.Time, patience time.Duration, out []byte, more bool) container.HealthResult {
	text := fmt.Sprintf("Health check exceeded timeout (%v)", patience)
	if len(out) > 0 {
		text += ": " + Clip(out, more)
	}
	return container.HealthResult{Start: start, End: time.Now(), ExitCode: -1, Output: text}
}

// Failed is the result of a probe that could not be made.
func Failed(start time.Time, err error) container.HealthResult {
	return container.HealthResult{Start: start, End: time.Now(), ExitCode: -1, Output: Clip([]byte(err.Error()), false)}
}

// ask gives 0 for healthy, else 1.
func (p Probe) ask(ctx context.Context, dial Dial) (code int, out string) {
	conn, err := p.connect(ctx, dial)
	if err != nil {
		return 1, err.Error()
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	switch p.Kind {
	case TCP:
		return 0, ""
	case GRPC:
		return p.askGRPC(ctx, conn)
	}
	return p.askHTTP(ctx, conn)
}

func (p Probe) connect(ctx context.Context, dial Dial) (conn net.Conn, err error) {
	for _, to := range p.addresses() {
		c, derr := dial(ctx, to)
		if derr == nil {
			return c, nil
		}
		if err == nil { // the first address says it best
			err = fmt.Errorf("%s %s: %w", p.Kind, to, derr)
		}
		if !errors.Is(derr, unix.ECONNREFUSED) {
			break
		}
	}
	return nil, err
}

// askHTTP sends one GET. It follows no redirect: one is an answer like another, and may lead out of the container.
func (p Probe) askHTTP(ctx context.Context, conn net.Conn) (int, string) {
	if p.Kind == HTTPS {
		t := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}) // as Kubernetes' probes: it is the container that is asked, by its address
		if err := t.HandshakeContext(ctx); err != nil {
			return 1, err.Error()
		}
		conn = t
	}
	host := net.JoinHostPort(p.host(), strconv.Itoa(int(p.Port)))
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: berth-health\r\nAccept: */*\r\nConnection: close\r\n\r\n", p.Path, host); err != nil {
		return 1, err.Error()
	}
	limited := &io.LimitedReader{R: conn, N: maxHead}
	in := bufio.NewReaderSize(limited, 4096)
	var r *http.Response
	for r == nil || r.StatusCode < 200 && r.StatusCode != http.StatusSwitchingProtocols {
		var err error
		if r, err = http.ReadResponse(in, &http.Request{Method: "GET"}); err != nil {
			return 1, "no answer over HTTP: " + err.Error()
		}
	}
	defer r.Body.Close()
	limited.N = maxHead
	conn.SetReadDeadline(time.Now().Add(bodyPatience))
	body, _ := io.ReadAll(io.LimitReader(r.Body, MaxOutput+1)) // what arrived is enough: the status decides
	out := r.Proto + " " + r.Status
	if len(body) > 0 {
		out += "\n" + string(body)
	}
	if r.StatusCode >= 200 && r.StatusCode < 400 {
		return 0, out
	}
	return 1, out
}

func (p Probe) host() string {
	if p.Host.IsValid() {
		return p.Host.String()
	}
	return "localhost"
}

// askGRPC calls grpc.health.v1.Health/Check over HTTP/2 without TLS. The two messages are one field each; that needs no library.
//
//	HealthCheckRequest  { string service = 1 }
//	HealthCheckResponse { ServingStatus status = 1 }   1 is SERVING
//
// Each is preceded by a byte that says whether it is compressed and four of its length (gRPC over HTTP2).
func (p Probe) askGRPC(ctx context.Context, conn net.Conn) (int, string) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	once := make(chan net.Conn, 1)
	once <- conn
	t := &http.Transport{
		Protocols: &protocols, DisableCompression: true, MaxResponseHeaderBytes: maxHead,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errors.New("the connection broke")
			}
		},
	}
	defer t.CloseIdleConnections()
	u := url.URL{Scheme: "http", Host: net.JoinHostPort(p.host(), strconv.Itoa(int(p.Port))), Path: "/grpc.health.v1.Health/Check"}
	r, err := http.NewRequestWithContext(ctx, "POST", u.String(), bytes.NewReader(grpcMessage(p.Name)))
	if err != nil {
		return 1, err.Error()
	}
	r.Header = http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}, "User-Agent": {"berth-health"}}
	answer, err := t.RoundTrip(r)
	if err != nil {
		return 1, "no answer over gRPC: " + err.Error()
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, MaxOutput))
	if err != nil {
		return 1, "no answer over gRPC: " + err.Error()
	}
	return grpcVerdict(answer, body)
}

func grpcMessage(service string) []byte {
	var m []byte
	if service != "" {
		m = append(m, 1<<3|2)
		m = binary.AppendUvarint(m, uint64(len(service)))
		m = append(m, service...)
	}
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(m)))
	return append(head, m...)
}

func grpcVerdict(answer *http.Response, body []byte) (int, string) {
	if answer.StatusCode != http.StatusOK {
		return 1, "no answer over gRPC: " + answer.Proto + " " + answer.Status
	}
	status, message := answer.Trailer.Get("Grpc-Status"), answer.Trailer.Get("Grpc-Message")
	if status == "" { // an answer without a body has them in front
		status, message = answer.Header.Get("Grpc-Status"), answer.Header.Get("Grpc-Message")
	}
	if status != "0" {
		if text, err := url.PathUnescape(message); err == nil {
			message = text
		}
		return 1, strings.TrimSpace("gRPC status " + status + " " + message)
	}
	serving, err := servingStatus(body)
	if err != nil {
		return 1, "no answer over gRPC: " + err.Error()
	}
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	name := strconv.FormatUint(serving, 10)
	if serving < uint64(len(names)) {
		name = names[serving]
	}
	if serving == 1 {
		return 0, name
	}
	return 1, name
}

// servingStatus reads a HealthCheckResponse with its five bytes in front. Fields that are not known are passed over.
func servingStatus(b []byte) (status uint64, err error) {
	bad := errors.New("the message cannot be read")
	if len(b) < 5 || b[0] != 0 || uint64(binary.BigEndian.Uint32(b[1:])) != uint64(len(b)-5) {
		return 0, bad
	}
	for b = b[5:]; len(b) > 0; {
		key, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, bad
		}
		b = b[n:]
		var skip uint64
		switch key & 7 {
		case 0:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, bad
			}
			if key>>3 == 1 {
				status = v
			}
			skip = uint64(n)
		case 1:
			skip = 8
		case 2:
			l, n := binary.Uvarint(b)
			if n <= 0 || l > uint64(len(b)) {
				return 0, bad
			}
			skip = uint64(n) + l
		case 5:
			skip = 4
		default:
			return 0, bad
		}
		if skip > uint64(len(b)) {
			return 0, bad
		}
		b = b[skip:]
	}
	return status, nil
}
