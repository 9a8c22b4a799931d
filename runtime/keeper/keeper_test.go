package keeper

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/wire"
	"berth/runtime/launch"

	"golang.org/x/sys/unix"
)

func TestExitCodes(t *testing.T) {
	r := newRig(t)
	for i, c := range []struct {
		script       string
		code, signal int
	}{
		{"exit 0", 0, 0}, {"exit 3", 3, 0}, {"kill -9 $$", 137, 9}, {"kill -TERM $$", 143, 15},
	} {
		id := fmt.Sprint("c", i)
		st := r.launch(Launch{ID: id, Program: sh(c.script)})
		if st.PID <= 1 || time.Since(st.StartTime) > time.Minute {
			t.Errorf("%q started as %+v", c.script, st)
		}
		x := r.exitOf(id, "")
		if x.Code != c.code || x.Signal != c.signal || x.PID != st.PID || x.Unknown {
			t.Errorf("%q ended with %+v", c.script, x)
		}
	}
	if all, err := r.c.List(r.ctx()); err != nil || len(all) != 0 {
		t.Errorf("after the acknowledgements the keeper holds %+v, %v", all, err)
	}
}

func TestFailedStart(t *testing.T) {
	r := newRig(t)
	_, err := r.c.Launch(r.ctx(), Launch{ID: "x", Program: program("/no/such/thing"), Log: r.logCfg("x"), Stdin: true})
	var le *launch.Error
	if !errors.As(err, &le) || !le.Exec || !errors.Is(err, unix.ENOENT) || le.Arg0 != "/no/such/thing" {
		t.Fatalf("%#v", err)
	}
	r.launch(Launch{ID: "x", Program: sh("exit 1")}) // nothing is left of the first
	if _, err := r.c.Launch(r.ctx(), Launch{ID: "x", Program: sh("exit 1")}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a second launch: %v", err)
	}
	for _, l := range []Launch{
		{Program: sh("")}, {ID: "y", Log: LogConfig{Format: "syslog"}}, {ID: "y", Log: LogConfig{Format: "json-file", Path: "rel"}},
	} {
		if _, err := r.c.Launch(r.ctx(), l); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}

func TestLargeProgram(t *testing.T) {
	r := newRig(t)
	big := strings.Repeat("y", 120<<10)
	st := r.launch(Launch{
		ID: "big", Program: program("/bin/sh", "-c", `echo ${#1} ${#2}`, "sh", big, big),
		Attach: []AttachRequest{{Stdout: true}},
	})
	if got := readAll(t, st.Attached[0]); got != "122880 122880\n" {
		t.Errorf("%q", got)
	}
}

func TestLog(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.Attrs = []Attr{{Key: "tag", Value: "x"}, {Key: "env", Value: "<y>"}}
	r.launch(Launch{ID: "a", Log: log, Program: sh(`echo one; echo two >&2; printf 'tab\there "q" \377'; sleep 0.05; printf ' end\n\nlast'`)})
	r.exitOf("a", "")
	all := records(t, log.Path)
	var got []string
	for _, x := range all {
		got = append(got, x.Stream+":"+x.Log)
		if x.Attrs["tag"] != "x" || x.Attrs["env"] != "<y>" || time.Since(x.Time) > time.Minute {
			t.Errorf("%+v", x)
		}
	}
	stdout := []string{"stdout:one\n", "stdout:tab\there \"q\" \ufffd end\n", "stdout:\n", "stdout:last"}
	var rest []string
	for _, g := range got {
		if g != "stderr:two\n" {
			rest = append(rest, g)
		}
	}
	if fmt.Sprint(rest) != fmt.Sprint(stdout) || len(got) != 5 {
		t.Errorf("got %q", got)
	}
	raw, err := os.ReadFile(log.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `{"log":"tab\u0009here \"q\" \ufffd end\n","stream":"stdout","attrs":{"env":"\u003cy\u003e","tag":"x"},"time":"`) {
		t.Errorf("not Docker's bytes: %s", raw)
	}
}

// TestLongLines compares the cutting of lines with Docker's rule: a buffer of 16 KiB that is written
// out when it is full and holds no newline.
func TestLongLines(t *testing.T) {
	r := newRig(t)
	var in bytes.Buffer
	for _, n := range []int{0, 1, 16383, 16384, 16385, 32767, 32768, 32769, 70000, 5, 16384, 0, 3 * 65536, 7} {
		in.Write(bytes.Repeat([]byte{'a' + byte(n%26)}, n))
		in.WriteByte('\n')
	}
	in.WriteString(strings.Repeat("z", 20000))
	file := r.root + "/in"
	if err := os.WriteFile(file, in.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, bs := range []string{"1000", "16384", "65536", "7777"} {
		log := r.logCfg("l" + bs)
		r.launch(Launch{ID: bs, Log: log, Program: program("/bin/dd", "if="+file, "bs="+bs, "status=none")})
		r.exitOf(bs, "")
		all := records(t, log.Path)
		if got := text(all, ""); got != in.String() {
			t.Fatalf("bs %s: %d bytes of %d in the log, or in another order", bs, len(got), in.Len())
		}
		if want := dockerPieces(in.Bytes()); len(want) != len(all) {
			t.Errorf("bs %s: %d records, Docker makes %d", bs, len(all), len(want))
		} else {
			for i := range want {
				if all[i].Log != want[i] {
					t.Errorf("bs %s: record %d has %d bytes, Docker's %d", bs, i, len(all[i].Log), len(want[i]))
				}
			}
		}
		// Pieces of one line carry one time.
		for i := 1; i < len(all); i++ {
			if !strings.HasSuffix(all[i-1].Log, "\n") && !all[i].Time.Equal(all[i-1].Time) {
				t.Errorf("bs %s: records %d and %d are one line of two times", bs, i-1, i)
			}
		}
	}
}

func dockerPieces(in []byte) (out []string) {
	for len(in) > 0 {
		n := min(len(in), 16384)
		if i := bytes.IndexByte(in[:n], '\n'); i >= 0 {
			n = i + 1
		}
		out = append(out, string(in[:n]))
		in = in[n:]
	}
	return out
}

func TestRotation(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("rot")
	log.MaxSize, log.MaxFiles = 20000, 3
	r.launch(Launch{ID: "rot", Log: log, Program: program(self(t), "child-count", "2000", "0")})
	r.exitOf("rot", "")
	var all []record
	for _, p := range []string{log.Path + ".2", log.Path + ".1", log.Path} {
		part := records(t, p)
		if st, _ := os.Stat(p); st.Size() > 20000+300 {
			t.Errorf("%s has %d bytes", p, st.Size())
		}
		all = append(all, part...)
	}
	if _, err := os.Stat(log.Path + ".3"); err == nil {
		t.Error("a fourth file")
	}
	// The last lines are all there, in order.
	first := 0
	fmt.Sscanf(all[0].Log, "line %d", &first)
	for i, x := range all {
		if want := fmt.Sprintf("line %d ", first+i); !strings.HasPrefix(x.Log, want) {
			t.Fatalf("record %d is %q, want %q", i, x.Log, want)
		}
	}
	if first+len(all) != 2000 {
		t.Errorf("the log ends at line %d", first+len(all))
	}
	// One file alone is emptied.
	one := r.logCfg("one")
	one.MaxSize = 20000
	r.launch(Launch{ID: "one", Log: one, Program: program(self(t), "child-count", "2000", "0")})
	r.exitOf("one", "")
	if all := records(t, one.Path); !strings.HasPrefix(all[len(all)-1].Log, "line 1999 ") {
		t.Error("the last line is missing")
	}
	if st, _ := os.Stat(one.Path); st.Size() > 20300 {
		t.Errorf("%d bytes", st.Size())
	}
}

// TestRotationFillsGaps: the files move up to the first free number and no further; compressed ones move
// with the rest; the oldest goes only when all numbers are taken.
func TestRotationFillsGaps(t *testing.T) {
	for _, c := range []struct{ before, after string }{
		{"", "1:now"},
		{"1:a", "1:now 2:a"},
		{"1:a 2.gz:b", "1:now 2:a 3.gz:b"},
		{"2:b 3:c", "1:now 2:b 3:c"}, // killed when it had moved 1 to 2
		{"1:a 3:c", "1:now 2:a 3:c"},
		{"1:a 2:b 3.gz:c", "1:now 2:a 3:b"},
		{"1:a 1.gz:a 2.gz:b", "1:now 2:a 3.gz:b"}, // killed when a compressed copy was in its place
		{"1.gz:a 2:b 2.gz:b", "1:now 2.gz:a 3:b"},
	} {
		r := newRig(t)
		log := r.logCfg("a")
		log.MaxFiles = 4
		r.launch(Launch{ID: "a", Log: log, Program: sh("echo now; read x"), Stdin: true})
		eventually(t, "it has written", func() bool { return text(records(t, log.Path), "") == "now\n" })
		for _, f := range strings.Fields(c.before) {
			name, content, _ := strings.Cut(f, ":")
			os.WriteFile(log.Path+"."+name, []byte(content), 0o600)
		}
		if err := r.c.RotateLog(r.ctx(), "a"); err != nil {
			t.Fatal(err)
		}
		var after []string
		for _, name := range []string{"1", "1.gz", "2", "2.gz", "3", "3.gz", "4", "4.gz"} {
			if b, err := os.ReadFile(log.Path + "." + name); err == nil {
				if bytes.Contains(b, []byte("now")) {
					b = []byte("now")
				}
				after = append(after, name+":"+string(b))
			}
		}
		if got := strings.Join(after, " "); got != c.after {
			t.Errorf("%q became %q, want %q", c.before, got, c.after)
		}
	}
}

func TestRotateAndClear(t *testing.T) {
	r := newRig(t)
	log := r.logCfg("a")
	log.MaxFiles = 2
	st := r.launch(Launch{ID: "a", Log: log, Stdin: true, Program: program("/bin/cat"), Attach: []AttachRequest{{Stdin: true, Stdout: true}}})
	conn := st.Attached[0]
	say := func(s string) {
		t.Helper()
		io.WriteString(conn, s)
		if _, err := io.ReadFull(conn, make([]byte, len(s))); err != nil {
			t.Fatal(err)
		}
	}
	say("one\n")
	if err := r.c.RotateLog(r.ctx(), "a"); err != nil {
		t.Fatal(err)
	}
	say("two\n")
	if a, b := text(records(t, log.Path+".1"), ""), text(records(t, log.Path), ""); a != "one\n" || b != "two\n" {
		t.Errorf("%q %q", a, b)
	}
	if err := r.c.ClearLog(r.ctx(), "a", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(log.Path + ".1"); err == nil {
		t.Error("the rotated file is still there")
	}
	// Somebody empties the file behind our back: no hole of zeros.
	say("three\n")
	if err := os.Truncate(log.Path, 0); err != nil {
		t.Fatal(err)
	}
	say("four\n")
	if got := text(records(t, log.Path), ""); got != "four\n" {
		t.Errorf("%q", got)
	}
	if err := r.c.ClearLog(r.ctx(), "b", ""); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

func TestAttachRaw(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{
		ID: "a", Stdin: true, StdinOnce: true, Program: sh("cat; echo done"),
		Attach: []AttachRequest{{Stdin: true, Stdout: true, Stderr: true}, {Stdout: true}},
	})
	big := strings.Repeat("0123456789abcdef", 1<<16)
	go func() {
		io.WriteString(st.Attached[0], big)
		st.Attached[0].CloseWrite()
	}()
	second := make(chan string)
	go func() { b, _ := io.ReadAll(st.Attached[1]); second <- string(b) }()
	if got := readAll(t, st.Attached[0]); got != big+"done\n" {
		t.Errorf("%d bytes, want %d", len(got), len(big)+5)
	}
	if got := <-second; got != big+"done\n" {
		t.Errorf("the second client got %d bytes", len(got))
	}
	if x := r.exitOf("a", ""); x.Code != 0 {
		t.Errorf("%+v", x)
	}
}

// deframe takes Docker's frames apart.
func deframe(t *testing.T, b []byte) (out [3]string) {
	t.Helper()
	var texts [3]strings.Builder
	for len(b) > 0 {
		if len(b) < 8 || b[0] < 1 || b[0] > 2 || b[1]|b[2]|b[3] != 0 {
			t.Fatalf("bad frame %x", b[:min(8, len(b))])
		}
		n := binary.BigEndian.Uint32(b[4:])
		texts[b[0]].Write(b[8 : 8+n])
		b = b[8+n:]
	}
	for i := range texts {
		out[i] = texts[i].String()
	}
	return out
}

func TestAttachFramed(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{
		ID: "a", Program: program(self(t), "child-count", "3000", "0", "both"), Log: r.logCfg("a"),
		Attach: []AttachRequest{{Stdout: true, Stderr: true, Framed: true}, {Stderr: true, Framed: true}},
	})
	second := make(chan []byte)
	go func() { b, _ := io.ReadAll(st.Attached[1]); second <- b }()
	got := deframe(t, []byte(readAll(t, st.Attached[0])))
	errs := deframe(t, <-second)
	r.exitOf("a", "")
	all := records(t, r.logPath("a"))
	if n := countLines(t, all, true); n != 3000 {
		t.Errorf("%d lines", n)
	}
	if got[1] != text(all, "stdout") || got[2] != text(all, "stderr") || errs[1] != "" || errs[2] != got[2] {
		t.Error("the streams differ from the log")
	}
}

func TestStdinOfSeveral(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "a", Stdin: true, Program: program("/bin/cat"), Log: r.logCfg("a")})
	for i := range 3 {
		c, err := r.c.Attach(r.ctx(), AttachRequest{ID: "a", Stdin: true, Stdout: true})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "client %d\n", i)
		b := make([]byte, 9)
		if _, err := io.ReadFull(c, b); err != nil || string(b) != fmt.Sprintf("client %d\n", i) {
			t.Fatalf("%q %v", b, err)
		}
		c.CloseWrite() // without StdinOnce the process does not notice
		if i == 1 {
			c.Close()
		}
	}
	all, _ := r.c.List(r.ctx())
	if len(all) != 1 || !all[0].StdinOpen || !all[0].Running {
		t.Fatalf("%+v", all)
	}
	if err := r.c.CloseStdin(r.ctx(), "a", ""); err != nil {
		t.Fatal(err)
	}
	r.exitOf("a", "")
	if got := text(records(t, r.logPath("a")), ""); got != "client 0\nclient 1\nclient 2\n" {
		t.Errorf("%q", got)
	}
}

