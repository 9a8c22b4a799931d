package progress

import (
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

type screen struct {
	mu       sync.Mutex
	b        strings.Builder
	terminal bool
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) IsTerminal() bool { return s.terminal }

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestLine(t *testing.T) {
	out := &screen{terminal: true}
	l := start(out, "verifying", time.Millisecond)
	shown := regexp.MustCompile(`verifying … \d+s`)
	for deadline := time.Now().Add(time.Minute); !shown.MatchString(out.text()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is shown")
		}
	}
	l.Say("repairing")
	for deadline := time.Now().Add(time.Minute); !strings.Contains(out.text(), "repairing"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the text stays")
		}
	}
	l.Stop()
	l.Stop()
	l.Say("late")
	if got := out.text(); !strings.HasSuffix(got, "\r\x1b[K") || strings.Contains(got, "late") {
		t.Errorf("the screen has %q", got)
	}
	quiet := &screen{}
	l = start(quiet, "x", time.Millisecond)
	time.Sleep(5 * time.Millisecond)
	l.Stop()
	if quiet.text() != "" {
		t.Errorf("a file has %q", quiet.text())
	}
}
