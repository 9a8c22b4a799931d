package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"berth/base/fault"
	"berth/engine"
	"berth/engine/container"
)

// script is a log that is written line by line.
type script struct {
	feed   chan engine.Line
	end    error
	closed chan struct{}
}

func newScript(lines ...engine.Line) *script {
	s := &script{feed: make(chan engine.Line, 100), end: io.EOF, closed: make(chan struct{})}
	for _, l := range lines {
		s.feed <- l
	}
	return s
}

func (s *script) Next() (engine.Line, error) {
	select {
	case l, ok := <-s.feed:
		if !ok {
			return l, s.end
		}
		return l, nil
	case <-s.closed:
		return engine.Line{}, io.EOF
	}
}

func (s *script) Close() error {
	close(s.closed)
	return nil
}

func line(stream byte, text string) engine.Line {
	return engine.Line{Stream: stream, Time: at, Data: []byte(text), Attrs: map[string]string{"b": "x y", "a": "1"}}
}

func TestLogs(t *testing.T) {
	for _, tt := range []struct {
		name, query, version string
		tty                  bool
		want, kind           string
	}{
		{name: "framed", query: "stdout=1&stderr=1", want: "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n", kind: framedStream},
		{name: "old", query: "stdout=1&stderr=1", version: "/v1.41", want: "\x01\x00\x00\x00\x00\x00\x00\x04out\n\x02\x00\x00\x00\x00\x00\x00\x04err\n", kind: rawStream},
		{name: "stderr only", query: "stderr=1", want: "\x02\x00\x00\x00\x00\x00\x00\x04err\n", kind: framedStream},
		{name: "terminal", query: "stdout=1&stderr=1", tty: true, want: "out\nerr\n", kind: rawStream},
		{name: "timestamps", query: "stdout=1&timestamps=1", tty: true, want: "2026-03-04T05:06:07.000000089Z out\n", kind: rawStream},
		{name: "details", query: "stdout=1&details=1", tty: true, want: "a=1,b=x+y out\n", kind: rawStream},
		{name: "both", query: "stdout=1&details=1&timestamps=1", tty: true, want: "2026-03-04T05:06:07.000000089Z a=1,b=x+y out\n", kind: rawStream},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			s := newScript(line(1, "out\n"), line(2, "err\n"))
			close(s.feed)
			f.lines, f.info.Spec.Process.TTY = s, tt.tty
			_, web, _ := serve(t, f)
			_, text, h := ask(t, web, "GET", tt.version+"/containers/web/logs?"+tt.query, "")
			if text != tt.want || h.Get("Content-Type") != tt.kind {
				t.Errorf("%q as %s, want %q", text, h.Get("Content-Type"), tt.want)
			}
			<-s.closed
		})
	}
}

func TestLogOptions(t *testing.T) {
	f := newFake()
	s := newScript()
	close(s.feed)
	f.lines = s
	_, web, _ := serve(t, f)
	ask(t, web, "GET", "/containers/web/logs?stdout=1&follow=1&tail=10&since=100.5&until=200", "")
	want := `logs ` + webID + ` {"Stdout":true,"Stderr":false,"Follow":true,"Timestamps":false,"Details":false,"Since":"` +
		time.Unix(100, 5e8).Format(time.RFC3339Nano) + `","Until":"` + time.Unix(200, 0).Format(time.RFC3339Nano) + `","Tail":10}`
	if got := f.last(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

func TestLogsFollowAtOnceAndEndWithTheClient(t *testing.T) {
	f := newFake()
	s := newScript()
	f.lines, f.info.Spec.Process.TTY = s, true
	_, web, _ := serve(t, f)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, "GET", web.URL+"/containers/web/logs?stdout=1&follow=1", nil)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err) // the headers come before the first line
	}
	defer resp.Body.Close()
	b := bufio.NewReader(resp.Body)
	for i := range 3 {
		s.feed <- line(1, fmt.Sprintf("%d\n", i))
		if got, err := b.ReadString('\n'); err != nil || got != fmt.Sprintf("%d\n", i) {
			t.Fatalf("%q %v", got, err)
		}
	}
	cancel()
	select {
	case <-s.closed:
	case <-time.After(time.Minute):
		t.Error("the reader was not closed")
	}
}

func TestLogFailureIsToldInTheStream(t *testing.T) {
	f := newFake()
	s := newScript(line(1, "a\n"))
	s.end = errors.New("disk gone")
	close(s.feed)
	f.lines = s
	_, web, _ := serve(t, f)
	_, text, _ := ask(t, web, "GET", "/containers/web/logs?stdout=1", "")
	if !strings.HasSuffix(text, "Error grabbing logs: disk gone\n") || !strings.Contains(text, "\x03\x00\x00\x00") {
		t.Errorf("%q", text)
	}
}

// duplex is a process's end of a stream: the test reads what came to stdin and writes what goes out.
type duplex struct {
	io.Reader // output
	io.Writer // stdin
	in        *io.PipeReader
	inw       *io.PipeWriter
	outr      *io.PipeReader
	out       *io.PipeWriter
	closed    chan struct{}
}

