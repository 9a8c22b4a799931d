package engine

import (
	"bufio"
	bin "encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
	"berth/base/plugin"
	"berth/engine/container"
	"berth/engine/logs"
	"berth/runtime/keeper/localfile"
)

// collector is a syslog daemon on TCP that can go away, come back, and stop reading.
type collector struct {
	t       *testing.T
	address string

	mu    sync.Mutex
	l     net.Listener
	conns []net.Conn
	lines []string
	hung  bool
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, address: "127.0.0.1:0"}
	c.come()
	c.address = c.l.Addr().String()
	t.Cleanup(c.leave)
	return c
}

// come listens.
func (c *collector) come() {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	var err error
	for range 3000 { // the address may be on its way out
		if c.l, err = net.Listen("tcp", c.address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	l := c.l
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			c.mu.Lock()
			c.conns = append(c.conns, conn)
			c.mu.Unlock()
			go c.read(conn)
		}
	}()
}

func (c *collector) read(conn net.Conn) {
	for r := bufio.NewReader(conn); ; {
		for c.isHung() {
			time.Sleep(10 * time.Millisecond)
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		_, text, _ := strings.Cut(line, "]: ")
		c.mu.Lock()
		c.lines = append(c.lines, strings.TrimSuffix(text, "\n"))
		c.mu.Unlock()
	}
}

// leave stops listening and hangs up.
func (c *collector) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.l.Close()
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

func (c *collector) hang(yes bool) { c.mu.Lock(); c.hung = yes; c.mu.Unlock() }
func (c *collector) isHung() bool  { c.mu.Lock(); defer c.mu.Unlock(); return c.hung }
func (c *collector) got() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.lines...)
}

// options are a container's that logs there.
func (c *collector) options(more ...string) container.Log {
	o := map[string]string{"syslog-address": "tcp://" + c.address}
	for _, kv := range more {
		k, v, _ := strings.Cut(kv, "=")
		o[k] = v
	}
	return container.Log{Driver: "syslog", Options: o}
}

