package access

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"berth/base/fault"
)

// keeper of sockets in a short directory (unix(7)), which counts who is served.
func open(t *testing.T, dir string, fixed ...Policy) (*Sockets, *atomic.Int32) {
	t.Helper()
	var serving atomic.Int32
	s, err := Open(Config{Dir: filepath.Join(dir, "data"), Run: filepath.Join(dir, "run"), Fixed: fixed, Serve: func(l net.Listener, p *Policy) func() {
		serving.Add(1)
		return func() { serving.Add(-1); l.Close() }
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, &serving
}

func TestSocketsComeBack(t *testing.T) {
	dir := t.TempDir()
	s, serving := open(t, dir, Policy{Name: "fixed", ReadOnly: true})
	made, err := s.Create(Policy{Name: "ci", Verbs: []Verb{Read}, Project: "shop", Mode: "0640"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(made.Path); err != nil || info.Mode().Perm() != 0o640 || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := s.Create(Policy{Name: "ci", ReadOnly: true}); !fault.Is(err, fault.Conflict) {
		t.Errorf("made twice: %v", err)
	}
	if _, err := s.Create(Policy{Name: "late", ReadOnly: true, Expires: time.Now().Add(-time.Second)}); !fault.Is(err, fault.Invalid) {
		t.Errorf("made though it is over: %v", err)
	}
	if err := s.Remove("fixed"); !fault.Is(err, fault.Conflict) {
		t.Errorf("what the configuration says was removed: %v", err)
	}
	s.Close()
	if serving.Load() != 0 {
		t.Errorf("%d are served after the end", serving.Load())
	}
	if _, err := os.Lstat(made.Path); !os.IsNotExist(err) {
		t.Errorf("the socket stays: %v", err)
	}
	// A new engine has it again; what cannot be read is passed over.
	os.WriteFile(filepath.Join(dir, "data", "bad.json"), []byte("{"), 0o600)
	os.WriteFile(filepath.Join(dir, "data", "evil.json"), []byte(`{"version":1,"name":"../x","readOnly":true}`), 0o600)
	os.WriteFile(filepath.Join(dir, "data", "newer.json"), []byte(`{"version":2,"name":"newer","readOnly":true}`), 0o600)
	os.WriteFile(filepath.Join(dir, "data", "strange.json"), []byte(`{"version":1,"name":"strange","verbs":["read"],"onlyOnMondays":true}`), 0o600)
	s, _ = open(t, dir)
	got, err := s.Get("ci")
	if err != nil || got.Project != "shop" || got.Path != made.Path || len(s.List()) != 1 {
		t.Fatalf("%+v, %v, %d sockets", got, err, len(s.List()))
	}
	if err := s.Remove("ci"); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("ci"); !fault.Is(err, fault.NotFound) {
		t.Error(err)
	}
	s.Close()
	if s, _ = open(t, dir); len(s.List()) != 0 {
		t.Error("a removed socket came back")
	}
}

func TestSocketExpires(t *testing.T) {
	dir := t.TempDir()
	s, serving := open(t, dir)
	made, err := s.Create(Policy{Name: "short", ReadOnly: true, Expires: time.Now().Add(100 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); serving.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is still served")
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "data", "*"))
	if _, err := os.Lstat(made.Path); !os.IsNotExist(err) || len(left) > 0 {
		t.Errorf("left: %v, %v", err, left)
	}
	// One whose time passed while there was no engine does not come back.
	if _, err := s.Create(Policy{Name: "later", ReadOnly: true, Expires: time.Now().Add(200 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	time.Sleep(250 * time.Millisecond)
	if s, _ := open(t, dir); len(s.List()) != 0 {
		t.Error("it came back")
	}
}

func TestLogIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit", "audit.log")
	l, err := OpenLog(file, 4096, 3)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		l.Write(Entry{Time: time.Unix(int64(i), 0), Socket: []string{"a", "b"}[i%2], Method: "GET", Path: "/" + strings.Repeat("x", 2000), Decision: Allowed, Status: i})
	}
	files, _ := filepath.Glob(file + "*")
	var sum int64
	for _, f := range files {
		info, _ := os.Stat(f)
		sum += info.Size()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", f, info.Mode())
		}
	}
	if len(files) != 3 || sum > 3*4096 {
		t.Errorf("%d files of %d bytes", len(files), sum)
	}
	got, err := l.Tail("b", 2)
	if err != nil || len(got) != 2 || got[0].Status != 197 || got[1].Status != 199 || len(got[1].Path) > maxText+3 {
		t.Errorf("%+v, %v", got, err)
	}
	l.Close()
	// A torn line is passed over, and takes no other with it.
	f, _ := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	f.WriteString(`{"time":"2026`)
	f.Close()
	if l, err = OpenLog(file, 1<<20, 3); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	l.Write(Entry{Status: 1})
	l.Write(Entry{Status: 2})
	if got, err = l.Tail("", 2); err != nil || len(got) != 2 || got[0].Status != 1 || got[1].Status != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	// Nothing that a stranger sends makes a line that cannot be read again.
	long := strings.Repeat("\x01", 300<<10)
	l.Write(Entry{Method: long, Path: long, Object: long, Reason: long, Agent: long, API: long, Original: long, Status: 3})
	l.Write(Entry{Status: 4})
	if got, err = l.Tail("", 2); err != nil || len(got) != 2 || got[0].Status != 3 || got[1].Status != 4 {
		t.Errorf("%d entries, %v", len(got), err)
	}
}
