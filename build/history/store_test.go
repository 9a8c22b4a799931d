package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"berth/base/fault"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// done is a record of a build that took some seconds.
func done(id string, begin time.Time, took time.Duration) Record {
	return Record{ID: id, Frontend: "dockerfile.v0", Created: begin, Completed: begin.Add(took), FrontendAttrs: map[string]string{"vcs:source": "https://x/" + id}}
}

func complete(t *testing.T, s *Store, r Record) {
	t.Helper()
	if err := s.Complete(r); err != nil {
		t.Fatal(err)
	}
}

func ids(t *testing.T, s *Store, o ListenOptions) []string {
	t.Helper()
	o.Once = true
	var got []string
	if err := s.Listen(t.Context(), o, func(e Event) error {
		got = append(got, e.Record.ID)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

// Records and their blobs survive the store; what is deleted takes what only it had.
func TestRecordsStay(t *testing.T) {
	root := t.TempDir()
	s := Open(Config{Root: root})
	shared, err := s.PutBlob("a", "x/log", []byte("same"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := s.PutBlob("a", "x/log", []byte("own"))
	if err != nil {
		t.Fatal(err)
	}
	a, b := done("a", start, time.Second), done("../b", start.Add(time.Minute), time.Second)
	a.Log, b.Log = &shared, &shared
	a.Result = &Result{Attestations: []Blob{own}}
	complete(t, s, a)
	complete(t, s, b)
	if _, err := s.PutBlob("c", "x/log", []byte("of a build that never ended")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "records", "torn.json"), []byte(`{"ID":"to`), 0o600); err != nil {
		t.Fatal(err)
	}

	s = Open(Config{Root: root})
	if got := ids(t, s, ListenOptions{}); !slices.Equal(got, []string{"../b", "a"}) {
		t.Fatalf("records are %v", got)
	}
	if data, err := s.ReadBlob(own); err != nil || string(data) != "own" {
		t.Errorf("blob is %q, %v", data, err)
	}
	if left, _ := os.ReadDir(filepath.Join(root, "blobs")); len(left) != 2 {
		t.Errorf("%d blobs are left, want the two that records name", len(left))
	}
	if err := s.Delete("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadBlob(own); !fault.Is(err, fault.NotFound) {
		t.Errorf("the blob of a deleted record: %v", err)
	}
	if _, err := s.ReadBlob(shared); err != nil {
		t.Errorf("a blob that another record has: %v", err)
	}
	if err := s.Delete("a"); !fault.Is(err, fault.NotFound) {
		t.Errorf("a second deletion: %v", err)
	}
	if err := s.Update("../b", func(r *Record) { r.Pinned = true }); err != nil {
		t.Fatal(err)
	}
	s = Open(Config{Root: root})
	if r, err := s.Get("../b"); err != nil || !r.Pinned || r.Generation != 2 {
		t.Errorf("the record is %+v, %v", r, err)
	}
	if outside, _ := filepath.Glob(filepath.Join(root, "b*.json")); len(outside) > 0 {
		t.Errorf("an id led out of the directory: %v", outside)
	}
}

// What is beyond number and age goes, unless it is pinned.
func TestExpire(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	old := time.Now().Add(-maxAge - time.Hour)
	for i := range maxRecords + 5 {
		r := done(fmt.Sprintf("r%02d", i), old.Add(time.Duration(i)*time.Second), time.Second)
		r.Pinned = i == 0
		complete(t, s, r)
	}
	got := ids(t, s, ListenOptions{})
	if len(got) != maxRecords+1 || got[0] != fmt.Sprintf("r%02d", maxRecords+4) || !slices.Contains(got, "r00") || slices.Contains(got, "r01") {
		t.Errorf("%d records: %v", len(got), got)
	}
}

func TestFilters(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	complete(t, s, done("ok", start, 2*time.Second))
	failed := done("failed", start.Add(time.Hour), 20*time.Second)
	failed.Error, failed.ErrorMessage = []byte("x"), "no"
	complete(t, s, failed)
	gone := done("gone", time.Now(), time.Second)
	gone.Error, gone.ErrorMessage = []byte("x"), "context canceled"
	complete(t, s, gone)
	s.Begin(Record{ID: "now", Created: time.Now()})
	for _, c := range []struct {
		filters []string
		limit   int
		want    []string
	}{
		{nil, 0, []string{"now", "gone", "failed", "ok"}},
		{nil, 1, []string{"now", "gone"}},
		{[]string{"status==error"}, 0, []string{"now", "failed"}},
		{[]string{"status==canceled"}, 0, []string{"now", "gone"}},
		{[]string{"status==error", "status==completed"}, 0, []string{"now", "failed", "ok"}},
		{[]string{"status==error,duration>30s"}, 0, []string{"now"}},
		{[]string{"duration>=20s"}, 0, []string{"now", "failed"}},
		{[]string{"startedAt>=1h"}, 0, []string{"now", "gone"}},
		{[]string{"startedAt<2026-01-02T03:30:00Z"}, 0, []string{"now", "ok"}},
		{[]string{"ref~=^fai"}, 0, []string{"now", "failed"}},
		{[]string{"repository==https://x/ok"}, 0, []string{"now", "ok"}},
	} {
		if got := ids(t, s, ListenOptions{Filters: c.filters, Limit: c.limit}); !slices.Equal(got, c.want) {
			t.Errorf("%v limit %d: %v, want %v", c.filters, c.limit, got, c.want)
		}
	}
	for _, bad := range []string{"startedAt>soon", "duration<much", "status==\"", "(("} {
		if err := s.Listen(t.Context(), ListenOptions{Filters: []string{bad}, Once: true}, func(Event) error { return nil }); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A listener misses nothing between what is there and what comes.
func TestListen(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	complete(t, s, done("old", start, time.Second))
	enough := errors.New("enough")
	var got []string
	first := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		ended <- s.Listen(context.Background(), ListenOptions{}, func(e Event) error {
			got = append(got, fmt.Sprint(e.Type, e.Record.ID))
			if len(got) == 1 {
				close(first)
			}
			if len(got) == 4 {
				return enough
			}
			return nil
		})
	}()
	<-first
	s.Begin(Record{ID: "new", Created: start})
	complete(t, s, done("new", start, time.Second))
	if err := s.Delete("old"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, enough) {
		t.Fatal(err)
	}
	if want := []string{"1old", "0new", "1new", "2old"}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	go func() { ended <- s.Listen(context.Background(), ListenOptions{}, func(Event) error { return nil }) }()
	s.Close()
	if err := <-ended; err != nil {
		t.Errorf("a closed store ends its listeners with %v", err)
	}
}

func FuzzFilter(f *testing.F) {
	for _, seed := range []string{"status==error", "duration>10s,ref~=x", `"a,b"==c`, "startedAt<=2026-01-02T03:04:05Z", "<", "duration>="} {
		f.Add(seed)
	}
	r := done("a", start, time.Second)
	f.Fuzz(func(t *testing.T, in string) {
		if m, err := parseFilter(in, start); err == nil {
			m(&r)
		}
	})
}

func TestBlobNames(t *testing.T) {
	s := Open(Config{Root: t.TempDir()})
	for _, d := range []digest.Digest{"", "sha256:../../etc/passwd", "sha512:" + digest.Digest(make([]byte, 128))} {
		if f, err := s.OpenBlob(d); err == nil {
			f.Close()
			t.Errorf("%q was opened", d)
		}
	}
}
