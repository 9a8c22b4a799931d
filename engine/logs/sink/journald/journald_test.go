package journald

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"berth/engine/logs/sink"
	"berth/runtime/keeper/localfile"
)

// journal is a socket that reads entries as journald does.
type journal struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func listen(t *testing.T) *journal {
	t.Helper()
	j := &journal{t: t, path: filepath.Join(t.TempDir(), "socket")}
	var err error
	if j.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: j.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.conn.Close() })
	return j
}

// entry reads one entry: of a datagram, or of a memfd beside it.
func (j *journal) entry() map[string]string {
	j.t.Helper()
	b, oob := make([]byte, 512<<10), make([]byte, 64)
	j.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, oobn, _, _, err := j.conn.ReadMsgUnix(b, oob)
	if err != nil {
		j.t.Fatal(err)
	}
	b = b[:n]
	if n == 0 && oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			j.t.Fatal(err)
		}
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			j.t.Fatal(err)
		}
		f := os.NewFile(uintptr(fds[0]), "memfd")
		defer f.Close()
		if seals, err := unix.FcntlInt(f.Fd(), unix.F_GET_SEALS, 0); err != nil || seals&unix.F_SEAL_WRITE == 0 {
			j.t.Errorf("seals %x, %v", seals, err)
		}
		st, _ := f.Stat()
		if b, err = io.ReadAll(io.NewSectionReader(f, 0, st.Size())); err != nil {
			j.t.Fatal(err)
		}
	}
	m := map[string]string{}
	for len(b) > 0 {
		line, rest, ok := strings.Cut(string(b), "\n")
		if !ok {
			j.t.Fatalf("a torn field %q", b)
		}
		if k, v, ok := strings.Cut(line, "="); ok {
			m[k], b = v, []byte(rest)
			continue
		}
		size := binary.LittleEndian.Uint64([]byte(rest))
		m[line], b = rest[8:8+size], []byte(rest[9+size:])
	}
	return m
}

func info() *sink.Info {
	return &sink.Info{
		ContainerID: strings.Repeat("0123456789abcdef", 4), ContainerName: "/web", ContainerImageName: "nginx", ContainerLabels: map[string]string{"com.example.x": "y"},
		Config: map[string]string{"labels": "com.example.x"},
	}
}

func TestEntries(t *testing.T) {
	j := listen(t)
	s, err := New(info(), j.path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Probe(context.Background()); err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	big := strings.Repeat("x", 300<<10)
	records := []sink.Record{
		{Time: at, Line: []byte("one"), Number: 1},
		{Time: at, Line: []byte("a\rb\nc"), Stderr: true, Number: 2},
		{Time: at, Line: []byte(big), Number: 3, Part: localfile.Partial{ID: "p", Ordinal: 2}},
		{Time: at, Number: 4, Part: localfile.Partial{ID: "p", Ordinal: 3, Last: true}},
	}
	done := make(chan error, 1)
	count := 0
	go func() { done <- s.Send(context.Background(), records, func(n int) { count = n }) }()
	for i, want := range []string{
		"CONTAINER_LOG_ORDINAL=1 MESSAGE=one PRIORITY=6", "CONTAINER_LOG_ORDINAL=2 MESSAGE=a\rb\nc PRIORITY=3",
		"CONTAINER_LOG_ORDINAL=3 CONTAINER_PARTIAL_ID=p CONTAINER_PARTIAL_LAST=false CONTAINER_PARTIAL_MESSAGE=true CONTAINER_PARTIAL_ORDINAL=2 MESSAGE=" + big + " PRIORITY=6",
		"CONTAINER_LOG_ORDINAL=4 CONTAINER_PARTIAL_ID=p CONTAINER_PARTIAL_LAST=true CONTAINER_PARTIAL_ORDINAL=3 MESSAGE= PRIORITY=6",
	} {
		m := j.entry()
		for k, v := range map[string]string{
			"CONTAINER_ID": "0123456789ab", "CONTAINER_ID_FULL": info().ContainerID, "CONTAINER_NAME": "web", "CONTAINER_TAG": "0123456789ab", "IMAGE_NAME": "nginx",
			"SYSLOG_IDENTIFIER": "0123456789ab", "SYSLOG_TIMESTAMP": "2026-01-02T03:04:05.000000006Z", "COM_EXAMPLE_X": "y", "CONTAINER_LOG_EPOCH": info().ContainerID,
		} {
			if m[k] != v {
				t.Errorf("entry %d: %s is %q", i, k, m[k])
			}
			delete(m, k)
		}
		var rest []string
		for _, k := range slices.Sorted(maps.Keys(m)) {
			rest = append(rest, k+"="+m[k])
		}
		if got := strings.Join(rest, " "); got != want {
			t.Errorf("entry %d: %.200q, want %.200q", i, got, want)
		}
	}
	if err := <-done; err != nil || count != 4 {
		t.Error(err, count)
	}
}

func TestNoJournal(t *testing.T) {
	s, err := New(info(), filepath.Join(t.TempDir(), "none"))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Probe(context.Background()); fmt.Sprint(err) != "journald is not enabled on this host" {
		t.Error(err)
	}
}

func TestFieldName(t *testing.T) {
	for in, want := range map[string]string{"a": "A", "com.example/x-y": "COM_EXAMPLE_X_Y", "__a1": "A1", "é": "", "1x": "1X"} {
		if got := fieldName(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
