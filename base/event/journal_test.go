package event

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func openBus(t *testing.T, dir string, o JournalOptions) *Bus {
	t.Helper()
	j, err := OpenJournal(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	b := NewDurable(nil, j)
	t.Cleanup(b.Close)
	return b
}

// all gives what is kept from since on.
func all(t *testing.T, b *Bus, since time.Time) (list []Event, lost int) {
	t.Helper()
	s := b.Subscribe(t.Context(), since, time.Now().Add(-time.Nanosecond), nil)
	for {
		e, ok := s.Next(t.Context())
		if !ok {
			return list, s.Lost()
		}
		list = append(list, e)
	}
}

func actions(list []Event) (text []string) {
	for _, e := range list {
		text = append(text, e.Action)
	}
	return text
}

func TestJournalOutlivesTheBus(t *testing.T) {
	dir := t.TempDir()
	start := time.Now()
	var want []string
	for range 3 {
		b := openBus(t, dir, JournalOptions{})
		for range 2000 { // more than memory keeps
			want = append(want, fmt.Sprint(len(want)))
			b.Publish(Event{Type: "container", Action: want[len(want)-1], ID: "x", Attributes: map[string]string{"name": "ü \n<&>", "empty": ""}})
		}
		b.Close()
	}
	b := openBus(t, dir, JournalOptions{})
	b.Publish(Event{Action: "now"})
	want = append(want, "now")
	time.Sleep(time.Millisecond)
	got, lost := all(t, b, start)
	if !slices.Equal(actions(got), want) || lost != 0 {
		t.Fatalf("%d events, %d lost; want %d", len(got), lost, len(want))
	}
	for i, e := range got[1:] {
		if !e.Time.After(got[i].Time) {
			t.Fatalf("event %d is not after the one before", i+1)
		}
	}
	if e := got[17]; e.Type != "container" || e.ID != "x" || e.Attributes["name"] != "ü \n<&>" || len(e.Attributes) != 2 {
		t.Errorf("%+v", e)
	}
	// Resuming at any event gives it and all that follow.
	for range 15 {
		i := rand.IntN(len(got))
		rest, _ := all(t, b, got[i].Time)
		if !slices.Equal(actions(rest), want[i:]) {
			t.Fatalf("since event %d: %d events, want %d", i, len(rest), len(want)-i)
		}
	}
	// And until any event ends there.
	s := b.Subscribe(t.Context(), start, got[1234].Time, nil)
	if got := names(t.Context(), s, len(want)); !slices.Equal(got, want[:1235]) {
		t.Errorf("until event 1234: %d events", len(got))
	}
}

// A listener that reads slower than memory forgets loses nothing as long as the disk has it.
func TestSlowListenerReadsTheJournal(t *testing.T) {
	b := openBus(t, t.TempDir(), JournalOptions{})
	s := b.Subscribe(t.Context(), time.Time{}, time.Time{}, nil)
	defer s.Close()
	const n = 5000
	for i := range n {
		b.Publish(Event{Action: fmt.Sprint(i)})
	}
	b.journal.waitWritten(t)
	go func() {
		for i := range n {
			b.Publish(Event{Action: fmt.Sprint(n + i)})
			if i%500 == 0 {
				b.journal.waitWritten(t)
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for i, got := range names(ctx, s, 2*n) {
		if got != fmt.Sprint(i) {
			t.Fatalf("event %d is %s; lost %d", i, got, s.Lost())
		}
	}
}

// waitWritten waits until nothing waits for the disk.
func (j *Journal) waitWritten(t *testing.T) {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		j.mu.Lock()
		n := len(j.queue) + len(j.flight)
		j.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			t.Error("the journal does not write")
			return
		}
	}
}

func TestJournalIsBounded(t *testing.T) {
	dir := t.TempDir()
	b := openBus(t, dir, JournalOptions{MaxBytes: MinJournal})
	for i := range 20000 {
		b.Publish(Event{Type: "container", Action: fmt.Sprint(i), Attributes: map[string]string{"name": "a-name"}})
		if i%1000 == 0 {
			b.journal.waitWritten(t)
		}
	}
	b.Close()
	total := int64(0)
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		st, _ := f.Info()
		total += st.Size()
	}
	if total > MinJournal || total < MinJournal/2 {
		t.Errorf("%d bytes in %d files", total, len(files))
	}
	b = openBus(t, dir, JournalOptions{MaxBytes: MinJournal})
	got, _ := all(t, b, time.Unix(1, 0))
	if len(got) == 0 || got[len(got)-1].Action != "19999" {
		t.Fatalf("%d events left", len(got))
	}
	for i, e := range got {
		if e.Action != fmt.Sprint(20000-len(got)+i) {
			t.Fatalf("event %d is %s", i, e.Action)
		}
	}
}

func TestDamagedJournal(t *testing.T) {
	write := func(t *testing.T) (dir, file string) {
		dir = t.TempDir()
		b := openBus(t, dir, JournalOptions{})
		for i := range 10 {
			b.Publish(Event{Action: fmt.Sprint(i)})
		}
		b.Close()
		files, _ := os.ReadDir(dir)
		return dir, filepath.Join(dir, files[0].Name())
	}
	for _, tt := range []struct {
		name, want string
		damage     func(b []byte) []byte
	}{
		{"torn", "0 1 2 3 4 5 6 7 8 x", func(b []byte) []byte { return b[:len(b)-3] }},
		{"garbage after", "0 1 2 3 4 5 6 7 8 9 x", func(b []byte) []byte { return append(b, "garbage\nmore\x00"...) }},
		{"zeros after", "0 1 2 3 4 5 6 7 8 9 x", func(b []byte) []byte { return append(b, make([]byte, 5000)...) }},
		{"a byte in the middle", "0 1 2 3 4 6 7 8 9 x", func(b []byte) []byte {
			i := bytes.Index(b, []byte(`"action":"5"`))
			b[i+10] = 'X'
			return b
		}},
		{"empty", "x", func([]byte) []byte { return nil }},
		{"header only", "x", func(b []byte) []byte { return b[:len(segmentHeader)] }},
		{"another version", "x", func(b []byte) []byte { b[13] = '2'; return b }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, file := write(t)
			raw, _ := os.ReadFile(file)
			if err := os.WriteFile(file, tt.damage(raw), 0o600); err != nil {
				t.Fatal(err)
			}
			b := openBus(t, dir, JournalOptions{})
			b.Publish(Event{Action: "x"})
			time.Sleep(time.Millisecond)
			got, _ := all(t, b, time.Unix(1, 0))
			if text := strings.Join(actions(got), " "); text != tt.want {
				t.Errorf("got %s, want %s", text, tt.want)
			}
			b.Close()
			b = openBus(t, dir, JournalOptions{})
			if got, _ := all(t, b, time.Unix(1, 0)); strings.Join(actions(got), " ") != tt.want {
				t.Errorf("opened again: got %v, want %s", actions(got), tt.want)
			}
		})
	}
}

