package history

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"berth/base/fault"
)

// A document that a build under way has kept stays, although the only record that names it goes meanwhile; one that no record came to name
// goes with the end of its build.
func TestDocumentsOfActiveBuildsStay(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	put := func(build, text string) Blob {
		b, err := s.PutBlob(build, "x/log", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	old := done("old", start, time.Second)
	log := put("old", "the same words")
	old.Log = &log
	complete(t, s, old)

	s.Begin(Record{ID: "new", Created: start})
	again, stray := put("new", "the same words"), put("new", "never named")
	if err := s.Delete("old"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBlob(again); err != nil {
		t.Errorf("the document of a build under way went with a record: %v", err)
	}
	r := done("new", start, time.Second)
	r.Log = &again
	complete(t, s, r)
	if data, err := s.ReadBlob(again); err != nil || string(data) != "the same words" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := s.ReadBlob(stray); !fault.Is(err, fault.NotFound) {
		t.Errorf("a document that nobody names stays: %v", err)
	}

	// A build of the same id takes the place of the record, and of its documents.
	other := put("new", "other words")
	r.Log = &other
	complete(t, s, r)
	if _, err := s.ReadBlob(again); !fault.Is(err, fault.NotFound) {
		t.Errorf("a document of a record that was replaced stays: %v", err)
	}
	if err := s.Delete("new"); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(filepath.Join(s.cfg.Root, "blobs")); len(left) != 0 {
		t.Errorf("%d documents are left", len(left))
	}
}

// Who does not read what he asked for is dropped, and so is who comes when there are too many.
func TestListenersAreBounded(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	entered, release, left := make(chan bool), make(chan bool), make(chan error)
	s.Begin(Record{ID: "first"})
	go func() {
		first := true
		left <- s.Listen(t.Context(), ListenOptions{}, func(Event) error {
			if first {
				first = false
				entered <- true
				<-release
			}
			return nil
		})
	}()
	<-entered
	for i := range mostQueued + 1 {
		s.Begin(Record{ID: fmt.Sprint(i)})
	}
	s.mu.Lock()
	for l := range s.listeners {
		if len(l.queue) > mostQueued {
			t.Errorf("%d events wait", len(l.queue))
		}
	}
	s.mu.Unlock()
	close(release)
	if err := <-left; !fault.Is(err, fault.Unavailable) {
		t.Errorf("who was lost is told %v", err)
	}

	for range mostListeners {
		s.listeners[&listener{}] = true
	}
	if err := s.Listen(context.Background(), ListenOptions{}, nil); !fault.Is(err, fault.Unavailable) {
		t.Errorf("one too many: %v", err)
	}
}

// Records that are young do not fill the machine.
func TestYoungRecordsAreBounded(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	now := time.Now()
	big := Blob{MediaType: "x/log", Digest: "sha256:" + "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", Size: mostDocuments / 4}
	for i := range 20 {
		r := done(fmt.Sprint(i), now.Add(time.Duration(i)*time.Second), time.Second)
		r.Log = &big
		complete(t, s, r)
	}
	if n := len(s.records); n != 4 {
		t.Errorf("%d records, want the newest four", n)
	}
	if _, err := s.Get("19"); err != nil {
		t.Error(err)
	}

	s = Open(Config{Root: t.TempDir()})
	for i := range mostRecords + 1 {
		id := fmt.Sprint(i)
		s.records[id] = &Record{ID: id, Created: now, Completed: now.Add(time.Duration(i)), written: 1}
	}
	s.expire(now)
	if n := len(s.records); n != mostRecords || s.records["0"] != nil {
		t.Errorf("%d records", n)
	}
	text := string(bytes.Repeat([]byte("x"), mostWritten/4))
	for i := range 6 {
		r := done(fmt.Sprint("big", i), now.Add(time.Hour+time.Duration(i)*time.Minute), time.Second)
		r.ErrorMessage = text
		complete(t, s, r)
	}
	if n := len(s.records); n != 3 {
		t.Errorf("%d big records, want three", n)
	}
}

// A client cannot keep everything by pinning it.
func TestPinsAreBounded(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	complete(t, s, done("a", start, time.Second))
	for i := range mostPinned {
		id := fmt.Sprint(i)
		s.records[id] = &Record{ID: id, Pinned: true}
	}
	pin := func(id string, to bool) error { return s.Update(id, func(r *Record) { r.Pinned = to }) }
	if err := pin("a", true); !fault.Is(err, fault.Conflict) {
		t.Errorf("one too many: %v", err)
	}
	if err := pin("7", false); err != nil {
		t.Fatal(err)
	}
	if err := pin("a", true); err != nil {
		t.Error(err)
	}
}