func newDuplex() *duplex {
	inr, inw := io.Pipe()
	outr, outw := io.Pipe()
	return &duplex{Reader: outr, Writer: inw, in: inr, inw: inw, outr: outr, out: outw, closed: make(chan struct{})}
}

func (d *duplex) CloseWrite() error { return d.inw.Close() }
func (d *duplex) Close() error {
	select {
	case <-d.closed:
	default:
		close(d.closed)
	}
	d.inw.CloseWithError(io.ErrClosedPipe)
	d.outr.CloseWithError(io.ErrClosedPipe)
	return nil
}

// dial sends a request by hand and reads the answer's head.
func dial(t *testing.T, base, request string) (*net.TCPConn, *bufio.Reader, string) {
	t.Helper()
	u, _ := url.Parse(base)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	var head strings.Builder
	for {
		l, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("after %q: %v", head.String(), err)
		}
		if head.WriteString(l); l == "\r\n" {
			return conn.(*net.TCPConn), r, head.String()
		}
	}
}

const upgrade = "Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n"

func TestAttachHeads(t *testing.T) {
	for _, tt := range []struct {
		name, request string
		tty           bool
		want          string
	}{
		{"framed", "POST /v1.45/containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n" + upgrade, false,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"terminal", "POST /v1.45/containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n" + upgrade, true,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"before 1.42", "POST /v1.41/containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n" + upgrade, false,
			"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"},
		{"no upgrade", "POST /v1.45/containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", false,
			"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			d := newDuplex()
			f.process, f.tty, f.info.Spec.Process.TTY = d, tt.tty, tt.tty
			_, web, _ := serve(t, f)
			_, r, head := dial(t, web.URL, tt.request)
			if head != tt.want {
				t.Errorf("%q\nwant %q", head, tt.want)
			}
			go func() {
				_, _ = d.out.Write([]byte("bye"))
				d.out.Close()
			}()
			if got, err := io.ReadAll(r); err != nil || string(got) != "bye" {
				t.Errorf("%q %v", got, err)
			}
		})
	}
}

// dockerode sends the options of an attachment in the body again. They are no input of the container's.
func TestAttachBodyIsNoInput(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process = d
	_, web, _ := serve(t, f)
	body := `{"stream":true,"stdin":true}`
	head := fmt.Sprintf("Host: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", len(body))
	dial(t, web.URL, "POST /v1.45/containers/web/attach?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n"+head+body+"input")
	got := make([]byte, 5)
	if _, err := io.ReadFull(d.in, got); err != nil || string(got) != "input" {
		t.Errorf("%q %v", got, err)
	}
}

// A client that has gone is noticed also while the container says nothing. One that has only closed its half is not gone.
func TestAttachNoticesThatTheClientIsGone(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process = d
	s := New(Config{Containers: f})
	ls, err := Listen(ListenConfig{Hosts: []string{"unix://" + t.TempDir() + "/s"}})
	if err != nil {
		t.Fatal(err)
	}
	s.Serve(ls[0])
	defer s.Shutdown(context.Background())
	conn, err := net.Dial("unix", ls[0].Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "POST /containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n"+upgrade); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.UnixConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-d.closed:
		t.Fatal("half closed is taken for gone")
	case <-time.After(lookEvery + lookEvery/2):
	}
	conn.Close()
	select {
	case <-d.closed:
	case <-time.After(time.Minute):
		t.Error("nobody noticed")
	}
}

// Docker's Python library loses what comes together with the head.
func TestPythonGetsTheHeadAlone(t *testing.T) {
	for agent, want := range map[string]bool{"docker-sdk-python/5.0.3": true, "python-requests/2": true, "Docker-Client/28.2.2 (linux)": false, "": false} {
		f := newFake()
		d := newDuplex()
		f.process = d
		_, web, _ := serve(t, f)
		go func() {
			_, _ = d.out.Write([]byte("early"))
			d.out.Close()
		}()
		begin := time.Now()
		_, r, _ := dial(t, web.URL, strings.Replace("POST /containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n"+upgrade, "Host: x", "Host: x\r\nUser-Agent: "+agent, 1))
		got, err := io.ReadAll(r)
		took := time.Since(begin)
		// How fast the others get it depends on the machine.
		if err != nil || string(got) != "early" || losesEarlyOutput(agent) != want || want && took < earlyOutput {
			t.Errorf("%q: %q after %v, %v", agent, got, took, err)
		}
	}
}

// With --interactive and without a terminal the end of the client's input is the end of the container's, and its output still comes.
func TestAttachHalfClose(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process, f.info.Spec.StdinOnce, f.info.Spec.OpenStdin = d, true, true
	_, web, _ := serve(t, f)
	// The client sends its first input together with the request.
	conn, r, _ := dial(t, web.URL, "POST /containers/web/attach?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n"+upgrade+"early ")
	if _, err := conn.Write([]byte("late")); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(d.in); err != nil || string(got) != "early late" {
		t.Errorf("stdin %q %v", got, err)
	}
	go func() {
		_, _ = d.out.Write([]byte("answer"))
		d.out.Close()
	}()
	if got, err := io.ReadAll(r); err != nil || string(got) != "answer" {
		t.Errorf("%q %v", got, err)
	}
	select {
	case <-d.closed:
	case <-time.After(time.Minute):
		t.Error("the attachment was not closed")
	}
}