// inOrder checks that lines are "line 1", "line 2" … without a gap, and gives how many.
func inOrder(t *testing.T, lines []string) int {
	t.Helper()
	for i, l := range lines {
		if l != fmt.Sprint("line ", i+1) {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
	return len(lines)
}

func counting(n int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); echo line $i; done", n)
}

// TestShippedLog: a collector gets every line once, in order, over restarts of the engine; logs shows the same.
func TestShippedLog(t *testing.T) {
	w, c := newWorld(t), newCollector(t)
	s := spec(counting(5000) + "; read x")
	s.OpenStdin = true
	s.Log = c.options("cache-max-size=20k", "cache-max-file=50")
	id := w.run("", s)
	for range 3 {
		time.Sleep(20 * time.Millisecond)
		w.reopen()
	}
	w.eventually("all is there", func() bool { return len(c.got()) >= 5000 })
	if n := inOrder(t, c.got()); n != 5000 {
		t.Errorf("%d lines", n)
	}
	if out := w.logged(id); strings.Count(out, "\n") != 5000 || !strings.HasPrefix(out, "line 1\n") {
		t.Errorf("logs shows %d lines", strings.Count(out, "\n"))
	}
	st, err := w.LogStatus(t.Context(), id)
	if err != nil || st.Ships == nil || st.Ships.Sent != 5000 || st.Ships.Dropped != 0 {
		t.Errorf("%+v %+v %v", st, st.Ships, err)
	}
}

// TestCollectorAway: a collector that is not there is told at the start, as in Docker. One that goes away keeps nobody waiting, and gets all when
// it is back, also what removed containers wrote.
func TestCollectorAway(t *testing.T) {
	w, c := newWorld(t), newCollector(t)
	c.leave()
	s := spec(counting(100))
	s.Log = c.options()
	id := w.create("", s)
	err := w.Start(t.Context(), id)
	if want := "failed to create task for container: failed to initialize logging driver: dial tcp " + c.address + ": connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	c.come()
	if err := w.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	w.wait(id)
	w.eventually("all is there", func() bool { return len(c.got()) == 100 })
	c.leave()
	w.cfg.CollectorOptional = true
	w.reopen()
	start := time.Now()
	s = spec("i=100; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; done; sleep 1000")
	s.Log = c.options()
	id = w.run("", s)
	w.eventually("it has written", func() bool { return strings.Contains(w.logged(id), "line 200\n") })
	if st, err := w.LogStatus(t.Context(), id); err != nil || st.Ships.Behind == 0 {
		t.Errorf("%+v %v", st.Ships, err)
	}
	if err := w.Remove(t.Context(), id, RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d > 15*time.Second {
		t.Errorf("it took %v", d)
	}
	if _, err := os.Stat(w.leftDir(id) + "/note.json"); err != nil {
		t.Error("nothing is left to be shipped: ", err)
	}
	w.reopen()
	c.come()
	w.eventually("all is there", func() bool { return len(c.got()) == 200 })
	inOrder(t, c.got())
	w.eventually("nothing is left", func() bool { _, err := os.Stat(w.leftDir(id)); return os.IsNotExist(err) })
}

// TestHungCollector: in blocking mode the container waits when its spool is full, and only it: it is stopped as fast as ever, nothing is lost.
// In non-blocking mode it goes on, and what is lost is counted.
func TestHungCollector(t *testing.T) {
	w, c := newWorld(t), newCollector(t)
	c.hang(true)
	s := spec("exec yes $(head -c 500 /dev/zero | tr '\\0' x)")
	s.Log = c.options("cache-max-size=1m", "cache-max-file=3")
	id := w.run("", s)
	size := func() int64 { n, _ := logs.Size(w.Engine.logPath(w.index.get(id).record())); return n }
	blocked := int64(0)
	w.eventually("it is blocked", func() bool {
		before := size()
		time.Sleep(500 * time.Millisecond)
		blocked = size()
		return blocked == before && blocked > 2_500_000
	})
	if blocked > 3_000_000+3*1000 {
		t.Errorf("%d bytes in a spool of 3 MB", blocked)
	}
	start := time.Now()
	if err := w.Kill(t.Context(), id, "KILL"); err != nil {
		t.Fatal(err)
	}
	w.wait(id)
	if d := time.Since(start); d > 8*time.Second { // less than the patience with a write, so that nobody waited for that
		t.Errorf("its end took %v", d)
	}
	written := strings.Count(w.logged(id), "\n")
	c.hang(false)
	w.eventually("all is there", func() bool {
		st, err := w.LogStatus(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return st.Ships.Behind == 0 && len(c.got()) >= int(st.Ships.Sent)
	})
	if n := len(c.got()); n < written {
		t.Errorf("%d lines came of more than %d", n, written)
	}

	c.hang(true)
	s.Log = c.options("cache-max-size=1m", "cache-max-file=3", "mode=non-blocking", "max-buffer-size=100k")
	s.Process.Cmd = []string{"sh", "-c", "i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 1000000 /dev/zero | tr '\\0' x | fold -w 999; echo; done; echo the end"}
	id = w.run("", s)
	w.wait(id)
	c.hang(false)
	w.eventually("the end is there", func() bool { g := c.got(); return g[len(g)-1] == "the end" })
	st, err := w.LogStatus(t.Context(), id)
	if err != nil || st.Ships.Dropped == 0 {
		t.Errorf("%+v %v", st.Ships, err)
	}
}

// TestBoundedDisk: a container that writes as fast as it can never has more on disk than its files may hold, compressed or not, and who
// follows sees its lines in order and does not stall.
func TestBoundedDisk(t *testing.T) {
	for _, l := range []container.Log{
		{Driver: "json-file", Options: map[string]string{"max-size": "64k", "max-file": "3"}},
		{Driver: "json-file", Options: map[string]string{"max-size": "64k"}},
		{Driver: "local", Options: map[string]string{"max-size": "64k", "max-file": "4"}},
	} {
		w := newWorld(t)
		s := spec("seq 1 300000")
		s.Log = l
		cfg, _ := logs.Configure(l.Driver, l.Options)
		id := w.create("", s)
		path := w.Engine.logPath(w.index.get(id).record())
		if err := w.Start(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		r, err := w.Logs(t.Context(), id, LogOptions{Stdout: true, Follow: true, Tail: -1})
		if err != nil {
			t.Fatal(err)
		}
		over := make(chan string, 1)
		stop := make(chan struct{})
		go func() {
			// One record more than fits in each, and what is being compressed.
			most := (64_000 + 200) * int64(cfg.MaxFiles+1)
			for {
				select {
				case <-stop:
					over <- ""
					return
				default:
				}
				names, _ := filepath.Glob(path + "*")
				var sum int64
				for _, n := range names {
					if st, err := os.Lstat(n); err == nil {
						sum += st.Size()
					}
				}
				if sum > most {
					over <- fmt.Sprintf("%d bytes on disk, %d allowed: %v", sum, most, names)
					return
				}
			}
		}()
		last, seen := 0, 0
		for {
			line, err := r.Next()
			if err != nil {
				break
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(line.Data)))
			if err != nil || n <= last {
				t.Fatalf("%v: %q after %d", l, line.Data, last)
			}
			last = n
			seen++
		}
		close(stop)
		if text := <-over; text != "" {
			t.Errorf("%v: %s", l, text)
		}
		if last != 300_000 {
			t.Errorf("%v: the last line is %d", l, last)
		}
		t.Logf("%v: %d of %d lines were seen", l, seen, last)
		if out := w.logged(id); !strings.HasSuffix(out, "299999\n300000\n") {
			t.Errorf("%v: logs ends in %q", l, out[max(0, len(out)-50):])
		}
		if cfg.Compress {
			w.eventually("rotated files are compressed", func() bool { return !logs.Unpacked(path) })
			if out := w.logged(id); !strings.HasSuffix(out, "299999\n300000\n") || strings.Count(out, "\n") < 3000 {
				t.Errorf("%v: after compression logs has %d lines", l, strings.Count(out, "\n"))
			}
		}
	}
}

func TestClearLogs(t *testing.T) {
	w := newWorld(t)
	for _, driver := range []string{"json-file", "local"} {
		s := spec("echo one; read x; echo two; read x")
		s.OpenStdin = true
		s.Log.Driver = driver
		id := w.run("", s)
		w.eventually("it writes", func() bool { return w.logged(id) == "one\n" })
		r, err := w.Logs(t.Context(), id, LogOptions{Stdout: true, Follow: true, Tail: 0})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.ClearLogs(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if got := w.logged(id); got != "" {
			t.Errorf("%s: %q is left", driver, got)
		}
		conn, err := w.Attach(t.Context(), id, AttachOptions{Stdin: true, Stream: true})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(conn.Conn)
		if l, err := r.Next(); err != nil || string(l.Data) != "two\n" {
			t.Errorf("%s: who follows gets %q, %v", driver, l.Data, err)
		}
		fmt.Fprintln(conn.Conn)
		w.wait(id)
		if got := w.logged(id); got != "two\n" {
			t.Errorf("%s: %q", driver, got)
		}
		if err := w.ClearLogs(t.Context(), id); err != nil || w.logged(id) != "" {
			t.Errorf("%s, ended: %v, %q", driver, err, w.logged(id))
		}
	}
	s := spec("true")
	s.Log.Driver = "none"
	if err := w.ClearLogs(t.Context(), w.create("", s)); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}

func TestLogBound(t *testing.T) {
	w := newWorld(t)
	w.cfg.LogBound = 500_000
	w.reopen()
	id := w.run("", spec("seq 1 100000"))
	w.wait(id)
	st, err := w.LogStatus(t.Context(), id)
	if err != nil || st.Limit != 500_000 || st.Bytes > 501_000 || st.Bytes < 400_000 {
		t.Errorf("%+v %v", st, err)
	}
	if f := w.Info(t.Context()); f.LogsUnbounded {
		t.Error("they are told to be unbounded")
	}
	if i, _ := w.Inspect(t.Context(), id); len(i.Spec.Log.Options) != 0 {
		t.Errorf("inspect shows %v", i.Spec.Log.Options)
	}
}

func TestHiddenSpool(t *testing.T) {
	w, c := newWorld(t), newCollector(t)
	s := spec("echo line 1")
	s.Log = c.options("cache-disabled=true")
	id := w.run("", s)
	w.wait(id)
	if _, err := w.Logs(t.Context(), id, LogOptions{Stdout: true}); err == nil || err.Error() != "configured logging driver does not support reading" {
		t.Error(err)
	}
	w.eventually("it is there", func() bool { return inOrder(t, c.got()) == 1 })
}

// TestLogPlugin: a plugin of Docker's protocol, on a socket, gets what a container writes; one that is not there is told when the container is
// made.
func TestLogPlugin(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "collect.sock"))
	if err != nil {
		t.Fatal(err)
	}
	lines := make(chan string, 10)
	mux := http.NewServeMux()
	mux.HandleFunc("/Plugin.Activate", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{"Implements":["LogDriver"]}`) })
	mux.HandleFunc("/LogDriver.StopLogging", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, `{}`) })
	mux.HandleFunc("/LogDriver.StartLogging", func(w http.ResponseWriter, r *http.Request) {
		var a struct{ File string }
		if err := json.NewDecoder(r.Body).Decode(&a); err != nil {
			t.Error(err)
		}
		f, err := os.Open(a.File)
		if err != nil {
			t.Error(err)
		}
		go func() {
			defer f.Close()
			for {
				var size [4]byte
				if _, err := io.ReadFull(f, size[:]); err != nil {
					return
				}
				b := make([]byte, bin.BigEndian.Uint32(size[:]))
				io.ReadFull(f, b)
				var e localfile.Entry
				if err := e.Decode(b); err != nil {
					t.Error(err)
				}
				lines <- string(e.Line)
			}
		}()
		io.WriteString(w, `{}`)
	})
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	defer server.Close()

	w := newWorld(t)
	plugins := plugin.New(plugin.Config{Sockets: dir, Specs: []string{}, Wait: 10 * time.Second})
	defer plugins.Close()
	w.cfg.LogPlugins = plugins
	w.reopen()
	s := spec("echo one; echo two")
	s.Log = container.Log{Driver: "collect", Options: map[string]string{"own": "option"}}
	id := w.run("", s)
	w.wait(id)
	for _, want := range []string{"one", "two"} {
		select {
		case got := <-lines:
			if got != want {
				t.Errorf("%q, want %q", got, want)
			}
		case <-time.After(time.Minute):
			t.Fatal("the plugin got nothing")
		}
	}
	if got := w.logged(id); got != "one\ntwo\n" {
		t.Errorf("%q", got)
	}
	s.Log.Driver = "nobody"
	if _, err := w.Create(t.Context(), "", s); err == nil || err.Error() != `error looking up logging plugin nobody: plugin "nobody" not found` {
		t.Error(err)
	}
}