// TestSlowReader: a client that does not read stops the process in the end, and lets it go on; one
// that hangs up lets it go on too; other processes do not notice.
func TestSlowReader(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{ID: "a", Program: program(self(t), "child-count", "200000", "0"), Log: r.logCfg("a"),
		Attach: []AttachRequest{{Stdout: true}, {Stdout: true}}})
	st.Attached[1].Close()
	size := func() int64 { s, _ := os.Stat(r.logPath("a")); return s.Size() }
	last := int64(-1)
	eventually(t, "the process blocks", func() bool {
		now := size()
		same := now == last && now > 0
		last = now
		time.Sleep(100 * time.Millisecond)
		return same
	})
	if st, _ := r.c.List(r.ctx()); !st[0].Running {
		t.Fatal("it did not block")
	}
	r.launch(Launch{ID: "other", Program: sh("exit 5")})
	if x := r.exitOf("other", ""); x.Code != 5 {
		t.Errorf("%+v", x)
	}
	buf := make([]byte, 1<<20)
	if _, err := io.ReadFull(st.Attached[0], buf); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the process goes on", func() bool { return size() > last })
	st.Attached[0].Close()
	r.exitOf("a", "")
	if n := countLines(t, records(t, r.logPath("a")), false); n != 200000 {
		t.Errorf("%d lines", n)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{
		ID: "t", Terminal: true, Rows: 11, Cols: 22, Stdin: true, Log: r.logCfg("t"),
		Program: sh("stty size; read x; stty size; echo got $x; read y; echo bye $y"),
		Attach:  []AttachRequest{{Stdin: true, Stdout: true, Stderr: true, DetachKeys: []byte{16, 17}}},
	})
	conn := st.Attached[0]
	until := func(c net.Conn, want string) string {
		t.Helper()
		var got []byte
		b := make([]byte, 1)
		for !strings.Contains(string(got), want) {
			c.SetReadDeadline(time.Now().Add(patience(10 * time.Second)))
			if _, err := c.Read(b); err != nil {
				t.Fatalf("%v after %q, waiting for %q", err, got, want)
			}
			got = append(got, b[0])
		}
		return string(got)
	}
	until(conn, "11 22")
	if err := r.c.Resize(r.ctx(), "t", "", 33, 44); err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "ab\x10c\n") // half of the detach keys is input
	until(conn, "33 44")
	until(conn, "got ab\x10c")
	io.WriteString(conn, "x\x10\x11never")
	if got := readAll(t, conn); strings.Contains(got, "never") {
		t.Errorf("after the detach keys: %q", got)
	}
	conn2, err := r.c.Attach(r.ctx(), AttachRequest{ID: "t", Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn2, "y\n")
	until(conn2, "bye xy")
	readAll(t, conn2)
	if x := r.exitOf("t", ""); x.Code != 0 {
		t.Errorf("%+v", x)
	}
	if got := text(records(t, r.logPath("t")), ""); !strings.Contains(got, "bye xy\r\n") {
		t.Errorf("log %q", got)
	}
	if err := r.c.Resize(r.ctx(), "t", "", 1, 1); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestOwnSocket attaches a client's own connection, here over TCP: what docker attach over the
// engine's API becomes.
func TestOwnSocket(t *testing.T) {
	r := newRig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	served, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f, err := served.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
	r.launch(Launch{ID: "a", Stdin: true, StdinOnce: true, Program: program("/usr/bin/tr", "a-z", "A-Z"),
		Attach: []AttachRequest{{Stdin: true, Stdout: true, Framed: true, Sock: f}}})
	f.Close()
	io.WriteString(client, "shout")
	client.(*net.TCPConn).CloseWrite()
	if got := deframe(t, []byte(readAll(t, client))); got[1] != "SHOUT" {
		t.Errorf("%q", got)
	}
	r.exitOf("a", "")
}

func TestSignalAndGate(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "g", Gate: true, Program: program("gate", "/bin/sleep", "100")})
	all, _ := r.c.List(r.ctx())
	if len(all) != 1 || !all[0].Gated {
		t.Fatalf("%+v", all)
	}
	if err := r.c.Release(r.ctx(), "g", ""); err != nil {
		t.Fatal(err)
	}
	if err := r.c.Release(r.ctx(), "g", ""); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := r.c.Signal(r.ctx(), "g", "", 999); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
	if err := r.c.Forget(r.ctx(), "g"); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := r.c.Shutdown(r.ctx()); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	if err := r.c.Signal(r.ctx(), "g", "", 15); err != nil {
		t.Fatal(err)
	}
	if x := r.exit(); x.Signal != 15 {
		t.Errorf("%+v", x)
	}
	if err := r.c.Signal(r.ctx(), "g", "", 15); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	if err := r.c.Forget(r.ctx(), "g"); err != nil {
		t.Error(err)
	}
	if all, _ := r.c.List(r.ctx()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

func TestPark(t *testing.T) {
	r := newRig(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.c.Park(r.ctx(), "port", f); err != nil {
		t.Fatal(err)
	}
	f.Close()
	ln.Close()
	names, err := r.c.Parked(r.ctx())
	if err != nil || fmt.Sprint(names) != "[port]" {
		t.Fatal(names, err)
	}
	got, err := r.c.Take(r.ctx(), "port")
	if err != nil {
		t.Fatal(err)
	}
	l2, err := net.FileListener(got)
	got.Close()
	if err != nil || l2.Addr().String() != ln.Addr().String() {
		t.Fatal(l2, err)
	}
	l2.Close()
	if err := r.c.Unpark(r.ctx(), "port"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.c.Take(r.ctx(), "port"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
}

// TestHeldOutput: a background process that keeps the output open delays the exit by no more than
// the grace, and nothing that was written before is lost.
func TestHeldOutput(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "a", Log: r.logCfg("a"), Program: sh("echo before; sleep 30 & exit 4")})
	began := time.Now()
	x := r.exitOf("a", "")
	if d := time.Since(began); x.Code != 4 || d > patience(10*time.Second) {
		t.Errorf("%+v after %v", x, d)
	}
	if got := text(records(t, r.logPath("a")), ""); got != "before\n" {
		t.Errorf("%q", got)
	}
}

// TestOrphans: what a process leaves behind in the host's pid namespace comes to the keeper and is
// reaped.
func TestOrphans(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "a", NoOutput: true, Program: sh("for i in 1 2 3; do (sleep 0.2 &) ; done")})
	r.exitOf("a", "")
	eventually(t, "orphans are reaped", func() bool {
		info, err := r.c.Info(r.ctx())
		if err != nil {
			t.Fatal(err)
		}
		return info.Orphans >= 3
	})
}