// A clock that was years ahead once does not give all later events one moment.
func TestClockThatWasAhead(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir, JournalOptions{})
	if err != nil {
		t.Fatal(err)
	}
	b := NewDurable(func() time.Time { return time.Now().AddDate(50, 0, 0) }, j)
	b.Publish(Event{Action: "future"})
	b.Close()
	b = openBus(t, dir, JournalOptions{})
	since := time.Now()
	b.Publish(Event{Action: "now"})
	time.Sleep(time.Millisecond)
	got, _ := all(t, b, since)
	if len(got) != 1 || got[0].Action != "now" || time.Since(got[0].Time) > time.Minute {
		t.Errorf("%+v", got)
	}
}

// What a listener has seen is there after kill -9, as far as the writer had a moment.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("EVENT_CHILD"); dir != "" {
		j, err := OpenJournal(dir, JournalOptions{})
		if err != nil {
			panic(err)
		}
		b := NewDurable(nil, j)
		for i := 0; ; i++ {
			b.Publish(Event{Action: fmt.Sprint(i)})
			if i%100 == 99 {
				j.waitWritten(t)
				fmt.Println(i)
			}
		}
	}
	dir := t.TempDir()
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), "EVENT_CHILD="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		r := bufio.NewReader(out)
		first, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
		cmd.Process.Signal(syscall.SIGKILL)
		rest, _ := io.ReadAll(r)
		cmd.Wait()
		said := strings.Fields(first + string(rest))
		b := openBus(t, dir, JournalOptions{})
		got, lost := all(t, b, time.Unix(1, 0))
		b.Close()
		start := 0
		for i, e := range got {
			if e.Action == "0" {
				start = i
			}
		}
		for i, e := range got[start:] {
			if e.Action != fmt.Sprint(i) {
				t.Fatalf("event %d is %s", i, e.Action)
			}
		}
		if !slices.Contains(actions(got[start:]), said[len(said)-1]) || lost != 0 {
			t.Errorf("%d events; %s was told", len(got)-start, said[len(said)-1])
		}
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add(encodeLine(7, Event{Type: "container", Action: "die", ID: "x", Attributes: map[string]string{"a": "b"}, Time: time.Unix(5, 6)}))
	f.Add([]byte("00000000 1 2 {}\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		n, e, ok := parseLine(line)
		if !ok {
			return
		}
		n2, e2, ok := parseLine(encodeLine(n, e))
		if !ok || n2 != n || !e2.Time.Equal(e.Time) || e2.Action != e.Action {
			t.Errorf("%q: %d %+v", line, n2, e2)
		}
	})
}

