package logs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var epoch = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// line is the i-th line: odd ones go to stderr, each a second after the one before.
func line(i int) string {
	stream := [2]string{"stdout", "stderr"}[i%2]
	return fmt.Sprintf(`{"log":"%d\n","stream":"%s","time":"%s"}`+"\n", i, stream, epoch.Add(time.Duration(i)*time.Second).Format(time.RFC3339Nano))
}

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(line(i))
	}
	return b.String()
}

// log writes the files of a log, the current one first, and gives its path.
func log(t *testing.T, contents ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x-json.log")
	for i, c := range contents {
		name := path
		if i > 0 {
			name += fmt.Sprintf(".%d", i)
		}
		if err := os.WriteFile(name, []byte(c), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

func all(t *testing.T, r *Reader) string {
	t.Helper()
	var got []string
	for {
		l, err := r.Next()
		if errors.Is(err, io.EOF) {
			return strings.Join(got, " ")
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSuffix(string(l.Data), "\n"))
	}
}

func TestRead(t *testing.T) {
	both := Options{Stdout: true, Stderr: true, Tail: -1}
	with := func(f func(*Options)) Options { o := both; f(&o); return o }
	three := []string{lines(6, 9), lines(3, 6), lines(0, 3)}
	for _, c := range []struct {
		name  string
		files []string
		opt   Options
		want  string
	}{
		{"no log at all", nil, both, ""},
		{"empty", []string{""}, both, ""},
		{"all files", three, both, "0 1 2 3 4 5 6 7 8"},
		{"stdout", three, with(func(o *Options) { o.Stderr = false }), "0 2 4 6 8"},
		{"stderr", three, with(func(o *Options) { o.Stdout = false }), "1 3 5 7"},
		{"tail 0", three, with(func(o *Options) { o.Tail = 0 }), ""},
		{"tail in the current file", three, with(func(o *Options) { o.Tail = 2 }), "7 8"},
		{"tail is a whole file", three, with(func(o *Options) { o.Tail = 3 }), "6 7 8"},
		{"tail over two files", three, with(func(o *Options) { o.Tail = 5 }), "4 5 6 7 8"},
		{"tail more than all", three, with(func(o *Options) { o.Tail = 50 }), "0 1 2 3 4 5 6 7 8"},
		{"tail counts before the stream", three, with(func(o *Options) { o.Tail = 2; o.Stdout = false }), "7"},
		{"tail over an empty current file", []string{"", lines(0, 3)}, with(func(o *Options) { o.Tail = 2 }), "1 2"},
		{"since", three, with(func(o *Options) { o.Since = epoch.Add(7 * time.Second) }), "7 8"},
		{"until", three, with(func(o *Options) { o.Until = epoch.Add(2 * time.Second) }), "0 1 2"},
		{"since and until", three, with(func(o *Options) { o.Since, o.Until = epoch.Add(2*time.Second), epoch.Add(3*time.Second) }), "2 3"},
		{"torn end", []string{lines(0, 2) + `{"log":"to`}, both, "0 1"},
		{"tail with a torn end", []string{lines(0, 3) + `{"log":"to`}, with(func(o *Options) { o.Tail = 1 }), "2"},
		{"torn end of a rotated file", []string{lines(2, 3), lines(0, 2) + `{"log":"to`}, both, "0 1 2"},
		{"rubbish between", []string{lines(0, 1) + "\x00\x00\n{}\n" + lines(1, 2)}, both, "0 1"},
		{"far too long line", []string{lines(0, 1) + strings.Repeat("x", 3*maxLine) + "\n" + lines(1, 2)}, both, "0 1"},
	} {
		r, err := Open(log(t, c.files...), c.opt, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, r); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestAttributesAndText(t *testing.T) {
	r, err := Open(log(t, `{"log":"a\u0000é\ud83d\ude00 no newline","stream":"stderr","attrs":{"k":"v"},"time":"2030-01-01T00:00:00.000000001Z"}`+"\n"), Options{Stderr: true, Tail: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := r.Next()
	if err != nil || string(l.Data) != "a\x00é😀 no newline" || l.Attrs["k"] != "v" || !l.Time.Equal(epoch.Add(1)) || l.Stream != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestTailOfABigFile(t *testing.T) {
	const n = 20000 // several chunks
	path := log(t, lines(0, n))
	for _, tail := range []int{1, 700, 5000, n - 1, n, n + 1} {
		r, err := Open(path, Options{Stdout: true, Stderr: true, Tail: tail}, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := strings.Fields(all(t, r))
		if len(got) != min(tail, n) || got[len(got)-1] != fmt.Sprint(n-1) {
			t.Errorf("tail %d: %d lines, last %s", tail, len(got), got[len(got)-1])
		}
	}
}

// A follower sees every line once while a writer rotates, in the reader's way as often as not.
func TestFollowAcrossRotation(t *testing.T) {
	for _, watcher := range []*Watcher{{}, nil} {
		path := log(t, lines(0, 10))
		const n, rotateEvery, keep = 3000, 37, 200
		ended := make(chan struct{})
		r, err := Open(path, Options{Stdout: true, Stderr: true, Tail: 3, Follow: true, Ended: ended}, watcher)
		if err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			defer close(ended)
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			for i := 10; i < n && err == nil; i++ {
				if i%rotateEvery == 0 {
					for k := keep; k > 0; k-- {
						from := path
						if k > 1 {
							from = fmt.Sprintf("%s.%d", path, k-1)
						}
						os.Rename(from, fmt.Sprintf("%s.%d", path, k))
					}
					f.Close()
					f, err = os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
				}
				s := line(i)
				f.WriteString(s[:5]) // torn for a moment
				f.WriteString(s[5:])
			}
			if err != nil {
				t.Error(err)
			}
			f.Close()
		})
		got := strings.Fields(all(t, r))
		wg.Wait()
		for i, g := range got {
			if g != fmt.Sprint(i+7) {
				t.Fatalf("line %d is %s", i+7, g)
			}
		}
		if len(got) != n-7 {
			t.Errorf("%d lines, want %d", len(got), n-7)
		}
		if watcher != nil && watcher.file != nil {
			t.Error("the inotify instance outlives its last watch")
		}
	}
}

func TestFollowALogThatIsNotThereYet(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x-json.log")
	ended := make(chan struct{})
	r, err := Open(path, Options{Stdout: true, Stderr: true, Tail: -1, Follow: true, Ended: ended}, &Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		os.WriteFile(path, []byte(lines(0, 2)), 0o600)
		close(ended)
	}()
	if got := all(t, r); got != "0 1" {
		t.Errorf("%q", got)
	}
}

func TestFollowClearedLog(t *testing.T) {
	path := log(t, lines(0, 3))
	ended := make(chan struct{})
	r, err := Open(path, Options{Stdout: true, Stderr: true, Tail: -1, Follow: true, Ended: ended}, &Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.Next()
	}
	os.Truncate(path, 0)
	os.WriteFile(path, []byte(line(7)), 0o600)
	close(ended)
	if got := all(t, r); got != "7" {
		t.Errorf("%q", got)
	}
}

func TestCloseWakesFollower(t *testing.T) {
	r, err := Open(log(t, ""), Options{Stdout: true, Tail: -1, Follow: true}, &Watcher{})
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(10*time.Millisecond, func() { r.Close() })
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A follower that nobody reads from any more holds nothing once it is closed.
func TestCloseReleases(t *testing.T) {
	w := &Watcher{}
	r, err := Open(log(t, lines(0, 3)), Options{Stdout: true, Tail: -1, Follow: true}, w)
	if err != nil {
		t.Fatal(err)
	}
	r.Next()
	r.Close()
	r.Close()
	if w.file != nil || r.files != nil {
		t.Error("descriptors are left")
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte(lines(0, 3)), 2)
	f.Add([]byte("\n\n{}\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, tail int) {
		r, err := Open(log(t, string(b)), Options{Stdout: true, Stderr: true, Tail: tail}, nil)
		if err != nil {
			t.Fatal(err)
		}
		n := len(strings.Fields(all(t, r)))
		if tail >= 0 && strings.Count(string(b), "\n") == 0 && n > 0 {
			t.Error("a line out of nothing")
		}
	})
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(b.TempDir(), "l")
	os.WriteFile(path, []byte(lines(0, 10000)), 0o600)
	for b.Loop() {
		r, _ := Open(path, Options{Stdout: true, Stderr: true, Tail: -1}, nil)
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}

// TestTakenBack: what a full disk cut off a record again is no reason to begin anew.
func TestTakenBack(t *testing.T) {
	path := log(t, lines(0, 3)+`{"log":"torn`)
	r, err := Open(path, Options{Stdout: true, Stderr: true, Tail: -1, Follow: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	next := func(want int) {
		t.Helper()
		l, err := r.Next()
		if w := fmt.Sprintf("%d\n", want); err != nil || string(l.Data) != w {
			t.Errorf("%q %v, want %q", l.Data, err, w)
		}
	}
	for i := range 3 {
		next(i)
	}
	if err := os.Truncate(path, int64(len(lines(0, 3)))); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() {
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err == nil {
			f.WriteString(lines(3, 5))
			f.Close()
		}
	})
	time.AfterFunc(20*time.Second, func() { r.Close() })
	next(3)
	next(4)
}

// TestPosAfterClose: who is stopped between a line and the note of its place does not lose the place.
func TestPosAfterClose(t *testing.T) {
	path := log(t, lines(0, 3))
	r, _, err := OpenAt(path, Pos{}, Options{Stdout: true, Stderr: true, Tail: -1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	before := r.Pos()
	r.Close()
	if after := r.Pos(); after != before || after.Off != int64(len(lines(0, 1))) {
		t.Errorf("%+v, was %+v", after, before)
	}
}
