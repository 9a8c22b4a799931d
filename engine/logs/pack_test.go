package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"berth/base/fault"
	"berth/runtime/keeper/localfile"
)

// record is the i-th record in a format.
func record(local bool, i int) string {
	if !local {
		return line(i)
	}
	stream := [2]string{"stdout", "stderr"}[i%2]
	return string(localfile.Append(nil, fmt.Append(nil, i), stream, epoch.Add(time.Duration(i)*time.Second).UnixNano(), localfile.Partial{}, nil))
}

func some(local bool, from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(record(local, i))
	}
	return b.String()
}

// writer is a keeper's part: it writes, rotates, and names copies, one at a time.
type writer struct {
	mu    sync.Mutex
	path  string
	files int
	f     *os.File
}

func (w *writer) rotate(t *testing.T) {
	w.mu.Lock()
	defer w.mu.Unlock()
	there := func(name string) bool { _, err := os.Lstat(name); return err == nil }
	os.Remove(numbered(w.path, w.files-1))
	os.Remove(numbered(w.path, w.files-1) + packedSuffix)
	for k := w.files - 1; k > 1; k-- {
		from, to := numbered(w.path, k-1), numbered(w.path, k)
		if !there(from) {
			from, to = from+packedSuffix, to+packedSuffix
		}
		os.Rename(from, to)
	}
	os.Rename(w.path, numbered(w.path, 1))
	w.f.Close()
	var err error
	if w.f, err = os.OpenFile(w.path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600); err != nil {
		t.Error(err)
	}
}

func (w *writer) put(inode uint64, copy string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := 1; n < w.files; n++ {
		if st, err := os.Lstat(numbered(w.path, n)); err == nil && inodeOf(st) == inode {
			os.Rename(copy, numbered(w.path, n)+packedSuffix)
			return os.Remove(numbered(w.path, n))
		}
	}
	return fault.New(fault.NotFound, "rotated away")
}

func never(int, uint64) bool { return false }