// TestFullDisk: a log that cannot be written blocks the process for some seconds at most; what is
// dropped is counted; when there is room again the log goes on with whole records.
func TestFullDisk(t *testing.T) {
	r := newRig(t)
	dir := r.root + "/small"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("berth-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("needs mount (CAP_SYS_ADMIN): %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	log := LogConfig{Format: "json-file", Path: dir + "/log"}
	st := r.launch(Launch{ID: "a", Log: log, Stdin: true, Program: program("/bin/cat"), Attach: []AttachRequest{{Stdin: true, Stdout: true}}})
	conn := st.Attached[0]
	line := strings.Repeat("f", 99) + "\n"
	echo := func(n int) {
		t.Helper()
		go io.WriteString(conn, strings.Repeat(line, n))
		conn.SetReadDeadline(time.Now().Add(patience(15 * time.Second)))
		if _, err := io.ReadFull(conn, make([]byte, n*len(line))); err != nil {
			t.Fatal(err)
		}
	}
	echo(5000) // far more than fits: blocks for a while, then goes on
	all, _ := r.c.List(r.ctx())
	if all[0].LogFaults == 0 || all[0].LogLost == 0 {
		t.Errorf("not counted: %+v", all[0])
	}
	before := len(records(t, log.Path))
	if err := r.c.ClearLog(r.ctx(), "a", ""); err != nil {
		t.Fatal(err)
	}
	echo(10)
	got := records(t, log.Path)
	if len(got) != 10 || before == 0 {
		t.Errorf("%d records before, %d of 10 after there is room", before, len(got))
	}
	for _, x := range got {
		if x.Log != line {
			t.Errorf("a torn line %q", x.Log)
		}
	}
	// Full for a moment only: nothing is lost.
	if err := os.WriteFile(dir+"/ballast", make([]byte, 48<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	lost := all[0].LogLost
	if all, _ = r.c.List(r.ctx()); true {
		lost = all[0].LogLost
	}
	time.AfterFunc(time.Second, func() { os.Remove(dir + "/ballast") })
	echo(300)
	conn.CloseWrite()
	r.c.CloseStdin(r.ctx(), "a", "")
	eventually(t, "the rest is written", func() bool { // a record that finds no room is there in part until it is cut off again
		b, err := os.ReadFile(log.Path)
		return err == nil && bytes.Count(b, []byte("\n")) == 310 && bytes.HasSuffix(b, []byte("\n"))
	})
	if n := len(records(t, log.Path)); n != 310 {
		t.Errorf("%d records", n)
	}
	if all, _ := r.c.List(r.ctx()); all[0].LogLost != lost {
		t.Errorf("%d bytes lost", all[0].LogLost-lost)
	}
	// So is the last words' end, of a process that is gone when there is room.
	os.Remove(log.Path)
	for i, words := range []string{`printf 'no newline'`, `printf 'one\ntwo'`} {
		last := LogConfig{Format: "json-file", Path: fmt.Sprint(dir, "/last", i)}
		f, err := os.Create(dir + "/ballast")
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(f, io.LimitReader(zeros{}, 1<<20)) // until it is full
		f.Close()
		id := fmt.Sprint("last", i)
		r.launch(Launch{ID: id, Log: last, Program: sh(words)})
		time.Sleep(300 * time.Millisecond)
		os.Remove(dir + "/ballast")
		r.exitOf(id, "")
		if got := text(records(t, last.Path), ""); got != []string{"no newline", "one\ntwo"}[i] {
			t.Errorf("%q", got)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestTermRefused(t *testing.T) {
	r := newRig(t)
	st := r.launch(Launch{ID: "a", Program: sh("sleep 100")})
	pid := r.keeperPID()
	syscall.Kill(pid, syscall.SIGTERM)
	syscall.Kill(pid, syscall.SIGHUP)
	time.Sleep(100 * time.Millisecond)
	if r.keeperPID() != pid || syscall.Kill(st.PID, 0) != nil {
		t.Error("it ended")
	}
}

func TestSecondKeeper(t *testing.T) {
	r := newRig(t)
	pid := r.keeperPID()
	if err := Start(r.ctx(), r.cfg); err != nil {
		t.Fatal(err)
	}
	if serves, err := r.cfg.spawn(r.ctx(), []string{r.cfg.Binary, "--exec-root", r.root}); serves || err != nil {
		t.Fatal(serves, err) // it must find the lock held
	}
	if r.keeperPID() != pid {
		t.Error("another keeper")
	}
	c, err := Dial(r.ctx(), r.root)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if _, err := Dial(r.ctx(), r.root+"/nowhere"); !fault.Is(err, fault.Unavailable) {
		t.Error(err)
	}
}

// TestStdinOnce: stdin ends with the first client's, but not with the death of the engine, which has
// the other end of the socket.
func TestStdinOnce(t *testing.T) {
	r := newRig(t)
	for _, id := range []string{"client", "engine"} {
		r.launch(Launch{ID: id, Stdin: true, StdinOnce: true, Program: program("/bin/cat")})
	}
	engine, err := Open(r.ctx(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	dying, err := engine.Attach(r.ctx(), AttachRequest{ID: "engine", Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	dying.Close()
	engine.Close()
	leaving, err := r.c.Attach(r.ctx(), AttachRequest{ID: "client", Stdin: true})
	if err != nil {
		t.Fatal(err)
	}
	leaving.Close()
	if x := r.exitOf("client", ""); x.Code != 0 {
		t.Errorf("%+v", x)
	}
	time.Sleep(300 * time.Millisecond)
	all, err := r.c.List(r.ctx())
	if err != nil || len(all) != 1 || !all[0].StdinOpen {
		t.Fatalf("after the engine's death: %+v %v", all, err)
	}
	conn, err := r.c.Attach(r.ctx(), AttachRequest{ID: "engine", Stdin: true, Stdout: true})
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "still here")
	conn.CloseWrite()
	if got := readAll(t, conn); got != "still here" {
		t.Errorf("%q", got)
	}
}

// TestBadPeers: packets of every sort of nonsense cost their sender its connection at most.
func TestBadPeers(t *testing.T) {
	r := newRig(t)
	r.launch(Launch{ID: "a", Program: sh("sleep 100"), Log: r.logCfg("a")})
	_, rnd := soak(t, 1)
	hello := wire.Packet(wire.Head{Kind: wire.HelloKind, Seq: 1}, &wire.Hello{MinVersion: 1, MaxVersion: 9, Insure: true})
	for i := range 300 {
		u, err := dialPacket(r.ctx(), r.root)
		if err != nil {
			t.Fatal(err)
		}
		if i%3 != 0 {
			u.Write(hello)
		}
		for range 5 {
			b := make([]byte, rnd.IntN(100))
			for j := range b {
				b[j] = byte(rnd.Uint32())
			}
			kind := wire.Kind(rnd.IntN(30))
			if kind == wire.ShutdownKind || kind == wire.SignalKind {
				continue
			}
			var oob []byte
			if rnd.IntN(3) == 0 {
				oob = unix.UnixRights(0, 1)
			}
			u.WriteMsgUnix(append(wire.AppendHead(nil, wire.Head{Kind: kind, Flag: wire.Flag(rnd.IntN(16)), Seq: 7}), b...), oob, nil)
			if rnd.IntN(8) == 0 {
				u.Write(b)
			}
		}
		u.Close()
	}
	var m wire.Error
	u, err := dialPacket(r.ctx(), r.root)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write(wire.Packet(wire.Head{Kind: wire.HelloKind, Seq: 1}, &wire.Hello{MinVersion: 90, MaxVersion: 99}))
	b := make([]byte, 1000)
	n, err := u.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	h, body, _ := wire.ParseHead(b[:n])
	if h.Flag&wire.Failed == 0 || wire.Unmarshal(body, &m) != nil || m.Kind != fault.Conflict {
		t.Errorf("a client of the far future: %+v %+v", h, m)
	}
	fds := func() int {
		all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", r.keeperPID()))
		return len(all)
	}
	eventually(t, "no descriptor stays behind", func() bool { return fds() < 40 })
	all, err := r.c.List(r.ctx())
	if err != nil || len(all) != 1 || !all[0].Running {
		t.Errorf("%+v %v", all, err)
	}
}

// TestDescriptors: a thousand launches, attachments and exits leave no descriptor open, here or in
// the keeper.
func TestDescriptors(t *testing.T) {
	r := newRig(t)
	count := func(pid string) int {
		all, err := os.ReadDir("/proc/" + pid + "/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	keeper := fmt.Sprint(r.keeperPID())
	once := func(i int) {
		id := fmt.Sprint("c", i)
		l := Launch{ID: id, Program: sh("echo x"), Log: r.logCfg("d"), Attach: []AttachRequest{{Stdout: true}}}
		switch i % 4 {
		case 1:
			l.Terminal, l.Stdin = true, true
		case 2:
			l.Stdin = true
		case 3:
			l.Program, l.Gate = program("gate", "/bin/echo", "x"), true
		}
		st := r.launch(l)
		if l.Gate {
			if err := r.c.Release(r.ctx(), id, ""); err != nil {
				t.Fatal(err)
			}
		}
		io.Copy(io.Discard, st.Attached[0])
		st.Attached[0].Close()
		r.exitOf(id, "")
	}
	for i := range 20 {
		once(i)
	}
	mine, its := count("self"), count(keeper)
	for i := range 200 {
		once(i)
	}
	eventually(t, "descriptors are closed", func() bool { return count("self") <= mine+2 && count(keeper) <= its+2 })
}

func TestSystemdRun(t *testing.T) {
	cfg := &StartConfig{ExecRoot: "/run/berth", OOMScoreAdj: -999}
	got := strings.Join(systemdRunArgs(cfg, []string{"/usr/bin/berth-keeper", "--exec-root", "/run/berth"}), " ")
	for _, want := range []string{"--unit=berth-keeper-run-berth ", "KillMode=process", "OOMScoreAdjust=-999", " -- /usr/bin/berth-keeper --exec-root /run/berth"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
}

// TestShutdownIsFinal: the client that asked for it does not start another keeper when its connection
// breaks.
func TestShutdownIsFinal(t *testing.T) {
	r := newRig(t)
	if err := r.c.Shutdown(r.ctx()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.c.Done():
	case <-time.After(patience(10 * time.Second)):
		t.Fatal("the client goes on")
	}
	if c, err := Dial(r.ctx(), r.root); err == nil {
		c.Close()
		t.Error("a keeper answers")
	}
}