// A client that leaves a container which keeps its stdin open takes nothing with it.
func TestAttachLeave(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process, f.info.Spec.OpenStdin = d, true
	_, web, _ := serve(t, f)
	conn, _, _ := dial(t, web.URL, "POST /containers/web/attach?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n"+upgrade)
	conn.Close()
	select {
	case <-d.closed:
	case <-time.After(time.Minute):
		t.Fatal("the attachment was not closed")
	}
	if _, err := io.ReadAll(d.in); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("stdin was ended: %v", err)
	}
}

// Whatever the client has still unread on its side arrives, also when it never closed its half.
func TestAttachLosesNoOutput(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process = d
	_, web, _ := serve(t, f)
	conn, r, _ := dial(t, web.URL, "POST /containers/web/attach?stdin=1&stdout=1&stream=1 HTTP/1.1\r\n"+upgrade)
	go func() { // input that nobody takes
		for {
			if _, err := conn.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
				return
			}
		}
	}()
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = d.out.Write(big)
		d.out.Close()
		d.in.Close()
	}()
	time.Sleep(50 * time.Millisecond) // the client is slow
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d of %d bytes, %v", len(got), len(big), err)
	}
}

func TestAttachEndsWithTheServer(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process = d
	s, web, _ := serve(t, f)
	_, r, _ := dial(t, web.URL, "POST /containers/web/attach?stdout=1&stream=1 HTTP/1.1\r\n"+upgrade)
	s.leave()
	_, _ = io.ReadAll(r)
	<-d.closed
	s.pumps.Wait()
}

func execRequest(body string) string {
	return fmt.Sprintf("POST /v1.45/exec/e1/start HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestExecStream(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process, f.tty, f.execSpec = d, true, container.ExecSpec{Cmd: []string{"sh"}, TTY: true, AttachStdin: true, AttachStdout: true}
	_, web, _ := serve(t, f)
	conn, r, head := dial(t, web.URL, execRequest(`{"Detach":false,"Tty":true,"ConsoleSize":[24,80]}`))
	want := "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" +
		"Api-Version: 1.56\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Berth/1.2.3 (linux)\r\n\r\n"
	if head != want {
		t.Errorf("%q", head)
	}
	go func() { _, _ = conn.Write([]byte("ls")) }()
	got := make([]byte, 2)
	if _, err := io.ReadFull(d.in, got); err != nil || string(got) != "ls" {
		t.Errorf("%q %v", got, err)
	}
	if got := f.last(); got != `exec-start  "e1" {"Detach":false,"TTY":true,"Rows":24,"Cols":80}` {
		t.Error(got)
	}
	d.out.Close() // the process has ended, or the keeper has seen the detach keys
	if rest, _ := io.ReadAll(r); len(rest) > 0 {
		t.Errorf("%q", rest)
	}
}

// Docker's client asks for the exit code when the stream has ended: by then it must be known.
func TestExecStreamEndsAfterTheExitIsKnown(t *testing.T) {
	f := newFake()
	d := newDuplex()
	f.process, f.execSpec = d, container.ExecSpec{Cmd: []string{"x"}, AttachStdout: true}
	f.execRuns.Store(true)
	_, web, _ := serve(t, f)
	_, r, _ := dial(t, web.URL, execRequest(`{}`))
	d.out.Close()
	time.AfterFunc(100*time.Millisecond, func() { f.execRuns.Store(false) })
	if _, err := io.ReadAll(r); err != nil || f.execRuns.Load() {
		t.Errorf("the stream ended while the exec was still running: %v", err)
	}
}

// Docker's client shows what is in the stream and then asks for the exit code.
func TestExecFailureIsToldInTheStream(t *testing.T) {
	f := newFake()
	f.fail["exec-start"] = fault.New(fault.Invalid, "OCI runtime exec failed: no such file")
	f.execSpec = container.ExecSpec{Cmd: []string{"nope"}, AttachStdout: true}
	_, web, _ := serve(t, f)
	conn, r, head := dial(t, web.URL, execRequest(`{"Detach":false,"Tty":false}`))
	if !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Fatal(head)
	}
	conn.CloseWrite()
	got, err := io.ReadAll(r)
	if text := "OCI runtime exec failed: no such file\r\n"; err != nil || string(got) != "\x01\x00\x00\x00\x00\x00\x00"+string(rune(len(text)))+text {
		t.Errorf("%q %v", got, err)
	}
	if code, text, _ := ask(t, web, "POST", "/exec/e1/start", `{"Detach":true}`); code != 400 || !strings.Contains(text, "no such file") {
		t.Errorf("detached: %d %s", code, text)
	}
}
