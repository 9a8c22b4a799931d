package access

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"berth/base/fault"
)

// Entry is one line of the audit log: a request, who made it, and what became of it.
type Entry struct {
	Time   time.Time `json:"time"`
	Socket string    `json:"socket,omitempty"` // the access socket's name; "" one of the engine's own
	Where  string    `json:"where,omitempty"`  // the address that was connected to, where Socket is ""

	UID    *uint32 `json:"uid,omitempty"` // of the process that connected (SO_PEERCRED)
	GID    *uint32 `json:"gid,omitempty"`
	PID    int32   `json:"pid,omitempty"`
	User   string  `json:"user,omitempty"`   // the subject of a client's certificate
	Remote string  `json:"remote,omitempty"` // its address on TCP

	Method string `json:"method"`
	Path   string `json:"path"`             // without the version
	Verb   Verb   `json:"verb,omitempty"`   // of the route; none where there is no such route
	Object string `json:"object,omitempty"` // what the path names, or what was made, as far as it is known
	Begun  bool   `json:"begun,omitempty"`  // a request that goes on: another line comes at its end

	Decision string `json:"decision"`           // "allow" or "deny"
	Status   int    `json:"status,omitempty"`   // of the answer
	Reason   string `json:"reason,omitempty"`   // of a refusal or failure
	TookMS   int64  `json:"took_ms"`            // until the answer's end
	Agent    string `json:"agent,omitempty"`    // what the client calls itself
	API      string `json:"api,omitempty"`      // the version that it asked for
	Original string `json:"original,omitempty"` // the path as sent, where it was refused for it
}

// Decisions.
const (
	Allowed = "allow"
	Denied  = "deny"
)

// Log is a bounded file of entries: PATH, and PATH.1 to PATH.N, the newest first. A full disk loses entries and nothing else.
type Log struct {
	path  string
	size  int64 // bytes at which a file is put aside
	files int   // kept in all

	mu      sync.Mutex // held over a write, which is short: nobody else reads these files for writing
	f       *os.File
	closed  bool
	at      int64
	dropped int // entries that could not be written since the last that was
}

// Bounds of an entry's texts: what a stranger sends must not fill the log.
const maxText = 512

// OpenLog opens a log. size is in bytes; files counts all, the current one included.
func OpenLog(path string, size int64, files int) (*Log, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the audit log")
	}
	l := &Log{path: path, size: max(size, 4096), files: max(files, 1)}
	if err := l.open(); err != nil {
		return nil, fault.Wrap(fault.Internal, err, "the audit log")
	}
	return l, nil
}

func (l *Log) open() error {
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return err
	}
	l.f, l.at = f, info.Size()
	last := []byte{'\n'}
	if l.at > 0 {
		_, _ = f.ReadAt(last, l.at-1)
	}
	if last[0] != '\n' { // an engine that was cut off wrote half a line: it must not take the next one with it
		n, _ := f.Write([]byte{'\n'})
		l.at += int64(n)
	}
	return nil
}

// Write adds an entry.
func (l *Log) Write(e Entry) {
	for _, text := range []*string{&e.Method, &e.Path, &e.Object, &e.Reason, &e.Agent, &e.User, &e.API, &e.Original} {
		if len(*text) > maxText {
			*text = (*text)[:maxText] + "…"
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dropped > 0 {
		e.Reason += fmt.Sprintf(" (%d entries before this one could not be written)", l.dropped)
	}
	line, err := json.Marshal(e)
	if err == nil {
		err = l.put(append(line, '\n'))
	}
	if err != nil {
		l.dropped++
		return
	}
	l.dropped = 0
}

// put writes one line; mu is held.
func (l *Log) put(line []byte) error {
	if l.closed {
		return os.ErrClosed
	}
	if l.f == nil || l.at > 0 && l.at+int64(len(line)) > l.size {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(line)
	l.at += int64(n)
	if err != nil && n > 0 { // half a line: the next begins a new one
		_, _ = l.f.Write([]byte{'\n'})
		l.at++
	}
	return err
}

func (l *Log) rotate() error {
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
	for i := l.files - 1; i > 0; i-- {
		if err := os.Rename(l.name(i-1), l.name(i)); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if l.files == 1 {
		if err := os.Remove(l.path); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return l.open()
}

func (l *Log) name(i int) string {
	if i == 0 {
		return l.path
	}
	return fmt.Sprintf("%s.%d", l.path, i)
}

// Tail gives the last n entries, oldest first, of one socket or (socket "") of all. Lines that are no entries are passed over.
func (l *Log) Tail(socket string, n int) ([]Entry, error) {
	var out []Entry
	for i := l.files - 1; i >= 0; i-- {
		f, err := os.Open(l.name(i))
		if os.IsNotExist(err) {
			continue
		}
		if err != nil {
			return nil, fault.Wrap(fault.Internal, err, "the audit log")
		}
		scan := bufio.NewScanner(f)
		scan.Buffer(nil, 64<<10)
		for scan.Scan() {
			var e Entry
			if json.Unmarshal(bytes.TrimSpace(scan.Bytes()), &e) != nil || socket != "" && e.Socket != socket {
				continue
			}
			if out = append(out, e); len(out) >= 2*n && n > 0 {
				out = append(out[:0:0], out[len(out)-n:]...)
			}
		}
		f.Close()
	}
	if n > 0 && len(out) > n {
		out = out[len(out)-n:]
	}
	return out, nil
}

// Close closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}