func BenchmarkPublish(b *testing.B) {
	j, err := OpenJournal(b.TempDir(), JournalOptions{})
	if err != nil {
		b.Fatal(err)
	}
	bus := NewDurable(nil, j)
	defer bus.Close()
	for b.Loop() {
		bus.Publish(Event{Type: "container", Action: "start", ID: "x", Attributes: map[string]string{"name": "y"}})
	}
}

// A command or a label of megabytes is an event like another, for listeners that read the journal and for the next process.
func TestLongEvent(t *testing.T) {
	dir, start := t.TempDir(), time.Now()
	b := openBus(t, dir, JournalOptions{})
	long := "exec_create: " + strings.Repeat("x", 3<<20)
	b.Publish(Event{Action: long})
	for range 2 * Kept {
		b.Publish(Event{Action: "short"})
	}
	for _, who := range []string{"this process", "the next one"} {
		list, lost := all(t, b, start)
		if len(list) != 1+2*Kept || lost != 0 || list[0].Action != long {
			t.Errorf("%s: %d events, %d lost", who, len(list), lost)
		}
		b.Close()
		b = openBus(t, dir, JournalOptions{})
	}
}

// A segment that became shorter, by a repair or by somebody's hand, is read as far as it goes.
func TestShorterSegment(t *testing.T) {
	dir := t.TempDir()
	b := openBus(t, dir, JournalOptions{MaxBytes: 4 * MinJournal})
	for range 2000 {
		b.Publish(Event{Action: "event"})
	}
	b.journal.waitWritten(t)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) < 3 {
		t.Fatal(entries, err)
	}
	first := filepath.Join(dir, entries[0].Name())
	text, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile(first, []byte(strings.Join(lines[:len(lines)-3], "")), 0o600); err != nil { // two of them are gone
		t.Fatal(err)
	}
	done := make(chan int, 1)
	go func() {
		list, lost := all(t, b, time.Unix(1, 0))
		done <- len(list) - lost
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("reading does not end")
	}
}