func TestReadPacked(t *testing.T) {
	for _, local := range []bool{false, true} {
		path := log(t, some(local, 60, 70), some(local, 40, 60), some(local, 20, 40), some(local, 0, 20))
		w := &writer{path: path, files: 10}
		os.WriteFile(path+packing, []byte("left by one that was killed"), 0o600)
		Sweep(path)
		if _, err := os.Stat(path + packing); err == nil || !Unpacked(path) {
			t.Error("nothing to compress")
		}
		if err := Pack(context.Background(), path, local, func(n int, _ uint64) bool { return n == 1 }, w.put); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{".1", ".2.gz", ".3.gz"} {
			if _, err := os.Stat(path + name); err != nil {
				t.Error(err)
			}
		}
		want := func(from, to int) string {
			var s []string
			for i := from; i < to; i++ {
				s = append(s, fmt.Sprint(i))
			}
			return strings.Join(s, " ")
		}
		for _, c := range []struct {
			opt  Options
			want string
		}{
			{Options{Tail: -1}, want(0, 70)},
			{Options{Tail: 0}, ""},
			{Options{Tail: 5}, want(65, 70)},
			{Options{Tail: 30}, want(40, 70)},
			{Options{Tail: 35}, want(35, 70)},
			{Options{Tail: 50}, want(20, 70)},
			{Options{Tail: 51}, want(19, 70)},
			{Options{Tail: 500}, want(0, 70)},
			{Options{Tail: -1, Since: epoch.Add(39 * time.Second)}, want(39, 70)},
			{Options{Tail: -1, Since: epoch.Add(40 * time.Second)}, want(40, 70)},
			{Options{Tail: -1, Until: epoch.Add(25 * time.Second)}, want(0, 26)},
		} {
			c.opt.Stdout, c.opt.Stderr, c.opt.Local = true, true, local
			r, err := Open(path, c.opt, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.opt.Since.Sub(epoch) == 40*time.Second && len(r.files) != 2 {
				t.Errorf("%d files are opened", len(r.files))
			}
			if got := all(t, r); got != c.want {
				t.Errorf("local %t, %+v: %s, want %s", local, c.opt, got, c.want)
			}
		}
		if n, files := Size(path); files != 4 || n == 0 {
			t.Errorf("%d bytes in %d files", n, files)
		}
		// A copy that was cut off, as no keeper leaves one, hides nothing that is whole.
		b, _ := os.ReadFile(path + ".3.gz")
		os.WriteFile(path+".3.gz", b[:len(b)/2], 0o600)
		os.WriteFile(path+".4.gz", []byte("no gzip"), 0o600)
		r, err := Open(path, Options{Stdout: true, Stderr: true, Local: local, Tail: 50}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, r); got != want(20, 70) {
			t.Errorf("%s", got)
		}
	}
}

// TestFollowPacked: a follower sees every line once while files are rotated and compressed under it.
func TestFollowPacked(t *testing.T) {
	for _, local := range []bool{false, true} {
		path := log(t, "")
		const n, every = 4000, 23
		f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		w := &writer{path: path, files: 400, f: f}
		ended := make(chan struct{})
		r, err := Open(path, Options{Stdout: true, Stderr: true, Local: local, Tail: -1, Follow: true, Ended: ended}, &Watcher{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			for ctx.Err() == nil {
				if err := Pack(ctx, path, local, never, w.put); err != nil && !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			defer close(ended)
			for i := range n {
				if i%every == every-1 {
					w.rotate(t)
				}
				s := record(local, i)
				io.WriteString(w.f, s[:5])
				io.WriteString(w.f, s[5:])
			}
		})
		got := strings.Fields(all(t, r))
		stop()
		wg.Wait()
		w.f.Close()
		for i, g := range got {
			if g != fmt.Sprint(i) {
				t.Fatalf("local %t: line %d is %s", local, i, g)
			}
		}
		if len(got) != n {
			t.Errorf("local %t: %d lines, want %d", local, len(got), n)
		}
	}
}

// TestPackKeepsWhatIsNewer: while a log is rotated without pause, what is newer than one file stays plain, that file too.
func TestPackKeepsWhatIsNewer(t *testing.T) {
	path := log(t, some(true, 40, 50), some(true, 20, 40), some(true, 10, 20), some(true, 0, 10))
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(numbered(path, 1))
	if err != nil {
		t.Fatal(err)
	}
	at := inodeOf(st)
	w := &writer{path: path, files: 150, f: f}
	defer func() { w.f.Close() }()
	ctx, stop := context.WithCancel(context.Background())
	var packing sync.WaitGroup
	packing.Go(func() {
		for ctx.Err() == nil {
			err := Pack(ctx, path, true, func(n int, _ uint64) bool { return !Newer(path, at, n) }, w.put)
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	})
	for range w.files - 10 {
		w.rotate(t)
		io.WriteString(w.f, some(true, 50, 60))
	}
	stop()
	packing.Wait()
	n := 1
	for st, err = os.Stat(numbered(path, n)); err != nil || inodeOf(st) != at; st, err = os.Stat(numbered(path, n)) {
		if err != nil {
			t.Fatalf("what is being shipped, or what is newer, was compressed: %v", err)
		}
		n++
	}
	if err := Pack(t.Context(), path, true, func(n int, _ uint64) bool { return !Newer(path, at, n) }, w.put); err != nil {
		t.Fatal(err)
	}
	for _, older := range []int{n + 1, n + 2} {
		if _, err := os.Stat(numbered(path, older) + packedSuffix); err != nil {
			t.Errorf("what is older stays plain: %v", err)
		}
	}
}

func TestOpenAt(t *testing.T) {
	path := log(t, some(true, 40, 50), some(true, 20, 40), some(true, 0, 20))
	w := &writer{path: path, files: 10}
	opt := Options{Stdout: true, Stderr: true, Local: true, Tail: -1}
	open := func(p Pos) (*Reader, bool) {
		t.Helper()
		r, missed, err := OpenAt(path, p, opt, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r, missed
	}
	r, missed := open(Pos{})
	for i := range 25 {
		if l, err := r.Next(); err != nil || strings.TrimSpace(string(l.Data)) != fmt.Sprint(i) || missed {
			t.Fatal(i, l, err, missed)
		}
	}
	pos := r.Pos()
	if want := int64(len(some(true, 25, 50))); r.Behind() != want {
		t.Errorf("%d bytes behind, want %d", r.Behind(), want)
	}
	r.Close()
	st, _ := os.Stat(path + ".1")
	if err := Pack(context.Background(), path, true, func(_ int, i uint64) bool { return i == inodeOf(st) }, w.put); err != nil {
		t.Fatal(err)
	}
	r, missed = open(pos)
	if got := strings.Fields(all(t, r)); missed || len(got) != 25 || got[0] != "25" {
		t.Errorf("%t %v", missed, got)
	}
	gone := pos
	gone.Head[5]++
	r, missed = open(gone)
	if got := strings.Fields(all(t, r)); !missed || len(got) != 30 || got[0] != "20" {
		t.Errorf("%t %v", missed, got)
	}
}

// TestDamagedLocal: what is damaged costs the records that it was, no other.
func TestDamagedLocal(t *testing.T) {
	whole := some(true, 0, 4)
	one := len(record(true, 0))
	for _, c := range []struct{ name, b, want string }{
		{"whole", whole, "0 1 2 3"},
		{"zeros between", whole[:one] + string(make([]byte, 5000)) + whole[one:], "0 1 2 3"},
		{"torn end", whole[:len(whole)-3], "0 1 2"},
		{"cut off start", whole[7:], "1 2 3"},
		{"rubbish", strings.Repeat("rubbish", 900), ""},
	} {
		path := log(t, c.b)
		for _, tail := range []int{-1, 9} {
			r, err := Open(path, Options{Stdout: true, Stderr: true, Local: true, Tail: tail}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := all(t, r); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
	}
}

func FuzzLocalReader(f *testing.F) {
	f.Add([]byte(some(true, 0, 3)), 2)
	f.Add([]byte(some(true, 0, 3))[4:], -1)
	f.Fuzz(func(t *testing.T, b []byte, tail int) {
		r, err := Open(log(t, string(b)), Options{Stdout: true, Stderr: true, Local: true, Tail: tail}, nil)
		if err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Next(); err != nil {
				return
			}
		}
	})
}

// TestTornLocal: what follows a record that a power cut has torn is read, also where that is less than what the record lacks.
func TestTornLocal(t *testing.T) {
	long := localfile.Append(nil, bytes.Repeat([]byte("x"), 10_000), "stdout", epoch.UnixNano(), localfile.Partial{}, nil)
	torn := some(true, 0, 2) + string(long[:500]) + some(true, 2, 4)
	ended := make(chan struct{})
	close(ended)
	for _, c := range []struct {
		files []string
		ended <-chan struct{}
		want  string
	}{
		{[]string{torn}, ended, "0 1 2 3"}, {[]string{some(true, 4, 6), torn}, nil, "0 1 2 3 4 5"},
		{[]string{torn}, nil, "0 1"}, // somebody may be writing it
	} {
		r, err := Open(log(t, c.files...), Options{Stdout: true, Stderr: true, Tail: -1, Local: true, Ended: c.ended}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := all(t, r); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
		r.Close()
	}
}
